"""A context as one file (``.ctx``), and the union of two: built once, used all day, extended by newly confirmed ones.

The file is safetensors: tokens ``whole_RTD``, ``detail_RTD``, their own evidence ``whole_own_RT``, ``detail_own_RT``
and ``descriptor_RE`` in half precision, to which ``bank.reference`` has rounded them, so that saving changes no score;
``suspicion_R`` in float32; all else as JSON in the metadata, with a SHA-256 over everything. Names, types and shapes
are checked before an array is made, and nothing in the file is ever run.

Legend: R references of T tokens, D token width, E descriptor width.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from anomaly_ov.configuration import parse, to_mapping
from anomaly_ov.context.bank import MOST_TOKENS, Bank, Reference, cut, stacked, tokens_each, unrepeated
from anomaly_ov.context.build import MOST_REFERENCES
from anomaly_ov.context.context import Context
from anomaly_ov.context.kinds import kinds_of_references
from anomaly_ov.errors import ConfigError, ContextMismatch, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.messages import printable
from anomaly_ov.images.read import open_regular
from anomaly_ov.models.config import ScoringConfig
from anomaly_ov.scoring.cells import Scales

Array = npt.NDArray[Any]
FORMAT = "anomaly-ov.context/3"
MAX_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 2**20
MAX_SOURCE = 200
MAX_FIGURE = 100.0
"""Logarithms of distances lie in -7..1, logits of scores in -14..14; beyond this, arithmetic would overflow."""

TYPES = {
    "whole_RTD": "F16",
    "detail_RTD": "F16",
    "whole_own_RT": "F16",
    "detail_own_RT": "F16",
    "descriptor_RE": "F16",
    "suspicion_R": "F32",
}
MAY_BE_EMPTY = ("detail_RTD", "detail_own_RT")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Facts:
    """What the metadata holds beside the format's name and the checksum; see ``Context`` and ``Bank``."""

    kind: Literal["folder", "references"]
    source: str
    revision: str
    config: ScoringConfig
    notes: tuple[str, ...]
    drop_twins: bool
    digests: tuple[str, ...]
    kinds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.digests or len(set(self.digests)) < len(self.digests):
            raise ValueError("digests must name at least one picture, each once")
        if not all(_DIGEST.fullmatch(digest) for digest in self.digests):
            raise ValueError("digests must be 64 hex digits each")
        if len(self.kinds) != len(self.digests) or set(self.kinds) != set(range(len(set(self.kinds)))):
            raise ValueError("kinds must be one per digest, and none left out")


def save_context(path: str | Path, context: Context) -> None:
    """Writes ``context`` to ``path``, whole or not at all; the same context gives the same bytes.

    Raises ``UsageError`` where the file cannot be written.
    """
    from safetensors.numpy import save

    bank = context.bank
    half = {
        "whole_RTD": bank.tokens.whole,
        "detail_RTD": bank.tokens.detail,
        "whole_own_RT": bank.own.whole,
        "detail_own_RT": bank.own.detail,
        "descriptor_RE": bank.descriptor_RE,
    }
    tensors: dict[str, Array] = {name: np.ascontiguousarray(values, np.float16) for name, values in half.items()}
    tensors["suspicion_R"] = np.ascontiguousarray(context.suspicion_R, np.float32)
    facts = {
        "format": FORMAT,
        "kind": context.kind,
        "source": context.source,
        "revision": context.revision,
        "config": to_mapping(context.config),
        "notes": list(context.notes),
        "drop_twins": bank.drop_twins,
        "digests": list(bank.digests),
        "kinds": [int(kind) for kind in bank.kind_R],
    }
    facts["sha256"] = _checksum(facts, tensors)
    write_atomic(path, save(tensors, {"context": _canonical(facts)}))


