"""The record that goes with every measured number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_ov import provenance as module
from anomaly_ov.provenance import provenance


def test_the_record_is_complete_and_json_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/some/where/expert.py", "--views", "10 x"])
    record = json.loads(json.dumps(provenance(seed=3)))
    assert record["command"] == "expert.py --views '10 x'"
    assert record["seed"] == 3
    assert record["commit"] == "unknown" or len(record["commit"]) == 40
    assert set(record["versions"]) == {"anomaly-ov", "torch", "transformers", "numpy"}
    assert record["versions"]["numpy"] != "unknown"
    assert record["machine"]["cores"] >= 1
    assert record["load"] is None or record["load"] >= 0


def test_torch_is_not_imported_for_it() -> None:
    code = "import sys, anomaly_ov.provenance as p; r = p.provenance(None); assert 'torch' not in sys.modules; print(r)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'threads': None" in done.stdout


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_commit_and_changes_are_those_of_the_files_own_checkout(tmp_path: Path) -> None:
    file = tmp_path / "tracked.py"
    file.write_text("a")
    assert module._git_state(file) == ("unknown", None)
    git(tmp_path, "init")
    assert module._git_state(file) == ("unknown", None)
    git(tmp_path, "add", "tracked.py")
    git(tmp_path, "commit", "-m", "first", "--no-verify")
    assert module._git_state(file) == (git(tmp_path, "rev-parse", "HEAD"), False)
    file.write_text("b")
    assert module._git_state(file)[1] is True
    untracked = tmp_path / "installed.py"  # as a package installed below somebody else's checkout
    untracked.write_text("c")
    assert module._git_state(untracked) == ("unknown", None)


def test_without_git_or_cpu_facts_the_record_says_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "absent")
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    record = provenance(None)
    assert record["commit"] == "unknown"
    assert record["dirty"] is None
    assert record["machine"]["cpu"] == "unknown"
