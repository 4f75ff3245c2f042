"""Thresholds with a guarantee: found on good pictures (split conformal), kept in a JSON file, used by an inspector.

Flagged is ``score >= threshold``. Of n scores of distinct good pictures let s be the k-th smallest,
k = ceil((n + 1)(1 - alpha)); the threshold is the next number above s. For one more good picture, exchangeable with the
n, P(score > s) <= 1 - k / (n + 1) <= alpha, ties included: the guarantee is over the draw of the n and the new one
(Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*, 2005). Given the n at hand, the true rate of false
alarms follows Beta(n + 1 - k, k), or lies below where scores tie (Vovk, *Conditional validity of inductive conformal
predictors*, 2012). Without n + 1 >= 1 / alpha no finite threshold has the guarantee.

Not here: scoring pictures (``cli/calibrate.py``), and a model's own threshold (``scoring.score``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from anomaly_ov.configuration import parse, to_mapping
from anomaly_ov.errors import DataError, UsageError, WeightsError
from anomaly_ov.files import utf8, write_atomic
from anomaly_ov.records import ContextKind, ModelInfo, Threshold

SCHEMA: Literal["anomaly-ov.threshold/1"] = "anomaly-ov.threshold/1"
DEFAULT_NAME = "threshold.json"
MAX_BYTES = 2**20
CERTAINTY = 0.95
OWN_THRESHOLD = 0.5
"""A model's own threshold, in every mode: scores are told so that it lies there (``scoring.score``)."""


class ThresholdMismatch(WeightsError):
    """A stored threshold belongs to other scores than those that it is to be compared with; says how they differ."""


class TooFewPictures(DataError):
    """So few good pictures that no threshold has the guarantee asked for; says how many are needed."""


class _Bank(Protocol):
    @property
    def digests(self) -> tuple[str, ...]:
        """Of each reference's bytes, in the context's own order."""
        ...


class MadeContext(Protocol):
    """What makes two contexts score alike; see ``anomaly_ov.context``."""

    @property
    def kind(self) -> ContextKind:
        """How it came about."""
        ...

    @property
    def bank(self) -> _Bank:
        """Its references."""
        ...

    @property
    def config(self) -> Any:
        """How its distances become scores; its ``repr`` tells settings apart."""
        ...


class UsedContext(MadeContext, Protocol):
    """A context that knows where its pictures came from."""

    @property
    def source(self) -> str:
        """A path, or a few words."""
        ...


# --- the guarantee --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conformal:
    """A threshold found on ``n`` good pictures: just above their ``k``-th smallest score."""

    value: float
    max_false_alarms: float
    n: int
    k: int

    @property
    def expected(self) -> float:
        """Mean rate of false alarms to be expected, 0..1: at most ``max_false_alarms``."""
        return (self.n + 1 - self.k) / (self.n + 1)

    def upper(self, certainty: float = CERTAINTY) -> float:
        """The rate that false alarms stay below with this certainty, given these n pictures."""
        from scipy.stats import beta

        return float(beta.ppf(certainty, self.n + 1 - self.k, self.k))


def conformal(scores: npt.ArrayLike, max_false_alarms: float) -> Conformal:
    """The lowest threshold that flags at most a share ``max_false_alarms`` of new good pictures (module's text).

    ``scores``: (n,) in 0..1, one per *distinct* good picture. Raises ``TooFewPictures``, ``UsageError`` for a share
    outside (0, 1), ``DataError`` for scores that are not finite or leave no room above them.
    """
    s = np.sort(np.asarray(scores, dtype=np.float64))
    require_enough(s.size, max_false_alarms)
    if not np.isfinite(s).all():
        raise DataError(f"{int((~np.isfinite(s)).sum())} scores are not finite", hint="the detector's output is broken")
    k = s.size + 1 - _above(s.size, max_false_alarms)
    value = float(np.nextafter(s[k - 1], np.inf))
    if value > 1:
        raise DataError(
            f"{s.size - k + 1} of {s.size} good pictures have the highest score there is: nothing can be told apart",
            hint="allow more false alarms, give a context, or look at these pictures",
        )
    return Conformal(value, max_false_alarms, int(s.size), int(k))


def fewest(max_false_alarms: float) -> int:
    """How many distinct good pictures a threshold with this guarantee needs. Raises ``UsageError`` outside (0, 1)."""
    return math.ceil(1 / _share(max_false_alarms)) - 1


