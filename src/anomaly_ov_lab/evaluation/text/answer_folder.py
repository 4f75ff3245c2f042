"""The folder of one run over questions: a row per answer as it comes, so that a run can go on.

``per_question.jsonl``   one row per question, appended and flushed at once; a line cut short by a kill is dropped.
``judge.jsonl``          every exchange with the judge (see ``judge``).
``scores.jsonl``         what was read from each answer and how it scored; made anew by every call.
``metrics.json``, ``table.md``   the figures.

An answer is used again only for the same question (with those before it, in a conversation), picture bytes, model and
settings. Answers hold the raw text: another parser or metric asks nothing again. A folder that holds another model's
answers is refused, for they may have been paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_ov.errors import UsageError
from anomaly_ov.records import ModelInfo
from anomaly_ov_lab.evaluation.row_file import RowFile
from anomaly_ov_lab.evaluation.text.judge import TRANSCRIPTS_NAME, Graded

ROW_SCHEMA = "anomaly-ov.answer-row/1"
ROWS_NAME = "per_question.jsonl"
SCORES_NAME = "scores.jsonl"


@dataclass(frozen=True)
class AnswerRow:
    """What was asked and answered. ``asked``: digest of the question and those before it.

    ``error`` is set, and ``text`` None, if the picture could not be read or no answer came.
    """

    id: str
    image: str
    sha256: str | None
    category: str
    kind: str
    question: str
    reference: str
    asked: str
    model: ModelInfo
    settings: str
    text: str | None = None
    p_yes: float | None = None
    finish: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    ms: float | None = None
    error: str | None = None


class AnswerFolder(RowFile[AnswerRow]):
    """Answers of one model; ``judged``: exchanges with the judge. Use as a context manager; one process at a time."""

    def __init__(self, folder: Path, model: ModelInfo, settings: str) -> None:
        super().__init__(folder / ROWS_NAME, AnswerRow, ROW_SCHEMA)
        self.folder, self._model, self._settings = folder, model, settings
        self.judged = RowFile(folder / TRANSCRIPTS_NAME, Graded, None)
        folder.mkdir(parents=True, exist_ok=True)

    def __exit__(self, *of: Any) -> None:
        super().__exit__(*of)
        self.judged.__exit__(*of)

    def resume(self, asked: Callable[[AnswerRow], bool], still_holds: Callable[[AnswerRow], bool]) -> list[AnswerRow]:
        """Rows that may be used again. ``asked``: whether a row's question is one of this call's.

        Rows to be asked again are removed from the file, those of other questions stay. Raises ``UsageError`` if the
        folder holds answers of another model, or under other settings.
        """
        rows = list({row.id: row for row in self.read()}.values())
        for row in rows:
            self._require_own(row)
        usable = [row for row in rows if asked(row) and row.error is None and still_holds(row)]
        others = [row for row in rows if not asked(row)]
        self.replace([*others, *usable])
        return usable

    def _require_own(self, row: AnswerRow) -> None:
        theirs, ours = (row.model.name, row.model.revision, row.model.dtype), _identity(self._model)
        hint = "give another --out, or remove the folder"
        if theirs != ours:
            what = f"{self.folder} holds answers of {' '.join(theirs)}, this is {' '.join(ours)}"
            raise UsageError(what, hint=hint)
        if row.settings != self._settings:
            what = f"{self.folder} holds answers given with {row.settings}; now it is {self._settings}"
            raise UsageError(what, hint=hint)


def _identity(model: ModelInfo) -> tuple[str, str, str]:
    return model.name, model.revision, model.dtype
