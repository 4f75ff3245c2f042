"""The bank: tokens of reference pictures, what is usual among them, and how far a picture lies from them.

A picture is compared with the references of its own kind that look most like it as a whole; each of its cells gets the
mean of its lowest distances to them (``nearest``). References enter with a fixed number of tokens, drawn by their own
digest, so cost per cell is constant and a bank does not depend on the order in which it was filled.

Distances have no scale of their own: a knitted cloth lies farther from itself than a machined face. So the references
are compared with each other, each with itself left out, and everything is told in multiples of what is usual there.

Legend: R references of T tokens, D token width, E descriptor width, P cells of the picture that is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anomaly_ov.context.nearest import lowest_mean, nearest
from anomaly_ov.context.tokens import PictureTokens

NEAR = 48
"""References that a picture is compared with."""

TOKEN_BUDGET = NEAR * 128
"""Tokens that a picture is compared with; few references keep more tokens each than many do."""

MOST_TOKENS = 2048
AGREE = 0.6
"""Share of a folder's references, the nearest ones, whose distances are averaged: some of them may be anomalous."""

AGREE_GOOD = 0.1
"""The same of references known to be good, at least one: what one of them shows is normal."""

TWIN = 0.5
"""In a folder, a reference nearer than this share of the median is a near-copy: no witness of what is normal."""


@dataclass(frozen=True)
class Reference:
    """One candidate for a bank. ``expert_logit``: what the expert alone says of it."""

    tokens_TD: Tensor
    descriptor_E: Tensor
    digest: str
    expert_logit: float


@dataclass(frozen=True)
class Usual:
    """What is usual among the references of one kind: medians of ``picture_distance`` and of the expert's logit.

    ``distance_spread``: of the distance's logarithm, ``expert_spread``: of the expert's logit; each half the width
    between the 16 % and 84 % quantiles, a standard deviation where values are normally distributed.
    ``count``: references behind these figures; the context's prior counts against few of them.
    """

    distance: float
    expert_logit: float
    count: int
    distance_spread: float = 0.0
    expert_spread: float = 0.0


@dataclass(frozen=True)
class Bank:
    """References of one or several kinds. ``drop_twins``: near-copies and copies never serve (a folder's own pictures).

    ``usual``: one entry per kind; ``kind_R`` says which kind a reference belongs to.
    """

    tokens_RTD: Tensor
    descriptor_RE: Tensor
    digests: tuple[str, ...]
    kind_R: Tensor
    expert_logit_R: Tensor
    usual: tuple[Usual, ...]
    drop_twins: bool

    def __len__(self) -> int:
        return len(self.digests)

    @classmethod
    def of(
        cls,
        references: Sequence[Reference],
        kinds: Sequence[int],
        *,
        top: float,
        drop_twins: bool,
        device: torch.device | str = "cpu",
    ) -> Bank:
        """``kinds``: 0, 1, ... for each reference. ``top``: share of a picture's cells that make its distance."""
        bank = cls(
            stacked(references).to(device),
            torch.stack([reference.descriptor_E for reference in references]).to(device),
            tuple(reference.digest for reference in references),
            torch.tensor(kinds, device=device),
            torch.tensor([reference.expert_logit for reference in references], device=device),
            (),
            drop_twins,
        )
        return replace(bank, usual=tuple(_usual(bank, kind, top) for kind in range(max(kinds) + 1)))

    def to(self, device: torch.device | str) -> Bank:
        """The same on ``device``; what lies there already is not copied."""
        return replace(
            self,
            tokens_RTD=self.tokens_RTD.to(device),
            descriptor_RE=self.descriptor_RE.to(device),
            kind_R=self.kind_R.to(device),
            expert_logit_R=self.expert_logit_R.to(device),
        )

    def kind_of(self, descriptor_E: Tensor, digest: str) -> int | None:
        """The kind whose references look most like the picture; None if only copies of it are here."""
        similar_R = self.descriptor_RE @ descriptor_E
        if self.drop_twins:
            similar_R[self._copies(digest)] = -torch.inf
        best = int(similar_R.argmax())
        return None if similar_R[best] == -torch.inf else int(self.kind_R[best])

    def distances(
        self, tokens_PD: Tensor, descriptor_E: Tensor, digest: str, kind: int, *, no_copies: bool = False
    ) -> Tensor | None:
        """(P,) distance of each cell, 0..2; None if no reference but copies is left to compare with.

        ``no_copies``: references with the picture's own digest do not serve, whatever ``drop_twins`` says.
        """
        own_R = self.kind_R == kind
        # Within a kind all look alike; what tells them apart is how they differ from their mean.
        centre_E = self.descriptor_RE[own_R].mean(0)
        apart_RE = torch.nn.functional.normalize(self.descriptor_RE - centre_E, dim=-1)
        similar_R = (apart_RE @ (descriptor_E - centre_E)).masked_fill(~own_R, -torch.inf)
        if self.drop_twins or no_copies:
            similar_R[self._copies(digest)] = -torch.inf
        chosen = similar_R.topk(min(NEAR, len(self)))
        chosen_K = chosen.indices[chosen.values > -torch.inf]
        if not len(chosen_K):
            return None
        # In the bank's own order, so that equal pictures are compared in equal arithmetic.
        distance_PK = nearest(tokens_PD, self.tokens_RTD[chosen_K.sort().values])
        if self.drop_twins and len(chosen_K) > 1:
            mean_K = distance_PK.mean(0)
            distance_PK = distance_PK[:, mean_K >= TWIN * mean_K.median()]
        return lowest_mean(distance_PK, AGREE if self.drop_twins else AGREE_GOOD)

    def _copies(self, digest: str) -> list[int]:
        return [r for r, own in enumerate(self.digests) if own == digest]