def load_context(path: str | Path, revision: str | None = None) -> Context:
    """The context in the file at ``path``.

    ``revision``: of the model that is to use it (``inspector.info.revision``); None leaves that check to the inspector.
    Raises ``WeightsError`` (no such file, another version of the format), ``UnsafeCheckpoint`` (damaged, or no context)
    and ``ContextMismatch`` (made by another model).
    """
    data = _bytes_of(path)
    facts, tensors = _parsed(path, data)
    if revision is not None and facts.revision != revision:
        raise ContextMismatch(
            f"{path} was made by model revision {printable(facts.revision)}, the one in use is {revision}",
            hint="use the model it was made with (--model), or build it again: anomaly-ov context build",
        )
    full = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    bank = Bank(
        Scales(full["whole_RTD"], full["detail_RTD"]),
        Scales(full["whole_own_RT"], full["detail_own_RT"]),
        full["descriptor_RE"],
        facts.digests,
        np.array(facts.kinds, np.int64),
        facts.drop_twins,
    )
    return Context(bank, full["suspicion_R"], facts.kind, facts.source, facts.revision, facts.config, facts.notes)


def extended(old: Context, new: Context) -> Context:
    """``old`` with the references of ``new``, pictures in both once; as if all had been good references from the start.

    Beyond ``MOST_REFERENCES`` those with the smallest digests serve, as in ``build``, and each reference is cut to the
    tokens that so many may keep: references hold theirs in the order drawn, so a part is itself such a draw. What is
    usual stays as it was measured in each part, among fewer references than now, which errs towards fewer alarms.
    Raises ``UsageError`` for a folder's own context and ``ContextMismatch`` for contexts of two models.
    """
    for one in (old, new):
        require_references(one)
    if old.revision != new.revision:
        raise ContextMismatch(
            f"one context was made by model revision {printable(old.revision)}, the other by {printable(new.revision)}",
            hint="build both with the same model",
        )
    found = {one.digest: one for context in (new, old) for one in _references(context.bank)}
    suspicion = {d: s for context in (new, old) for d, s in zip(context.bank.digests, context.suspicion_R, strict=True)}
    digests = sorted(found)[:MOST_REFERENCES]
    tokens = tokens_each(len(digests))
    chosen = [cut(found[digest], tokens) for digest in digests]
    bank = Bank.of(chosen, kinds_of_references(stacked([one.tokens for one in chosen]).whole), drop_twins=False)
    suspicion_R = np.array([suspicion[digest] for digest in digests], np.float32)
    notes = [f"{len(found) - len(old.bank)} pictures were added to {len(old.bank)}"]
    if len(found) > len(digests):
        notes.append(f"{len(digests)} of these {len(found)} serve, drawn by digest")
    return Context(
        bank, suspicion_R, "references", _joined(old.source, new.source), new.revision, new.config, tuple(notes)
    )


def require_references(context: Context) -> None:
    """Raises ``UsageError`` for a folder's own context: nothing can be added to it."""
    if context.kind != "references":
        raise UsageError(
            f"the context of {printable(context.source)} is a folder's own, not one of pictures known to be good",
            hint="nothing can be added to it; make one of good pictures with 'anomaly-ov context build'",
        )


def _references(bank: Bank) -> list[Reference]:
    found = []
    for r, digest in enumerate(bank.digests):
        counts = Scales(unrepeated(bank.tokens.whole[r]), unrepeated(bank.tokens.detail[r]))
        if _stands_by_its_base_view(bank, r, counts):
            counts = replace(counts, detail=0)
        tokens = Scales(bank.tokens.whole[r, : counts.whole], bank.tokens.detail[r, : counts.detail])
        own = Scales(bank.own.whole[r, : counts.whole], bank.own.detail[r, : counts.detail])
        found.append(Reference(tokens, own, bank.descriptor_RE[r], digest))
    return found


def _stands_by_its_base_view(bank: Bank, r: int, counts: Scales[int]) -> bool:
    """Whether reference ``r`` has no crops, and ``bank.stacked`` put its base view in their place."""
    whole, detail = slice(counts.whole), slice(counts.detail)
    return np.array_equal(bank.tokens.whole[r, whole], bank.tokens.detail[r, detail]) and np.array_equal(
        bank.own.whole[r, whole], bank.own.detail[r, detail]
    )


def _joined(old: str, new: str) -> str:
    """Both sources, each named once; what is added every day does not lengthen it for ever."""
    names = old.split(" + ")
    if new in names or names[-1] == "more":
        return old
    return " + ".join([*names, new if len(old) + len(new) < MAX_SOURCE else "more"])


