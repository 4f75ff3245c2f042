"""From pictures to a context: the pictures of a folder itself, or a few that are known to be good.

Pictures arrive already encoded (``Encode``), one at a time; what is held is the reduced references, never the
pictures. How many are held is bounded: beyond ``MOST_REFERENCES`` good pictures, or ``choose.CANDIDATES`` of a folder,
a sample drawn by digest stands for all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import cast

import numpy as np

from anomaly_ov.context import choose
from anomaly_ov.context.bank import Bank, Reference, cut, reference, stacked, tokens_each
from anomaly_ov.context.context import Context
from anomaly_ov.context.kinds import kinds, kinds_of_references
from anomaly_ov.context.tokens import ImageTokens
from anomaly_ov.errors import ImageError, UsageError
from anomaly_ov.images.read import Limits, open_regular
from anomaly_ov.images.sources import Source, page_digest
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.records import ContextKind
from anomaly_ov.scoring.cells import Floats
from anomaly_ov.scoring.evidence import Evidence, References
from anomaly_ov.scoring.score import cell_values, suspicion

MOST_REFERENCES = 256
FEWEST_FOR_FOLDER = 3
FEWEST_FOR_AUTO = 8
ALIKE = 1.5
"""Pictures whose usual suspicion lies more spreads beyond that of the training sets are too unlike to help each
other."""

MEASURED = 48
"""References whose own suspicion is measured, each against the others; their cells are all held until then."""


@dataclass(frozen=True)
class Encoded:
    """One readable image: its tokens, the expert's map (N, h, w) and its image score."""

    tokens: ImageTokens
    expert_Nhw: Floats
    head: float


Encode = Callable[[Sequence[Source]], Iterator["Encoded | None"]]
"""Encodes images in order; None for one that cannot be read."""


