"""Grades for free-text answers by a language model behind any OpenAI-compatible endpoint, 0 to 10.

The prompt is our own and published, ``judge_prompt.md``; its version and digest, the judge's name and address stand in
the result. The judge of the published figures is not public, so these grades cannot be compared with those.
A reply without one grade in the asked form ("nonsense"), a time-out or a withheld reply is kept as such, counted, and
left out of the mean: it never counts as 0. Every exchange is kept in ``judge.jsonl`` and not paid for twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_ov.errors import EndpointError, EndpointRefused
from anomaly_ov.remote.endpoint import Endpoint
from anomaly_ov.remote.limits import in_order

PROMPT_FILE = Path(__file__).with_name("judge_prompt.md")
VERSION = "anomaly-ov.judge/1"
"""To be raised with every change of ``judge_prompt.md`` or of what stands around the answer."""
TRANSCRIPTS_NAME = "judge.jsonl"
HIGHEST = 10
_SCORE = re.compile(r"^[\s>*_#-]*score[\s*_]*:[\s*_]*(\d{1,2})(?:\s*/\s*10)?[\s*_.]*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class ToGrade:
    """An answer with its question and reference. ``id``: the question's."""

    id: str
    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Graded:
    """One exchange with the judge. ``score``: 0..10, None with the reason in ``error``. ``key``: tells it from others
    by judge, prompt, question's id and all texts."""

    id: str
    key: str
    judge: dict[str, Any]
    asked: str
    reply: str | None
    score: int | None
    error: str | None


class Judge:
    """A judge. ``parallel``: questions asked at once."""

    def __init__(self, endpoint: Endpoint, *, parallel: int = 1) -> None:
        self._endpoint, self._parallel = endpoint, parallel
        self._system = PROMPT_FILE.read_text(encoding="utf-8")

    @property
    def identity(self) -> dict[str, Any]:
        """Which judge, and by which prompt."""
        config = self._endpoint.config
        return {
            "model": config.model,
            "base_url": config.base_url,
            "temperature": config.temperature,
            "prompt": VERSION,
            "prompt_sha256": hashlib.sha256(self._system.encode()).hexdigest(),
        }

    def grade(
        self, items: Sequence[ToGrade], known: dict[str, Graded], keep: Callable[[Graded], None]
    ) -> Iterator[Graded]:
        """A grade per item, in order; those in ``known`` (by key) are not asked for again, new ones are handed to
        ``keep``. Raises ``EndpointRefused`` where no further answer is to be had."""
        pending = [item for item in items if self._key(item) not in known]
        fresh = in_order(self._ask, pending, self._parallel)
        for item in items:
            found = known.get(self._key(item))
            if found is None:
                found = next(fresh)
                keep(found)
            yield found

    def _key(self, item: ToGrade) -> str:
        text = json.dumps([self.identity, item.id, wording(item)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _ask(self, item: ToGrade) -> Graded:
        asked, reply, score, error = wording(item), None, None, None
        try:
            reply = self._endpoint.say(asked, system=self._system).text
            score = score_of(reply)
            if score is None:
                error = f"the judge's reply holds no single line 'Score: N' with N from 0 to {HIGHEST}"
        except EndpointRefused:
            raise
        except EndpointError as failed:
            error = f"{type(failed).__name__}: {failed.message}"
        return Graded(item.id, self._key(item), self.identity, asked, reply, score, error)


def wording(item: ToGrade) -> str:
    """What the judge is asked about one answer."""
    return (
        f"<question>\n{item.question}\n</question>\n<reference>\n{item.reference}\n</reference>\n"
        f"<answer>\n{item.answer.strip() or '(no answer was given)'}\n</answer>"
    )


def score_of(reply: str) -> int | None:
    """The grade in a judge's reply; None unless exactly one line holds a grade from 0 to 10."""
    found = [int(number) for number in _SCORE.findall(reply)]
    return found[0] if len(found) == 1 and found[0] <= HIGHEST else None


def graded_before(rows: Iterable[Graded]) -> dict[str, Graded]:
    """Exchanges of earlier calls that have a grade, by key."""
    return {row.key: row for row in rows if row.score is not None and 0 <= row.score <= HIGHEST}


def failures(graded: Iterable[Graded]) -> list[Graded]:
    """Those without a grade."""
    return [one for one in graded if one.score is None]
