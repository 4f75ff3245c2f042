"""``load(name) -> Inspector``: the one object users hold. It turns pictures into findings, one or a stream of them.

A stream has three stages (``streaming``): threads read and cut pictures into views, the calling thread runs the network
on batches bounded by the number of *views*, threads turn its maps into regions and records.
Order is kept, memory is bounded by the batch, and what a picture scores does not depend on its neighbours.

Importing this file loads no torch; calling ``load`` does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.calibration import fused_scores
from anomaly_ov.errors import DeviceError, ImageError, UsageError
from anomaly_ov.images.read import Limits, Picture, read
from anomaly_ov.images.sources import Source, expand
from anomaly_ov.images.views import Views, anyres
from anomaly_ov.records import ErrorInfo, Finding, ImageInfo, MapInfo, ModelInfo, Threshold, level_of
from anomaly_ov.streaming import Stages, in_turns, overlapped

if TYPE_CHECKING:
    from anomaly_ov.models.config import CalibrationConfig
    from anomaly_ov.models.model import AnomalyModel

Pixels = npt.NDArray[np.uint8]
VIEWS_PER_FORWARD = {"cpu": 16, "mps": 32, "cuda": 128}


def load(name: str = "tiny", device: str = "auto", dtype: str = "auto", threshold: float | None = None) -> Inspector:
    """The model ``name`` (a shipped name or a model folder) ready to inspect.

    ``device``: auto, cpu, cuda, cuda:N, mps. ``dtype``: auto, float32, bfloat16, float16 (the encoder's; the expert
    always computes in float32). ``threshold``: of ``score``, 0..1; None = the one calibrated with the model.
    Raises WeightsError, DeviceError or UsageError.
    """
    from anomaly_ov.models.hub import resolve
    from anomaly_ov.models.model import AnomalyModel

    return Inspector(AnomalyModel.from_pretrained(resolve(name)), device=device, dtype=dtype, threshold=threshold)


@dataclass(frozen=True)
class _Prepared:
    """A picture ready for the network, or the error that stopped it; the decoded pixels are already gone."""

    id: str
    image: ImageInfo
    views: Views | None
    preview_HW3: Pixels | None
    error: ErrorInfo | None
    timing_ms: dict[str, float]


@dataclass(frozen=True)
class _Outputs:
    """What the network says about one picture: ``map_Nhw`` probabilities per view, the head's score."""

    map_Nhw: npt.NDArray[np.float32]
    score_raw: float
    ms: float