def _bytes_of(path: str | Path) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                _refuse(path, f"it holds {size} bytes, more than the {MAX_BYTES} allowed")
            return file.read(size)
    except FileNotFoundError:
        raise WeightsError(
            f"there is no context file {printable(str(path))}",
            hint="make it: anomaly-ov context build GOOD_FOLDER --out FILE.ctx",
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WeightsError(f"cannot read {printable(str(path))}: {reason}", hint="name a context file") from None


def _parsed(path: str | Path, data: bytes) -> tuple[_Facts, dict[str, Array]]:
    """All that the file says, checked; the tensors in the types they are stored in."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    header, values = _header(path, data)
    if values.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is of format {ascii(values.get('format'))[:60]}, this version of anomaly-ov reads '{FORMAT}'",
            hint="make it again with 'anomaly-ov context build', or use the version that wrote it",
        )
    checksum = values.pop("sha256", None)
    stated = {name: value for name, value in values.items() if name != "format"}
    try:
        facts = parse(_Facts, stated)
    except ConfigError as error:
        _refuse(path, error.message)
    _check_layout(path, header, len(facts.digests))
    try:
        tensors: dict[str, Array] = load(data)
    except SafetensorError as error:
        _refuse(path, " ".join(str(error).split()))
    if _checksum(values, tensors) != checksum:
        _refuse(path, "its checksum is not that of what it holds")
    for name, tensor in tensors.items():
        # What was not measured is NaN; all else must be a number.
        told = tensor[~np.isnan(tensor)] if name == "suspicion_R" else tensor
        if not np.isfinite(told).all() or np.abs(told).max(initial=0) > MAX_FIGURE:
            _refuse(path, f"{name} holds values that are not finite or larger than {MAX_FIGURE:g}")
    return facts, tensors


def _header(path: str | Path, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The safetensors header and, out of its metadata, what this module wrote there."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        _refuse(path, "it is cut short or of another kind")
    if length > MAX_HEADER_BYTES:
        _refuse(path, f"its header of {length} bytes exceeds the {MAX_HEADER_BYTES} allowed")
    try:
        header = json.loads(data[8 : 8 + length])
        text = header["__metadata__"]["context"]
        values = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, KeyError, TypeError, RecursionError):
        _refuse(path, "its header says nothing of a context")
    if not isinstance(values, dict):
        _refuse(path, "its header says nothing of a context")
    return header, values


def _check_layout(path: str | Path, header: dict[str, Any], references: int) -> None:
    """Exactly the tensors of ``TYPES``, each of its type, with as many references as there are digests."""
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if entries.keys() != TYPES.keys():
        _refuse(path, f"it holds {ascii(sorted(entries))[:200]} instead of {', '.join(sorted(TYPES))}")
    for name, type_ in TYPES.items():
        entry = entries[name] if isinstance(entries[name], dict) else {}
        found, shape = entry.get("dtype"), entry.get("shape")
        sizes = shape if isinstance(shape, list) else []
        fits = len(sizes) == len(name.rpartition("_")[2]) and sizes[0] == references
        least = 0 if name in MAY_BE_EMPTY else 1
        if found != type_ or not fits or not all(isinstance(size, int) and size >= least for size in sizes):
            _refuse(path, f"{name} is {ascii(found)[:20]} {ascii(shape)[:60]} for {references} references")
    whole, detail = (entries[name]["shape"] for name in ("whole_RTD", "detail_RTD"))
    owns = [entries[name]["shape"] for name in ("whole_own_RT", "detail_own_RT")]
    if owns != [whole[:2], detail[:2]]:
        _refuse(path, "its tokens and their own evidence are not as many")
    if whole[2] != detail[2]:
        _refuse(path, f"tokens of the whole are {whole[2]} wide, those of the details {detail[2]}")
    if max(whole[1], detail[1]) > MOST_TOKENS:
        _refuse(path, f"{max(whole[1], detail[1])} tokens a picture are more than the {MOST_TOKENS} there may be")


def _checksum(facts: dict[str, Any], tensors: dict[str, Array]) -> str:
    digest = hashlib.sha256(_canonical(facts).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, allow_nan=False)


def _finite(text: str) -> float:
    """A JSON number that is one: neither NaN nor so large that it becomes infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _refuse(path: str | Path, reason: str) -> NoReturn:
    raise UnsafeCheckpoint(
        f"{printable(str(path))} is no context file or a damaged one: {reason}",
        hint="copy it again, or make it with 'anomaly-ov context build'",
    )
