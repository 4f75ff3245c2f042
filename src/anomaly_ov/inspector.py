"""``load(name) -> Inspector``: the one object users hold. It turns pictures into findings, one or a stream of them.

A stream has three stages (``streaming``): threads read and cut pictures into views, the calling thread runs the network
on batches bounded by the number of *views*, threads turn its maps into regions and records.
Order is kept, memory is bounded by the batch, and what a picture scores does not depend on its neighbours.

Importing this file loads no torch; calling ``load`` does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from anomaly_ov.context import is_context_file
from anomaly_ov.errors import ContextMismatch, ImageError, UsageError
from anomaly_ov.images.read import Limits, Picture, read
from anomaly_ov.images.sources import Source, page_digest, sources_of
from anomaly_ov.images.views import Views, anyres
from anomaly_ov.models.score import ExpertAlone, expert_alone, logit
from anomaly_ov.records import ContextInfo, ErrorInfo, Finding, ImageInfo, MapInfo, ModelInfo, Threshold, level_of
from anomaly_ov.streaming import Stages, cores, in_turns, overlapped

if TYPE_CHECKING:
    from anomaly_ov.context.build import Builder, Encoded
    from anomaly_ov.context.context import Compared, Context
    from anomaly_ov.context.tokens import PictureTokens
    from anomaly_ov.images.geometry import Geometry
    from anomaly_ov.models.config import CalibrationConfig, ContextConfig
    from anomaly_ov.models.encoder import Encoder
    from anomaly_ov.models.expert import Expert
    from anomaly_ov.models.model import AnomalyModel
    from anomaly_ov.models.runner import PictureOutput

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
Result = TypeVar("Result")


def nobody(done: int, total: int) -> None:
    """The default ``Progress``: tells nobody."""


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
    digest: str = ""


@dataclass(frozen=True)
class _Outputs:
    """What the networks say about one picture, and, with a context, how it compares with that."""

    networks: PictureOutput
    tokens: PictureTokens | None = None
    compared: Compared | None = None


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
        from anomaly_ov.models.runner import Runner

        self._runner = Runner(model, device, dtype, views_per_forward)
        self._limits = limits or Limits()
        self._calibration, self._context_config = model.config.calibration, model.config.context
        self._own_threshold = threshold
        self._threshold = _threshold(self._calibration, threshold)
        self.views_config = model.config.views
        self._info = ModelInfo(
            name=model.config.name,
            revision=model.config.revision,
            device=str(self._runner.device),
            dtype=str(self._runner.dtype).removeprefix("torch."),
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
        """Value of the significance map from which a place belongs to a region; see ``map_threshold_with``."""
        return self._calibration.map_threshold

    @property
    def encoder(self) -> Encoder:
        """The network that reads the views, on its device, batch norms folded in."""
        return self._runner.encoder

    @property
    def expert(self) -> Expert:
        """The expert, on its device."""
        return self._runner.expert

    @property
    def views_per_forward(self) -> int:
        """Most views that are encoded at once; halved when memory runs out."""
        return self._runner.views_per_forward

    def threshold_with(self, context: Context | None) -> Threshold:
        """As ``threshold``, for scores that a context is part of: these have a threshold of their own."""
        return self._threshold if context is None else _threshold(self._context_config, self._own_threshold)

    def map_threshold_with(self, context: Context | None) -> float:
        """As ``map_threshold``, for maps that a context is part of."""
        return (self._calibration if context is None else self._context_config).map_threshold

    def context(self, pictures: Any, batch_size: int = 8, progress: Progress = nobody) -> Context:
        """What pictures known to be good say is normal: one to hundreds, for ``inspect`` and ``stream``.

        ``pictures``: whatever ``images.sources.expand`` takes, or a list of its results; or the path of a context file
        (``.ctx``), which is loaded. ``progress``: called with (done, total) after each picture. Raises ``UsageError``
        when none can be read; for a file what ``load_context`` does.
        """
        if isinstance(pictures, (str, Path)) and is_context_file(pictures):
            from anomaly_ov.context.context_file import load_context

            return load_context(pictures, self._info.revision, self._runner.device)
        sources, name = _named(pictures)
        return self._builder(batch_size, progress).references(sources, name)

    def folder_context(self, pictures: Any, batch_size: int = 8, progress: Progress = nobody) -> Context:
        """What the pictures of a folder say is normal among themselves; most of them should be.

        Scores made with it are transductive: they depend on the folder. Raises ``UsageError`` for fewer than three
        distinct pictures. The rest as in ``context``.
        """
        sources, name = _named(pictures)
        return self._builder(batch_size, progress).folder(sources, name)

    def auto_context(
        self, pictures: Any, batch_size: int = 8, progress: Progress = nobody
    ) -> tuple[Context | None, str]:
        """The folder's context if its pictures are alike enough for it to help, else None; and the reason."""
        sources, name = _named(pictures)
        return self._builder(batch_size, progress).auto(sources, name)

    def inspect(self, source: Any, context: Context | None = None) -> Finding:
        """The finding on one picture: a path, bytes, an open binary file, an (H, W[, 3]) array or a PIL image.

        ``context``: what else says what is normal, made by this model. Raises UnreadableImage or ImageTooLarge (use
        ``stream`` to have them as records), and ContextMismatch for a context of another model.
        """
        context = self._own(context)
        started = time.perf_counter()
        picture = read(source, self._limits)
        prepared = self._cut(source if isinstance(source, str) else picture.path, picture, started, preview=False)
        (output,) = self._outputs([prepared], context)
        return self._finish(prepared, output, context)

    def stream(self, sources: Iterable[Any], batch_size: int = 8, context: Context | None = None) -> Iterator[Finding]:
        """One finding per picture, in order. ``sources``: whatever ``images.sources.expand`` takes, or its results.

        ``batch_size``: most pictures per forward pass (a budget of views bounds it further). ``context``: as in
        ``inspect``. A picture that cannot be read yields a finding with ``error`` set. Each finding holds its map (a
        few MB): keep what you need of it.
        """
        return (finding for finding, _ in self.stream_with_previews(sources, batch_size, context, previews=False))

    def stream_with_previews(
        self, sources: Iterable[Any], batch_size: int = 8, context: Context | None = None, *, previews: bool = True
    ) -> Iterator[tuple[Finding, Pixels | None]]:
        """As ``stream``, each finding with its picture at the map's size, (H, W, 3) uint8 (None if unreadable)."""
        context = self._own(context)
        stages = Stages(
            prepare=partial(self._prepare, preview=previews),
            forward=partial(self._outputs, context=context),
            finish=lambda prepared, output: (self._finish(prepared, output, context), prepared.preview_HW3),
            size=_count,
        )
        return self._run(stages, sources, batch_size)

    def _builder(self, batch_size: int, progress: Progress) -> Builder:
        from anomaly_ov.context.build import Builder

        encode = partial(self._encode, batch_size=batch_size, progress=progress)
        return Builder(encode, self._context_config, self._info.revision, self._runner.device, self._limits)

    def _encode(self, sources: Sequence[Source], batch_size: int, progress: Progress) -> Iterator[Encoded | None]:
        """What contexts are made of, one per picture, None for one that cannot be read."""
        stages = Stages(
            prepare=partial(self._prepare, preview=False),
            forward=partial(self._outputs, tokens=True),
            finish=self._encoded,
            size=_count,
        )
        for done, encoded in enumerate(self._run(stages, sources, batch_size), start=1):
            progress(done, len(sources))
            yield encoded

    def _run(
        self, stages: Stages[Source, _Prepared, _Outputs | None, Result], sources: Iterable[Any], batch_size: int
    ) -> Iterator[Result]:
        if batch_size < 1:
            raise UsageError(f"batch_size = {batch_size} must be >= 1", hint="8 is a good start")
        run = in_turns if self._runner.device.type == "cpu" else overlapped
        pool = ThreadPoolExecutor(min(4, cores()), thread_name_prefix="anomaly-ov")
        try:
            # It takes long to import (scipy), so it is imported while the first pictures are read.
            pool.submit(import_module, "anomaly_ov.images.regions")
            yield from run(stages, sources_of(sources), batch_size, self.views_per_forward, pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _outputs(
        self, batch: list[_Prepared], context: Context | None = None, *, tokens: bool = False
    ) -> list[_Outputs | None]:
        """Outputs per picture, None for one that could not be read."""
        wanted = tokens or context is not None
        views = [prepared.views.pixels_NHW3 for prepared in batch if prepared.views is not None]
        outputs = iter(self._runner.forward(views, features=wanted))
        return [
            None if prepared.views is None else self._compared(prepared, next(outputs), context) for prepared in batch
        ]

    def _compared(self, prepared: _Prepared, output: PictureOutput, context: Context | None) -> _Outputs:
        if output.features is None or prepared.views is None:
            return _Outputs(output)
        import torch

        from anomaly_ov.context.tokens import picture_tokens

        light = replace(output, features=None)
        with torch.inference_mode():
            own = self._runner.projection, prepared.digest, self._runner.patch
            tokens = picture_tokens(output.features, prepared.views.geometry, *own)
            if context is None:
                return _Outputs(light, tokens)
            started = time.perf_counter()
            compared = context.compare(tokens)
            prepared.timing_ms["context"] = _ms_since(started)
            return _Outputs(light, tokens.without_tokens(), compared)

    def _prepare(self, source: Source, *, preview: bool) -> _Prepared:
        started = time.perf_counter()
        try:
            picture = source.read(self._limits)
            return self._cut(source.id, picture, started, preview=preview, page=source.page)
        except ImageError as error:
            info = ErrorInfo(type(error).__name__, error.message, error.hint)
            image = ImageInfo(path=str(source.item) if isinstance(source.item, (str, os.PathLike)) else source.id)
            return _Prepared(source.id, image, None, None, info, {"read": _ms_since(started)})

    def _cut(self, id_: str, picture: Picture, started: float, *, preview: bool, page: int = 0) -> _Prepared:
        timing = {"read": _ms_since(started)}
        started = time.perf_counter()
        views = anyres(picture.pixels_HW3, self.views_config)
        preview_HW3 = _shrink(picture.pixels_HW3, views.geometry.capped_wh) if preview else None
        timing["views"] = _ms_since(started)
        image = ImageInfo(picture.path, picture.width, picture.height, picture.sha256)
        return _Prepared(id_, image, views, preview_HW3, None, timing, page_digest(picture.sha256, page))

    def _finish(self, prepared: _Prepared, output: _Outputs | None, context: Context | None) -> Finding:
        """The record of one picture from its maps."""
        source = ContextInfo() if context is None else ContextInfo(context.kind, context.source, len(context.bank))
        if output is None or prepared.views is None:
            error, timing = prepared.error, prepared.timing_ms
            return Finding(prepared.id, prepared.image, self._info, timing_ms=timing, error=error, context=source)
        from anomaly_ov.images.regions import regions

        started = time.perf_counter()
        score_raw, geometry = output.networks.score_raw, prepared.views.geometry
        expert = self._expert_alone(output.networks, geometry)
        score, map_HW, score_context = expert.score, expert.map_HW, None
        if context is not None and output.tokens is not None:
            judged = context.judge(output.compared, output.tokens, expert.score, expert.map_HW)
            score, map_HW, score_context, source = judged.score, judged.map_HW, judged.score_context, judged.info
        # Without a distance the score is the expert's alone, and so is what it is compared with.
        telling = None if score_context is None else context
        threshold = self.threshold_with(telling)
        found = regions(map_HW, self.map_threshold_with(telling), geometry.image_wh)
        return Finding(
            id=prepared.id,
            image=prepared.image,
            model=self._info,
            score_raw=score_raw,
            score=score,
            score_map=expert.score_map,
            score_expert=expert.score,
            score_context=score_context,
            threshold=threshold,
            anomalous=score >= threshold.value,
            level=level_of(score_raw),
            map=MapInfo(None, expert.grid),
            regions=found,
            timing_ms=_rounded(prepared.timing_ms | {"model": output.networks.ms, "maps": _ms_since(started)}),
            context=source,
            significance_map=map_HW,
        )

    def _expert_alone(self, output: PictureOutput, geometry: Geometry) -> ExpertAlone:
        return expert_alone(output.map_Nhw, output.score_raw, geometry, self._calibration, self._runner.patch)

    def _encoded(self, prepared: _Prepared, output: _Outputs | None) -> Encoded | None:
        if output is None or output.tokens is None or prepared.views is None:
            return None
        from anomaly_ov.context.build import Encoded

        score = self._expert_alone(output.networks, prepared.views.geometry).score
        return Encoded(output.tokens, float(logit(score)))

    def _own(self, context: Context | None) -> Context | None:
        """The context on this device. Raises ``ContextMismatch`` for one of another model."""
        if context is None:
            return None
        made, ours = (context.revision, context.config), (self._info.revision, self._context_config)
        if made != ours:
            what = "another fusion of the model" if made[0] == ours[0] else f"model revision {made[0]}"
            raise ContextMismatch(
                f"the context of {context.source} was made with {what}, this is {self._info.name} {ours[0]}",
                hint="build it again with this model: anomaly-ov context build",
            )
        return context.to(self._runner.device)


def _named(pictures: Any) -> tuple[list[Source], str]:
    """The pictures as a list, and a name for where they came from."""
    sources = list(sources_of(pictures))
    if isinstance(pictures, (str, Path)):
        return sources, str(pictures)
    folders = {str(Path(source.item).parent) if isinstance(source.item, str) else "" for source in sources}
    return sources, (folders.pop() if len(folders) == 1 else "") or f"{len(sources)} pictures"


def _threshold(calibration: CalibrationConfig | ContextConfig, override: float | None) -> Threshold:
    if override is None:
        return Threshold(calibration.threshold, calibration.threshold_source)
    if not 0 <= override <= 1:
        raise UsageError(f"threshold = {override} must lie in 0..1", hint="it is compared with 'score'")
    return Threshold(override, "set by the caller")


def _count(prepared: _Prepared) -> int:
    return 0 if prepared.views is None else len(prepared.views.pixels_NHW3)


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