class Inspector:
    """Inspects pictures with one model on one device. Satisfies ``records.Detector``; safe to share between threads."""

    def __init__(
        self,
        model: AnomalyModel,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threshold: float | None = None,
        views_per_forward: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        import torch

        from anomaly_ov.models.device import resolve_device, resolve_dtype

        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self._limits = limits or Limits()
        self._calibration = model.config.calibration
        self._threshold = _threshold(self._calibration, threshold)
        self.views_per_forward = views_per_forward or VIEWS_PER_FORWARD.get(self._device.type, 16)
        if self.views_per_forward < 1:
            raise UsageError(f"views_per_forward = {views_per_forward} must be >= 1", hint="leave it out")
        self.views_config = model.config.views
        with self._memory_errors():
            # Batch norms folded in; the model itself may go on being trained or saved under its own names.
            self.encoder = model.encoder.fuse().eval().to(self._device, self._dtype)
            # The expert is a small share of the work, and its softmax over 100 x cosine loses digits in 16 bits.
            self.expert = model.expert.eval().to(self._device, torch.float32)
        self._info = ModelInfo(
            name=model.config.name,
            revision=model.config.revision,
            device=str(self._device),
            dtype=str(self._dtype).removeprefix("torch."),
        )

    @property
    def info(self) -> ModelInfo:
        """Identity of the weights that answer, with device and precision."""
        return self._info

    @property
    def threshold(self) -> Threshold:
        """What ``score`` is compared with, and where that value comes from."""
        return self._threshold

    @property
    def map_threshold(self) -> float:
        """Value of the significance map from which a place belongs to a region."""
        return self._calibration.map_threshold

    def inspect(self, source: Any) -> Finding:
        """The finding on one picture: a path, bytes, an open binary file, an (H, W[, 3]) array or a PIL image.

        Raises UnreadableImage or ImageTooLarge; use ``stream`` to have them as records.
        """
        started = time.perf_counter()
        picture = read(source, self._limits)
        prepared = self._cut(source if isinstance(source, str) else picture.path, picture, started, preview=False)
        return self._finish(prepared, *self._forward([prepared]))

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        """One finding per picture, in order. ``sources``: whatever ``images.sources.expand`` takes, or its results.

        ``batch_size``: most pictures per forward pass (a budget of views bounds it further). A picture that cannot
        be read yields a finding with ``error`` set. Each finding holds its map (a few MB): keep what you need of it.
        """
        return (finding for finding, _ in self._run(sources, batch_size, previews=False))

    def stream_with_previews(
        self, sources: Iterable[Any], batch_size: int = 8
    ) -> Iterator[tuple[Finding, Pixels | None]]:
        """As ``stream``, each finding with its picture at the map's size, (H, W, 3) uint8 (None if unreadable)."""
        return self._run(sources, batch_size, previews=True)

    def _run(
        self, sources: Iterable[Any], batch_size: int, *, previews: bool
    ) -> Iterator[tuple[Finding, Pixels | None]]:
        if batch_size < 1:
            raise UsageError(f"batch_size = {batch_size} must be >= 1", hint="8 is a good start")
        stages = Stages(
            prepare=partial(self._prepare, preview=previews),
            forward=self._outputs,
            finish=lambda prepared, output: (self._finish(prepared, output), prepared.preview_HW3),
            size=_count,
        )
        run = in_turns if self._device.type == "cpu" else overlapped
        pool = ThreadPoolExecutor(min(4, _cores()), thread_name_prefix="anomaly-ov")
        try:
            # It takes long to import (scipy), so it is imported while the first pictures are read.
            pool.submit(import_module, "anomaly_ov.images.regions")
            yield from run(stages, _sources(sources), batch_size, self.views_per_forward, pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _outputs(self, batch: list[_Prepared]) -> list[_Outputs | None]:
        """Network outputs per picture, None for one that could not be read."""
        outputs = iter(self._forward([prepared for prepared in batch if prepared.error is None]))
        return [next(outputs) if prepared.error is None else None for prepared in batch]

    def _prepare(self, source: Source, *, preview: bool) -> _Prepared:
        started = time.perf_counter()
        try:
            picture = source.read(self._limits)
            return self._cut(source.id, picture, started, preview=preview)
        except ImageError as error:
            info = ErrorInfo(type(error).__name__, error.message, error.hint)
            image = ImageInfo(path=str(source.item) if isinstance(source.item, (str, os.PathLike)) else source.id)
            return _Prepared(source.id, image, None, None, info, {"read": _ms_since(started)})

    def _cut(self, id_: str, picture: Picture, started: float, *, preview: bool) -> _Prepared:
        timing = {"read": _ms_since(started)}
        started = time.perf_counter()
        views = anyres(picture.pixels_HW3, self.views_config)
        preview_HW3 = _shrink(picture.pixels_HW3, views.geometry.capped_wh) if preview else None
        timing["views"] = _ms_since(started)
        image = ImageInfo(picture.path, picture.width, picture.height, picture.sha256)
        return _Prepared(id_, image, views, preview_HW3, None, timing)

    def _forward(self, batch: list[_Prepared]) -> list[_Outputs]:
        """Network outputs per picture. Out of memory halves the batch, then the views per pass, then gives up."""
        from anomaly_ov.models.device import is_out_of_memory

        if not batch:
            return []
        try:
            return self._forward_once(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback would keep the failed pass's tensors alive.
        self._release_memory()
        if len(batch) > 1:
            half = len(batch) // 2
            return self._forward(batch[:half]) + self._forward(batch[half:])
        if self.views_per_forward > 1:
            self.views_per_forward = max(1, min(self.views_per_forward, _count(batch[0])) // 2)
            return self._forward(batch)
        raise self._no_memory()

    def _forward_once(self, batch: list[_Prepared]) -> list[_Outputs]:
        import torch

        started = time.perf_counter()
        views = [prepared.views for prepared in batch if prepared.views is not None]
        pixels_NHW3 = np.concatenate([v.pixels_NHW3 for v in views]) if len(views) > 1 else views[0].pixels_NHW3
        counts = [len(v.pixels_NHW3) for v in views]
        with torch.inference_mode():
            output = self.expert(self._features(pixels_NHW3), counts)
            map_Nhw = output.map_Nhw.float().cpu().numpy()
            scores_B = output.score_B.float().cpu().numpy()
        ms_per_view = _ms_since(started) / len(pixels_NHW3)
        ends = np.cumsum(counts)
        return [
            _Outputs(map_Nhw[end - count : end], float(score), ms_per_view * count)
            for end, count, score in zip(ends, counts, scores_B, strict=True)
        ]

    def _features(self, pixels_NHW3: Pixels) -> Any:
        """``Features`` in float32 of all views, encoded at most ``views_per_forward`` at a time."""
        import torch

        from anomaly_ov.models.features import Features

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

    def _finish(self, prepared: _Prepared, output: _Outputs | None) -> Finding:
        """The record of one picture from its maps."""
        if output is None or prepared.views is None:
            return Finding(prepared.id, prepared.image, self._info, timing_ms=prepared.timing_ms, error=prepared.error)
        from anomaly_ov.images.maps import cell_map, map_score, significance_map
        from anomaly_ov.images.regions import regions

        started = time.perf_counter()
        geometry, patch = prepared.views.geometry, self._patch()
        map_HW = significance_map(output.map_Nhw, geometry, patch=patch)
        rows, columns = cell_map(output.map_Nhw, geometry, patch=patch).shape
        score_map = map_score(map_HW, self._calibration.map_top)
        score = float(fused_scores(output.score_raw, score_map, self._calibration))
        found = regions(map_HW, self._calibration.map_threshold, geometry.image_wh)
        return Finding(
            id=prepared.id,
            image=prepared.image,
            model=self._info,
            score_raw=output.score_raw,
            score=score,
            score_map=score_map,
            threshold=self._threshold,
            anomalous=score >= self._threshold.value,
            level=level_of(output.score_raw),
            map=MapInfo(None, (rows, columns)),
            regions=found,
            timing_ms=_rounded(prepared.timing_ms | {"model": output.ms, "maps": _ms_since(started)}),
            significance_map=map_HW,
        )

    def _patch(self) -> float | None:
        """Side of a map's cell in view pixels where patches are the cells; None where tokens were resampled."""
        own = self.encoder.patch is not None and self.encoder.config.grid_hw is None
        return float(self.encoder.patch) if own and self.encoder.patch else None

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        from anomaly_ov.models.device import is_out_of_memory

        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise self._no_memory() from None
            raise

    def _no_memory(self) -> DeviceError:
        return DeviceError(
            f"out of memory on {self._device}, even with one view at a time",
            hint="free memory there, use --device cpu, or a smaller model",
        )

    def _release_memory(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


def _threshold(calibration: CalibrationConfig, override: float | None) -> Threshold:
    if override is None:
        return Threshold(calibration.threshold, calibration.threshold_source)
    if not 0 <= override <= 1:
        raise UsageError(f"threshold = {override} must lie in 0..1", hint="it is compared with 'score'")
    return Threshold(override, "set by the caller")


def _sources(items: Iterable[Any]) -> Iterator[Source]:
    """The sources of a list at once; those of a generator one by one, so that it may be long or endless."""
    if isinstance(items, Iterator) and not hasattr(items, "read"):
        return _one_by_one(items)
    if isinstance(items, (list, tuple)) and any(isinstance(item, Source) for item in items):
        return _one_by_one(iter(items))
    return iter(expand(items))


def _one_by_one(items: Iterator[Any]) -> Iterator[Source]:
    unnamed = 0
    for item in items:
        for source in [item] if isinstance(item, Source) else expand([item]):
            if source is item or isinstance(source.item, (str, Path)):
                yield source
            else:  # numbered from 0 by each call of expand
                yield Source(source.item, f"array-{unnamed}", source.page)
                unnamed += 1


def _count(prepared: _Prepared) -> int:
    return 0 if prepared.views is None else len(prepared.views.pixels_NHW3)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shrink(pixels_HW3: Pixels, wh: tuple[int, int]) -> Pixels:
    """The picture at ``wh``; the very array when it has that size."""
    if (pixels_HW3.shape[1], pixels_HW3.shape[0]) == tuple(wh):
        return pixels_HW3
    from PIL import Image

    return np.asarray(Image.fromarray(pixels_HW3).resize(wh, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _rounded(timing_ms: dict[str, float]) -> dict[str, float]:
    return {stage: round(ms, 3) for stage, ms in timing_ms.items()}
