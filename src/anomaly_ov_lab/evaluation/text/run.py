"""Asks a model a set of questions and measures its answers. What is asked once is kept and never asked again.

* A picture that cannot be read, and a question that an endpoint left without an answer, are counted, named, and left
  out of every figure; both are tried again by the next call.
* An answer that came but says nothing that can be read is wrong (``figures``).
* Free text is scored by ROUGE-L, by similarity and by a judge, each only if wanted; a judge's failures are counted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomaly_ov.errors import DataError
from anomaly_ov.files import write_atomic
from anomaly_ov.records import ErrorInfo
from anomaly_ov_lab.data.hashing import sha256_file
from anomaly_ov_lab.evaluation.row_file import folder_or_temporary
from anomaly_ov_lab.evaluation.text.answer_folder import SCORES_NAME, AnswerFolder, AnswerRow
from anomaly_ov_lab.evaluation.text.answerers import Answerer, ImageToAsk, Reply
from anomaly_ov_lab.evaluation.text.judge import Graded, Judge, ToGrade, graded_before
from anomaly_ov_lab.evaluation.text.questions import OPEN, ImageQuestions, Question, QuestionSet
from anomaly_ov_lab.evaluation.text.result import ReasoningResult, ScoredAnswer, Scorers, measure
from anomaly_ov_lab.evaluation.text.similarity import Similarity, rouge, rouge_l
from anomaly_ov_lab.instruct.reading import Parser, letter, says_yes

METRICS_NAME = "metrics.json"
TABLE_NAME = "table.md"

Progress = Callable[[str, int, int], None]


def nobody(what: str, done: int, total: int) -> None:
    """The default ``Progress``."""


def evaluate_reasoning(
    answerer: Answerer,
    questions: QuestionSet,
    out: Path | None = None,
    *,
    parser: Parser = "strict",
    similarity: Similarity | None = None,
    judge: Judge | None = None,
    progress: Progress = nobody,
    draws: int = 2000,
    seed: int = 0,
) -> ReasoningResult:
    """Asks ``answerer`` all ``questions`` and measures the answers. See the module's text for the rules.

    ``out``: the run's folder, kept and gone on with; None keeps nothing. ``similarity``, ``judge``: for free text, None
    = without. ``progress``: called with what is done and (done, total). ``draws``, ``seed``: of the intervals.
    Raises ``DataError`` if no picture could be read, ``EndpointError`` if an endpoint answered nothing, ``UsageError``
    for a folder of another model, ``MissingExtra``, ``EndpointRefused``; what was answered until then is kept.
    """
    if questions.has(*OPEN):
        rouge()
    started = time.perf_counter()
    with folder_or_temporary(out) as folder, AnswerFolder(folder, answerer.info, answerer.settings) as run:
        rows, asked = _ask(answerer, questions, run, progress)
        seconds = time.perf_counter() - started
        scorers = Scorers(parser, similarity, judge)
        scored = _score(questions, rows, run, scorers, progress)
        rate = asked / seconds if asked and seconds > 0 else None
        speed = {"asked": asked, "seconds": round(seconds, 3), "questions_per_second": rate}
        result = measure(answerer, questions, rows, scored, scorers, speed, draws, seed)
        if out is not None:
            _write(out, result, scored)
    return result


# --- asking ---------------------------------------------------------------------------------------------------------


def _ask(
    answerer: Answerer, questions: QuestionSet, run: AnswerFolder, progress: Progress
) -> tuple[dict[str, AnswerRow], int]:
    """A row per question, by id, and how many were asked now."""
    places = {q.id: (one, k) for one in questions.conversations for k, q in enumerate(one.questions)}
    digests: dict[Path, str | None] = {}

    def still_holds(row: AnswerRow) -> bool:
        one, k = places[row.id]
        return row.asked == _asked(one, k) and row.sha256 is not None and row.sha256 == _sha256(one.image, digests)

    usable = run.resume(lambda row: row.id in places, still_holds)
    rows = {row.id: row for row in usable}
    pending = [part for one in questions.conversations if (part := _pending(one, rows)) is not None]
    total, done = sum(len(part.questions) for part in pending), 0
    asked = [ImageToAsk(one.image, tuple(q.text for q in one.questions), one.remember) for one in pending]
    replies = answerer.stream(asked) if asked else iter(())
    for one in pending:
        given = next(replies, [])
        if len(given) != len(one.questions):
            what = f"{len(one.questions)} questions about {one.id} were asked and {len(given)} answered"
            raise DataError(what, hint="this is a fault of the answerer")
        sha256 = _sha256(one.image, digests)
        for question, reply in zip(one.questions, given, strict=True):
            of, k = places[question.id]
            rows[question.id] = _row(of, k, sha256, answerer, reply)
            run.append(rows[question.id])
        done += len(one.questions)
        progress("asking", done, total)
    return rows, total


def _pending(one: ImageQuestions, rows: Mapping[str, AnswerRow]) -> ImageQuestions | None:
    """What of a conversation is still to be asked: all of one that builds on itself, else single questions."""
    missing = tuple(question for question in one.questions if question.id not in rows)
    if not missing:
        return None
    return ImageQuestions(one.id, one.image, one.category, one.questions if one.remember else missing, one.remember)


def _asked(one: ImageQuestions, k: int) -> str:
    """Digest of question ``k`` with what stands before it."""
    texts = [question.text for question in one.questions[: k + 1]] if one.remember else [one.questions[k].text]
    return hashlib.sha256(json.dumps([one.remember, texts]).encode()).hexdigest()[:16]


def _sha256(image: Path, known: dict[Path, str | None]) -> str | None:
    if image not in known:
        known[image] = sha256_file(image) if image.is_file() else None
    return known[image]


def _row(one: ImageQuestions, k: int, sha256: str | None, answerer: Answerer, reply: Reply) -> AnswerRow:
    question = one.questions[k]
    given: dict[str, Any]
    if isinstance(reply, ErrorInfo):
        given = {"error": f"{reply.type}: {reply.message}"}
    else:
        given = {name: getattr(reply, name) for name in ("text", "p_yes", "finish", "tokens_in", "tokens_out")}
        given["ms"] = reply.timing_ms.get("total")
    return AnswerRow(
        id=question.id,
        image=one.id,
        sha256=sha256,
        category=one.category,
        kind=question.kind,
        question=question.text,
        reference=question.reference,
        asked=_asked(one, k),
        model=answerer.info,
        settings=answerer.settings,
        **given,
    )


# --- reading and scoring ---------------------------------------------------------------------------------------------


def _score(
    questions: QuestionSet, rows: Mapping[str, AnswerRow], run: AnswerFolder, scorers: Scorers, progress: Progress
) -> list[ScoredAnswer]:
    """Every answered question."""
    answered = [
        (one, question, row, row.text)
        for one in questions.conversations
        for question in one.questions
        if (row := rows[question.id]).text is not None
    ]
    found = [
        ScoredAnswer(one, q, row, yes=says_yes(text, scorers.parser))
        if q.kind == "detect"
        else ScoredAnswer(one, q, row, letter=letter(text, [option for option, _ in q.options]))
        for one, q, row, text in answered
        if q.kind not in OPEN
    ]
    return found + _graded([item for item in answered if item[1].kind in OPEN], run, scorers, progress)


def _graded(
    answered: Sequence[tuple[ImageQuestions, Question, AnswerRow, str]],
    run: AnswerFolder,
    scorers: Scorers,
    progress: Progress,
) -> list[ScoredAnswer]:
    if not answered:
        return []
    references, texts = [q.reference for _, q, _, _ in answered], [text for *_, text in answered]
    columns: dict[str, list[float | None]] = {"rouge_l": list(rouge_l(references, texts))}
    if scorers.similarity is not None:
        columns["sbert"] = list(scorers.similarity.scores(references, texts))
    judged: list[Graded] = []
    if scorers.judge is not None:
        items = [ToGrade(q.id, q.text, q.reference, text) for _, q, _, text in answered]
        for graded in scorers.judge.grade(items, graded_before(run.judged.read()), run.judged.append):
            judged.append(graded)
            progress("judging", len(judged), len(items))
        columns["judge"] = [graded.score for graded in judged]
    return [
        ScoredAnswer(
            one, q, row, grades={name: of[k] for name, of in columns.items()}, judged=judged[k] if judged else None
        )
        for k, (one, q, row, _) in enumerate(answered)
    ]


def _write(out: Path, result: ReasoningResult, scored: Sequence[ScoredAnswer]) -> None:
    from anomaly_ov_lab.evaluation.text.table import markdown

    lines = "".join(json.dumps(one.to_json()) + "\n" for one in scored)
    write_atomic(out / SCORES_NAME, lines.encode())
    write_atomic(out / TABLE_NAME, markdown([result], per_category=True).encode())
    text = json.dumps(result.to_json(), indent=1, allow_nan=False)
    write_atomic(out / METRICS_NAME, (text + "\n").encode())
