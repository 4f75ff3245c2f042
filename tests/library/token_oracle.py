"""How many tokens a picture takes in the language model, kind by kind; the tests compare layouts with it."""

from __future__ import annotations

from dataclasses import dataclass

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.unpad import MAX_VIEWS, QUERIES_SIDE, unpad

PROMPT_TOKENS = 6


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one picture by kind; ``total`` is what its marker expands to."""

    image: int
    newline_in_image: int
    prompt: int
    global_anomaly: int
    local_anomaly: int
    newline_in_anomaly: int

    @property
    def total(self) -> int:
        """All of them, text around the picture not included."""
        anomaly = self.global_anomaly + self.local_anomaly + self.newline_in_anomaly
        return self.image + self.newline_in_image + self.prompt + anomaly


def token_counts(
    geometry: Geometry, patches_hw: tuple[int, int], max_views: int = MAX_VIEWS, prompt: int = PROMPT_TOKENS
) -> TokenCounts:
    """Tokens of one picture; ``prompt``: tokens of the sentence that tells how suspicious it is.

    With crops: base view without newline, crops with one per row, four local tokens per view, the crops' in
    stitched rows of two per crop with one newline each. Multi-image (no crops): one newline after the view and one
    after its four local tokens.
    """
    patches = patches_hw[0] * patches_hw[1]
    local = geometry.views * QUERIES_SIDE**2
    if geometry.views == 1:
        return TokenCounts(patches, 1, prompt, 1, local, 1)
    rows, columns = unpad(geometry, patches_hw, max_views).final_hw
    return TokenCounts(patches + rows * columns, rows, prompt, 1, local, QUERIES_SIDE * geometry.grid_wh[1])
