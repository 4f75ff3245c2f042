"""A context: what is normal here, according to a folder's own images or to images known to be good.

Made by ``Inspector.context`` and ``Inspector.folder_context``, saved by ``context_file``; handed to ``inspect`` and
``stream``. It belongs to one model, whose revision it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from anomaly_ov.context.bank import Bank
from anomaly_ov.context.kinds import UNLIKE, apart
from anomaly_ov.context.tokens import ImageTokens
from anomaly_ov.errors import ContextMismatch
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.records import ContextKind, ModelInfo
from anomaly_ov.scoring.cells import Floats
from anomaly_ov.scoring.evidence import References
from anomaly_ov.scoring.score import Usual, mode_of


@dataclass(frozen=True)
class Compared:
    """One image against a context. ``kind``: which of the context's kinds of image it was compared with; ``usual``:
    what is usual there; ``unlike``: whether it looks like none of the references.
    """

    references: References
    usual: Usual
    kind: int
    unlike: bool


@dataclass(frozen=True)
class Context:
    """``kind``: folder or references. ``source``: where the images came from. ``revision``: of the model.

    ``suspicion_R``: of each reference compared with the others (``scoring.score.suspicion``), NaN where that was not
    measured. ``notes``: what a person should know about how it came about, one sentence each.
    """

    bank: Bank
    suspicion_R: Floats
    kind: ContextKind
    source: str
    revision: str
    config: ScoringConfig
    notes: tuple[str, ...] = ()

    def require_model(self, model: ModelInfo, config: ScoringConfig) -> None:
        """Raises ``ContextMismatch`` unless it was made by this model, with this scoring (``config``)."""
        made, ours = (self.revision, self.config), (model.revision, config)
        if made != ours:
            what = "another scoring of the model" if made[0] == ours[0] else f"model revision {made[0]}"
            raise ContextMismatch(
                f"the context of {self.source} was made with {what}, this is {model.name} {ours[0]}",
                hint="build it again with this model: anomaly-ov context build",
            )

    @property
    def folder(self) -> bool:
        """Whether it is a folder's own."""
        return self.kind == "folder"

    def mode(self, kind: int) -> ModeConfig:
        """How evidence is weighed beside the references of a kind."""
        found: ModeConfig = getattr(self.config, mode_of(self.kind, len(self.bank.members(kind))))
        return found

    def compare(self, image: ImageTokens) -> Compared | None:
        """None when nothing is left to compare the image with: no reference but copies of it."""
        kind = self.bank.kind_of(image)
        if kind is None:
            return None
        found = self.bank.compare(image, kind)
        if found is None:
            return None
        unlike = not self.folder and apart(found.distance.whole) > UNLIKE
        return Compared(found, self.usual[kind], kind, unlike)

    @cached_property
    def usual(self) -> tuple[Usual, ...]:
        """What is usual in each kind."""
        return tuple(self._usual(kind) for kind in range(self.bank.kinds))

    def _usual(self, kind: int) -> Usual:
        found = self.suspicion_R[self.bank.members(kind)]
        return Usual.of(found[~np.isnan(found)].tolist(), robust=self.folder)
