"""From evidence to the anomaly map, the score and so the verdict: one pipeline for every way of inspecting.

1. Evidence is added cell by cell as logarithms (a product of distances), so no unit matters::

       value = [log reference distance] + weight * (own - matched * counterpart's own) + expert * logit(expert's map)

   with ``matched`` growing with the number of references R as R / (R + 2): what is unique in the references too is
   not suspicious for being unique. ``weight`` is the mode's; the more symmetric the image and the fewer its references,
   the nearer it is to 1 (as 2 / (R + 2)), because the mirror image is then as good as one reference.
2. The image's suspicion is the mean of its most suspicious share ``top`` of cells (a small defect that is strong or a
   large one that is soft), plus ``head`` times the logit of the expert's image score.
3. It is told in spreads beyond what is usual of normal images: of the training sets, drawn towards the references' own
   leave-one-out figures the more there are of them. ``step`` spreads beyond it lies the threshold, score 0.5.
4. The anomaly map keeps the cells' differences and its highest value *is* the score. So an image is anomalous exactly
   when a region of its map reaches the threshold, and one scale serves colours, regions and verdict in every mode.

Legend: N views, h w cells of a view, H W pixels of the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.records import ContextKind, Mode
from anomaly_ov.scoring.anomaly_map import blended_cells, blended_pixels, map_score
from anomaly_ov.scoring.cells import Cells, Floats
from anomaly_ov.scoring.evidence import Evidence, log_distance

PROBABILITY_FLOOR = 1e-6
"""Probabilities are moved this far from 0 and 1 before their logit is taken."""

FEW = 4
"""From so many references on their own leave-one-out figures say what is usual."""

WITNESSES = 2.0
"""References at which the counterpart's own evidence counts half."""

DOUBT = 0.5
"""The training sets' mean counts at least as much as so many references: these were often taken in one moment."""

PRIOR_SPREAD = 1.0
"""The training sets' spread counts as much as so many references. With 4 to 16 references and this little of the prior
false alarms differ least between sets (docs/log.md)."""

TAIL = 0.75
"""A spread known from few images is told as larger: by this over their number, Student's tail at 10 to 15 %."""

MOST_USUAL = 1.5
"""References cannot say that more is usual than this many ``usual_spread`` above the training sets' mean."""


@dataclass(frozen=True)
class Usual:
    """What is usual among references, each compared with the others: mean and standard deviation of ``suspicion`` over
    ``count`` of them.
    """

    value: float = 0.0
    spread: float = 0.0
    count: int = 0

    @classmethod
    def of(cls, suspicions: Sequence[float], *, robust: bool = False) -> Usual:
        """``robust``: of a folder, some of whose images are anomalous: median, and spread of the lower half."""
        values = np.asarray(suspicions, np.float64)
        if not values.size:
            return cls()
        if robust:
            low, middle = np.quantile(values, [0.16, 0.5])
            return cls(float(middle), float(middle - low), values.size)
        return cls(float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0, values.size)


@dataclass(frozen=True)
class Judged:
    """``score`` in 0..1, the highest value of ``map_HW`` (float32, 0..1). ``beyond``: suspicion in spreads beyond the
    usual; ``times``: the same as a multiple of the usual distance.
    """

    score: float
    map_HW: Floats
    beyond: float
    times: float


def mode_of(context: ContextKind, references: int) -> Mode:
    """Which of ``ScoringConfig``'s modes judges an image beside so many references of its kind."""
    if context == "none":
        return "alone"
    if context == "folder":
        return "folder"
    return "few" if references < FEW else "references"


def cell_values(evidence: Evidence, cells: Cells, mode: ModeConfig) -> Floats:
    """(N, h, w) float32: all evidence of each cell as one number, higher where more suspicious (step 1)."""
    values_Nhw = np.zeros(cells.shown_Nhw.shape, np.float32)
    found = evidence.references
    if found is not None:
        values_Nhw += cells.joined(found.distance.map(log_distance))
    if evidence.own is not None and mode.own:
        count = 0 if found is None else found.count
        weight = mode.own + (1 - mode.own) * evidence.symmetry * (1 - witnessed(count))
        values_Nhw += np.float32(weight) * cells.joined(evidence.own)
        if found is not None and mode.matched:
            values_Nhw -= np.float32(weight * mode.matched * witnessed(count)) * cells.joined(found.counterpart)
    if mode.expert:
        values_Nhw += np.float32(mode.expert) * logit(evidence.expert_Nhw).astype(np.float32)
    return values_Nhw


