"""One look at each image of a batch: encoder, expert and mirror images, and what follows from the image alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from anomaly_ov.context.mirror import Flip, mirrored_views, worth_mirroring
from anomaly_ov.context.tokens import ImageTokens, image_tokens
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.prepared import Prepared
from anomaly_ov.models.arrays import PictureArrays
from anomaly_ov.models.config import ScoringConfig
from anomaly_ov.models.engines.interface import Engine, forward
from anomaly_ov.scoring.cells import Floats
from anomaly_ov.scoring.evidence import Evidence
from anomaly_ov.scoring.score import Usual, judge


@dataclass(frozen=True)
class Looked:
    """``output``: of the networks; ``tokens``: what other images are compared with, the image's own evidence in it."""

    output: PictureArrays
    tokens: ImageTokens

    def evidence(self, config: ScoringConfig) -> Evidence:
        """All that is known of the image by itself."""
        own, symmetry = self.tokens.own if config.own_patches else None, self.tokens.symmetry
        return Evidence(own, self.output.map_Nhw, self.output.score_raw, symmetry=symmetry)

    def without_features(self, *, keep: bool) -> Looked:
        """For later: without the tokens, and without the networks' features unless they are to be kept."""
        output = self.output if keep else replace(self.output, features=None)
        return Looked(output, self.tokens.without_tokens())


def look(engine: Engine, images: Sequence[Prepared], config: ScoringConfig) -> list[Looked]:
    """One per image; ``images``: those that could be read."""
    views = [one.views for one in images if one.views is not None]
    outputs = forward(engine, [one.pixels_NHW3 for one in views], features=True)
    flips = [_flips(one.pixels_NHW3[0], config) for one in views]
    mirrored = [mirrored_views(one.pixels_NHW3[0], own) for one, own in zip(views, flips, strict=True) if own]
    # All mirror images of the batch pass together.
    levels = engine.encode(np.concatenate(mirrored)).levels_NPD if mirrored else ()
    found, start = [], 0
    for one, prepared, output, own in zip(views, images, outputs, flips, strict=True):
        assert output.features is not None
        mirrors = [level[start : start + len(own)] for level in levels] if own else []
        start += len(own)
        tokens = image_tokens(
            output.features.levels_NPD,
            output.features.grid_hw,
            one.geometry,
            prepared.digest,
            patch=engine.patch,
            own_patches=config.own_patches,
            mirrored_FPL=mirrors,
        )
        found.append(Looked(output, tokens))
    return found


def score_alone(
    levels_NPL: Sequence[Floats],
    map_Nhw: Floats,
    head: float,
    geometry: Geometry,
    config: ScoringConfig,
    patch: float | None,
) -> float:
    """The score of an image by itself, 0..1, without its mirror images; arguments as in ``image_tokens``."""
    grid_hw = (map_Nhw.shape[1], map_Nhw.shape[2])
    own_patches = config.own_patches and bool(config.alone.own)
    tokens = image_tokens(levels_NPL, grid_hw, geometry, "", patch=patch, own_patches=own_patches)
    evidence = Evidence(tokens.own if own_patches else None, map_Nhw, head)
    return judge(evidence, tokens.cells, config.alone, config, Usual()).score


def _flips(base_HW3: np.ndarray, config: ScoringConfig) -> tuple[Flip, ...]:
    return worth_mirroring(base_HW3) if config.mirror and config.own_patches else ()
