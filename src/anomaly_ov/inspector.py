"""``load(name) -> Inspector``: the one object users hold. It turns pictures into findings, one or a stream of them.

A stream has three stages (``streaming``): threads read and cut pictures into views, the calling thread runs the network
on batches bounded by the number of *views*, threads turn its maps into regions and records. Order is kept, and what a
picture scores does not depend on its neighbours. Importing this file loads no torch; calling ``load`` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from anomaly_ov.context import is_context_file
from anomaly_ov.errors import MissingExtra, UsageError, WeightsError
from anomaly_ov.images.prepared import Prepared, ms_since, prepare, prepare_one
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source, named_sources, sources_of
from anomaly_ov.look import Looked, look
from anomaly_ov.models.hub import LANGUAGE_FOLDER
from anomaly_ov.reasoning.session import Seen, Talk
from anomaly_ov.records import UNLIKE, Answer, ContextInfo, Finding, MapInfo, ModelInfo, Threshold, level_beside
from anomaly_ov.scoring.conformal import (
    Wanted,
    require_context,
    require_model,
    scoring_digest,
    threshold_of,
    wanted_threshold,
)
from anomaly_ov.scoring.score import Judged, Usual, expert_map_score, grid_of, judge
from anomaly_ov.streaming import Progress, Stages, cores, in_turns, nobody, overlapped
from anomaly_ov.words.from_record import ask

if TYPE_CHECKING:
    from anomaly_ov.context.build import Builder, Encoded
    from anomaly_ov.context.context import Compared, Context
    from anomaly_ov.models.engines.interface import Engine
    from anomaly_ov.models.model import AnomalyModel
    from anomaly_ov.reasoning.chat import Chat
    from anomaly_ov.reasoning.folder import Reasoner

Pixels = npt.NDArray[np.uint8]
Result = TypeVar("Result")


def load(
    name: str = "tiny",
    device: str = "auto",
    dtype: str = "auto",
    threshold: Wanted = None,
    limits: Limits | None = None,
    engine: str = "auto",
) -> Inspector:
    """The model ``name`` (a shipped name or a model folder) ready to inspect.

    ``device``: auto, cpu, cuda, cuda:N, mps. ``dtype``: auto, float32, bfloat16, float16 (the encoder's; the expert
    always computes in float32). ``engine``: onnx, torch, or auto (``models.engines.opening``). ``threshold``: of
    ``score``, or a file made by ``anomaly-ov calibrate``; None = the model's own. ``limits``: of a picture. Raises
    WeightsError (a ThresholdMismatch is one), DeviceError or UsageError.
    """
    from anomaly_ov.models.engines.opening import open_engine
    from anomaly_ov.models.hub import resolve

    folder = resolve(name)
    return Inspector(open_engine(folder, engine, device, dtype), threshold=threshold, limits=limits, folder=folder)


@dataclass(frozen=True)
class _Outputs:
    """What the networks say about one image, and, with a context, how it compares with that."""

    looked: Looked
    compared: Compared | None


class Inspector:
    """Inspects pictures with one model on one device. Satisfies ``records.Detector``; safe to share between threads."""

    def __init__(
        self,
        model: Engine | AnomalyModel,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threshold: Wanted = None,
        views_per_forward: int | None = None,
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        """``model``: an engine, or an ``AnomalyModel``, which torch then runs on ``device`` in ``dtype``."""
        self._engine = _engine_of(model, device, dtype, views_per_forward)
        config = self._engine.config
        self._limits = limits or Limits()
        self._folder = folder
        self._scoring = config.scoring
        self._wanted = wanted_threshold(threshold)
        self.views_config = config.views
        self._info = ModelInfo(config.name, config.revision, self._engine.device, self._engine.dtype)
        require_model(self._wanted, self._info, self.scoring)

    @property
    def info(self) -> ModelInfo:
        """Identity of the weights that answer, with device and precision."""
        return self._info

    @property
    def engine(self) -> Engine:
        """What runs encoder and expert."""
        return self._engine

    @property
    def scoring(self) -> str:
        """Digest of how views and evidence become ``score``; with ``info.revision`` it says what a score means."""
        return scoring_digest(self.views_config, self._scoring)

    @property
    def threshold(self) -> Threshold:
        """What ``score`` and the anomaly map are compared with, and where that value comes from."""
        return self.threshold_with(None)

    @property
    def views_per_forward(self) -> int:
        """Most views that are encoded at once; halved when memory runs out."""
        return self._engine.views_per_forward

    def threshold_with(self, context: Context | None) -> Threshold:
        """As ``threshold``, for scores that a context is part of: 0.5 too, but found in another way."""
        if context is None:
            return threshold_of(self._scoring.alone.source, self._wanted)
        return threshold_of(threshold_source(context), self._wanted, context)

    def context(self, pictures: Any, batch_size: int = 8, progress: Progress = nobody) -> Context:
        """What pictures known to be good say is normal: one to hundreds, for ``inspect`` and ``stream``.

        ``pictures``: whatever ``images.sources.expand`` takes, or a list of its results; or the path of a context file
        (``.ctx``), which is loaded. ``progress``: called with (done, total) after each picture. Raises ``UsageError``
        when none can be read; for a file what ``load_context`` does.
        """
        if isinstance(pictures, (str, Path)) and is_context_file(pictures):
            from anomaly_ov.context.context_file import load_context

            return load_context(pictures, self._info.revision)
        sources, name = named_sources(pictures)
        return self._builder(batch_size, progress).references(sources, name)

    def folder_context(self, pictures: Any, batch_size: int = 8, progress: Progress = nobody) -> Context:
        """What the pictures of a folder say is normal among themselves; most of them should be.

        Scores made with it are transductive: they depend on the folder. Raises ``UsageError`` for fewer than three
        distinct pictures. The rest as in ``context``.
        """
        sources, name = named_sources(pictures)
        return self._builder(batch_size, progress).folder(sources, name)

    def auto_context(
        self, pictures: Any, batch_size: int = 8, progress: Progress = nobody
    ) -> tuple[Context | None, str]:
        """The folder's context if its pictures are alike enough for it to help, else None; and the reason."""
        sources, name = named_sources(pictures)
        return self._builder(batch_size, progress).auto(sources, name)

    def inspect(self, source: Any, context: Context | None = None) -> Finding:
        """The finding on one picture: a path, bytes, an open binary file, an (H, W[, 3]) array or a PIL image.

        ``context``: what else says what is normal, made by this model. The finding can be asked (``Finding.ask``).
        Raises UnreadableImage or ImageTooLarge (use ``stream`` to have them as records), and
        ContextMismatch for a context of another model.
        """
        context = self._own(context)
        prepared = prepare_one(source, self.views_config, self._limits)
        (output,) = self._compared([prepared], context, self.speaks)
        return self._finish(prepared, output, context)

    @property
    def _silent(self) -> Callable[..., Answer] | None:
        """What answers questions about findings that keep no features."""
        return None if self.speaks else ask

    @property
    def speaks(self) -> bool:
        """Whether the model has a language side, so that its findings can be asked about."""
        return self._folder is not None and (self._folder / LANGUAGE_FOLDER).is_dir()

    @cached_property
    def reasoner(self) -> Reasoner:
        """The language side, loaded when first asked for. Raises ``WeightsError`` (none there), ``MissingExtra``."""
        if self._folder is None:
            what = f"model '{self._info.name}' has no folder to read its language side from"
            raise WeightsError(what, hint="use anomaly_ov.load(folder)")
        for package in ("torch", "transformers"):
            if find_spec(package) is None:
                raise MissingExtra(package, "torch")
        import torch

        from anomaly_ov.reasoning.folder import load_reasoner

        reasoner = load_reasoner(self._folder, getattr(torch, self._engine.dtype), with_detector=False)
        reasoner.model.to(self._engine.device)
        return reasoner

    def inspect_views(self, pictures: Iterable[Any]) -> list[Finding]:
        """Findings on several pictures of one thing, each looked at whole, in order; for ``chat`` with ``views``.

        Raises what ``inspect`` raises, ``UsageError`` for no pictures.
        """
        several = list(pictures)
        if not several:
            raise UsageError("no views to look at", hint="give at least one picture")
        prepared = [prepare_one(one, self.views_config, self._limits, whole=len(several) > 1) for one in several]
        outputs = self._compared(prepared, None, talk=True)
        return [self._finish(*one, None) for one in zip(prepared, outputs, strict=True)]

    def chat(self, picture: Any, *, views: bool = False, reading: str | None = None) -> Chat:
        """A conversation about a picture (as ``inspect`` takes it) or its finding; with ``views`` about several
        pictures of one thing, in order, or the findings of ``inspect_views``. ``reading``: full, focus or highlight,
        default the model's own. Raises what ``inspect`` raises, ``WeightsError`` without a language side,
        ``UsageError`` for a finding that has let go of its picture.
        """
        several = list(picture) if views else [picture]
        found = several if several and isinstance(several[0], Finding) else self.inspect_views(several)
        seen = [seen for one in found for seen in one.talk_or_raise().seen]
        return Talk(seen, lambda: self.reasoner).open(reading)

    def stream(self, sources: Iterable[Any], batch_size: int = 8, context: Context | None = None) -> Iterator[Finding]:
        """One finding per picture, in order. ``sources``: whatever ``images.sources.expand`` takes, or its results.

        ``batch_size``: most pictures per forward pass (a budget of views bounds it further). ``context``: as in
        ``inspect``. A picture that cannot be read yields a finding with ``error`` set. Each finding holds its map (a
        few MB): keep what you need of it.
        """
        return (finding for finding, _ in self.stream_with_previews(sources, batch_size, context, previews=False))

    def stream_with_previews(
        self,
        sources: Iterable[Any],
        batch_size: int = 8,
        context: Context | None = None,
        *,
        previews: bool = True,
        talk: bool = False,
    ) -> Iterator[tuple[Finding, Pixels | None]]:
        """As ``stream``, each finding with its picture at the map's size, (H, W, 3) uint8 (None if unreadable).

        ``talk``: findings keep what the language side needs to answer about them (some MB each).
        """
        context = self._own(context)
        stages = Stages(
            prepare=partial(prepare, config=self.views_config, limits=self._limits, preview=previews),
            forward=partial(self._compared, context=context, talk=talk),
            finish=lambda prepared, output: (self._finish(prepared, output, context), prepared.preview_HW3),
            size=lambda prepared: prepared.count,
        )
        return self._run(stages, sources, batch_size)

    def _builder(self, batch_size: int, progress: Progress) -> Builder:
        from anomaly_ov.context.build import Builder

        encode = partial(self._encode, batch_size=batch_size, progress=progress)
        return Builder(encode, self._scoring, self._info.revision, self._limits)

    def _encode(self, sources: Sequence[Source], batch_size: int, progress: Progress) -> Iterator[Encoded | None]:
        """What contexts are made of, one per image, None for one that cannot be read."""
        stages = Stages(
            prepare=partial(prepare, config=self.views_config, limits=self._limits),
            forward=self._outputs,
            finish=self._encoded,
            size=lambda prepared: prepared.count,
        )
        for done, encoded in enumerate(self._run(stages, sources, batch_size), start=1):
            progress(done, len(sources))
            yield encoded

    def _run(
        self, stages: Stages[Source, Prepared, Any, Result], sources: Iterable[Any], batch_size: int
    ) -> Iterator[Result]:
        if batch_size < 1:
            raise UsageError(f"batch_size = {batch_size} must be >= 1", hint="8 is a good start")
        run = in_turns if self._engine.device == "cpu" else overlapped
        pool = ThreadPoolExecutor(min(4, cores()), thread_name_prefix="anomaly-ov")
        try:
            # It takes long to import (scipy), so it is imported while the first pictures are read.
            pool.submit(import_module, "anomaly_ov.scoring.regions")
            yield from run(stages, sources_of(sources), batch_size, self.views_per_forward, pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _outputs(self, batch: list[Prepared]) -> list[Looked | None]:
        """What the networks say of each image, None for one that could not be read."""
        looked = iter(look(self._engine, [one for one in batch if one.views is not None], self._scoring))
        return [None if prepared.views is None else next(looked) for prepared in batch]

    def _compared(self, batch: list[Prepared], context: Context | None, talk: bool) -> list[_Outputs | None]:
        """As ``_outputs``, compared with ``context`` while the tokens are at hand."""
        outputs: list[_Outputs | None] = []
        for prepared, looked in zip(batch, self._outputs(batch), strict=True):
            if looked is None:
                outputs.append(None)
                continue
            started = time.perf_counter()
            compared = None if context is None else context.compare(looked.tokens)
            if context is not None:
                prepared.timing_ms["context"] = ms_since(started)
            outputs.append(_Outputs(looked.without_features(keep=talk), compared))
        return outputs

    def _finish(self, prepared: Prepared, output: _Outputs | None, context: Context | None) -> Finding:
        """The record of one image: evidence, map, score, verdict and regions (``scoring.score``)."""
        if output is None or prepared.views is None:
            error, timing = prepared.error, prepared.timing_ms
            source = ContextInfo() if context is None else ContextInfo(context.kind, context.source, len(context.bank))
            return Finding(prepared.id, prepared.image, self._info, timing_ms=timing, error=error, context=source)
        from anomaly_ov.scoring.appearance import shown_at
        from anomaly_ov.scoring.regions import regions

        started = time.perf_counter()
        looked, compared, geometry = output.looked, output.compared, prepared.views.geometry
        evidence = looked.evidence(self._scoring)
        cells = looked.tokens.cells
        alone = judge(evidence, cells, self._scoring.alone, self._scoring, Usual())
        judged = alone
        if context is not None and compared is not None:
            together = replace(evidence, references=compared.references)
            judged = judge(together, cells, context.mode(compared.kind), self._scoring, compared.usual)
        threshold = self.threshold_with(context if compared is not None else None)
        shown = partial(shown_at, prepared.views.pixels_NHW3[0], geometry, judged.map_HW.shape)
        found = regions(judged.map_HW, threshold.value, geometry.image_wh, shown=shown)
        timing = prepared.timing_ms | {"model": looked.output.ms, "maps": ms_since(started)}
        seen = [Seen(looked.output, judged.score, geometry)]
        return Finding(
            id=prepared.id,
            image=prepared.image,
            model=self._info,
            score_raw=looked.output.score_raw,
            score=judged.score,
            score_map=expert_map_score(evidence, cells, self._scoring),
            score_expert=alone.score,
            score_context=None if judged is alone else judged.score,
            threshold=threshold,
            anomalous=judged.score >= threshold.value,
            level=level_beside(judged.score, threshold.value),
            map=MapInfo(None, grid_of(cells)),
            regions=found,
            timing_ms={part: round(ms, 3) for part, ms in timing.items()},
            context=context_info(context, compared, judged),
            significance_map=judged.map_HW,
            talk=Talk(seen, lambda: self.reasoner) if looked.output.features is not None else self._silent,
        )

    def _encoded(self, prepared: Prepared, looked: Looked | None) -> Encoded | None:
        if looked is None:
            return None
        from anomaly_ov.context.build import Encoded

        return Encoded(looked.tokens, looked.output.map_Nhw, looked.output.score_raw)

    def _own(self, context: Context | None) -> Context | None:
        """Raises ``ContextMismatch`` for a context of another model, ``ThresholdMismatch``."""
        require_context(self._wanted, context)
        if context is not None:
            context.require_model(self._info, self._scoring)
        return context


def _engine_of(model: Engine | AnomalyModel, device: str, dtype: str, views_per_forward: int | None) -> Engine:
    if hasattr(model, "encode"):
        return cast("Engine", model)
    from anomaly_ov.models.engines.torch import TorchEngine

    return TorchEngine(cast("AnomalyModel", model), device, dtype, views_per_forward)


def context_info(context: Context | None, compared: Compared | None, judged: Judged) -> ContextInfo:
    """For the record: what else was looked at."""
    if context is None:
        return ContextInfo()
    count = len(context.bank)
    if compared is None:
        return ContextInfo(context.kind, context.source, count, note="only copies of it to compare with")
    note = UNLIKE if compared.unlike else None
    return ContextInfo(context.kind, context.source, count, compared.kind, round(judged.times, 4), note)


def threshold_source(context: Context) -> str:
    """Where the threshold of scores made with a context comes from, for its largest kind."""
    mode, own = context.mode(0), context.usual[0].count
    drawn = f", drawn towards the leave-one-out figures of {own} references" if own else ""
    return f"{mode.source}{drawn}"
