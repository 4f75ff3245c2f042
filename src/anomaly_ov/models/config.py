"""Configuration of one model folder: encoder, expert, views and calibration. Frozen, validated, JSON-ready."""

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
    Default: SigLIP-so400m/14 at 384 as released (reference, section 1).
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
    ``match``, ``passes``: options of reference section 1, item 4.
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
class CalibrationConfig:
    """How raw outputs become ``score`` and what it is compared with; all fixed on training sets (see the model card).

    ``score = sigmoid(bias + head_weight * logit(score_raw) + map_weight * logit(score_map))``.
    ``map_top``: ``score_map`` is the mean of this fraction of the map's highest values.
    ``threshold``: of ``score``; ``map_threshold``: of the map, where regions begin.
    """

    head_weight: float = 1.0
    map_weight: float = 0.0
    bias: float = 0.0
    map_top: float = 0.01
    threshold: float = 0.5
    threshold_source: str = "uncalibrated"
    map_threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.map_top <= 1:
            raise ValueError("map_top must lie in (0, 1]")
        if not (0 <= self.threshold <= 1 and 0 <= self.map_threshold <= 1):
            raise ValueError("thresholds must lie in [0, 1]")


@dataclass(frozen=True)
class ProjectionPart:
    """One fitted linear map of ``models.projection``: from the encoder's ``levels`` (positions, 0 = the shallowest that
    is kept), concatenated, to ``width`` values.
    """

    levels: tuple[int, ...]
    width: int

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 0 or self.width < 1:
            raise ValueError("levels must name at least one level, all >= 0, and width must be >= 1")


@dataclass(frozen=True)
class ContextConfig:
    """How distance to a context becomes scores, and how it is fused with the expert; fixed on training sets.

    ``whole_top``, ``detail_top``: of the cells of the base view and of the crops, the share with the largest distances
    that makes a picture's distance. ``half``: a distance of ``half`` times the context's usual one scores 0.5.
    ``usual`` and ``spread``: median distance of normal pictures of a typical set and spread of its logarithm;
    ``usual_spread``: how much the logarithm of ``usual`` varies from object to object. ``expert_usual``,
    ``expert_spread`` and ``expert_usual_spread``: the same of the logit of the expert's score. The last six are
    priors, which count the more the fewer references a context has.
    ``score = sigmoid(bias + expert_weight * e + context_weight * c)`` with ``e`` the excess of ``logit(score_expert)``
    and ``c`` that of the distance's logarithm over what is usual in the context, each in spreads; ``map_*`` do the same
    for each place of the map.
    """

    whole_top: float = 0.3
    detail_top: float = 0.1
    half: float = 2.0
    usual: float = 0.2
    spread: float = 0.25
    usual_spread: float = 0.5
    expert_usual: float = 0.0
    expert_spread: float = 0.5
    expert_usual_spread: float = 0.5
    bias: float = 0.0
    expert_weight: float = 0.0
    context_weight: float = 1.0
    threshold: float = 0.5
    threshold_source: str = "uncalibrated"
    map_bias: float = 0.0
    map_expert_weight: float = 0.0
    map_context_weight: float = 1.0
    map_threshold: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.whole_top <= 1 and 0 < self.detail_top <= 1):
            raise ValueError("whole_top and detail_top must lie in (0, 1]")
        spreads = (self.spread, self.usual_spread, self.expert_spread, self.expert_usual_spread)
        if min(self.usual, self.half, *spreads) <= 0:
            raise ValueError("usual, half and the spreads must be > 0")
        if not (0 <= self.threshold <= 1 and 0 <= self.map_threshold <= 1):
            raise ValueError("thresholds must lie in [0, 1]")


@dataclass(frozen=True)
class ModelConfig:
    """Everything a model folder's ``config.json`` says; ``format`` is the version of the folder's layout.

    ``projection``: fitted maps that make features comparable between pictures; none = raw levels.
    """

    name: str = "anomaly-ov"
    revision: str = ""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    projection: tuple[ProjectionPart, ...] = ()
    context: ContextConfig = field(default_factory=ContextConfig)
    format: Literal["anomaly-ov/1"] = "anomaly-ov/1"