def require_enough(n: int, max_false_alarms: float) -> None:
    """Raises ``TooFewPictures`` where n distinct good pictures cannot carry the guarantee."""
    needed = fewest(max_false_alarms)
    if n >= needed:
        return
    best = f"the {n} at hand can guarantee {_upwards(1 / (n + 1))}" if n else "there is none"
    raise TooFewPictures(
        f"at most {max_false_alarms:g} false alarms need {needed} distinct good pictures; {best}",
        hint=f"give {needed - n} more" + (f", or --max-false-alarms {_upwards(1 / (n + 1))}" if n else ""),
    )


def binomial_interval(hits: int, of: int, certainty: float = CERTAINTY) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate that ``hits`` of ``of`` independent pictures speak of; (0, 1) for none."""
    from scipy.stats import beta

    tail = (1 - certainty) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def _share(max_false_alarms: float) -> Fraction:
    """As it was written: 0.05 is one twentieth, which its double is not."""
    if not 0 < max_false_alarms < 1:
        raise UsageError(
            f"max false alarms = {max_false_alarms} must lie between 0 and 1", hint="0.01 = one good picture in 100"
        )
    return Fraction(repr(float(max_false_alarms)))


def _above(n: int, max_false_alarms: float) -> int:
    """floor((n + 1) alpha) = n + 1 - k."""
    return math.floor((n + 1) * _share(max_false_alarms))


def _upwards(share: float) -> str:
    """Two digits of ``share``, never below it."""
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits) / 10**digits:.{digits}f}".rstrip("0")


# --- the file -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoredBy:
    """What made the scores. ``scoring``: digest of how views and raw outputs become ``score`` (``scoring_digest``)."""

    name: str
    revision: str
    dtype: str
    scoring: str


@dataclass(frozen=True)
class ScoredWith:
    """The context that scores were made with. ``digest``: equal only for contexts that score alike."""

    kind: ContextKind
    source: str
    references: int
    digest: str


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``n`` independent pictures with the 95 % interval of the rate behind them."""

    n: int
    hits: int
    low: float
    high: float


@dataclass(frozen=True)
class StoredThreshold:
    """A threshold with its guarantee and what it holds for: the content of ``threshold.json``.

    ``max_false_alarms``, ``n``, ``k``: as in ``Conformal``. ``expected_false_alarms`` and ``upper_false_alarms``: its
    ``expected`` and 95 % ``upper``. ``recall``: on bad pictures, if there were any. ``left_out``: how many pictures
    did not count, by reason. ``scores_sha256``: of the n sorted scores. ``path``: where it was read, not stored.
    """

    value: float
    max_false_alarms: float
    n: int
    k: int
    expected_false_alarms: float
    upper_false_alarms: float
    model: ScoredBy
    context: ScoredWith | None
    recall: Rate | None
    left_out: dict[str, int]
    scores_sha256: str
    provenance: dict[str, Any]
    schema: Literal["anomaly-ov.threshold/1"] = SCHEMA
    path: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ValueError("value must lie in 0..1")
        if not (0 < self.max_false_alarms < 1 and 0 < self.k <= self.n):
            raise ValueError("max_false_alarms must lie between 0 and 1, and k in 1..n")

    @property
    def source(self) -> str:
        """For ``Threshold.source``: where the value comes from."""
        context = "" if self.context is None else f", context {self.context.source}"
        name = f" ({self.path})" if self.path else ""
        return f"conformal on {self.n} good pictures: at most {self.max_false_alarms:g} false alarms{context}{name}"


def save_threshold(path: str | Path, stored: StoredThreshold) -> None:
    """Writes ``stored`` to ``path``, whole or not at all. Raises ``UsageError`` where that cannot be written."""
    values = to_mapping(stored)
    del values["path"]
    text = json.dumps({"schema": values.pop("schema")} | values, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, utf8(text + "\n"))


