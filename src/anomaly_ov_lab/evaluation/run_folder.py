"""The folder of one evaluation run: a row per picture as it is scored, its map beside it, so that a run can go on.

``per_image.jsonl``   one row per picture, appended and flushed at once; a line cut short by a kill is dropped.
``maps/<id>.png``     the map where pixel metrics need one: 16-bit grey, 0 and 65535 standing for the row's ``low`` and
                      ``high``, so no value is off by more than (high - low) / 131070. Written before its row. A digest
                      stands for an id that is too long for a file's name.
``metrics.json``      the figures (see ``detect``).
``labels.jsonl``      what the data set said of each picture, written anew by each run. Rows hold scores alone, so that
                      relabelling a set costs no scoring; with this a run can be compared without its data set.

A row is used again only for the same bytes, model name, revision, precision, settings and context; a model without a
revision could have other weights under the same name, so nothing of it is used again. A folder that holds rows of a
model of another name is refused: it is more likely mistaken than meant to be written over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import DataError, UsageError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.messages import counted
from anomaly_ov.records import ContextKind, Finding, ModelInfo
from anomaly_ov.scoring.anomaly_map import to_image_pixels
from anomaly_ov.scoring.conformal import MadeContext, context_digest
from anomaly_ov_lab.data.samples import DataSet
from anomaly_ov_lab.evaluation.row_file import RowFile

ROW_SCHEMA = "anomaly-ov.evaluation-row/1"
ROWS_NAME = "per_image.jsonl"
_STEPS = 65535
_LONGEST_NAME = 255
"""Bytes of a file's name on most file systems."""


@dataclass(frozen=True)
class MapFile:
    """Where a map lies, relative to the run's folder, and the values of its ends."""

    path: str
    low: float
    high: float


@dataclass(frozen=True)
class ContextUsed:
    """The context that scores were made with. ``draw``: seed by which references were drawn; None for a folder's.

    ``digest``: of its references and settings, 16 hex digits: equal only for contexts that score alike.
    """

    kind: ContextKind
    source: str
    references: int
    draw: int | None
    digest: str

    @classmethod
    def of(cls, context: MadeContext, source: str, draw: int | None) -> ContextUsed:
        """What to remember of ``context``. ``source``: where its pictures came from, in words."""
        digests = context.bank.digests
        return cls(context.kind, source, len(digests), draw, context_digest(context, digests))

    @property
    def transductive(self) -> bool:
        """Whether scores depend on the other pictures that were measured."""
        return self.kind == "folder"

    @property
    def label(self) -> str:
        """A few words for a table."""
        if self.transductive:
            return "folder (transductive)"
        drawn = "" if self.draw is None else f", draw {self.draw}"
        return f"{counted(self.references, 'reference')}{drawn}"


@dataclass(frozen=True)
class Row:
    """What one picture scored. ``error`` is set, and the scores are None, if it could not be read.

    ``context``: None where the picture stood for itself. ``settings``: digest of what else decides scores, beside the
    weights; None of a detector that says nothing of it.
    """

    id: str
    sha256: str | None
    model: ModelInfo
    width: int | None = None
    height: int | None = None
    score: float | None = None
    score_raw: float | None = None
    score_map: float | None = None
    threshold: float | None = None
    threshold_source: str | None = None
    error: str | None = None
    map: MapFile | None = None
    score_expert: float | None = None
    score_context: float | None = None
    context: ContextUsed | None = None
    settings: str | None = None

    @classmethod
    def of(
        cls,
        id_: str,
        finding: Finding,
        sha256: str | None,
        map_file: MapFile | None,
        context: ContextUsed | None = None,
        settings: str | None = None,
    ) -> Row:
        """The row of a finding; ``sha256`` stands in where the finding itself has none."""
        return cls(
            id=id_,
            sha256=finding.image.sha256 or sha256,
            model=finding.model,
            width=finding.image.width,
            height=finding.image.height,
            score=finding.score,
            score_raw=finding.score_raw,
            score_map=finding.score_map,
            threshold=finding.threshold.value if finding.threshold else None,
            threshold_source=finding.threshold.source if finding.threshold else None,
            error=f"{finding.error.type}: {finding.error.message}" if finding.error else None,
            map=map_file,
            score_expert=finding.score_expert,
            score_context=finding.score_context,
            context=context,
            settings=settings,
        )


