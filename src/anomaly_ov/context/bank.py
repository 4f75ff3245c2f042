"""The bank: tokens of reference pictures, what is usual among them, and how far a picture lies from them.

A picture is compared with the references of its own kind that look most like it as a whole; each of its cells gets the
mean of its lowest distances to their cells of the same scale (``nearest``). References enter with a fixed number of
tokens, drawn by their own digest, so cost per cell is constant and a bank does not depend on the order in which it was
filled.

Distances have no scale of their own: a knitted cloth lies farther from itself than a machined face. So the references
are compared with each other, each with itself left out, and everything is told in multiples of what is usual there.

Legend: R references of T tokens, D token width, E descriptor width, P cells of one scale of the picture that is
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anomaly_ov.context.nearest import lowest_mean, nearest
from anomaly_ov.context.tokens import PictureTokens, Scales

NEAR = 48
"""References that a picture is compared with."""

TOKEN_BUDGET = Scales(NEAR * 64, NEAR * 128)
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
    """One candidate for a bank. ``tokens``: (T, D) each. ``expert_logit``: what the expert alone says of it."""

    tokens: Scales[Tensor]
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

    ``tokens``: (R, T, D) each. ``usual``: one entry per kind; ``kind_R`` says which kind a reference belongs to.
    """

    tokens: Scales[Tensor]
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
        tops: Scales[float],
        drop_twins: bool,
        device: torch.device | str = "cpu",
    ) -> Bank:
        """``kinds``: 0, 1, ... for each reference. ``tops``: as in ``picture_distance``."""
        bank = cls(
            stacked(references).map(lambda tokens_RTD: tokens_RTD.to(device)),
            torch.stack([reference.descriptor_E for reference in references]).to(device),
            tuple(reference.digest for reference in references),
            torch.tensor(kinds, device=device),
            torch.tensor([reference.expert_logit for reference in references], device=device),
            (),
            drop_twins,
        )
        usual = (bank.usual_of(kind, bank.among_themselves(kind), tops) for kind in range(max(kinds) + 1))
        return replace(bank, usual=tuple(usual))

    def to(self, device: torch.device | str) -> Bank:
        """The same on ``device``; what lies there already is not copied."""
        return replace(
            self,
            tokens=self.tokens.map(lambda tokens_RTD: tokens_RTD.to(device)),
            descriptor_RE=self.descriptor_RE.to(device),
            kind_R=self.kind_R.to(device),
            expert_logit_R=self.expert_logit_R.to(device),
        )

    @property
    def device(self) -> torch.device:
        """Where pictures are compared with it."""
        return self.descriptor_RE.device

    def kind_of(self, descriptor_E: Tensor, digest: str) -> int | None:
        """The kind whose references look most like the picture; None if only copies of it are here.

        A folder's picture that is itself a reference keeps its kind, where others are of it.
        """
        similar_R = self.descriptor_RE @ descriptor_E
        copies = self._copies(digest) if self.drop_twins else []
        for own in {int(self.kind_R[r]) for r in copies}:
            if int((self.kind_R == own).sum()) > len(copies):
                return own
        similar_R[copies] = -torch.inf
        best = int(similar_R.argmax())
        return None if similar_R[best] == -torch.inf else int(self.kind_R[best])

    def distances(
        self, tokens: Scales[Tensor], descriptor_E: Tensor, digest: str, kind: int, *, no_copies: bool = False
    ) -> Scales[Tensor] | None:
        """(P,) distance of each cell, 0..2, at both scales; None if no reference but copies is left to compare with.

        ``tokens``: (P, D) each. ``no_copies``: references with the picture's own digest do not serve, whatever
        ``drop_twins`` says.
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
        chosen_K = chosen_K.sort().values
        whole_PK = nearest(tokens.whole, self.tokens.whole[chosen_K])
        detail_PK = nearest(tokens.detail, self.tokens.detail[chosen_K])
        if self.drop_twins and len(chosen_K) > 1:
            mean_K = detail_PK.mean(0)
            kept_K = mean_K >= TWIN * mean_K.median()
            whole_PK, detail_PK = whole_PK[:, kept_K], detail_PK[:, kept_K]
        share = AGREE if self.drop_twins else AGREE_GOOD
        return Scales(lowest_mean(whole_PK, share), lowest_mean(detail_PK, share))

    def among_themselves(self, kind: int) -> list[Scales[Tensor]]:
        """Distances of each reference of ``kind`` from the others; none where there is nothing but copies."""
        found = (
            self.distances(
                self.tokens.map(lambda tokens_RTD, r=r: tokens_RTD[r]),  # type: ignore[misc]
                self.descriptor_RE[r],
                self.digests[r],
                kind,
                no_copies=True,
            )
            for r in self._members(kind)
        )
        return [distances for distances in found if distances is not None]

    def usual_of(self, kind: int, among_themselves: Sequence[Scales[Tensor]], tops: Scales[float]) -> Usual:
        """Medians and spreads over the references of ``kind``, each compared with the others."""
        apart = [picture_distance(distances, tops) for distances in among_themselves]
        logits = self.expert_logit_R[torch.tensor(self._members(kind))].cpu().double()
        expert_logit, expert_spread = float(logits.median()), _spread(logits)
        if not apart:
            return Usual(0.0, expert_logit, 0)
        distance_R = torch.tensor(apart, dtype=torch.float64)
        spread = _spread(distance_R.clamp_min(1e-6).log())
        return Usual(float(distance_R.median()), expert_logit, len(apart), spread, expert_spread)

    def _members(self, kind: int) -> list[int]:
        return [r for r, own in enumerate(self.kind_R.tolist()) if own == kind]

    def _copies(self, digest: str) -> list[int]:
        return [r for r, own in enumerate(self.digests) if own == digest]


def reference(picture: PictureTokens, expert_logit: float, tokens: Scales[int]) -> Reference:
    """A picture reduced to at most ``tokens`` tokens of each scale, drawn without replacement by its digest.

    They stay in the order drawn: the first so many are what a draw of so many would be (``context_file.extended``).
    Values are rounded to half precision, in which context files keep them, so that saving changes no score.
    """
    kept = Scales(
        _drawn(picture.tokens.whole, picture.digest, tokens.whole),
        _drawn(picture.tokens.detail, picture.digest, tokens.detail),
    )
    return Reference(kept, picture.descriptor_E.half().float(), picture.digest, expert_logit)


def cut(one: Reference, tokens: Scales[int]) -> Reference:
    """``one`` with at most ``tokens`` tokens of each scale, the first ones."""
    whole_TD, detail_TD = one.tokens.whole, one.tokens.detail
    if len(whole_TD) <= tokens.whole and len(detail_TD) <= tokens.detail:
        return one
    kept = Scales(whole_TD[: tokens.whole], detail_TD[: tokens.detail])
    return replace(one, tokens=kept.map(torch.clone))  # a slice would keep it all


def stacked(references: Sequence[Reference]) -> Scales[Tensor]:
    """All tokens, (R, T, D) each. Those of a picture with fewer are repeated, which changes no nearest distance."""
    return Scales(
        _stacked([reference.tokens.whole for reference in references]),
        _stacked([reference.tokens.detail for reference in references]),
    )


def unrepeated(tokens_TD: Tensor) -> Tensor:
    """One reference's row of ``stacked`` without what was repeated there."""
    again = (tokens_TD[1:] == tokens_TD[0]).all(1).nonzero()[:, 0] + 1
    for period in again.tolist():
        if torch.equal(tokens_TD[period:], tokens_TD[:-period]):
            return tokens_TD[:period]
    return tokens_TD


