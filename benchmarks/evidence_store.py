"""Images looked at once and kept in memory, so that many contexts can be made of them and compared with them.

What is kept of an image: its tokens in half precision (up to 2 MB), its own evidence, the expert's map and score.
``Store.builder`` makes contexts of them and ``judged`` scores an image with one: the functions an inspector calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from anomaly_ov.context.build import Builder, Encoded, evidence_of
from anomaly_ov.context.context import Context
from anomaly_ov.context.tokens import own_patch_distances
from anomaly_ov.images.prepared import Prepared, prepare
from anomaly_ov.images.read import DEFAULT_LIMITS
from anomaly_ov.images.sources import Source
from anomaly_ov.look import Looked, look
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.models.engines.interface import Engine
from anomaly_ov.records import ModelInfo
from anomaly_ov.scoring.evidence import log_distance
from anomaly_ov.scoring.score import Judged, Usual, judge
from anomaly_ov.streaming import Stages, cores, in_turns

ABLATIONS = ("own_patches", "mirror", "expert")


def judged(one: Encoded, context: Context | None, config: ScoringConfig) -> Judged:
    """Score and map of a stored image, as an inspection makes them."""
    compared = None if context is None else context.compare(one.tokens)
    if context is None or compared is None:
        return judge(evidence_of(one, None, config), one.tokens.cells, config.alone, config, Usual())
    evidence = evidence_of(one, compared.references, config)
    return judge(evidence, one.tokens.cells, context.mode(compared.kind), config, compared.usual)


def ablated(config: ScoringConfig, without: str) -> ScoringConfig:
    """``config`` without one kind of evidence; where an image by itself then has none, the expert's map serves."""
    if without == "mirror":
        return replace(config, mirror=False)
    if without == "own_patches":
        alone = replace(config.alone, own=0, expert=config.alone.expert or 1.0, local=config.alone.local or 1.0)
        return replace(config, own_patches=False, alone=alone)

    def blind(mode: ModeConfig) -> ModeConfig:
        return replace(mode, expert=0, head=0, local=mode.local or 1.0)

    modes = {name: blind(getattr(config, name)) for name in ("alone", "few", "references", "folder")}
    return replace(config, **modes)


@dataclass(frozen=True)
class Store:
    """Looks at images with ``engine`` and keeps what was seen, by what their source reads (the path).

    ``config``: by which evidence is weighed; ``without`` gives the same store with another one. ``precision``: in which
    tokens are kept.
    """

    engine: Engine
    config: ScoringConfig
    kept: dict[str, Encoded | None]
    precision: type[np.floating]

    @classmethod
    def of(cls, engine: Engine, precision: type[np.floating] = np.float16) -> Store:
        """An empty one."""
        return cls(engine, engine.config.scoring, {}, precision)

    def without(self, ablation: str) -> Store:
        """The same images, one kind of evidence left out."""
        return replace(self, config=ablated(self.config, ablation))

    @property
    def info(self) -> ModelInfo:
        """Which model, where, in what precision."""
        config = self.engine.config
        return ModelInfo(config.name, config.revision, self.engine.device, self.engine.dtype)

    @property
    def builder(self) -> Builder:
        """Makes contexts of stored images; those not stored yet are looked at first."""
        return Builder(self.encode, self.config, self.engine.config.revision, DEFAULT_LIMITS)

    @property
    def megabytes(self) -> float:
        """What the tokens take."""
        tokens = (one.tokens.tokens for one in self.kept.values() if one is not None)
        return sum(scales.whole.nbytes + scales.detail.nbytes for scales in tokens) / 2**20

    def add(self, sources: Iterable[Source], done: Callable[[], None] = lambda: None) -> None:
        """Looks at what is not stored yet; ``done`` is called after each image."""
        missing = {str(one.item): one for one in sources if str(one.item) not in self.kept}
        stages = Stages(
            prepare=partial(prepare, config=self.engine.config.views, limits=DEFAULT_LIMITS),
            forward=self._looked,
            finish=lambda prepared, looked: self._kept(looked),
            size=lambda prepared: prepared.count,
        )
        with ThreadPoolExecutor(min(4, cores())) as pool:
            found = in_turns(stages, missing.values(), 8, self.engine.views_per_forward, pool)
            for key, one in zip(missing, found, strict=True):
                self.kept[key] = one
                done()

    def encode(self, sources: Sequence[Source]) -> Iterator[Encoded | None]:
        """In order, None for an image that cannot be read: what ``Builder`` asks for."""
        self.add(sources)
        return (self.image(source) for source in sources)

    def image(self, source: Source) -> Encoded | None:
        """A stored image, None if it could not be read. Raises ``KeyError`` if it was never added."""
        one = self.kept[str(source.item)]
        if one is None:
            return None
        tokens, own = one.tokens.tokens.map(lambda values: values.astype(np.float32)), one.tokens.own
        symmetry = one.tokens.symmetry if self.config.mirror else 0.0
        if not self.config.own_patches:
            own = own.map(np.zeros_like)
        elif not self.config.mirror and self.engine.config.scoring.mirror:
            own = own_patch_distances(tokens, one.tokens.cells).map(log_distance)
        return replace(one, tokens=replace(one.tokens, tokens=tokens, own=own, symmetry=symmetry))

    def _looked(self, batch: list[Prepared]) -> list[Looked | None]:
        looked = iter(look(self.engine, [one for one in batch if one.views is not None], self.engine.config.scoring))
        return [None if one.views is None else next(looked) for one in batch]

    def _kept(self, looked: Looked | None) -> Encoded | None:
        if looked is None:
            return None
        tokens = looked.tokens.tokens.map(lambda values: values.astype(self.precision))
        return Encoded(replace(looked.tokens, tokens=tokens), looked.output.map_Nhw.copy(), looked.output.score_raw)
