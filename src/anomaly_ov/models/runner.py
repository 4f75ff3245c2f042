"""A model on one device: views of pictures in, maps, scores and features per picture out; memory errors handled.

Views are encoded at most ``views_per_forward`` at a time; the expert then sees each picture whole. Out of memory halves
the batch, then the views per pass, then gives up with ``DeviceError``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ov.errors import DeviceError, UsageError
from anomaly_ov.models.device import is_out_of_memory, resolve_device, resolve_dtype
from anomaly_ov.models.features import Features
from anomaly_ov.models.model import AnomalyModel

Pixels = npt.NDArray[np.uint8]
VIEWS_PER_FORWARD = {"cpu": 16, "mps": 32, "cuda": 128}


@dataclass(frozen=True)
class PictureOutput:
    """What the networks say about one picture: ``map_Nhw`` probabilities per view, the head's score, time in ms.

    ``features``, ``local_NQD`` and ``global_D``: of its views, float32, on the device; None unless asked for.
    """

    map_Nhw: npt.NDArray[np.float32]
    score_raw: float
    ms: float
    features: Features | None
    local_NQD: Tensor | None = None
    global_D: Tensor | None = None


class Runner:
    """``encoder`` and ``expert`` of a model, ready on ``device`` in ``dtype``; see ``forward``."""

    def __init__(self, model: AnomalyModel, device: str, dtype: str, views_per_forward: int | None) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.views_per_forward = views_per_forward or VIEWS_PER_FORWARD.get(self.device.type, 16)
        if self.views_per_forward < 1:
            raise UsageError(f"views_per_forward = {views_per_forward} must be >= 1", hint="leave it out")
        with self._memory_errors():
            # Batch norms folded in; the model itself may go on being trained or saved under its own names.
            self.encoder = model.encoder.fuse().eval().to(self.device, self.dtype)
            # The expert is a small share of the work, and its softmax over 100 x cosine loses digits in 16 bits.
            self.expert = model.expert.eval().to(self.device, torch.float32)

    @property
    def patch(self) -> float | None:
        """Side of a map's cell in view pixels where patches are the cells; None where tokens were resampled."""
        own = self.encoder.patch is not None and self.encoder.config.grid_hw is None
        return float(self.encoder.patch) if own and self.encoder.patch else None

    def forward(self, views: Sequence[Pixels], *, features: bool = False) -> list[PictureOutput]:
        """One output per picture, each given as its views (N, H, W, 3) uint8, base view first."""
        if not views:
            return []
        try:
            return self._forward_once(views, features)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback would keep the failed pass's tensors alive.
        self._release_memory()
        if len(views) > 1:
            half = len(views) // 2
            return self.forward(views[:half], features=features) + self.forward(views[half:], features=features)
        if self.views_per_forward > 1:
            self.views_per_forward = max(1, min(self.views_per_forward, len(views[0])) // 2)
            return self.forward(views, features=features)
        raise self._no_memory()

    def _forward_once(self, views: Sequence[Pixels], keep: bool) -> list[PictureOutput]:
        started = time.perf_counter()
        pixels_NHW3 = np.concatenate(views) if len(views) > 1 else views[0]
        counts = [len(one) for one in views]
        with torch.inference_mode():
            features = self.features(pixels_NHW3)
            output = self.expert(features, counts)
            map_Nhw = output.map_Nhw.float().cpu().numpy()
            scores_B = output.score_B.float().cpu().numpy()
        ms_per_view = (time.perf_counter() - started) * 1000 / len(pixels_NHW3)
        ends = np.cumsum(counts).tolist()
        return [
            PictureOutput(
                map_Nhw[end - count : end],
                float(score),
                ms_per_view * count,
                _slice(features, end - count, end) if keep else None,
                output.local_NQD[end - count : end] if keep else None,
                output.global_BD[index] if keep else None,
            )
            for index, (end, count, score) in enumerate(zip(ends, counts, scores_B, strict=True))
        ]

    def features(self, pixels_NHW3: Pixels) -> Features:
        """``Features`` in float32 of all views, encoded at most ``views_per_forward`` at a time."""
        parts = []
        for start in range(0, len(pixels_NHW3), self.views_per_forward):
            chunk = torch.from_numpy(pixels_NHW3[start : start + self.views_per_forward])
            parts.append(self.encoder(self.encoder.normalise(chunk)))
        if len(parts) == 1:
            only = parts[0]
            return Features(only.final_NPD.float(), tuple(level.float() for level in only.levels_NPD), only.grid_hw)
        levels = zip(*(part.levels_NPD for part in parts), strict=True)
        return Features(
            final_NPD=torch.cat([part.final_NPD.float() for part in parts]),
            levels_NPD=tuple(torch.cat([level.float() for level in of_parts]) for of_parts in levels),
            grid_hw=parts[0].grid_hw,
        )

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise self._no_memory() from None
            raise

    def _no_memory(self) -> DeviceError:
        return DeviceError(
            f"out of memory on {self.device}, even with one view at a time",
            hint="free memory there, use --device cpu, or a smaller model",
        )

    def _release_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _slice(features: Features, start: int, end: int) -> Features:
    levels = tuple(level[start:end] for level in features.levels_NPD)
    return Features(features.final_NPD[start:end], levels, features.grid_hw)
