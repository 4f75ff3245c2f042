"""JSON lines, CSV and COCO say the same of every picture, and nothing that should stay here."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly_ov.scoring.regions import rle_decode
from anomaly_ov_server.exports.coco import coco
from anomaly_ov_server.exports.csv_table import COLUMNS, csv_table, guarded
from anomaly_ov_server.exports.jsonl import jsonl
from anomaly_ov_server.reviewed import Decision, Reviewed
from serving_export_fixtures import AT, THRESHOLD, about, batch, pending, record_of, scored


def lines_of(rows: list[Reviewed]) -> list[dict[str, object]]:
    return [json.loads(line) for line in b"".join(jsonl(rows, about())).splitlines()]


def table_of(rows: list[Reviewed]) -> list[dict[str, str]]:
    text = b"".join(csv_table(rows, about())).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_jsonl_is_the_record_plus_the_decision(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    lines = lines_of(rows)
    ours = {"id", "image", "map", "item", "state", "map_threshold", "decision"}
    for row, line in zip(rows[:6], lines[:6], strict=True):
        assert {k: v for k, v in line.items() if k not in ours} == {
            k: v for k, v in record_of(row).items() if k not in ours
        }
    assert [line["state"] for line in lines] == ["done"] * 5 + ["failed", "pending"]
    assert lines[0]["decision"] == {"verdict": "anomalous", "note": "12 mm, return it", "at": AT}
    assert lines[3]["decision"] is None
    assert lines[0]["map_threshold"] == lines[0]["threshold"] == lines[6]["map_threshold"]


def test_pending_has_the_same_fields_and_no_score(tmp_path: Path) -> None:
    done, waiting = lines_of([scored(tmp_path, 0, "a.png", 0.9), pending(1, "b.png")])
    assert waiting.keys() == done.keys()
    assert waiting["score"] is None
    assert waiting["anomalous"] is None
    assert (waiting["schema"], waiting["id"]) == (done["schema"], "b.png")


def test_no_path_of_the_server(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    for write in (jsonl, csv_table, coco):
        text = b"".join(write(rows, about())).decode()
        assert "/secret" not in text
        assert str(tmp_path) not in text


def test_csv_round_trip(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    table = table_of(rows)
    assert list(table[0]) == list(COLUMNS)
    assert [float(cell) if (cell := row["score"]) else None for row in table] == [0.9, 0.3, 0.7, 0.2, 0.6, None, None]
    assert [row["result"] for row in table] == ["anomalous", "normal", "normal", "normal", "unsure", "", ""]
    assert [row["decision"] for row in table] == ["anomalous", "normal", "normal", "", "unsure", "", ""]
    assert [row["anomalous"] for row in table] == ["yes", "no", "yes", "no", "yes", "", ""]
    assert [row["regions"] for row in table] == ["2", "0", "2", "0", "1", "", ""]
    assert table[0]["largest_region_box"].split() == [str(side) for side in record_of(rows[0])["regions"][0]["box"]]
    assert table[5]["error"] == "cannot read it: it ends in the middle (send it again)"
    assert (table[0]["threshold"], table[0]["map_threshold"]) == ("0.5", "0.5")
    assert (table[6]["state"], table[6]["threshold"]) == ("pending", "")


def test_csv_opens_in_excel_with_its_letters(tmp_path: Path) -> None:
    data = b"".join(csv_table([scored(tmp_path, 0, "Gehäuse 螺丝.png", 0.9)], about()))
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.endswith(b"\r\n")
    assert "Gehäuse 螺丝.png" in data.decode("utf-8-sig")


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\n=1", "＝1+1", "\r+1", '=HYPERLINK("x","y")', "\u00a0=1"]
)
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    row = replace(scored(tmp_path, 0, text, 0.9), decision=Decision("normal", text, AT))
    (cells,) = table_of([row])
    assert cells["name"][0] == "'"
    assert cells["note"][0] == "'"
    assert cells["name"][1:].strip() != ""


def test_harmless_cells_stay(tmp_path: Path) -> None:
    assert guarded("a=1, b-2 @ line 3\nand more") == "a=1, b-2 @ line 3\nand more"
    assert guarded("a\x00b\x1bc") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    note = 'He said "no",\nthen; yes'
    (cells,) = table_of([replace(scored(tmp_path, 0, "a.png", 0.9), decision=Decision("normal", note, AT))])
    assert cells["note"] == note


def test_names_that_are_no_unicode_do_not_stop_an_export(tmp_path: Path) -> None:
    row = replace(scored(tmp_path, 0, "a.png", 0.9), name="a\udcff.png")
    for write in (jsonl, csv_table, coco):
        b"".join(write([row], about())).decode()


def test_coco_boxes_and_masks_are_the_regions(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    found = json.loads(b"".join(coco(rows, about())))
    expected = [(row.position + 1, region) for row in rows if row.record for region in row.record["regions"]]
    assert len(found["annotations"]) == len(expected) == 5
    for annotation, (image, region) in zip(found["annotations"], expected, strict=True):
        mask_HW = rle_decode(annotation["segmentation"])
        x, y, width, height = annotation["bbox"]
        rows_of, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        assert (x, y) == (columns[0], rows_of[0])
        assert (width, height) == (columns[-1] + 1 - x, rows_of[-1] + 1 - y)
        assert annotation["area"] == mask_HW.sum() == region["area"]
        assert annotation["score"] == region["score"]
        assert annotation["image_id"] == image
    assert len({one["id"] for one in found["annotations"]}) == 5


def test_coco_categories_follow_the_person_then_the_threshold(tmp_path: Path) -> None:
    found = json.loads(b"".join(coco(batch(tmp_path), about())))
    names = {one["id"]: one["name"] for one in found["categories"]}
    said = {one["image_id"]: names[one["category_id"]] for one in found["annotations"]}
    assert said == {1: "anomalous", 3: "normal", 5: "anomalous"}
    states = {one["file_name"]: (one["state"], one["score"]) for one in found["images"]}
    assert states["waiting.png"] == ("pending", None)
    assert states["broken.tif"] == ("failed", None)
    assert found["info"]["threshold"] == {"value": 0.5, "source": "fitted on a set of ours"}
    assert found["info"]["map_threshold"]["value"] == THRESHOLD.value


def test_empty_batch() -> None:
    assert b"".join(jsonl([], about())) == b""
    assert table_of([]) == []
    assert json.loads(b"".join(coco([], about())))["annotations"] == []
