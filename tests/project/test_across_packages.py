"""Where one package relies on another without importing it: words that models are taught, exports as data sets."""

from __future__ import annotations

from pathlib import Path

from anomaly_ov.cli.inspect import EXPLAIN
from anomaly_ov.words.question import understood
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.instruct.questions import WORDINGS, wordings
from anomaly_ov_server.exports.coco import coco
from anomaly_ov_server.region_words import in_place
from serving_export_fixtures import about, batch


def test_records_answer_or_refuse_whole_intents_that_models_are_taught() -> None:
    asked = {intent: [w.text for w in WORDINGS if w.intent == intent] for intent in {w.intent for w in WORDINGS}}
    never = ("kind", "kind_check", "severity", "action", "surface", "surface_check", "colours", "report")
    for intent in never:
        assert [text for text in asked[intent] if understood(text)] == []
    for intent in ("detect", "fine", "place", "count"):
        known = [text for text in asked[intent] if understood(text)]
        assert len(known) >= 0.9 * len(asked[intent]), sorted(set(asked[intent]) - set(known))


def test_an_explanation_asks_what_models_are_trained_on() -> None:
    assert EXPLAIN in {wording.text for wording in wordings("report", "sentence", "train")}


def test_a_yes_or_no_question_about_a_region_is_one_that_models_are_taught() -> None:
    taught = {one.text for one in wordings("place_check", "sentence", "train")}
    for question in ("Is there a defect?", "Is something wrong here?", "Do you see any damage in this picture?"):
        assert in_place(question, "{place}") in taught


def test_coco_is_read_back_as_a_labelled_set(tmp_path: Path) -> None:
    rows = batch(tmp_path)[:5]
    pictures = tmp_path / "set" / "images"
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    pictures.mkdir()
    for row in rows:
        assert row.preview is not None
        (pictures / row.name).write_bytes(row.preview.read_bytes())
    (tmp_path / "set" / "annotations" / "test.json").write_bytes(b"".join(coco(rows, about())))
    labels = {sample.image.name: sample.label for sample in discover(tmp_path / "set").samples}
    assert labels == {"scratch.png": 1, "fine.png": 0, "dust.png": 0, "undecided.png": 0, "glare.png": 1}
