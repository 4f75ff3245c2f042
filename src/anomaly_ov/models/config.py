"""Configuration of one model folder: encoder, expert, views and scoring. Frozen, validated, JSON-ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from anomaly_ov.images.views import ViewsConfig


@dataclass(frozen=True)
class EncoderConfig:
    """Which transformers network reads the views and which of its hidden states are kept.

    ``backbone``: the network's own transformers config as a mapping; its ``model_type`` picks the class.
    ``levels``/``final``: indices as in the network's ``hidden_states`` (0 = embeddings, k = after block k; for a
    convolutional backbone k = stage k, of EfficientNet-Lite block k). Nothing deeper than the largest index is built or
    run.
    ``grid_hw``: tokens are resampled to this grid; None keeps the network's own (required for convolutional ones).
    ``mean``/``std``: per-channel normalisation of RGB in 0..1.
    Default: SigLIP-so400m/14 at 384 as released (docs/reference-implementation.md, section 1).
    """

    backbone: dict[str, Any] = field(default_factory=dict)
    levels: tuple[int, ...] = (7, 13, 19, 25)
    final: int = 26
    image_size: int = 384
    grid_hw: tuple[int, int] | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if not self.levels or any(level < 0 for level in self.levels):
            raise ValueError("levels must name at least one hidden state, all >= 0")
        if self.final < 0 or self.image_size < 1:
            raise ValueError("final must be >= 0 and image_size >= 1")


@dataclass(frozen=True)
class ExpertConfig:
    """Shape and switches of the look-twice expert; the default is the released one (7,086,811 parameters).

    ``width``: D of the final feature; ``level_widths``: D of each level, None = ``width`` for all.
    ``look_back``, ``embeddings``, ``q_former``: the paper's three ablation switches.
    ``match``, ``passes``: options of docs/reference-implementation.md, section 10.
    """

    width: int = 1152
    hidden: int = 512
    grid_hw: tuple[int, int] = (27, 27)
    levels: int = 4
    level_widths: tuple[int, ...] | None = None
    look_back: bool = True
    embeddings: bool = True
    q_former: bool = True
    match: Literal["cosine", "covariance"] = "cosine"
    passes: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.levels, *self.grid_hw) < 1:
            raise ValueError("width, hidden, levels and grid_hw must be >= 1")
        if self.level_widths is not None and len(self.level_widths) != self.levels:
            raise ValueError(f"level_widths must have {self.levels} entries, one per level")


@dataclass(frozen=True)
class ModeConfig:
    """How evidence is weighed where one thing says what is normal, and what is usual there (``scoring.score``).

    ``own``: weight of the image's own patches and mirror image, ``matched``: how much of what its counterparts in
    reference images have of that is taken off, 0..1, ``expert``: of the logit of the expert's map. ``local``: weight of
    the map's most suspicious cells in the image's suspicion, ``head``: of the logit of the expert's image score.
    ``usual``: mean suspicion of normal images of the training sets, ``spread`` within and ``usual_spread`` between
    sets. ``step``: the threshold lies so many spreads beyond what is usual. ``source``: how that was found.
    """

    own: float = 1.0
    matched: float = 0.0
    expert: float = 0.0
    local: float = 1.0
    head: float = 0.0
    usual: float = -0.9
    spread: float = 0.15
    usual_spread: float = 0.25
    step: float = 1.0
    source: str = "uncalibrated"

    def __post_init__(self) -> None:
        if min(self.spread, self.usual_spread) <= 0:
            raise ValueError("spread and usual_spread must be > 0")
        if min(self.own, self.matched, self.expert, self.local, self.head) < 0 or self.matched > 1:
            raise ValueError("weights must be >= 0, and matched at most 1")
        if not (self.local or self.head):
            raise ValueError("local or head must be > 0: nothing would say how suspicious an image is")


@dataclass(frozen=True)
class ScoringConfig:
    """How evidence becomes the anomaly map, the score and the verdict; all figures fixed on training sets (model card).

    ``own_patches``, ``mirror``: whether each image is compared with its own other patches, and with its mirror image.
    ``top``: share of the map's cells, the most suspicious ones, that make the image's suspicion. ``whole_weight``:
    share of the base view in the map, the crops have the rest. ``slope``: how fast the score rises with spreads. Modes:
    ``alone`` (no other image), ``few`` (1 to 3 good references), ``references`` (4 or more), ``folder`` (the images of
    the same folder).
    """

    own_patches: bool = True
    mirror: bool = True
    top: float = 0.05
    whole_weight: float = 0.5
    slope: float = 1.5
    alone: ModeConfig = field(default_factory=ModeConfig)
    few: ModeConfig = field(default_factory=lambda: ModeConfig(own=0.5, matched=1.0))
    references: ModeConfig = field(default_factory=lambda: ModeConfig(own=0.5, matched=1.0))
    folder: ModeConfig = field(default_factory=ModeConfig)

    def __post_init__(self) -> None:
        if not (0 < self.top <= 1 and 0 <= self.whole_weight <= 1):
            raise ValueError("top must lie in (0, 1] and whole_weight in [0, 1]")
        if self.slope <= 0:
            raise ValueError("slope must be > 0")
        if not (self.own_patches or self.alone.expert or self.alone.head):
            raise ValueError("own_patches, alone.expert or alone.head is needed to score an image by itself")


RELEASED_SCORING = ScoringConfig(
    alone=ModeConfig(own=0, expert=1, local=0, head=1, usual=0, spread=1, usual_spread=1e-6, step=0), slope=1.0
)
"""Of a published expert: without references ``score`` is its own image score, the map's highest value."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything a model folder's ``config.json`` says; ``format`` is the version of the folder's layout."""

    name: str = "anomaly-ov"
    revision: str = ""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    format: Literal["anomaly-ov/2"] = "anomaly-ov/2"
