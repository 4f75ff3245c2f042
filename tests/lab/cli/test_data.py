"""``anomaly-ov data``: tables or JSON on stdout, 1 where there are problems, one line where there is no data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly_ov.cli.main import run
from fake_sets import FAKES


def test_a_clean_set_is_a_table_and_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = FAKES["visa"].write(tmp_path / "visa")
    assert run(["data", "check", str(root)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("visa: layout visa, ")
    assert ["candle", "train", "2", "0", "0", "0"] in [line.split() for line in lines]
    assert ["all", "6", "4", "0", "4"] in [line.split() for line in lines]
    assert lines[-1].strip() == "no problems"
    assert captured.err == ""


def test_problems_are_listed_and_give_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = FAKES["mvtec"].write(tmp_path / "set[red]")
    (root / "bottle/ground_truth/broken/000_mask.png").unlink()
    assert run(["data", "check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "set[red]" in out  # a name is no markup
    assert "problem anomalous picture without a mask: 1 (bottle/test/broken/000.png)" in out
    assert out.splitlines()[-1].strip() == "1 kind of problems"


def test_json_names_what_sets_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = FAKES["brainmri"].write(tmp_path / "one"), FAKES["br35h"].write(tmp_path / "two")
    (second / "no/no0.jpg").write_bytes((first / "no/1 no.jpeg").read_bytes())
    assert run(["data", "check", str(first), "--against", str(second), "--no-near", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["schema"] == "anomaly-ov.data-check/1"
    assert [one["name"] for one in content["sets"]] == ["one"]
    assert content["overlaps"][0]["remarks"][0]["examples"] == ["no/1 no.jpeg = no/no0.jpg"]


def test_a_folder_of_several_sets_is_checked_set_by_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FAKES["visa"].write(tmp_path / "all/visa")
    FAKES["brainmri"].write(tmp_path / "all/brainmri")
    assert run(["data", "check", str(tmp_path / "all"), "--json"]) == 0
    assert {one["layout"] for one in json.loads(capsys.readouterr().out)["sets"]} == {"visa", "folders"}


def test_control_characters_of_a_list_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = FAKES["meta"].write(tmp_path / "meta")
    path = root / "meta.json"
    path.write_text(path.read_text().replace('"carpet": [', '"\\u001b[2Jcarpet\\ud800": ['))
    assert run(["data", "check", str(root)]) == 0
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    assert "2Jcarpet" in out
    assert run(["data", "check", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clean"]


def test_no_data_set_is_one_line_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(tmp_path / "absent")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2


def test_convert_says_what_was_written_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = FAKES["aitex"].write(tmp_path / "aitex")
    assert run(["data", "convert", str(root), str(tmp_path / "tiles"), "--tile", "32"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("anomalous without a mask, no tiles of it: 1 ")
    assert lines[-1] == f"64 pictures and 2 masks written to {tmp_path / 'tiles'}"
    assert run(["data", "convert", str(root), str(tmp_path / "tiles")]) == 2
