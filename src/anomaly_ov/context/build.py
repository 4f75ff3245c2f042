"""From pictures to a context: the pictures of a folder itself, or a few that are known to be good.

Pictures arrive already encoded (``Encode``), one at a time; what is held is the reduced references, never the
pictures. How many are held is bounded: beyond ``MOST_REFERENCES`` good pictures, or ``choose.CANDIDATES`` of a folder,
a sample drawn by digest stands for all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import cast

import numpy as np

from anomaly_ov.context import choose
from anomaly_ov.context.bank import Bank, Reference, cut, reference, stacked, tokens_each
from anomaly_ov.context.context import Context, tops_of
from anomaly_ov.context.kinds import kinds
from anomaly_ov.context.tokens import PictureTokens, Scales
from anomaly_ov.errors import ImageError, UsageError
from anomaly_ov.images.read import Limits, open_regular
from anomaly_ov.images.sources import Source, page_digest
from anomaly_ov.models.config import ContextConfig

MOST_REFERENCES = 256
FEWEST_FOR_FOLDER = 3
FEWEST_FOR_AUTO = 8
ALIKE = 1.65
"""Pictures whose usual distance exceeds this many times that of the training sets are too unlike to help each other.

With `tiny`, 32 pictures each: 1.73 to 1.79 for three collections of everyday photographs, 0.77 to 1.55 for 13 folders
of the training sets (fruit of three sorts mixed: 1.59), where a folder's context does help.
"""


@dataclass(frozen=True)
class Encoded:
    """One readable picture: its tokens and the logit of the expert's score alone."""

    tokens: PictureTokens
    expert_logit: float


Encode = Callable[[Sequence[Source]], Iterator["Encoded | None"]]
"""Encodes pictures in order; None for one that cannot be read."""


@dataclass(frozen=True)
class Builder:
    """What both ways of building share."""

    encode: Encode
    config: ContextConfig
    revision: str
    limits: Limits

    def references(self, sources: Sequence[Source], source: str) -> Context:
        """A context of pictures known to be good. Raises ``UsageError`` if none of them can be read."""
        digests = self._digests(sources)
        chosen = choose.drawn(digests, MOST_REFERENCES)
        found: list[Reference] = []
        unreadable = 0
        for one in self.encode([sources[i] for i in chosen]):
            if one is None:
                unreadable += 1
            elif one.tokens.digest not in {known.digest for known in found}:  # a stream's is known only now
                # How many can be read shows at the end only; the first tokens of a larger draw are the smaller draw.
                each = tokens_each(len(found) + 1)
                found = [*(cut(known, each) for known in found), reference(one.tokens, one.expert_logit, each)]
        if not found:
            raise UsageError(f"no readable picture in {source}", hint="give one or more pictures known to be good")
        beyond = len(set(digests)) - len(chosen)
        notes = _left_out(len(found), len(sources), unreadable, beyond)
        bank = Bank.of(found, [0] * len(found), tops=tops_of(self.config), drop_twins=False)
        return Context(bank, "references", source, self.revision, self.config, notes)

    def folder(self, sources: Sequence[Source], source: str) -> Context:
        """A context of a folder's own pictures. Raises ``UsageError`` if fewer than three distinct ones are there."""
        found = self._candidates(sources)
        if len(found) < FEWEST_FOR_FOLDER:
            raise UsageError(
                f"{source} holds {len(sources)} pictures, {len(found)} of them readable and distinct; its own context "
                f"needs at least {FEWEST_FOR_FOLDER}",
                hint="use --context none, or name a folder of good pictures",
            )
        return self._of_candidates(found, len(sources), source)

    def auto(self, sources: Sequence[Source], source: str) -> tuple[Context | None, str]:
        """The folder's context if it is likely to help, and the reason for or against it."""
        found = self._candidates(sources) if len(sources) >= FEWEST_FOR_AUTO else []
        if len(found) < FEWEST_FOR_AUTO:
            return None, f"it takes {FEWEST_FOR_AUTO} readable, distinct pictures to say what is normal"
        context = self._of_candidates(found, len(sources), source)
        times = alikeness(context)
        text = f"usual distance {times:.2f} times that of the training sets, limit {ALIKE}"
        if times > ALIKE:
            return None, f"the pictures are too unlike each other ({text})"
        return context, f"the pictures are alike ({text})"

    def _candidates(self, sources: Sequence[Source]) -> list[Reference]:
        drawn = choose.drawn(self._digests(sources))
        return self._reduced([sources[i] for i in drawn], tokens_each(choose.CANDIDATES))

    def _of_candidates(self, found: list[Reference], pictures: int, source: str) -> Context:
        kind_R = kinds(stacked(found).detail)
        bank = Bank.of(found, kind_R, tops=tops_of(self.config), drop_twins=True)
        notes = [f"{len(found)} of {pictures} pictures serve as references"]
        count = max(kind_R) + 1
        if count > 1:
            shares = ", ".join(f"{kind_R.count(kind) / len(found):.0%}" for kind in range(count))
            notes.append(f"split into {count} kinds of picture ({shares})")
        return Context(bank, "folder", source, self.revision, self.config, tuple(notes))

    def _reduced(self, sources: Sequence[Source], tokens: Scales[int]) -> list[Reference]:
        encoded = (one for one in self.encode(sources) if one is not None)
        found = (reference(one.tokens, one.expert_logit, tokens) for one in encoded)
        return list({one.digest: one for one in found}.values())  # a stream's digest is known only now

    def _digests(self, sources: Sequence[Source]) -> list[str]:
        """Each file is read once, however many pages it holds."""
        of_file: dict[str, str] = {}
        digests = []
        for source in sources:
            if isinstance(source.item, str) and source.page and source.item in of_file:
                digests.append(page_digest(of_file[source.item], source.page))
                continue
            digests.append(digest_of(source, self.limits))
            if isinstance(source.item, str) and not source.page:
                of_file[source.item] = digests[-1]
        return digests


def _left_out(serving: int, given: int, unreadable: int, beyond: int) -> tuple[str, ...]:
    """What a person should know of good pictures that do not serve, if there are any."""
    counts = {
        "copies": given - serving - unreadable - beyond,
        "unreadable": unreadable,
        f"beyond the limit of {MOST_REFERENCES}": beyond,
    }
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.items() if count)
    return (f"{serving} of {given} pictures serve ({reasons})",) if reasons else ()


def alikeness(context: Context) -> float:
    """Usual distance of the context's kinds, by their size, in multiples of the training sets' (``config.usual``)."""
    weights = [one.count for one in context.bank.usual]
    distances = [one.distance for one in context.bank.usual]
    return float(np.average(distances, weights=weights if sum(weights) else None)) / context.config.usual


def digest_of(source: Source, limits: Limits) -> str:
    """SHA-256 by which copies are told, 64 hex digits: of the file's bytes and the page, without decoding it.

    A file that cannot be opened, or is larger than may be read, gets the digest of its name; its reading will say what
    is wrong. So does a stream, which can be read only once.
    """
    of_name = hashlib.sha256(source.id.encode(errors="surrogatepass")).hexdigest()  # names need not be Unicode
    if hasattr(source.item, "read"):
        return of_name
    if not isinstance(source.item, str) or source.item == "-":
        try:
            return page_digest(source.read(limits).sha256, source.page)
        except ImageError:
            return of_name
    try:
        with open_regular(source.item) as file:
            if os.fstat(file.fileno()).st_size > limits.max_bytes:
                return of_name
            return page_digest(hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest(), source.page)
    except (OSError, ValueError):  # ValueError: a name with a zero character
        return of_name
