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

import numpy as np
import numpy.typing as npt

from anomaly_ov.context.nearest import lower_median, lowest_mean, nearest
from anomaly_ov.context.tokens import PictureTokens, Scales
from anomaly_ov.models.token_maps import Floats, unit

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

    tokens: Scales[Floats]
    descriptor_E: Floats
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

    tokens: Scales[Floats]
    descriptor_RE: Floats
    digests: tuple[str, ...]
    kind_R: npt.NDArray[np.int64]
    expert_logit_R: Floats
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
    ) -> Bank:
        """``kinds``: 0, 1, ... for each reference. ``tops``: as in ``picture_distance``."""
        bank = cls(
            stacked(references),
            np.stack([reference.descriptor_E for reference in references]),
            tuple(reference.digest for reference in references),
            np.array(kinds, np.int64),
            np.array([reference.expert_logit for reference in references], np.float32),
            (),
            drop_twins,
        )
        usual = (bank.usual_of(kind, bank.among_themselves(kind), tops) for kind in range(max(kinds) + 1))
        return replace(bank, usual=tuple(usual))

    def kind_of(self, descriptor_E: Floats, digest: str) -> int | None:
        """The kind whose references look most like the picture; None if only copies of it are here.

        A folder's picture that is itself a reference keeps its kind, where others are of it.
        """
        similar_R = self.descriptor_RE @ descriptor_E
        copies = self._copies(digest) if self.drop_twins else []
        for own in {int(self.kind_R[r]) for r in copies}:
            if int((self.kind_R == own).sum()) > len(copies):
                return own
        similar_R[copies] = -np.inf
        best = int(similar_R.argmax())
        return None if similar_R[best] == -np.inf else int(self.kind_R[best])

    def distances(
        self, tokens: Scales[Floats], descriptor_E: Floats, digest: str, kind: int, *, no_copies: bool = False
    ) -> Scales[Floats] | None:
        """(P,) distance of each cell, 0..2, at both scales; None if no reference but copies is left to compare with.

        ``tokens``: (P, D) each. ``no_copies``: references with the picture's own digest do not serve, whatever
        ``drop_twins`` says.
        """
        own_R = self.kind_R == kind
        # Within a kind all look alike; what tells them apart is how they differ from their mean.
        centre_E = self.descriptor_RE[own_R].mean(0)
        similar_R = unit(self.descriptor_RE - centre_E) @ (descriptor_E - centre_E)
        similar_R[~own_R] = -np.inf
        if self.drop_twins or no_copies:
            similar_R[self._copies(digest)] = -np.inf
        chosen_K = np.argsort(-similar_R, kind="stable")[:NEAR]
        # In the bank's own order, so that equal pictures are compared in equal arithmetic.
        chosen_K = np.sort(chosen_K[similar_R[chosen_K] > -np.inf])
        if not len(chosen_K):
            return None
        whole_PK = nearest(tokens.whole, self.tokens.whole[chosen_K])
        detail_PK = nearest(tokens.detail, self.tokens.detail[chosen_K])
        if self.drop_twins and len(chosen_K) > 1:
            mean_K = detail_PK.mean(0)
            kept_K = mean_K >= TWIN * lower_median(mean_K)
            whole_PK, detail_PK = whole_PK[:, kept_K], detail_PK[:, kept_K]
        share = AGREE if self.drop_twins else AGREE_GOOD
        return Scales(lowest_mean(whole_PK, share), lowest_mean(detail_PK, share))

    def among_themselves(self, kind: int) -> list[Scales[Floats]]:
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

    def usual_of(self, kind: int, among_themselves: Sequence[Scales[Floats]], tops: Scales[float]) -> Usual:
        """Medians and spreads over the references of ``kind``, each compared with the others."""
        apart = [picture_distance(distances, tops) for distances in among_themselves]
        logits = self.expert_logit_R[self._members(kind)].astype(np.float64)
        expert_logit, expert_spread = float(lower_median(logits)), _spread(logits)
        if not apart:
            return Usual(0.0, expert_logit, 0)
        distance_R = np.array(apart)
        spread = _spread(np.log(np.maximum(distance_R, 1e-6)))
        return Usual(float(lower_median(distance_R)), expert_logit, len(apart), spread, expert_spread)

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
    return Reference(kept, _halved(picture.descriptor_E), picture.digest, expert_logit)


def cut(one: Reference, tokens: Scales[int]) -> Reference:
    """``one`` with at most ``tokens`` tokens of each scale, the first ones."""
    whole_TD, detail_TD = one.tokens.whole, one.tokens.detail
    if len(whole_TD) <= tokens.whole and len(detail_TD) <= tokens.detail:
        return one
    kept = Scales(whole_TD[: tokens.whole], detail_TD[: tokens.detail])
    return replace(one, tokens=kept.map(np.copy))  # a slice would keep it all


def stacked(references: Sequence[Reference]) -> Scales[Floats]:
    """All tokens, (R, T, D) each. Those of a picture with fewer are repeated, which changes no nearest distance."""
    return Scales(
        _stacked([reference.tokens.whole for reference in references]),
        _stacked([reference.tokens.detail for reference in references]),
    )


def unrepeated(tokens_TD: Floats) -> Floats:
    """One reference's row of ``stacked`` without what was repeated there."""
    again = (tokens_TD[1:] == tokens_TD[0]).all(1).nonzero()[0] + 1
    for period in again.tolist():
        if np.array_equal(tokens_TD[period:], tokens_TD[:-period]):
            return tokens_TD[:period]
    return tokens_TD


def tokens_each(references: int) -> Scales[int]:
    """How many tokens of each scale each of so many references keeps."""
    return TOKEN_BUDGET.map(lambda budget: min(MOST_TOKENS, budget // max(1, min(references, NEAR))))


def picture_distance(distances: Scales[Floats], tops: Scales[float]) -> float:
    """One number for a picture from (P,) distances of its cells at both scales.

    At each scale the mean of the largest ``tops`` share of cells, then the mean of the two: what only one scale sees
    still counts where the other sees nothing at all.
    """
    return (_top_mean(distances.whole, tops.whole) + _top_mean(distances.detail, tops.detail)) / 2


def _top_mean(distance_P: Floats, top: float) -> float:
    rest = len(distance_P) - max(1, round(top * len(distance_P)))
    return float(np.partition(distance_P, rest)[rest:].mean())


def _drawn(tokens_PD: Floats, digest: str, count: int) -> Floats:
    # NumPy's legacy generator is frozen: the same draw in every version.
    generator = np.random.RandomState([int(digest[i : i + 8], 16) for i in range(0, len(digest), 8)])
    return _halved(tokens_PD[generator.permutation(len(tokens_PD))[:count]])


def _halved(values: Floats) -> Floats:
    return values.astype(np.float16).astype(np.float32)


def _stacked(tokens: Sequence[Floats]) -> Floats:
    most = max(len(tokens_TD) for tokens_TD in tokens)
    return np.stack([np.resize(tokens_TD, (most, tokens_TD.shape[1])) for tokens_TD in tokens])


def _spread(values: npt.NDArray[np.float64]) -> float:
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2
