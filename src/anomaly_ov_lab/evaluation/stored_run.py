"""A finished run as it lies in its folder: figures, rows and labels, read without the data set or the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomaly_ov.errors import DataError
from anomaly_ov_lab.evaluation.row_file import RowFile
from anomaly_ov_lab.evaluation.run_folder import ROW_SCHEMA, ROWS_NAME, PictureLabel, Row, read_labels

_METRICS_NAME, _METRICS_SCHEMA = "metrics.json", "anomaly-ov.detection/1"


@dataclass(frozen=True)
class Side:
    """What made a run's scores. ``model``: name, revision and precision. ``context``: in words, None without one."""

    run: str
    model: str
    threshold: float | None
    threshold_source: str | None
    context: str | None
    pictures: int


@dataclass(frozen=True)
class StoredRun:
    """``metrics``: the content of ``metrics.json``. ``rows`` and ``labels`` by the picture's id."""

    folder: Path
    metrics: dict[str, Any]
    rows: dict[str, Row]
    labels: dict[str, PictureLabel]

    @classmethod
    def read(cls, folder: Path) -> StoredRun:
        """The run in ``folder``. Raises ``DataError`` where a file is missing or rows are of more than one model."""
        metrics, labels = read_metrics(folder), read_labels(folder)
        if not (folder / ROWS_NAME).is_file():
            raise DataError(f"{folder / ROWS_NAME}: No such file", hint="measure again into that folder")
        found = RowFile(folder / ROWS_NAME, Row, ROW_SCHEMA).read()
        rows = {row.id: row for row in found if row.id in labels}
        named = _model_name(metrics["model"])
        others = sorted({_model_name(asdict(row.model)) for row in rows.values()} - {named})
        if others:
            raise DataError(
                f"{folder} holds figures of {named}, but rows of {', '.join(others)}",
                hint="measure again into that folder",
            )
        return cls(folder, metrics, rows, labels)

    @property
    def threshold(self) -> float | None:
        """The threshold of the first row that has one; a run has one only."""
        return next((row.threshold for row in self.rows.values() if row.threshold is not None), None)

    @property
    def transductive(self) -> bool:
        """Whether scores depend on the set's other pictures."""
        return bool((self.metrics.get("context") or {}).get("transductive"))

    @property
    def pixels(self) -> dict[str, Any] | None:
        """The stored pixel figures of the set as a whole."""
        pixels: dict[str, Any] | None = (self.metrics.get("main") or {}).get("pixels")
        return pixels

    def side(self) -> Side:
        """What to say of this run beside its figures."""
        return Side(
            run=str(self.folder),
            model=_model_name(self.metrics["model"]),
            threshold=self.threshold,
            threshold_source=self.metrics.get("threshold_source"),
            context=_context_label(self.metrics.get("context")),
            pictures=len(self.rows),
        )


def runs_in(folder: Path) -> dict[str, Path]:
    """The runs of a folder by the name of their data set: its own, or those of its sub-folders.

    Raises ``DataError`` if there is none, or two of one name.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}", hint="give the folder of 'eval detect --out'")
    candidates = [folder] if (folder / _METRICS_NAME).is_file() else sorted(folder.iterdir())
    found: dict[str, Path] = {}
    for path in candidates:
        if (path / _METRICS_NAME).is_file():
            name = str(read_metrics(path)["dataset"])
            if name in found:
                raise DataError(f"{found[name]} and {path} are both runs over {name}", hint="name one of the two")
            found[name] = path
    if not found:
        raise DataError(
            f"{folder} holds no finished run: no {_METRICS_NAME}", hint="let 'eval detect --out' come to its end"
        )
    return found


def read_metrics(folder: Path) -> dict[str, Any]:
    """The content of a run's ``metrics.json``. Raises ``DataError`` if it is missing or something else."""
    path = folder / _METRICS_NAME
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != _METRICS_SCHEMA:
            raise ValueError(f"its schema is {values['schema']}, not {_METRICS_SCHEMA}")
        if not isinstance(values["dataset"], str) or not isinstance(values["model"]["name"], str):
            raise ValueError("it names no data set or model")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no result of 'eval detect': {error}", hint="measure again into that folder"
        ) from None
    return values


def _model_name(model: Mapping[str, Any]) -> str:
    return f"{model['name']} {model.get('revision') or '-'} ({model.get('dtype') or '-'})"


def _context_label(context: dict[str, Any] | None) -> str | None:
    if not context:
        return None
    if context.get("transductive"):
        return "folder (transductive)"
    used: dict[str, Any] = next(iter((context.get("categories") or {}).values()), {})
    drawn = "" if context.get("draw") is None else f", draw {context['draw']}"
    return f"{used.get('references', 'some')} references{drawn}"
