"""What was measured on one set of questions, made from its answers. Who asks is ``run``; the rules are ``figures``'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from anomaly_ov.errors import AnomalyOVError, DataError, EndpointError
from anomaly_ov.images.messages import printable
from anomaly_ov.provenance import provenance
from anomaly_ov.records import ModelInfo
from anomaly_ov_lab.evaluation.run_notes import ENDPOINT_HINT, FEW, named
from anomaly_ov_lab.evaluation.text.answer_folder import AnswerRow
from anomaly_ov_lab.evaluation.text.answerers import Answerer
from anomaly_ov_lab.evaluation.text.figures import (
    ChoiceAnswer,
    Detection,
    Grades,
    Verdict,
    always_yes,
    choice_figures,
    detection_figures,
    open_figures,
    over_phrasings,
)
from anomaly_ov_lab.evaluation.text.judge import Graded, Judge, failures
from anomaly_ov_lab.evaluation.text.questions import OPEN, ImageQuestions, Question, QuestionSet
from anomaly_ov_lab.evaluation.text.similarity import Similarity
from anomaly_ov_lab.instruct.reading import Parser

METRICS_SCHEMA = "anomaly-ov.reasoning/1"


@dataclass(frozen=True)
class ReasoningResult:
    """Everything measured on one set of questions.

    ``detection``: one per phrasing, in order. ``spread``, ``always_yes``: over phrasings, and of saying yes to all.
    ``free_text``: by level. ``choices``: None without choice questions. ``judge``: which, how many graded and failed.
    """

    questions: QuestionSet
    model: ModelInfo
    settings: str
    parser: Parser
    counts: dict[str, int]
    detection: tuple[Detection, ...]
    spread: dict[str, dict[str, float | None]] | None
    always_yes: dict[str, float | None] | None
    free_text: dict[str, dict[str, Any]]
    choices: dict[str, Any] | None
    similarity: dict[str, str] | None
    judge: dict[str, Any] | None
    speed: dict[str, float | int | None]
    notes: tuple[str, ...]
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        asked = self.questions.phrasings
        return {
            "schema": METRICS_SCHEMA,
            "questions": self.questions.name,
            "layout": self.questions.layout,
            "questions_digest": self.questions.digest,
            "model": asdict(self.model),
            "settings": self.settings,
            "parser": self.parser,
            "counts": self.counts,
            "detection": [{"question": text} | one.to_json() for text, one in zip(asked, self.detection, strict=False)],
            "over_phrasings": self.spread,
            "always_yes": self.always_yes,
            "free_text": self.free_text,
            "choices": self.choices,
            "similarity": self.similarity,
            "judge": self.judge,
            "speed": self.speed,
            "notes": list(self.notes),
            "provenance": self.provenance,
        }


@dataclass(frozen=True)
class Scorers:
    """How answers are read and scored; None = without."""

    parser: Parser
    similarity: Similarity | None
    judge: Judge | None


@dataclass(frozen=True)
class ScoredAnswer:
    """An answered question with what was read from the answer: yes or no, a letter, or grades by metric."""

    one: ImageQuestions
    question: Question
    row: AnswerRow
    yes: bool | None = None
    letter: str | None = None
    grades: Mapping[str, float | None] | None = None
    judged: Graded | None = None

    @property
    def unread(self) -> bool:
        """Whether a short answer was due and none could be read."""
        read = {"detect": self.yes, "choice": self.letter}.get(self.question.kind, "")
        return read is None

    def to_json(self) -> dict[str, Any]:
        """A line of ``scores.jsonl``."""
        values: dict[str, Any] = {"id": self.question.id, "kind": self.question.kind}
        if self.question.kind == "detect":
            return values | {"read": {True: "yes", False: "no", None: None}[self.yes], "p_yes": self.row.p_yes}
        return values | ({"read": self.letter} if self.question.kind == "choice" else dict(self.grades or {}))


def measure(
    answerer: Answerer,
    questions: QuestionSet,
    rows: Mapping[str, AnswerRow],
    scored: Sequence[ScoredAnswer],
    scorers: Scorers,
    speed: dict[str, float | int | None],
    draws: int,
    seed: int,
) -> ReasoningResult:
    """All figures of ``scored``, the answered among ``rows``; without any ``DataError``, or ``EndpointError``."""
    lost = [row for row in rows.values() if row.text is None]
    if not scored:
        raise _nothing_answered(lost)
    by_phrasing = [_verdicts(scored, k) for k in range(len(questions.phrasings))]
    detection = tuple(detection_figures(verdicts, draws, seed) for verdicts in by_phrasing)
    levels = {str(kind): [s for s in scored if s.question.kind == kind] for kind in OPEN}
    free_text = {
        level: open_figures([Grades(s.one.category, dict(s.grades or {})) for s in of], draws, seed)
        for level, of in levels.items()
        if of
    }
    chosen = [_choice(s) for s in scored if s.question.kind == "choice"]
    judged = [s.judged for s in scored if s.judged is not None]
    counts = questions.counts | {"answered": len(scored), "unanswered": len(lost)}
    return ReasoningResult(
        questions=questions,
        model=answerer.info,
        settings=answerer.settings,
        parser=scorers.parser,
        counts=counts,
        detection=detection,
        spread=over_phrasings(detection) if len(detection) > 1 else None,
        always_yes=always_yes(by_phrasing[0]) if by_phrasing else None,
        free_text=free_text,
        choices=choice_figures(chosen) if chosen else None,
        similarity=scorers.similarity.identity if scorers.similarity is not None and free_text else None,
        judge=_judge_json(scorers.judge, judged) if scorers.judge is not None and free_text else None,
        speed=speed,
        notes=(*questions.notes, *_notes(lost, scored, detection, judged)),
        provenance=provenance(seed),
    )


def _nothing_answered(lost: Sequence[AnswerRow]) -> AnomalyOVError:
    unanswered = [row for row in lost if (row.error or "").startswith(EndpointError.__name__)]
    first = printable((unanswered or lost)[0].error or "no error")
    what = f"none of the {len(lost)} questions was answered: {first}"
    if unanswered:
        return EndpointError(what, hint=ENDPOINT_HINT)
    return DataError(what, hint="--images says where the paths of a list start, if not at the list's own folder")


def _verdicts(scored: Sequence[ScoredAnswer], phrasing: int) -> list[Verdict]:
    return [
        Verdict(s.one.category, int(s.question.reference == "yes"), s.yes, s.row.p_yes)
        for s in scored
        if s.question.kind == "detect" and s.question.phrasing == phrasing
    ]


def _choice(scored: ScoredAnswer) -> ChoiceAnswer:
    question, options = scored.question, dict(scored.question.options)
    truth = options[question.reference]
    return ChoiceAnswer(
        question.topic, truth, len(options), scored.letter == question.reference, unread=scored.letter is None
    )


def _judge_json(judge: Judge, judged: Sequence[Graded]) -> dict[str, Any]:
    failed = len(failures(judged))
    return judge.identity | {"graded": len(judged) - failed, "failed": failed}


def _notes(
    lost: Sequence[AnswerRow], scored: Sequence[ScoredAnswer], detection: Sequence[Detection], judged: Sequence[Graded]
) -> Iterator[str]:
    if lost:
        yield named("not answered, left out", [f"{row.id} ({row.error})" for row in lost])
    unread = [f"{s.question.id} {(s.row.text or '')[:40]!r}" for s in scored if s.unread]
    if unread:
        yield named("answers that cannot be read, counted as wrong", unread)
    empty = [s.question.id for s in scored if s.question.kind in OPEN and not (s.row.text or "").strip()]
    if empty:
        yield named("empty answers to free-text questions", empty)
    groups = detection[0].categories if detection else ()
    single = [one.name for one in groups if not (one.counts["normal"] and one.counts["anomalous"])]
    if single:
        yield named("one label only, some rates undefined", single)
    few = [one.name for one in groups if 0 < min(one.counts["normal"], one.counts["anomalous"]) < FEW]
    if few:
        yield named(f"fewer than {FEW} pictures of a label, intervals too narrow", few)
    failed = failures(judged)
    if failed:
        yield named("not graded by the judge, left out of its mean", [f"{one.id} ({one.error})" for one in failed])
