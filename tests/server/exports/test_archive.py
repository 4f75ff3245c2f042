"""The zip opens everywhere, holds what it says, and is written without going back."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from anomaly_ov_server.exports.archive import archive, stem_of
from anomaly_ov_server.exports.csv_table import csv_table
from anomaly_ov_server.exports.sheet import sheet
from serving_export_fixtures import about, batch, scored


def test_holds_tables_report_maps_and_overlays(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    with zipfile.ZipFile(io.BytesIO(b"".join(archive(rows, about())))) as file:
        assert file.testzip() is None
        names = file.namelist()
        assert {"findings.jsonl", "decisions.csv", "coco.json", "report.html"} < set(names)
        assert len([name for name in names if name.startswith("maps/")]) == 5
        assert len([name for name in names if name.startswith("overlays/")]) == 5
        lines = [json.loads(line) for line in file.read("findings.jsonl").splitlines()]
        assert [line["map"]["path"] in names for line in lines[:5]] == [True] * 5
        assert lines[5]["map"] is lines[6]["map"] is None
        assert rows[0].map_path is not None
        assert file.read(lines[0]["map"]["path"]) == rows[0].map_path.read_bytes()
        assert file.read("decisions.csv") == b"".join(csv_table(rows, about()))
        with Image.open(io.BytesIO(file.read("overlays/00001-scratch.jpg"))) as image:
            assert image.format == "JPEG"


def test_large_files_are_allowed_for_and_times_are_the_exports(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(archive(batch(tmp_path)[:1], about())))) as file:
        for info in file.infolist():
            assert info.extract_version >= zipfile.ZIP64_VERSION
            assert info.date_time == (2026, 11, 22, 8, 1, 2)


def test_comes_in_pieces(tmp_path: Path) -> None:
    pieces = [piece for piece in archive(batch(tmp_path), about()) if piece]
    assert len(pieces) > 10


def test_names_cannot_leave_the_folder_or_collide(tmp_path: Path) -> None:
    row = scored(tmp_path, 0, "a.png", 0.9)
    hostile = ["../../etc/passwd", "C:\\temp\\x.png", "a/b.png", "..", "", "con:<>|?*.png", "x" * 300, "\udcff.png"]
    rows = [replace(row, name=name, position=position) for position, name in enumerate([*hostile, "a.png", "a.png"])]
    stems = [stem_of(one) for one in rows]
    assert len(set(stems)) == len(rows)
    for stem in stems:
        assert re.fullmatch(r"\d{5}-[\w.+ -]+", stem)
        assert ".." not in stem
        assert len(stem) <= 90
    with zipfile.ZipFile(io.BytesIO(b"".join(archive(rows, about())))) as file:
        assert file.testzip() is None


def test_files_gone_meanwhile_are_left_out(tmp_path: Path) -> None:
    rows = batch(tmp_path)[:2]
    assert rows[0].map_path is not None
    assert rows[1].preview is not None
    rows[0].map_path.unlink()
    rows[1].preview.write_bytes(b"torn")
    with zipfile.ZipFile(io.BytesIO(b"".join(archive(rows, about())))) as file:
        assert file.testzip() is None
        assert [name for name in file.namelist() if "/" in name] == ["maps/00002-fine.png"]
        assert json.loads(file.read("findings.jsonl").splitlines()[0])["map"]["path"] is None


def test_overlay_follows_the_threshold(tmp_path: Path) -> None:
    row = scored(tmp_path, 0, "a.png", 0.9)
    low, high = sheet(row), sheet(row, 0.8)
    assert low is not None
    assert high is not None
    assert low.size == high.size
    assert np.any(np.asarray(low) != np.asarray(high))
