"""The memory bank: tokens of reference images, and how far each cell of an image lies from them.

An image is compared with the references of its own kind that look most like it as a whole; each of its cells gets the
mean of its lowest distances to their cells of the same scale (``nearest``). References enter with a fixed number of
tokens, drawn by their own digest, so cost per cell is constant and a bank does not depend on the order in which it was
filled.

Legend: R references of T tokens, D token width, E descriptor width, P cells of one scale of the image that is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from anomaly_ov.context.nearest import counterparts, lowest_mean, nearest
from anomaly_ov.context.tokens import ImageTokens
from anomaly_ov.models.token_maps import unit
from anomaly_ov.scoring.cells import Floats, Scales
from anomaly_ov.scoring.evidence import References

NEAR = 48
"""References that an image is compared with."""

TOKEN_BUDGET = Scales(NEAR * 64, NEAR * 128)
"""Tokens that an image is compared with; few references keep more tokens each than many do."""

MOST_TOKENS = 2048
AGREE = 0.3
"""Share of a folder's references, the nearest ones, whose distances are averaged: some of them may be anomalous."""

AGREE_GOOD = 0.1
"""The same of references known to be good, at least one: what one of them shows is normal."""

TWIN = 0.5
"""In a folder, a reference nearer than this share of the median is a near-copy: no witness of what is normal."""


@dataclass(frozen=True)
class Reference:
    """One candidate for a bank. ``tokens``: (T, D) each; ``own``: of the same cells, (T,) each."""

    tokens: Scales[Floats]
    own: Scales[Floats]
    descriptor_E: Floats
    digest: str