def tokens_each(references: int) -> Scales[int]:
    """How many tokens of each scale each of so many references keeps."""
    return TOKEN_BUDGET.map(lambda budget: min(MOST_TOKENS, budget // max(1, min(references, NEAR))))


def picture_distance(distances: Scales[Tensor], tops: Scales[float]) -> float:
    """One number for a picture from (P,) distances of its cells at both scales.

    At each scale the mean of the largest ``tops`` share of cells, then the mean of the two: what only one scale sees
    still counts where the other sees nothing at all.
    """
    return (_top_mean(distances.whole, tops.whole) + _top_mean(distances.detail, tops.detail)) / 2


def _top_mean(distance_P: Tensor, top: float) -> float:
    count = max(1, round(top * len(distance_P)))
    return float(distance_P.topk(count, sorted=False).values.mean())


def _drawn(tokens_PD: Tensor, digest: str, count: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(int(digest[:15], 16))
    drawn = torch.randperm(len(tokens_PD), generator=generator, device="cpu")[:count]
    return tokens_PD[drawn.to(tokens_PD.device)].half().float()


def _stacked(tokens: Sequence[Tensor]) -> Tensor:
    most = max(len(tokens_TD) for tokens_TD in tokens)
    rows = (tokens_TD.repeat(-(-most // len(tokens_TD)), 1)[:most] for tokens_TD in tokens)
    return torch.stack(list(rows))


def _spread(values: Tensor) -> float:
    low, high = values.quantile(torch.tensor([0.16, 0.84], dtype=values.dtype)).tolist()
    return float(high - low) / 2
