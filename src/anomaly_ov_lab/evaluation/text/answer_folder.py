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

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from anomaly_ov.errors import UsageError
from anomaly_ov.files import write_atomic
from anomaly_ov.records import ModelInfo
from anomaly_ov_lab.evaluation.text.judge import TRANSCRIPTS_NAME, Graded, read_transcripts, transcript_line

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


class AnswerFolder:
    """Answers of one model. Use as a context manager; one process at a time."""

    def __init__(self, folder: Path, model: ModelInfo, settings: str) -> None:
        self.folder, self._model, self._settings = folder, model, settings
        self._file: IO[str] | None = None
        self._judged: IO[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> AnswerFolder:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._file, self._judged):
            if file is not None:
                file.close()

    def resume(self, asked: Callable[[AnswerRow], bool], still_holds: Callable[[AnswerRow], bool]) -> list[AnswerRow]:
        """Rows that may be used again. ``asked``: whether a row's question is one of this call's.

        Rows to be asked again are removed from the file, those of other questions stay. Raises ``UsageError`` if the
        folder holds answers of another model, or under other settings.
        """
        rows = list({row.id: row for row in self._read()}.values())
        for row in rows:
            self._require_own(row)
        usable = [row for row in rows if asked(row) and row.error is None and still_holds(row)]
        others = [row for row in rows if not asked(row)]
        write_atomic(self.folder / ROWS_NAME, "".join(map(_line, [*others, *usable])).encode())
        return usable

    def append(self, row: AnswerRow) -> None:
        """Adds a row and hands it to the operating system at once."""
        if self._file is None:
            self._file = (self.folder / ROWS_NAME).open("a", encoding="utf-8")
        self._file.write(_line(row))
        self._file.flush()

    def judged(self) -> dict[str, Graded]:
        """Grades of earlier calls, by key."""
        return read_transcripts(self.folder / TRANSCRIPTS_NAME)

    def keep_judged(self, graded: Graded) -> None:
        """Adds an exchange with the judge."""
        if self._judged is None:
            path = self.folder / TRANSCRIPTS_NAME
            torn = path.is_file() and not path.read_bytes().endswith(b"\n")
            self._judged = path.open("a", encoding="utf-8")
            self._judged.write("\n" if torn else "")
        self._judged.write(transcript_line(graded))
        self._judged.flush()

    def _require_own(self, row: AnswerRow) -> None:
        theirs, ours = (row.model.name, row.model.revision, row.model.dtype), _identity(self._model)
        hint = "give another --out, or remove the folder"
        if theirs != ours:
            what = f"{self.folder} holds answers of {' '.join(theirs)}, this is {' '.join(ours)}"
            raise UsageError(what, hint=hint)
        if row.settings != self._settings:
            what = f"{self.folder} holds answers given with {row.settings}; now it is {self._settings}"
            raise UsageError(what, hint=hint)

    def _read(self) -> list[AnswerRow]:
        path = self.folder / ROWS_NAME
        if not path.is_file():
            return []
        rows = (_parse(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
        return [row for row in rows if row is not None]


def _identity(model: ModelInfo) -> tuple[str, str, str]:
    return model.name, model.revision, model.dtype


def _line(row: AnswerRow) -> str:
    return json.dumps({"schema": ROW_SCHEMA} | asdict(row)) + "\n"


def _parse(line: str) -> AnswerRow | None:
    """A row, or None for a line that was cut short or is of another schema."""
    try:
        values: dict[str, Any] = json.loads(line)
        if values.pop("schema") != ROW_SCHEMA:
            return None
        return AnswerRow(**values | {"model": ModelInfo(**values["model"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