def reference(picture: PictureTokens, expert_logit: float, tokens: int) -> Reference:
    """A picture reduced to at most ``tokens`` tokens, drawn without replacement by its digest.

    They stay in the order drawn: the first so many are what a draw of so many would be (``context_file.extended``).
    Values are rounded to half precision, in which context files keep them, so that saving changes no score.
    """
    count = len(picture.tokens_PD)
    generator = torch.Generator("cpu").manual_seed(int(picture.digest[:15], 16))
    drawn = torch.randperm(count, generator=generator, device="cpu")[:tokens]
    tokens_TD = picture.tokens_PD[drawn.to(picture.tokens_PD.device)].half().float()
    return Reference(tokens_TD, picture.descriptor_E.half().float(), picture.digest, expert_logit)


def stacked(references: Sequence[Reference]) -> Tensor:
    """All tokens, (R, T, D). Those of a picture with fewer are repeated, which changes no nearest distance."""
    most = max(len(reference.tokens_TD) for reference in references)
    rows = (one.tokens_TD.repeat(-(-most // len(one.tokens_TD)), 1)[:most] for one in references)
    return torch.stack(list(rows))


def unrepeated(tokens_TD: Tensor) -> Tensor:
    """One reference's row of ``stacked`` without what was repeated there."""
    again = (tokens_TD[1:] == tokens_TD[0]).all(1).nonzero()[:, 0] + 1
    for period in again.tolist():
        if torch.equal(tokens_TD[period:], tokens_TD[:-period]):
            return tokens_TD[:period]
    return tokens_TD


def tokens_each(references: int) -> int:
    """How many tokens each of so many references keeps."""
    return min(MOST_TOKENS, TOKEN_BUDGET // max(1, min(references, NEAR)))


def picture_distance(distance_P: Tensor, top: float) -> float:
    """One number for a picture: the mean of the largest ``top`` share of its cells' distances."""
    count = max(1, round(top * len(distance_P)))
    return float(distance_P.topk(count, sorted=False).values.mean())


def _usual(bank: Bank, kind: int, top: float) -> Usual:
    """Medians and spreads over the references of ``kind``, each compared with the others."""
    members = [r for r in range(len(bank)) if int(bank.kind_R[r]) == kind]
    found = (
        bank.distances(bank.tokens_RTD[r], bank.descriptor_RE[r], bank.digests[r], kind, no_copies=True)
        for r in members
    )
    apart = [picture_distance(distance_P, top) for distance_P in found if distance_P is not None]
    logits = bank.expert_logit_R[torch.tensor(members)].cpu().double()
    expert_logit, expert_spread = float(logits.median()), _spread(logits)
    if not apart:
        return Usual(0.0, expert_logit, 0)
    distances = torch.tensor(apart, dtype=torch.float64)
    spread = _spread(distances.clamp_min(1e-6).log())
    return Usual(float(distances.median()), expert_logit, len(apart), spread, expert_spread)


def _spread(values: Tensor) -> float:
    low, high = values.quantile(torch.tensor([0.16, 0.84], dtype=values.dtype)).tolist()
    return float(high - low) / 2
