from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly_ov.errors import DataError
from anomaly_ov_lab.evaluation.stored_run import StoredRun, runs_in
from run_fixtures import write_run

PICTURES = {"a.png": ("x", 0, 0.2), "b.png": ("x", 1, 0.8), "c.png": ("x", 1, None)}


def test_a_run_says_what_made_it(tmp_path: Path) -> None:
    run = StoredRun.read(write_run(tmp_path / "run", PICTURES, "ours"))
    side = run.side()
    assert (side.model, side.threshold, side.threshold_source) == ("ours 1 (float32)", 0.5, "fitted for ours")
    assert (side.context, side.pictures) == (None, 3)
    assert (run.rows["b.png"].score, run.rows["b.png"].score_raw, run.rows["b.png"].score_map) == (0.8, 0.8, None)
    assert run.rows["c.png"].error == "UnreadableImage: broken"
    assert run.labels["b.png"].label == 1


@pytest.mark.parametrize(
    ("context", "label"),
    [
        ({"transductive": True, "draw": None, "categories": {}}, "folder (transductive)"),
        ({"transductive": False, "draw": 2, "categories": {"x": {"references": 4}}}, "4 references, draw 2"),
    ],
)
def test_contexts_are_named(tmp_path: Path, context: dict[str, object], label: str) -> None:
    run = StoredRun.read(write_run(tmp_path / "run", PICTURES, context=context))
    assert run.side().context == label
    assert run.transductive is bool(context["transductive"])


def test_a_line_cut_short_and_pictures_without_a_label_are_no_rows(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", PICTURES)
    rows = folder / "per_image.jsonl"
    first = json.loads(rows.read_text().splitlines()[0])
    rows.write_text(rows.read_text() + json.dumps(first | {"id": "stranger.png"}) + "\n" + '{"schema": "anoma')
    assert list(StoredRun.read(folder).rows) == ["a.png", "b.png", "c.png"]


def test_rows_of_another_model_than_the_figures_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", PICTURES, "first")
    (write_run(tmp_path / "other", PICTURES, "second") / "per_image.jsonl").rename(folder / "per_image.jsonl")
    with pytest.raises(DataError, match=r"holds figures of first 1 \(float32\), but rows of second 1 \(float32\)"):
        StoredRun.read(folder)


def test_runs_are_found_alone_and_below_a_folder(tmp_path: Path) -> None:
    one = write_run(tmp_path / "out" / "one", PICTURES, dataset="one")
    two = write_run(tmp_path / "out" / "two", PICTURES, dataset="two")
    assert runs_in(tmp_path / "out") == {"one": one, "two": two}
    assert runs_in(one) == {"one": one}


def test_folders_without_a_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        runs_in(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no finished run: no metrics\.json"):
        runs_in(tmp_path)
    write_run(tmp_path / "a", PICTURES)
    write_run(tmp_path / "b", PICTURES)
    with pytest.raises(DataError, match="are both runs over set"):
        runs_in(tmp_path)
    (tmp_path / "b" / "per_image.jsonl").unlink()
    with pytest.raises(DataError, match=r"per_image\.jsonl: No such file"):
        StoredRun.read(tmp_path / "b")


@pytest.mark.parametrize("content", ["[]", "{", '{"schema": "anomaly-ov.answers/1"}', '{"dataset": "x"}'])
def test_other_results_are_refused(tmp_path: Path, content: str) -> None:
    folder = write_run(tmp_path / "run", PICTURES)
    (folder / "metrics.json").write_text(content)
    with pytest.raises(DataError, match="is no result of 'eval detect'"):
        StoredRun.read(folder)
