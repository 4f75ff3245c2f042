"""The interface that every engine has, and what all of them do alike: parts of a batch, one output per picture."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from anomaly_ov.errors import DeviceError, UsageError
from anomaly_ov.models.arrays import ExpertPart, FeatureArrays, PictureArrays, Pixels
from anomaly_ov.models.config import ModelConfig
from anomaly_ov.streaming import cores

THREADS_VARIABLE = "ANOMALY_OV_THREADS"
Part = TypeVar("Part")


class Engine(Protocol):
    """A detector's encoder and expert, ready on a device. Safe to share between threads.

    ``name``: onnx, openvino or torch. ``device``, ``dtype``: what computes, and the encoder's precision there, e.g.
    cpu and float32. ``views_per_forward``: most views that are encoded at once; halved when memory runs out.
    ``patch``: side of a map's cell in view pixels where patches are the cells, None where tokens were resampled.
    ``config``: of the model, its revision filled in.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def views_per_forward(self) -> int: ...

    @property
    def patch(self) -> float | None: ...

    @property
    def config(self) -> ModelConfig: ...

    def encode(self, pixels_NHW3: Pixels) -> FeatureArrays:
        """Features in float32 of N views, uint8 (N, S, S, 3) of the model's side S.

        Raises ``ValueError`` for any other array, ``DeviceError`` when memory does not suffice for one view.
        """
        ...

    def expert(self, features: FeatureArrays, views_per_image: Sequence[int]) -> list[ExpertPart]:
        """What the expert says about each picture; the N views belong to them in order, base view first.

        Raises ``UsageError`` when the numbers do not add up to N, ``DeviceError`` when memory runs out.
        """
        ...


def forward(engine: Engine, views: Sequence[Pixels], *, features: bool = False) -> list[PictureArrays]:
    """One output per picture, each given as its views (N, S, S, 3) uint8, base view first.

    ``features``: whether outputs keep those of their views. When memory runs out the batch is halved before it gives
    up with ``DeviceError``.
    """
    if not views:
        return []
    started = time.perf_counter()
    counts = [len(one) for one in views]
    try:
        encoded = engine.encode(np.concatenate(views) if len(views) > 1 else views[0])
        parts = engine.expert(encoded, counts)
    except DeviceError:
        if len(views) == 1:
            raise
        half = len(views) // 2
        return forward(engine, views[:half], features=features) + forward(engine, views[half:], features=features)
    ms_per_view = (time.perf_counter() - started) * 1000 / sum(counts)
    ends = np.cumsum(counts).tolist()
    return [
        PictureArrays(
            part.map_Nhw,
            part.score_raw,
            ms_per_view * count,
            encoded.views(end - count, end) if features else None,
            part.local_NQD,
            part.global_D,
        )
        for part, count, end in zip(parts, counts, ends, strict=True)
    ]


def in_parts(once: Callable[[Pixels], Part], pixels_NHW3: Pixels, most: int) -> tuple[list[Part], int]:
    """``once`` of at most ``most`` views at a time, halved for every ``MemoryError``; and the number that fitted.

    Raises ``MemoryError`` when one view alone is too much.
    """
    while True:
        try:
            starts = range(0, len(pixels_NHW3), most)
            return [once(pixels_NHW3[start : start + most]) for start in starts], most
        except MemoryError:
            if most == 1:
                raise
        most = max(1, min(most, len(pixels_NHW3)) // 2)


def joined(parts: Sequence[FeatureArrays]) -> FeatureArrays:
    """Features of consecutive parts of a batch as one."""
    if len(parts) == 1:
        return parts[0]
    levels = zip(*(part.levels_NPD for part in parts), strict=True)
    final_NPD = np.concatenate([part.final_NPD for part in parts])
    return FeatureArrays(final_NPD, tuple(np.concatenate(one) for one in levels), parts[0].grid_hw)


def require_views(views_per_image: Sequence[int], views: int) -> None:
    """``UsageError`` unless every picture has a view and they add up to ``views``."""
    if not views_per_image or min(views_per_image) < 1 or sum(views_per_image) != views:
        raise UsageError(
            f"expert: views_per_image = {list(views_per_image)} does not describe {views} views",
            hint="give the number of views of each image, at least 1 each, adding up to the features' first size",
        )


def out_of_memory(device: str) -> DeviceError:
    """The error for a device that cannot hold a single view's pass."""
    return DeviceError(
        f"out of memory on {device}, even with one view at a time",
        hint="free memory there, use --device cpu, or a smaller model",
    )


def require_count(views_per_forward: int | None, default: int) -> int:
    """The number asked for, or the default. ``UsageError`` below 1."""
    wanted = default if views_per_forward is None else views_per_forward
    if wanted < 1:
        raise UsageError(f"views_per_forward = {views_per_forward} must be >= 1", hint="leave it out")
    return wanted


def threads() -> int:
    """Processor threads for the networks: the variable ``ANOMALY_OV_THREADS``, or as many as there are cores."""
    wanted = os.environ.get(THREADS_VARIABLE, "").strip()
    if not wanted:
        return cores()
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UsageError(f"{THREADS_VARIABLE} = {wanted!r} is no number of threads", hint="a whole number from 1 up")
    return int(wanted)
