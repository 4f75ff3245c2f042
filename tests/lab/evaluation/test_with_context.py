from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import DataError
from anomaly_ov.images.sources import Source
from anomaly_ov.records import ContextKind, Detector, Finding, ImageInfo, ModelInfo, Threshold
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.evaluation.detect import DetectionResult, evaluate_detection
from anomaly_ov_lab.evaluation.report import ALONE, COLUMNS, columns, markdown
from anomaly_ov_lab.evaluation.run_folder import ContextUsed, Row, RunFolder
from anomaly_ov_lab.evaluation.with_context import ContextDetector, with_folder_context, with_references

INFO = ModelInfo("fake", "rev1", "cpu", "float32")


@dataclass(frozen=True)
class Bank:
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """The mean brightness of its pictures."""

    kind: ContextKind
    bank: Bank
    usual: float
    config: str = "weights 1"


@dataclass
class Inspector:
    """Scores how far a picture's brightness lies from its context's; remembers what it was asked with which."""

    config: str = "weights 1"
    asked: dict[str, str] = field(default_factory=dict)

    @property
    def info(self) -> ModelInfo:
        return INFO

    def context(self, pictures: Any, batch_size: int = 8) -> Context:
        return self._of("references", pictures)

    def folder_context(self, pictures: Any, batch_size: int = 8) -> Context:
        return self._of("folder", pictures)

    def _of(self, kind: ContextKind, pictures: list[Source]) -> Context:
        usual = float(np.median([_brightness(str(source.item)) for source in pictures]))
        return Context(kind, Bank(tuple(sorted(source.id for source in pictures))), usual, self.config)

    def stream(self, sources: Iterable[Any], batch_size: int = 8, context: Context | None = None) -> Iterator[Finding]:
        for source in sources:
            self.asked[source.id] = "none" if context is None else ",".join(context.bank.digests)
            grey = _brightness(source.item)
            apart = None if context is None else abs(grey - context.usual)
            score = grey if apart is None else apart
            yield Finding(
                source.id,
                ImageInfo(source.item, 8, 8),
                INFO,
                score_raw=grey,
                score=score,
                score_map=grey,
                threshold=Threshold(0.5, "by hand"),
                score_expert=grey,
                score_context=apart,
                significance_map=np.full((8, 8), score, np.float32),
            )


def _brightness(path: str) -> float:
    return float(np.asarray(Image.open(path), np.float32).mean()) / 255


def _two_categories(root: Path) -> Path:
    """Category a: normal is dark, b: normal is bright; the anomalous ones are the other way round."""
    for category, normal, anomalous in (("a", 40, 200), ("b", 200, 40)):
        for folder, level in (("normal", normal), ("abnormal", anomalous)):
            for i in range(6):
                path = root / category / folder / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), level + 3 * i, np.uint8)).save(path)
    return root


def _run(detector: Detector, dataset: Any, out: Path | None = None) -> DetectionResult:
    return evaluate_detection(detector, dataset, out, draws=50)


def test_each_category_is_compared_with_its_own_references(tmp_path: Path) -> None:
    data = discover(_two_categories(tmp_path / "set"))
    inspector = Inspector()
    assert _run(inspector, data).main.scores["score"].auroc == pytest.approx(0.5)
    detector, rest = with_references(inspector, data, 2, draw=3)
    assert isinstance(detector, Detector)
    assert len(rest) == len(data) - 4
    inspector.asked.clear()
    result = _run(detector, rest)
    assert result.main.scores["score"].auroc == 1
    assert result.main.scores["score_expert"].auroc == pytest.approx(0.5)
    assert result.main.scores["score_context"].auroc == 1
    references = {one for used in inspector.asked.values() for one in used.split(",")}
    assert not references & inspector.asked.keys()
    assert all(name[0] == used[0] for name, used in inspector.asked.items())
    assert (result.main.normal, result.main.anomalous) == (8, 12)


