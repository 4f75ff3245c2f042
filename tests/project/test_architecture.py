"""What linters cannot say of the source: torch waits until it is needed, files say what they do, the page is true.

Who may import whom stands in ``pyproject.toml``, for import-linter.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
FILES = sorted(SOURCE.glob("anomaly_ov*/**/*.py"))

LIGHT = (
    "import anomaly_ov",
    "from anomaly_ov import load, Finding, AnomalyOVError",
    "from anomaly_ov.cli.main import run; run(['--help'])",
    "from anomaly_ov.cli.main import run; run(['inspect', '--help'])",
    "from anomaly_ov.cli.main import run; run(['serve', '--help'])",
    "from anomaly_ov.cli.main import run; run(['ask', '--help'])",
)
WITHOUT_TORCH = (
    *(f"anomaly_ov/{name}" for name in ("images", "context", "scoring", "words", "look.py", "inspector.py")),
    *(f"anomaly_ov_lab/{name}" for name in ("data", "instruct")),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_torch_waits_until_it_is_needed() -> None:
    modules = [module_name(file) for file in FILES if "/".join(file.relative_to(SOURCE).parts[:2]) in WITHOUT_TORCH]
    codes = {code: {"torch", "transformers", "scipy"} for code in LIGHT}
    codes[f"import {', '.join(modules)}, safetensors.numpy"] = {"torch", "transformers"}
    loaded = {}
    for code, heavy in codes.items():
        check = f"import sys; print('LOADED', sorted({heavy} & sys.modules.keys()))"
        done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, timeout=60)
        loaded[code] = done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr
    assert {code: found for code, found in loaded.items() if found != "LOADED []"} == {}


def test_files_say_what_they_do() -> None:
    silent = [file for file in FILES if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert [str(file.relative_to(ROOT)) for file in silent] == []


def test_the_page_about_the_architecture_names_what_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:[a-z_0-9.]+/)+[a-z_0-9.]*|[a-z_0-9]+\.(?:py|txt|toml|md|json))`", text)
    places = (ROOT, SOURCE, *SOURCE.iterdir())
    assert [name for name in names if not any((place / name).exists() for place in places)] == []
