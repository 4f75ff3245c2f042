"""``load(name) -> Inspector``: the one object users hold. It turns pictures into findings, one or a stream of them.

A stream has three stages (``streaming``): threads read and cut pictures into views, the calling thread runs the network
on batches bounded by the number of *views*, threads turn its maps into regions and records. Order is kept, and what a
picture scores does not depend on its neighbours. Importing this file loads no torch; calling ``load`` does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from anomaly_ov.context import is_context_file
from anomaly_ov.errors import UsageError, WeightsError
from anomaly_ov.images.prepared import Prepared, ms_since, prepare, prepare_one
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source, named_sources, sources_of
from anomaly_ov.models.hub import LANGUAGE_FOLDER
from anomaly_ov.models.score import ExpertAlone, expert_alone, logit
from anomaly_ov.records import ContextInfo, Finding, MapInfo, ModelInfo, Threshold, level_of
from anomaly_ov.streaming import Progress, Stages, cores, in_turns, nobody, overlapped
from anomaly_ov.talk import Seen, Talk
from anomaly_ov.thresholds import Wanted, require_context, require_model, scoring_digest, threshold_of, wanted_threshold

if TYPE_CHECKING:
    from anomaly_ov.chat import Chat
    from anomaly_ov.context.build import Builder, Encoded
    from anomaly_ov.context.context import Compared, Context
    from anomaly_ov.context.tokens import PictureTokens
    from anomaly_ov.images.geometry import Geometry
    from anomaly_ov.models.encoder import Encoder
    from anomaly_ov.models.expert import Expert
    from anomaly_ov.models.model import AnomalyModel
    from anomaly_ov.models.reasoning.folder import Reasoner
    from anomaly_ov.models.runner import PictureOutput

Pixels = npt.NDArray[np.uint8]
Result = TypeVar("Result")


def load(
    name: str = "tiny",
    device: str = "auto",
    dtype: str = "auto",
    threshold: Wanted = None,
    limits: Limits | None = None,
) -> Inspector:
    """The model ``name`` (a shipped name or a model folder) ready to inspect.

    ``device``: auto, cpu, cuda, cuda:N, mps. ``dtype``: auto, float32, bfloat16, float16 (the encoder's; the expert
    always computes in float32). ``threshold``: of ``score``, or a file made by ``anomaly-ov calibrate``; None = the
    model's own. ``limits``: of a picture. Raises WeightsError (a ThresholdMismatch is one), DeviceError or UsageError.
    """
    from anomaly_ov.models.hub import resolve
    from anomaly_ov.models.model import AnomalyModel

    folder = resolve(name)
    model = AnomalyModel.from_pretrained(folder)
    return Inspector(model, device=device, dtype=dtype, threshold=threshold, limits=limits, folder=folder)


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
        threshold: Wanted = None,
        views_per_forward: int | None = None,
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        from anomaly_ov.models.runner import Runner

        self._runner = Runner(model, device, dtype, views_per_forward)
        self._limits = limits or Limits()
        self._folder = folder
        self._calibration, self._context_config = model.config.calibration, model.config.context
        self._wanted = wanted_threshold(threshold)
        self._threshold = threshold_of(self._calibration, self._wanted)
        self.views_config = model.config.views
        self._info = ModelInfo(
            name=model.config.name,
            revision=model.config.revision,
            device=str(self._runner.device),
            dtype=str(self._runner.dtype).removeprefix("torch."),
        )
        require_model(self._wanted, self._info, self.scoring)

    @property
    def info(self) -> ModelInfo:
        """Identity of the weights that answer, with device and precision."""
        return self._info

    @property
    def scoring(self) -> str:
        """Digest of how views and raw outputs become ``score``; with ``info.revision`` it says what a score means."""
        ours = self._calibration
        return scoring_digest(self.views_config, ours.head_weight, ours.map_weight, ours.bias, ours.map_top)

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
        return self._threshold if context is None else threshold_of(self._context_config, self._wanted, context)

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

        ``context``: what else says what is normal, made by this model. With a model that speaks the finding can be
        asked (``Finding.ask``). Raises UnreadableImage or ImageTooLarge (use ``stream`` to have them as records), and
        ContextMismatch for a context of another model.
        """
        context = self._own(context)
        prepared = prepare_one(source, self.views_config, self._limits)
        (output,) = self._outputs([prepared], context, talk=self.speaks)
        return self._finish(prepared, output, context)

    @property
    def speaks(self) -> bool:
        """Whether the model has a language side, so that its findings can be asked about."""
        return self._folder is not None and (self._folder / LANGUAGE_FOLDER).is_dir()

    @cached_property
    def reasoner(self) -> Reasoner:
        """The language side, loaded when first asked for. Raises ``WeightsError`` if there is none."""
        from anomaly_ov.models.reasoning.folder import load_reasoner

        if self._folder is None:
            what = f"model '{self._info.name}' has no folder to read its language side from"
            raise WeightsError(what, hint="use anomaly_ov.load(folder)")
        reasoner = load_reasoner(self._folder, self._runner.dtype, with_detector=False)
        reasoner.model.to(self._runner.device)
        return reasoner

    def inspect_views(self, pictures: Iterable[Any]) -> list[Finding]:
        """Findings on several pictures of one thing, each looked at whole, in order; for ``chat`` with ``views``.

        Raises what ``inspect`` raises, ``UsageError`` for no pictures.
        """
        several = list(pictures)
        if not several:
            raise UsageError("no views to look at", hint="give at least one picture")
        prepared = [prepare_one(one, self.views_config, self._limits, whole=len(several) > 1) for one in several]
        return [self._finish(*one, None) for one in zip(prepared, self._outputs(prepared, talk=True), strict=True)]

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

    def selection_map(self, picture: Any) -> npt.NDArray[np.float32]:
        """Which patches the token selector picked, (H, W) float32 in 0..1 on the significance map's pixels
        (``models.selection``): of a picture as ``inspect`` takes it, or of a finding that can be asked about.
        """
        from anomaly_ov.models.selection import selection_map

        finding = picture if isinstance(picture, Finding) else self.inspect_views([picture])[0]
        seen = finding.talk_or_raise().seen[0]
        final_NPD = seen.output.features.final_NPD
        return selection_map(self.expert.q_former, final_NPD, seen.output.map_Nhw, seen.geometry, self._runner.patch)

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
            forward=partial(self._outputs, context=context, talk=talk),
            finish=lambda prepared, output: (self._finish(prepared, output, context), prepared.preview_HW3),
            size=lambda prepared: prepared.count,
        )
        return self._run(stages, sources, batch_size)

    def _builder(self, batch_size: int, progress: Progress) -> Builder:
        from anomaly_ov.context.build import Builder

        encode = partial(self._encode, batch_size=batch_size, progress=progress)
        return Builder(encode, self._context_config, self._info.revision, self._limits)

    def _encode(self, sources: Sequence[Source], batch_size: int, progress: Progress) -> Iterator[Encoded | None]:
        """What contexts are made of, one per picture, None for one that cannot be read."""
        stages = Stages(
            prepare=partial(prepare, config=self.views_config, limits=self._limits),
            forward=partial(self._outputs, tokens=True),
            finish=self._encoded,
            size=lambda prepared: prepared.count,
        )
        for done, encoded in enumerate(self._run(stages, sources, batch_size), start=1):
            progress(done, len(sources))
            yield encoded

    def _run(
        self, stages: Stages[Source, Prepared, _Outputs | None, Result], sources: Iterable[Any], batch_size: int
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
        self, batch: list[Prepared], context: Context | None = None, *, tokens: bool = False, talk: bool = False
    ) -> list[_Outputs | None]:
        """Outputs per picture, None for one that could not be read; with features for those who ``talk``."""
        compare = tokens or context is not None
        wanted = compare or talk
        views = [prepared.views.pixels_NHW3 for prepared in batch if prepared.views is not None]
        outputs = iter(self._runner.forward(views, features=wanted))
        return [
            None if prepared.views is None else self._compared(prepared, next(outputs), context, compare, talk)
            for prepared in batch
        ]

    def _compared(
        self, prepared: Prepared, output: PictureOutput, context: Context | None, compare: bool, talk: bool
    ) -> _Outputs:
        if not compare or output.features is None or prepared.views is None:
            return _Outputs(output)
        from anomaly_ov.context.tokens import picture_tokens

        light = output if talk else replace(output, features=None)
        levels, grid = output.features.level_arrays(), output.features.grid_hw
        own = self._runner.token_maps, prepared.digest, self._runner.patch
        tokens = picture_tokens(levels, grid, prepared.views.geometry, *own)
        if context is None:
            return _Outputs(light, tokens)
        started = time.perf_counter()
        compared = context.compare(tokens)
        prepared.timing_ms["context"] = ms_since(started)
        return _Outputs(light, tokens.without_tokens(), compared)

    def _finish(self, prepared: Prepared, output: _Outputs | None, context: Context | None) -> Finding:
        """The record of one picture from its maps."""
        source = ContextInfo() if context is None else ContextInfo(context.kind, context.source, len(context.bank))
        if output is None or prepared.views is None:
            error, timing = prepared.error, prepared.timing_ms
            return Finding(prepared.id, prepared.image, self._info, timing_ms=timing, error=error, context=source)
        from anomaly_ov.images.regions import regions

        started = time.perf_counter()
        networks, geometry = output.networks, prepared.views.geometry
        expert = self._expert_alone(networks, geometry)
        score, map_HW, score_context = expert.score, expert.map_HW, None
        if context is not None and output.tokens is not None:
            judged = context.judge(output.compared, output.tokens, expert.score, expert.map_HW)
            score, map_HW, score_context, source = judged.score, judged.map_HW, judged.score_context, judged.info
        # Without a distance the score is the expert's alone, and so is what it is compared with.
        telling = None if score_context is None else context
        threshold = self.threshold_with(telling)
        found = regions(map_HW, self.map_threshold_with(telling), geometry.image_wh)
        timing = prepared.timing_ms | {"model": networks.ms, "maps": ms_since(started)}
        return Finding(
            id=prepared.id,
            image=prepared.image,
            model=self._info,
            score_raw=networks.score_raw,
            score=score,
            score_map=expert.score_map,
            score_expert=expert.score,
            score_context=score_context,
            threshold=threshold,
            anomalous=score >= threshold.value,
            level=level_of(networks.score_raw),
            map=MapInfo(None, expert.grid),
            regions=found,
            timing_ms={part: round(ms, 3) for part, ms in timing.items()},
            context=source,
            significance_map=map_HW,
            talk=None if networks.features is None else Talk([Seen(networks, score, geometry)], lambda: self.reasoner),
        )

    def _expert_alone(self, output: PictureOutput, geometry: Geometry) -> ExpertAlone:
        return expert_alone(output.map_Nhw, output.score_raw, geometry, self._calibration, self._runner.patch)

    def _encoded(self, prepared: Prepared, output: _Outputs | None) -> Encoded | None:
        if output is None or output.tokens is None or prepared.views is None:
            return None
        from anomaly_ov.context.build import Encoded

        score = self._expert_alone(output.networks, prepared.views.geometry).score
        return Encoded(output.tokens, float(logit(score)))

    def _own(self, context: Context | None) -> Context | None:
        """The context. Raises ``ContextMismatch`` for one of another model, ``ThresholdMismatch``."""
        require_context(self._wanted, context)
        if context is not None:
            context.require_model(self._info, self._context_config)
        return context
