"""Plain CLIP, asked about two states of an object (Radford et al., arXiv 2103.00020, section 3.1).

* sentences: ``two`` = one per state, or ``ensemble`` = WinCLIP's (called CLIP-AC in the AnomalyCLIP paper).
* score: softmax over both states of cosine / temperature, the temperature learned with the CLIP.
* map: the same with each patch token, through the final norm and the projection. CLIP was not trained for it; the
  AnomalyCLIP paper measures it as a baseline. Patches may well be anti-correlated with what they show.
* picture: as CLIP was released, short side and centre crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anomaly_ov_lab.baselines.clip_towers import ClipTowers, compositional, probabilities, two_sentences
from anomaly_ov_lab.baselines.detector import ClipScores, revision_of
from anomaly_ov_lab.baselines.pictures import Fit

SENTENCES = {"two": two_sentences, "ensemble": compositional}


@dataclass(frozen=True)
class ClipConfig:
    """``sentences``: two or ensemble. ``fit``: see ``pictures``."""

    sentences: Literal["two", "ensemble"] = "two"
    fit: Fit = "crop"


class ClipJudge:
    """Plain CLIP; a ``detector.ClipMethod``."""

    smoothing = 0.0

    def __init__(self, towers: ClipTowers, config: ClipConfig | None = None) -> None:
        self.towers, self.config = towers, config or ClipConfig()
        self.revision = revision_of(towers.revision, self.config)
        self.side, self.fit = towers.side, self.config.fit
        self.name = "clip" if self.config.sentences == "two" else "clip-ensemble"

    def judge(self, pixels_B3SS: Tensor, objects: Sequence[str]) -> ClipScores:
        """Scores and maps, see the module's text."""
        tokens_BTE = self.towers.project(self.towers.run(self.towers.embed(pixels_B3SS)))
        sentences = SENTENCES[self.config.sentences]
        states_B2E = torch.stack([self.towers.states(sentences(name)) for name in objects])
        likely_BT = probabilities(tokens_BTE, states_B2E, self.towers.temperature)
        cells = self.side // self.towers.patch
        return ClipScores(likely_BT[:, 0], likely_BT[:, 1:].reshape(-1, cells, cells))