@dataclass(frozen=True)
class Bank:
    """References of one or several kinds. ``drop_twins``: near-copies and copies never serve (a folder's own images).

    ``tokens``: (R, T, D) and ``own``: (R, T), each at both scales; T = 0 where no reference has crops. ``kind_R`` says
    which kind a reference belongs to.
    """

    tokens: Scales[Floats]
    own: Scales[Floats]
    descriptor_RE: Floats
    digests: tuple[str, ...]
    kind_R: npt.NDArray[np.int64]
    drop_twins: bool

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def kinds(self) -> int:
        """How many kinds there are."""
        return int(self.kind_R.max()) + 1

    @classmethod
    def of(cls, references: Sequence[Reference], kinds: Sequence[int], *, drop_twins: bool) -> Bank:
        """``kinds``: 0, 1, ... for each reference."""
        return cls(
            stacked([reference.tokens for reference in references]),
            stacked([reference.own for reference in references]),
            np.stack([reference.descriptor_E for reference in references]),
            tuple(reference.digest for reference in references),
            np.array(kinds, np.int64),
            drop_twins,
        )

    def kind_of(self, image: ImageTokens) -> int | None:
        """The kind whose references look most like the image; None if only copies of it are here.

        A folder's image that is itself a reference keeps its kind, where others are of it.
        """
        similar_R = self.descriptor_RE @ image.descriptor_E
        copies = self._copies(image.digest) if self.drop_twins else []
        for own in {int(self.kind_R[r]) for r in copies}:
            if int((self.kind_R == own).sum()) > len(copies):
                return own
        similar_R[copies] = -np.inf
        best = int(similar_R.argmax())
        return None if similar_R[best] == -np.inf else int(self.kind_R[best])

    def compare(self, image: ImageTokens, kind: int, *, no_copies: bool = False) -> References | None:
        """Each cell against the references of ``kind``; None if no reference but copies is left to compare with.

        ``no_copies``: references with the image's own digest do not serve, whatever ``drop_twins`` says.
        """
        own_R = self.kind_R == kind
        # Within a kind all look alike; what tells them apart is how they differ from their mean.
        centre_E = self.descriptor_RE[own_R].mean(0)
        similar_R = unit(self.descriptor_RE - centre_E) @ (image.descriptor_E - centre_E)
        similar_R[~own_R] = -np.inf
        if self.drop_twins or no_copies:
            similar_R[self._copies(image.digest)] = -np.inf
        chosen_K = np.argsort(-similar_R, kind="stable")[:NEAR]
        # In the bank's own order, so that equal images are compared in equal arithmetic.
        chosen_K = np.sort(chosen_K[similar_R[chosen_K] > -np.inf])
        if not len(chosen_K):
            return None
        whole_PK = nearest(image.tokens.whole, self.tokens.whole[chosen_K])
        if self.drop_twins and len(chosen_K) > 1:
            mean_K = whole_PK.mean(0)
            kept_K = mean_K >= TWIN * np.quantile(mean_K, 0.5, method="lower")
            chosen_K, whole_PK = chosen_K[kept_K], whole_PK[:, kept_K]
        whole = self._found(image.tokens.whole, whole_PK, chosen_K, detail=False)
        # An image of one view among images with crops, or the other way round, is compared at the base view's scale.
        detail = self._scale(image, chosen_K)
        distance, counterpart = zip(whole, detail, strict=True)
        return References(Scales(*distance), Scales(*counterpart), len(chosen_K))

    def _scale(self, image: ImageTokens, chosen_K: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        crops_PD = image.tokens.detail
        if not len(crops_PD):
            return np.empty(0, np.float32), np.empty(0, np.float32)
        detail = bool(self.tokens.detail.shape[1])
        reference_RTD = (self.tokens.detail if detail else self.tokens.whole)[chosen_K]
        return self._found(crops_PD, nearest(crops_PD, reference_RTD), chosen_K, detail=detail)

    def _found(
        self, query_PD: Floats, distance_PK: Floats, chosen_K: npt.NDArray[np.int64], *, detail: bool
    ) -> tuple[Floats, Floats]:
        """(P,) distance, and the own evidence of each cell's counterpart."""
        tokens_RTD, own_RT = (self.tokens.detail, self.own.detail) if detail else (self.tokens.whole, self.own.whole)
        share = AGREE if self.drop_twins else AGREE_GOOD
        best_P = chosen_K[distance_PK.argmin(1)]
        counterpart_P = own_RT[best_P, counterparts(query_PD, tokens_RTD, best_P)]
        return lowest_mean(distance_PK, share), counterpart_P

    def members(self, kind: int) -> list[int]:
        """Positions of the references of a kind."""
        return [r for r, own in enumerate(self.kind_R.tolist()) if own == kind]

    def _copies(self, digest: str) -> list[int]:
        return [r for r, own in enumerate(self.digests) if own == digest]


def reference(image: ImageTokens, tokens: Scales[int]) -> Reference:
    """An image reduced to at most ``tokens`` tokens of each scale, drawn without replacement by its digest.

    They stay in the order drawn: the first so many are what a draw of so many would be (``context_file.extended``).
    Values are rounded to half precision, in which context files keep them, so that saving changes no score.
    """
    drawn = Scales(
        _drawn(len(image.tokens.whole), image.digest, tokens.whole),
        _drawn(len(image.tokens.detail), image.digest, tokens.detail),
    )
    return Reference(
        Scales(_halved(image.tokens.whole[drawn.whole]), _halved(image.tokens.detail[drawn.detail])),
        Scales(_halved(image.own.whole[drawn.whole]), _halved(image.own.detail[drawn.detail])),
        _halved(image.descriptor_E),
        image.digest,
    )


def cut(one: Reference, tokens: Scales[int]) -> Reference:
    """``one`` with at most ``tokens`` tokens of each scale, the first ones."""
    if len(one.tokens.whole) <= tokens.whole and len(one.tokens.detail) <= tokens.detail:
        return one

    def first(values: Scales[Floats]) -> Scales[Floats]:
        # A slice would keep it all.
        return Scales(values.whole[: tokens.whole].copy(), values.detail[: tokens.detail].copy())

    return replace(one, tokens=first(one.tokens), own=first(one.own))


def stacked(rows: Sequence[Scales[Floats]]) -> Scales[Floats]:
    """(R, T, ...) at both scales. Values of an image with fewer are repeated, which changes no nearest distance.

    An image without crops stands among images with crops by its base view.
    """
    crops = any(len(row.detail) for row in rows)
    return Scales(
        _stacked([row.whole for row in rows]),
        _stacked([row.detail if len(row.detail) or not crops else row.whole for row in rows]),
    )


def unrepeated(tokens_TD: Floats) -> int:
    """How many tokens of one reference's row of ``stacked`` were not repeated there."""
    if not len(tokens_TD):
        return 0
    again = (tokens_TD[1:] == tokens_TD[0]).all(1).nonzero()[0] + 1
    for period in again.tolist():
        if np.array_equal(tokens_TD[period:], tokens_TD[:-period]):
            return int(period)
    return len(tokens_TD)


def tokens_each(references: int) -> Scales[int]:
    """How many tokens of each scale each of so many references keeps."""
    return TOKEN_BUDGET.map(lambda budget: min(MOST_TOKENS, budget // max(1, min(references, NEAR))))


def _drawn(available: int, digest: str, count: int) -> npt.NDArray[np.int64]:
    # NumPy's legacy generator is frozen: the same draw in every version.
    generator = np.random.RandomState([int(digest[i : i + 8], 16) for i in range(0, len(digest), 8)])
    return np.asarray(generator.permutation(available)[:count], np.int64)


def _halved(values: Floats) -> Floats:
    return values.astype(np.float16).astype(np.float32)


def _stacked(rows: Sequence[Floats]) -> Floats:
    most = max(len(row) for row in rows)
    return np.stack([row[np.arange(most) % max(1, len(row))] for row in rows])