class RunFolder(RowFile[Row]):
    """Rows and maps of one run of one model. Use as a context manager; one process at a time."""

    def __init__(self, folder: Path, model: ModelInfo) -> None:
        super().__init__(folder / ROWS_NAME, Row, ROW_SCHEMA)
        self.folder, self._model = folder, model
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self, still_holds: Callable[[Row], bool]) -> dict[str, Row]:
        """Rows of an earlier run that may be used again, by id; all others are removed from the file.

        Raises ``UsageError``, before anything is removed, if they are of a model of another name.
        """
        found = self.read()
        others = sorted({row.model.name for row in found} - {self._model.name})
        if others:
            raise UsageError(
                f"{self.folder} holds scores of {', '.join(others)}, this is {self._model.name}",
                hint="give another --out, or remove the folder",
            )
        rows = {row.id: row for row in found if self._usable(row) and still_holds(row)}
        self.replace(rows.values())
        return rows

    def write_map(self, id_: str, map_HW: npt.NDArray[np.floating]) -> MapFile:
        """Stores a map; see the module's text for its precision. Raises ``DataError`` if it is not finite."""
        low, high = float(map_HW.min()), float(map_HW.max())
        if not np.isfinite([low, high]).all():
            raise DataError(f"the map of {id_} is not finite", hint="the detector's output is broken")
        scaled = (map_HW.astype(np.float64) - low) * (_STEPS / (high - low) if high > low else 0.0)
        buffer = BytesIO()
        Image.fromarray(np.rint(scaled).astype(np.uint16)).save(buffer, "PNG", compress_level=1)
        name = f"maps/{id_}.png"
        if len(os.fsencode(Path(name).name)) > _LONGEST_NAME:
            name = f"maps/{hashlib.sha256(os.fsencode(id_)).hexdigest()}.png"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
        return MapFile(name, low, high)

    def read_map(self, map_file: MapFile, wh: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
        """A stored map, (H, W) float32 in [low, high], bilinearly at ``wh`` (width, height) if given.

        Raises ``DataError`` if the file does not decode any more.
        """
        path = self.folder / map_file.path
        try:
            with Image.open(path) as picture:
                steps = np.asarray(picture).astype(np.float64)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(
                f"the map {path} does not decode: {error}", hint="remove that file, the same command makes it anew"
            ) from None
        values = (map_file.low + steps * ((map_file.high - map_file.low) / _STEPS)).astype(np.float32)
        resized = values if wh is None else to_image_pixels(values, wh)
        return np.clip(resized, np.float32(map_file.low), np.float32(map_file.high))

    def _usable(self, row: Row) -> bool:
        same = (row.model.name, row.model.revision, row.model.dtype) == (
            self._model.name,
            self._model.revision,
            self._model.dtype,
        )
        has_map = row.map is None or (self.folder / row.map.path).is_file()
        return bool(self._model.revision) and same and row.error is None and has_map


LABELS_NAME = "labels.jsonl"


@dataclass(frozen=True)
class PictureLabel:
    """A picture's id in its data set, its label (0 normal, 1 anomalous, None unknown) and its category."""

    id: str
    label: int | None
    category: str


def write_labels(folder: Path, dataset: DataSet) -> None:
    """Writes the labels of all pictures of ``dataset`` into ``folder``."""
    labels = (PictureLabel(dataset.id_of(sample), sample.label, sample.category) for sample in dataset)
    lines = (json.dumps(asdict(label)) + "\n" for label in labels)
    write_atomic(folder / LABELS_NAME, "".join(lines).encode())


def read_labels(folder: Path) -> dict[str, PictureLabel]:
    """The labels of a run's folder, by id, in the data set's order. Raises ``DataError`` if they are missing or odd."""
    path = folder / LABELS_NAME
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise DataError(
            f"{folder} has no {LABELS_NAME}", hint="measure again into the same folder; its rows are used again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="measure again into the same folder") from None
    found = [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return {label.id: label for label in found}


def _parsed(path: Path, number: int, line: str) -> PictureLabel:
    try:
        values: dict[str, Any] = json.loads(line)
        label = PictureLabel(**values)
        if label.label not in (0, 1, None) or not isinstance(label.id, str) or not isinstance(label.category, str):
            raise ValueError("unknown values")
        return label
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}, line {number}: {error}", hint="measure again into the same folder") from None
