"""A CLIP-based method as a ``records.Detector``: pictures in, findings out, in batches and in order.

What tells the methods apart is a ``ClipMethod``; reading, batching, maps and records are shared, so that differences
between figures are differences between methods.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import DeviceError, UsageError
from anomaly_ov.images.prepared import ms_since
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source, sources_of
from anomaly_ov.models.device import is_out_of_memory
from anomaly_ov.records import Finding, MapInfo, ModelInfo, Threshold
from anomaly_ov.streaming import Stages, cores, in_turns, overlapped
from anomaly_ov_lab.baselines.clip_towers import ANY_OBJECT, ClipTowers
from anomaly_ov_lab.baselines.pictures import Fit, FittedImage, Floats, on_picture, show

THRESHOLD = Threshold(0.5, "anomalous is likelier than normal")


@dataclass(frozen=True)
class ClipScores:
    """P(anomalous) per picture, (B,), and per cell, (B, h, w), all float32 in 0..1."""

    scores_B: Tensor
    maps_Bhw: Tensor


class ClipMethod(Protocol):
    """One method on the CLIP in ``towers``.

    ``revision`` changes with anything that scores depend on, but for the objects' names. ``side``: S of the square it
    reads; ``fit``: how an image is fitted into that; ``smoothing``: sigma of a Gaussian over the map, in pixels of the
    square, 0 = none.
    """

    name: str
    towers: ClipTowers
    revision: str
    side: int
    fit: Fit
    smoothing: float

    def judge(self, pixels_B3SS: Tensor, objects: Sequence[str]) -> ClipScores:
        """What the method says of normalised pictures; ``objects``: what each shows, in words."""
        ...


@dataclass(frozen=True)
class _Result:
    score: float
    map_hw: Floats
    ms: float


class ClipDetector:
    """A judge that can be measured. ``objects``: what pictures show, by the id of their source; others "object"."""

    def __init__(
        self, judge: ClipMethod, objects: Mapping[str, str] | None = None, limits: Limits | None = None
    ) -> None:
        self._judge, self._objects, self._limits = judge, dict(objects or {}), limits or Limits()
        towers, named = judge.towers, hashlib.sha256(repr(sorted(self._objects.items())).encode()).hexdigest()[:6]
        self._info = ModelInfo(
            name=f"{judge.name} on {towers.folder.name}",
            revision=f"{judge.revision}{'-' + named if self._objects else ''}",
            device=str(towers.device),
            dtype=str(towers.dtype).removeprefix("torch."),
        )

    @property
    def info(self) -> ModelInfo:
        """Method and CLIP, a digest of weights, settings and objects' names, device and precision."""
        return self._info

    def with_objects(self, objects: Mapping[str, str]) -> ClipDetector:
        """The same, told what pictures show: by the id of their source, a category's name.

        WinCLIP's published figures name the object in its sentences; a detector that is not told says "object".
        """
        return ClipDetector(self._judge, objects, self._limits)

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        """One finding per picture, in order; one that cannot be read has its ``error`` set.

        Raises ``DeviceError`` where a batch does not fit into memory.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size = {batch_size} must be >= 1", hint="8 is a good start")
        judge = self._judge
        stages: Stages[Source, FittedImage, _Result | None, Finding] = Stages(
            prepare=partial(show, side=judge.side, fit=judge.fit, limits=self._limits),
            forward=self._forward,
            finish=self._finish,
            size=lambda shown: 1,
        )
        run = in_turns if judge.towers.device.type == "cpu" else overlapped
        pool = ThreadPoolExecutor(min(4, cores()), thread_name_prefix="anomaly-ov")
        try:
            yield from run(stages, sources_of(sources), batch_size, batch_size, pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _forward(self, batch: list[FittedImage]) -> list[_Result | None]:
        readable = [shown for shown in batch if shown.pixels_SS3 is not None]
        results = iter(self._judged(readable) if readable else [])
        return [None if shown.pixels_SS3 is None else next(results) for shown in batch]

    def _judged(self, batch: list[FittedImage]) -> list[_Result]:
        started = time.perf_counter()
        pixels_BSS3 = torch.stack(
            [torch.from_numpy(shown.pixels_SS3.copy()) for shown in batch if shown.pixels_SS3 is not None]
        )
        objects = [self._objects.get(shown.id, ANY_OBJECT) for shown in batch]
        try:
            with torch.inference_mode():
                judged = self._judge.judge(self._judge.towers.normalise(pixels_BSS3), objects)
                scores, maps = judged.scores_B.cpu().tolist(), judged.maps_Bhw.float().cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"{self._info.name}: out of memory on {self._info.device} with {len(batch)} pictures at once",
                hint="use a smaller --batch-size",
            ) from None
        ms = ms_since(started) / len(batch)
        return [_Result(score, map_hw, ms) for score, map_hw in zip(scores, maps, strict=True)]

    def _finish(self, shown: FittedImage, result: _Result | None) -> Finding:
        if result is None or shown.image.width is None or shown.image.height is None:
            return Finding(shown.id, shown.image, self._info, timing_ms=shown.timing_ms, error=shown.error)
        started = time.perf_counter()
        map_HW = self._on_picture(result.map_hw, (shown.image.width, shown.image.height))
        timing = shown.timing_ms | {"model": result.ms, "maps": ms_since(started)}
        rows, columns = result.map_hw.shape
        return Finding(
            id=shown.id,
            image=shown.image,
            model=self._info,
            score_raw=result.score,
            score=result.score,
            score_map=float(map_HW.max()),
            threshold=THRESHOLD,
            anomalous=result.score >= THRESHOLD.value,
            map=MapInfo(None, (rows, columns)),
            timing_ms={part: round(ms, 3) for part, ms in timing.items()},
            significance_map=map_HW,
        )

    def _on_picture(self, map_hw: Floats, image_wh: tuple[int, int]) -> Floats:
        judge = self._judge
        if judge.smoothing:
            square_SS = on_picture(map_hw, (judge.side, judge.side), judge.side, "squash")
            map_hw = gaussian_filter(square_SS, judge.smoothing)
        return on_picture(map_hw, image_wh, judge.side, judge.fit)


def revision_of(weights: str, config: Any) -> str:
    """The weights' revision and six hex digits of the configuration (a dataclass)."""
    text = json.dumps(to_mapping(config), sort_keys=True)
    return f"{weights}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
