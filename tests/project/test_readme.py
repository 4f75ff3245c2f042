"""The README's commands work: every ``anomaly-ov`` line of its bash blocks runs, in order, in a copy of the examples.

Lines that set up (``make``, ``pip``, ``git``) are left out, as are blocks marked ```` ```bash no-run ````.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = ("make", "pip", "python3", "git", "cd", "source", ".")
LIMIT_S = 240


def commands(text: str) -> list[str]:
    """Command lines of runnable bash blocks, continuation lines joined, comments and set-up left out."""
    found = []
    for block in re.findall(r"^```bash[ \t]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name not in SETUP:
                found.append(line)
    return found


def test_extraction() -> None:
    text = (
        "```bash\nmake demo  # sets up\nanomaly-ov inspect a \\\n  --json\n\n# note\n.venv/bin/anomaly-ov models\n```\n"
        "```bash no-run\nanomaly-ov train expert\n```\n```python\nanomaly_ov.load()\n```\n"
    )
    assert [shlex.split(line) for line in commands(text)] == [
        ["anomaly-ov", "inspect", "a", "--json"],
        [".venv/bin/anomaly-ov", "models"],
    ]


def test_commands_of_the_readme_run(tmp_path: Path) -> None:
    lines = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert lines, "the README shows at least one command"
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        words = shlex.split(line, comments=True)
        if Path(words[0]).name != "anomaly-ov":
            pytest.fail(f"README: '{line}' is neither set-up nor an anomaly-ov command; mark its block no-run")
        # No shell: what the README shows must not need one, and nothing in it is interpreted here.
        done = subprocess.run(
            [sys.executable, "-m", "anomaly_ov.cli.main", *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, f"'{line}' ended with {done.returncode}: {done.stderr}"


def test_tables_are_those_that_the_results_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_tables

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"<!-- {name}:begin -->" in text for name in readme_tables.TABLES)
    assert text == readme_tables.filled(text), "run: python benchmarks/readme_tables.py"
    assert ("| false alarms / misses |" in text) == (readme_tables.read("detector") is not None)
