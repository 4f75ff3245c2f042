"""``anomaly-ov doctor``: what it finds, and that it finds it when it is broken."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from anomaly_ov.cli import doctor
from anomaly_ov.cli.main import run


def test_sound_installation(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--model", str(small_folder)]) == 0
    out = capsys.readouterr().out
    for what in ("python", "torch", "cpu", "cuda", "memory", "engine", "inspection", "extra server"):
        assert what in out


def test_broken_model_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--model", str(tmp_path)]) == 4
    captured = capsys.readouterr()
    assert "inspection" in captured.err
    assert "fail" in captured.out


def fake_torchvision(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_torchvision_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(tmp_path, 'raise RuntimeError("operator torchvision::nms does not exist")', monkeypatch)
    check = doctor.check_torchvision()
    assert check.status == "fail"
    assert "torchvision::nms does not exist" in check.found
    assert "pip uninstall torchvision" in check.hint
    assert "torchvision" not in sys.modules


def test_torchvision_and_torch_are_notes_where_graphs_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torchvision(tmp_path, "raise RuntimeError", monkeypatch)
    assert doctor.check_torchvision(needed=False).status == "note"
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert (doctor.check_torch(needed=False).status, doctor.check_torch().status) == ("note", "fail")


def test_torch_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    check = doctor.check_torch()
    assert (check.status, "torch" in check.found) == ("fail", True)


def test_one_thread_on_many_cores_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SimpleNamespace(name="onnx", device="cpu", dtype="float32")
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 8)
    monkeypatch.setenv("ANOMALY_OV_THREADS", "1")
    check = doctor.check_engine(engine)  # type: ignore[arg-type]
    assert (check.status, "1 thread(s) on 8 core(s)" in check.found) == ("note", True)
    assert "ANOMALY_OV_THREADS" in check.hint


def test_torchvision_that_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(tmp_path, "", monkeypatch)
    assert doctor.check_torchvision().status == "ok"


def test_torchvision_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.check_torchvision().status == "ok"


def test_missing_and_old_packages_say_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"scipy": None, "numpy": "1.0"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "999"))
    failed = [check for check in doctor.check_packages() if check.status == "fail"]
    assert {check.found.split()[0] for check in failed} == {"scipy", "numpy"}
    assert all("pip install" in check.hint for check in failed)


def test_incomplete_extra_is_a_note_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_problem", lambda r: "gone" if Requirement(str(r)).name == "fastapi" else None)
    notes = {check.what: check for check in doctor.check_packages() if check.status == "note"}
    assert notes["extra server"].hint == 'pip install "anomaly-ov[server]"'
    assert notes["extra server"].found == "gone"
    assert "extra lab" not in notes


def test_little_memory_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_meminfo", lambda field: 100 * 2**20)
    assert doctor.check_memory().status == "note"
    monkeypatch.setattr(doctor, "_meminfo", lambda field: None)
    assert doctor.check_memory().status == "note"
    monkeypatch.setattr(doctor, "_meminfo", lambda field: 8 * 2**30)
    assert doctor.check_memory().status == "ok"