def test_the_folder_is_what_is_measured_and_called_transductive(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    (root / "a/abnormal/5.png").unlink()
    data = discover(root)
    inspector = Inspector()
    result = _run(with_folder_context(inspector, data), data, tmp_path / "out")
    assert inspector.asked["a/normal/0.png"].count("/normal/") == 6
    assert inspector.asked["a/normal/0.png"].count("a/abnormal/") == 5
    values = json.loads((tmp_path / "out/metrics.json").read_text())["context"]
    assert (values["kind"], values["transductive"], values["draw"]) == ("folder", True, None)
    assert values["categories"]["a"]["source"] == "11 measured pictures of a"
    assert values["categories"]["b"]["references"] == 12
    line = next(line for line in markdown([result]).splitlines() if line.startswith("| set"))
    assert columns([result])[3] == ALONE
    assert "| set, folder (transductive) (mean of 2) |" in markdown([result])
    assert line.count("|") == len(columns([result])) + 1


def test_without_a_context_nothing_is_said_of_one(tmp_path: Path) -> None:
    data = discover(_two_categories(tmp_path / "set"))
    result = _run(Inspector(), data)
    assert result.to_json()["context"] is None
    assert columns([result]) == COLUMNS
    assert result.main.scores["score_context"].auroc is None
    assert "| set (mean of 2) |" in markdown([result])


def test_rows_of_another_context_are_made_anew(tmp_path: Path) -> None:
    data = discover(_two_categories(tmp_path / "set"))
    out = tmp_path / "out"

    def scored(draw: int | None, config: str = "weights 1") -> int | float | None:
        inspector = Inspector(config)
        if draw is None:
            return _run(inspector, data, out).speed["scored"]
        detector, rest = with_references(inspector, data, 2, draw)
        return _run(detector, rest, out).speed["scored"]

    assert scored(None) == 24
    assert scored(0) == 20
    assert scored(0) == 0
    assert scored(1) == 20
    assert scored(1, "weights 2") == 20
    assert scored(None) == 24
    detector = with_folder_context(Inspector(), data)
    assert _run(detector, data, out).speed["scored"] == 24
    assert _run(detector, data, out).speed["scored"] == 0


def test_a_folder_that_changed_is_another_context_of_its_category_only(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    _run(with_folder_context(Inspector(), discover(root)), discover(root), tmp_path / "out")
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(root / "b/normal/new.png")
    again = Inspector()
    _run(with_folder_context(again, discover(root)), discover(root), tmp_path / "out")
    assert sorted(again.asked) == sorted(name for name in again.asked if name.startswith("b/"))
    assert len(again.asked) == 13


def test_a_row_keeps_its_context(tmp_path: Path) -> None:
    used = ContextUsed.of(Context("references", Bank(("x", "y")), 0.5), "2 normal pictures of a", 4)
    finding = Finding("p", ImageInfo("p.png", 3, 3, "ab"), INFO, score=0.2, score_expert=0.3, score_context=0.1)
    with RunFolder(tmp_path, INFO) as run:
        run.append(Row.of("p.png", finding, None, None, used))
    (row,) = RunFolder(tmp_path, INFO).resume(lambda row: True).values()
    assert row.context == used
    assert (row.score_expert, row.score_context) == (0.3, 0.1)
    assert (used.label, used.references, used.transductive) == ("2 references, draw 4", 2, False)
    other = ContextUsed.of(Context("references", Bank(("y", "x")), 0.5), "2 normal pictures of a", 4)
    assert (used.digest, other.digest) == ("a891f80b6c9d6689", "2d711023d399c279")  # as rows of earlier runs have them
    assert replace(used, references=1, draw=None).label == "1 reference"


def test_order_is_kept_where_categories_alternate_and_strangers_are_refused(tmp_path: Path) -> None:
    data = discover(_two_categories(tmp_path / "set"))
    detector, rest = with_references(Inspector(), data, 1, 0)
    samples = list(rest)
    mixed = [sample for pair in zip(samples[:8], samples[-8:], strict=True) for sample in pair]
    sources = [Source(str(sample.image), rest.id_of(sample)) for sample in mixed]
    assert [finding.id for finding in detector.stream(sources)] == [source.id for source in sources]
    with pytest.raises(DataError, match="no context for strange"):
        list(detector.stream([Source("strange.png", "strange")]))
    empty: ContextDetector[Context] = ContextDetector(Inspector(), {}, {"x": "a"}, {})
    with pytest.raises(DataError, match="no context for x"):
        list(empty.stream([Source("x.png", "x")]))