@dataclass(frozen=True)
class Builder:
    """What both ways of building share."""

    encode: Encode
    config: ScoringConfig
    revision: str
    limits: Limits

    def references(self, sources: Sequence[Source], source: str) -> Context:
        """A context of images known to be good. Raises ``UsageError`` if none of them can be read."""
        digests = self._digests(sources)
        chosen = choose.drawn(digests, MOST_REFERENCES)
        found: list[Reference] = []
        whole: list[Encoded] = []
        unreadable = 0
        for one in self.encode([sources[i] for i in chosen]):
            if one is None:
                unreadable += 1
            elif one.tokens.digest not in {known.digest for known in found}:  # a stream's is known only now
                # How many can be read shows at the end only; the first tokens of a larger draw are the smaller draw.
                each = tokens_each(len(found) + 1)
                found = [*(cut(known, each) for known in found), reference(one.tokens, each)]
                whole += [one] if len(whole) < MEASURED else []
        if not found:
            raise UsageError(f"no readable picture in {source}", hint="give one or more pictures known to be good")
        beyond = len(set(digests)) - len(chosen)
        notes = _left_out(len(found), len(sources), unreadable, beyond)
        bank = Bank.of(found, kinds_of_references(stacked([one.tokens for one in found]).whole), drop_twins=False)
        return self._context(bank, whole, "references", source, [*notes, *_kinds(bank)])

    def folder(self, sources: Sequence[Source], source: str) -> Context:
        """A context of a folder's own images. Raises ``UsageError`` if fewer than three distinct ones are there."""
        found, whole = self._candidates(sources)
        if len(found) < FEWEST_FOR_FOLDER:
            raise UsageError(
                f"{source} holds {len(sources)} pictures, {len(found)} of them readable and distinct; its own context "
                f"needs at least {FEWEST_FOR_FOLDER}",
                hint="use --references none, or name a folder of good pictures",
            )
        return self._of_candidates(found, whole, len(sources), source)

    def auto(self, sources: Sequence[Source], source: str) -> tuple[Context | None, str]:
        """The folder's context if it is likely to help, and the reason for or against it."""
        found, whole = self._candidates(sources) if len(sources) >= FEWEST_FOR_AUTO else ([], [])
        if len(found) < FEWEST_FOR_AUTO:
            return None, f"it takes {FEWEST_FOR_AUTO} readable, distinct pictures to say what is normal"
        context = self._of_candidates(found, whole, len(sources), source)
        beyond = alikeness(context)
        text = f"usual suspicion {beyond:+.2f} spreads of the training sets', limit {ALIKE:+.2f}"
        if beyond > ALIKE:
            return None, f"the pictures are too unlike each other ({text})"
        return context, f"the pictures are alike ({text})"

    def _candidates(self, sources: Sequence[Source]) -> tuple[list[Reference], list[Encoded]]:
        """Those of a folder that are readable and distinct, and the first of them whole."""
        drawn, each = choose.drawn(self._digests(sources)), tokens_each(choose.CANDIDATES)
        found: dict[str, Reference] = {}
        whole: list[Encoded] = []
        for one in self.encode([sources[i] for i in drawn]):
            if one is not None and one.tokens.digest not in found:  # a stream's digest is known only now
                found[one.tokens.digest] = reference(one.tokens, each)
                whole += [one] if len(whole) < MEASURED else []
        return list(found.values()), whole

    def _of_candidates(self, found: list[Reference], whole: list[Encoded], images: int, source: str) -> Context:
        bank = Bank.of(found, kinds(stacked([one.tokens for one in found]).whole), drop_twins=True)
        notes = [f"{len(found)} of {images} pictures serve as references", *_kinds(bank)]
        return self._context(bank, whole, "folder", source, notes)

    def _context(
        self, bank: Bank, whole: Sequence[Encoded], kind: ContextKind, source: str, notes: Sequence[str]
    ) -> Context:
        unknown = np.full(len(bank), np.nan, np.float32)
        context = Context(bank, unknown, kind, source, self.revision, self.config, tuple(notes))
        return replace(context, suspicion_R=self._suspicions(context, whole))

    def _suspicions(self, context: Context, whole: Sequence[Encoded]) -> Floats:
        """Of each reference that is at hand whole, against the others of its kind; NaN for the rest."""
        suspicion_R = context.suspicion_R.copy()
        position = {digest: r for r, digest in enumerate(context.bank.digests)}
        for one in whole:
            r = position[one.tokens.digest]
            found = context.bank.compare(one.tokens, int(context.bank.kind_R[r]), no_copies=True)
            if found is not None:
                suspicion_R[r] = suspicion_of(one, found, context.mode(int(context.bank.kind_R[r])), self.config)
        return suspicion_R

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


def evidence_of(one: Encoded, found: References | None, config: ScoringConfig) -> Evidence:
    """All that is known of an image."""
    own = one.tokens.own if config.own_patches else None
    return Evidence(own, one.expert_Nhw, one.head, found, one.tokens.symmetry)


def suspicion_of(one: Encoded, found: References | None, mode: ModeConfig, config: ScoringConfig) -> float:
    """As an inspection finds it, against ``found``."""
    values_Nhw = cell_values(evidence_of(one, found, config), one.tokens.cells, mode)
    return suspicion(values_Nhw, one.head, one.tokens.cells, mode, config)


def _kinds(bank: Bank) -> list[str]:
    """A note where there are several kinds."""
    if bank.kinds == 1:
        return []
    shares = ", ".join(f"{len(bank.members(kind)) / len(bank):.0%}" for kind in range(bank.kinds))
    return [f"split into {bank.kinds} kinds of picture ({shares})"]


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
    """How far the usual suspicion of the context's kinds, by their size, lies beyond the training sets' mean, in the
    spreads by which objects differ there.
    """
    mode = context.config.folder
    weights = [one.count for one in context.usual]
    usual = float(np.average([one.value for one in context.usual], weights=weights if sum(weights) else None))
    return (usual - mode.usual) / mode.usual_spread


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
