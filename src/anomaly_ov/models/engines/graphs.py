"""An engine over two graphs, encoder and expert, whatever runtime runs them. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from anomaly_ov.models.arrays import ExpertPart, FeatureArrays, Floats, Pixels
from anomaly_ov.models.config import ModelConfig
from anomaly_ov.models.engines.graph_info import COMPUTED, GraphInfo
from anomaly_ov.models.engines.interface import in_parts, joined, out_of_memory, require_views

Run = Callable[[list[np.ndarray]], list[Floats]]
"""Inputs to outputs of a graph, in its order. ``MemoryError`` when there is too little memory."""


class GraphEngine:
    """``interface.Engine`` on the CPU. ``encoder``, ``expert``: ``models.export.traced`` says what goes in and out."""

    device = "cpu"

    def __init__(
        self, name: str, config: ModelConfig, info: GraphInfo, encoder: Run, expert: Run, views_per_forward: int
    ) -> None:
        self.name = name
        self.config = config
        self.dtype = COMPUTED[info.precision]
        self.views_per_forward = views_per_forward
        self.patch = info.patch
        self._grid_hw = info.grid_hw
        self._encoder, self._expert = encoder, expert

    def encode(self, pixels_NHW3: Pixels) -> FeatureArrays:
        """See ``Engine.encode``."""
        side = self.config.encoder.image_size
        if pixels_NHW3.dtype != np.uint8 or pixels_NHW3.ndim != 4 or pixels_NHW3.shape[1:] != (side, side, 3):
            raise ValueError(
                f"pixels must be uint8 (N, {side}, {side}, 3), not {pixels_NHW3.dtype} {pixels_NHW3.shape}"
            )
        try:
            parts, self.views_per_forward = in_parts(self._encode_once, pixels_NHW3, self.views_per_forward)
        except MemoryError:
            raise out_of_memory(self.device) from None
        return joined(parts)

    def expert(self, features: FeatureArrays, views_per_image: Sequence[int]) -> list[ExpertPart]:
        """See ``Engine.expert``."""
        require_views(views_per_image, len(features))
        ends = np.cumsum(views_per_image).tolist()
        try:
            return [
                self._judge(features.views(end - count, end)) for end, count in zip(ends, views_per_image, strict=True)
            ]
        except MemoryError:
            raise out_of_memory(self.device) from None

    def _encode_once(self, pixels_NHW3: Pixels) -> FeatureArrays:
        final_NPD, *levels_NPD = self._encoder([np.ascontiguousarray(pixels_NHW3)])
        return FeatureArrays(final_NPD, tuple(levels_NPD), self._grid_hw)

    def _judge(self, features: FeatureArrays) -> ExpertPart:
        map_Nhw, score_1, local_NQD, global_1D = self._expert([features.final_NPD, *features.levels_NPD])
        return ExpertPart(map_Nhw, float(score_1[0]), local_NQD, global_1D[0])