def witnessed(references: int) -> float:
    """0..1: how far so many references say what the image's own evidence is worth."""
    return references / (references + WITNESSES)


def suspicion(values_Nhw: Floats, head: float, cells: Cells, mode: ModeConfig, config: ScoringConfig) -> float:
    """One number for the image (step 2), with no scale of its own."""
    found = mode.head * float(logit(head)) if mode.head else 0.0
    if mode.local:
        blended_rc = blended_cells(values_Nhw, cells.geometry, base_weight=config.whole_weight, patch=cells.patch)
        found += mode.local * map_score(blended_rc, config.top)
    return found


def judge(evidence: Evidence, cells: Cells, mode: ModeConfig, config: ScoringConfig, usual: Usual) -> Judged:
    """Score and map of one image; ``usual``: of the references it was compared with, empty where there are none."""
    values_Nhw = cell_values(evidence, cells, mode)
    found = suspicion(values_Nhw, evidence.head, cells, mode, config)
    value, spread = expected(usual, mode)
    map_HW = blended_pixels(values_Nhw, cells.geometry, base_weight=config.whole_weight, patch=cells.patch)
    # The highest place gets what the image as a whole gets.
    map_HW += np.float32(found - value) - map_HW.max()
    map_HW = sigmoid(np.float32(config.slope) * (map_HW / np.float32(spread) - np.float32(mode.step)))
    return Judged(float(map_HW.max()), map_HW, (found - value) / spread, math.exp(min(found - value, 20.0)))


def expected(usual: Usual, mode: ModeConfig) -> tuple[float, float]:
    """(mean, standard deviation) of a new normal image's suspicion: the references' figures and the training sets'.

    Objects lie ``usual_spread`` around ``usual``, images of an object ``spread`` around it. The references' own figures
    count the more the more there are, from two on; what they leave open of the mean, and their own small number, widen
    the spread.
    """
    if usual.count < 2:  # one is never compared with another
        return mode.usual, math.hypot(mode.spread, mode.usual_spread)
    freedom = PRIOR_SPREAD + usual.count - 1
    variance = (PRIOR_SPREAD * mode.spread**2 + (usual.count - 1) * usual.spread**2) / freedom
    unknown = (doubt := max(DOUBT, variance / mode.usual_spread**2)) / (usual.count + doubt)
    own = min(usual.value, mode.usual + MOST_USUAL * mode.usual_spread)
    spread = math.sqrt(variance * (1 + 1 / usual.count) + (unknown * mode.usual_spread) ** 2)
    return (1 - unknown) * own + unknown * mode.usual, spread * (1 + TAIL / freedom)


def logit(probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """log(p / (1 - p)) of probabilities kept ``PROBABILITY_FLOOR`` away from 0 and 1."""
    inside = np.clip(np.asarray(probability, dtype=np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x)), elementwise, in the values' own type, without overflow."""
    return np.asarray(1 / (1 + np.exp(np.minimum(-values, np.asarray(80, values.dtype)))), values.dtype)


def expert_map_score(evidence: Evidence, cells: Cells, config: ScoringConfig) -> float:
    """Mean of the expert's most suspicious cells, 0..1; a documented statistic, no part of the score by itself."""
    blended_rc = blended_cells(evidence.expert_Nhw, cells.geometry, base_weight=config.whole_weight, patch=cells.patch)
    return map_score(blended_rc, config.top)


def grid_of(cells: Cells) -> tuple[int, int]:
    """Rows and columns of the map's finest layer."""
    ones_Nhw = np.ones(cells.shown_Nhw.shape, np.float32)
    rows, columns = blended_cells(ones_Nhw, cells.geometry, patch=cells.patch).shape
    return rows, columns
