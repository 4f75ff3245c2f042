"""Visual token selector: from all patches of a view to its four most telling tokens.

Each quadrant's query is the mean of its patches weighted by the look-twice map; the "Q-Former", one single-head
attention without output projection or residual, lets the four queries read the view again. Follows the released code
(docs/reference-implementation.md, section 4), paper section 3.3. The arrangement is ours: the four weighted poolings
are one matrix product, and the key projection is folded into the four queries, q . (W x + b) = (q W) . x + q . b, so
that no (N, P, E) keys exist.

Underflow: the weights are a softmax of the *logarithm* of the map over a quadrant, which is the exact limit of "divide
by the pooled map". A map that is 0 in its type still gives the weights its true values would give (the released code
gives NaN); a constant one gives equal weights.

Legend: N views, P = h * w patches, D width, E hidden width, Q = 4 quadrants in row-major order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anomaly_ov.models.look_twice import linear

QUADRANTS = 4
OUTSIDE = -1e30
"""Logarithm of a patch's weight outside its quadrant. Minus infinity would say the same, but ONNX Runtime's
ReduceLogSumExp underflows after an infinite first value (1.32)."""


@dataclass(frozen=True)
class Selection:
    """``local_NQD``: the selected tokens. ``query_NQD``: the weighted means they started from.

    ``log_pooled_NQ``: logarithm of the map's mean over each quadrant, always finite.
    """

    local_NQD: Tensor
    query_NQD: Tensor
    log_pooled_NQ: Tensor


def quadrants(grid_hw: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """(Q, P) bool: the bins of 2 x 2 adaptive average pooling. On odd sides they share the middle row or column."""
    rows, columns = (_halves(size, device) for size in grid_hw)
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(QUADRANTS, -1)


def _halves(size: int, device: torch.device | None) -> Tensor:
    """(2, size) bool: the first and the last ceil(size / 2) positions."""
    position = torch.arange(size, device=device)
    half = (size + 1) // 2
    return torch.stack((position < half, position >= size - half))


class Selector(nn.Module):
    """``attend=False`` is the paper's "without Q-Former": the weighted means are the local tokens, no parameters."""

    def __init__(self, width: int, hidden: int, grid_hw: tuple[int, int], attend: bool = True) -> None:
        super().__init__()
        self.grid_hw = grid_hw
        self.attend = attend
        if attend:
            self.query_proj = nn.Linear(width, hidden)
            self.key_proj = nn.Linear(width, hidden)

    def forward(self, tokens_NPD: Tensor, log_map_NP: Tensor) -> Selection:
        """Final features (N, P, D) and the logarithm of the map (N, P), both float32 or wider -> ``Selection``.

        To be called with autocast off: attention logits rounded to half would move the tokens more than all else.
        """
        weight_NQP, log_total_NQ = self._pooling(log_map_NP)
        query_NQD = torch.bmm(weight_NQP, tokens_NPD)
        local_NQD = torch.bmm(self.attention(query_NQD, tokens_NPD), tokens_NPD) if self.attend else query_NQD
        patches_per_bin = math.prod((size + 1) // 2 for size in self.grid_hw)  # the same for all four, odd or even
        return Selection(local_NQD, query_NQD, log_total_NQ - math.log(patches_per_bin))

    def weights(self, tokens_NPD: Tensor, log_map_NP: Tensor) -> Tensor:
        """What each patch counts in each local token: (N, Q, P), rows summing to 1. Arguments as for ``forward``."""
        weight_NQP, _ = self._pooling(log_map_NP)
        return self.attention(torch.bmm(weight_NQP, tokens_NPD), tokens_NPD) if self.attend else weight_NQP

    def _pooling(self, log_map_NP: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the four means (N, Q, P), and the logarithm of the map's sum over each quadrant (N, Q)."""
        bins_QP = quadrants(self.grid_hw, log_map_NP.device)
        log_weight_NQP = log_map_NP.unsqueeze(1).masked_fill(~bins_QP, OUTSIDE)
        log_total_NQ = log_weight_NQP.logsumexp(-1)
        return (log_weight_NQP - log_total_NQ.unsqueeze(-1)).exp(), log_total_NQ

    def attention(self, query_NQD: Tensor, tokens_NPD: Tensor) -> Tensor:
        """Attention of each query over its view's patches: (N, Q, P), rows summing to 1."""
        query_NQE = linear(query_NQD, self.query_proj) * self.key_proj.out_features**-0.5
        key_ED, bias_E1 = self.key_proj.weight.to(query_NQE.dtype), self.key_proj.bias.to(query_NQE.dtype).unsqueeze(-1)
        logits_NQP = torch.bmm(query_NQE @ key_ED, tokens_NPD.transpose(1, 2)) + query_NQE @ bias_E1
        attention_NQP: Tensor = logits_NQP.softmax(-1)
        return attention_NQP