def load_threshold(path: str | Path) -> StoredThreshold:
    """The threshold in the file at ``path``. Raises ``UsageError`` (a ``ConfigError`` names the field)."""
    file = Path(path)
    hint = "give a number from 0 to 1, or a file made by 'anomaly-ov calibrate'"
    if not file.is_file():
        raise UsageError(f"threshold '{path}' is neither a number nor a file", hint=hint)
    if file.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES} bytes, and no threshold", hint=hint)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not valid JSON, and no threshold", hint=hint) from None
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise UsageError(f"{path} has the schema {schema!r}, not {SCHEMA}", hint=hint)
    return replace(parse(StoredThreshold, values, str(path)), path=str(path))


def scores_digest(scores: Sequence[float]) -> str:
    """SHA-256 of the scores, sorted, as little-endian doubles."""
    return hashlib.sha256(np.sort(np.asarray(scores, dtype="<f8")).tobytes()).hexdigest()


def scored_with(context: UsedContext | None) -> ScoredWith | None:
    """What to remember of a context; None of none."""
    if context is None:
        return None
    digest = context_digest(context, sorted(context.bank.digests))
    return ScoredWith(context.kind, context.source, len(context.bank.digests), digest)


def context_digest(context: MadeContext, references: Sequence[str]) -> str:
    """16 hex digits, equal only for contexts that score alike.

    ``references``: the digests of its bank, in the order that the caller always uses. Stored thresholds go by sorted
    ones, rows of runs by the bank's own order; a change of either would make those on disk useless.
    """
    text = "\n".join([context.kind, repr(context.config), *references])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scoring_digest(*parts: Any) -> str:
    """16 hex digits that differ where a ``repr`` of ``parts`` does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


# --- its use --------------------------------------------------------------------------------------------------------

Wanted = float | str | Path | StoredThreshold | None
"""What a caller may say: a number, a stored threshold or its file; None = the model's own."""


def wanted_threshold(threshold: Wanted) -> float | StoredThreshold | None:
    """What ``threshold`` says: a number may be text, anything else is a file. Raises ``UsageError``."""
    if threshold is None or isinstance(threshold, StoredThreshold):
        return threshold
    try:
        value = float(threshold)  # type: ignore[arg-type]  # a Path is none, and says so
    except (TypeError, ValueError):
        return load_threshold(str(threshold))
    if not 0 <= value <= 1:
        raise UsageError(f"threshold = {value:g} must lie in 0..1", hint="it is compared with 'score'")
    return value


def require_model(stored: float | StoredThreshold | None, info: ModelInfo, scoring: str) -> None:
    """Raises ``ThresholdMismatch`` for a stored threshold of another model, precision or way of scoring."""
    if not isinstance(stored, StoredThreshold):
        return
    made = stored.model
    was, now = f"{made.name} {made.revision} in {made.dtype}", f"{info.name} {info.revision} in {info.dtype}"
    if (made.revision, made.dtype) != (info.revision, info.dtype):
        raise _mismatch(stored, f"was calibrated on scores of {was}, the model in use is {now}")
    if made.scoring != scoring:
        raise _mismatch(stored, f"was calibrated when {was} was fused otherwise or saw other views")


def require_context(stored: float | StoredThreshold | None, context: UsedContext | None) -> None:
    """Raises ``ThresholdMismatch`` for a stored threshold of scores made with another context, or with one or none."""
    if not isinstance(stored, StoredThreshold):
        return
    now = scored_with(context)
    if (now and now.digest) == (stored.context and stored.context.digest):
        return
    was, is_ = (f"{'no context' if one is None else f'the context of {one.source}'}" for one in (stored.context, now))
    raise _mismatch(stored, f"was calibrated on scores made with {was}, this run uses {is_}")


def threshold_of(source: str, wanted: float | StoredThreshold | None, context: UsedContext | None = None) -> Threshold:
    """What scores made with ``context`` are compared with; ``source``: where the model's own threshold comes from.

    A stored threshold of scores with a context does not hold for a picture that the context says nothing of, nor the
    other way round: there the model's own holds.
    """
    if isinstance(wanted, StoredThreshold):
        if (wanted.context is None) == (context is None):
            return Threshold(wanted.value, wanted.source)
    elif wanted is not None:
        return Threshold(wanted, "set by the caller")
    return Threshold(OWN_THRESHOLD, source)


def _mismatch(stored: StoredThreshold, what: str) -> ThresholdMismatch:
    return ThresholdMismatch(
        f"the threshold in {stored.path or 'memory'} {what}",
        hint="use the same --model, --dtype and --references as then, or calibrate again: anomaly-ov calibrate",
    )
