"""What README and documentation show works: commands of bash blocks and Python blocks run, tables are the results'.

Every ``anomaly-ov`` line of a page runs, in order, in a copy of the examples; then its Python blocks do. Lines that set
up (``make``, ``pip``, ``git``) are left out, as are blocks marked ```` ```bash no-run ````.
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

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/quickstart.md",
    *(f"docs/guides/{path.name}" for path in sorted(ROOT.glob("docs/guides/*"))),
)
SETUP = ("make", "pip", "python3", "git", "cd", "source", ".")
LIMIT_S = 240


def blocks(text: str, language: str) -> list[str]:
    """What stands between the fences of runnable blocks."""
    return re.findall(rf"^```{language}[ \t]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Command lines of runnable bash blocks, continuation lines joined, comments and set-up left out."""
    found = []
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name not in SETUP:
                found.append(line)
    return found


def test_extraction() -> None:
    text = (
        "```bash\nmake demo  # sets up\nanomaly-ov inspect a \\\n  --json\n\n# note\n.venv/bin/anomaly-ov models\n```\n"
        "```bash no-run\nanomaly-ov train expert\n```\n```python\nanomaly_ov.load()\n```\n"
        "```python no-run\nclient.chat()\n```\n"
    )
    assert blocks(text, "python") == ["anomaly_ov.load()\n"]
    assert [shlex.split(line) for line in commands(text)] == [
        ["anomaly-ov", "inspect", "a", "--json"],
        [".venv/bin/anomaly-ov", "models"],
    ]


def completed(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """No shell: what a page shows must not need one, and nothing in it is interpreted here."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for line in commands(text):
        words = shlex.split(line, comments=True)
        if Path(words[0]).name != "anomaly-ov":
            pytest.fail(f"{page}: '{line}' is neither set-up nor an anomaly-ov command; mark its block no-run")
        done = completed(["-m", "anomaly_ov.cli.main", *words[1:]], tmp_path)
        assert done.returncode == 0, f"{page}: '{line}' ended with {done.returncode}: {done.stderr}"
    for block in blocks(text, "python"):
        done = completed(["-c", block], tmp_path)
        assert done.returncode == 0, f"{page}: {block!r} ended with {done.returncode}: {done.stderr}"


def test_the_readme_shows_a_first_result_in_few_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    assert commands(text)
    assert blocks(text, "python")
    assert "`make test`" in text


def test_tables_are_those_that_the_results_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_tables

    assert sorted(name for names in readme_tables.PAGES.values() for name in names) == sorted(readme_tables.TABLES)
    for page, names in readme_tables.PAGES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all(f"<!-- {name}:begin -->" in text for name in names)
        assert text == readme_tables.filled(text), "run: python benchmarks/readme_tables.py"
