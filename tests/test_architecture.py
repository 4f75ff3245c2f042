"""The rules of the house: who may import whom, no cycles, no torch before it is needed, no endless files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "anomaly_ov"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

# Room -> rooms it may import. These four anyone may; they themselves import only errors (test below).
COMMON = {"errors", "records", "configuration", "files", "provenance"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "records": set(),
    "configuration": set(),
    "files": set(),
    "provenance": set(),
    "images": set(),
    "remote": {"images"},
    "models": {"images", "streaming"},
    "data": {"images", "scoring"},
    "instruct": {"data", "images"},
    "training": {
        "data",
        "models",
        "reasoning",
        "look",
        "images",
        "context",
        "scoring",
        "evaluation",
        "instruct",
        "streaming",
    },
    "baselines": {"images", "models", "scoring", "streaming", "remote", "instruct"},
    "evaluation": {"data", "models", "images", "instruct", "remote", "reasoning", "scoring", "charts"},
    "context": {"images", "models", "scoring"},
    "scoring": {"images", "models"},
    "look": {"images", "models", "scoring", "context"},
    "reasoning": {"images", "models", "look"},
    "words": {"images"},
    "charts": set(),
    "streaming": set(),
    "inspector": {"models", "images", "context", "scoring", "streaming", "look", "reasoning"},
    "serving": {"images", "models", "context", "inspector", "scoring", "reasoning", "charts", "words"},
    "cli": {
        "serving",
        "images",
        "models",
        "reasoning",
        "context",
        "scoring",
        "data",
        "training",
        "evaluation",
        "streaming",
        "inspector",
        "instruct",
        "remote",
        "baselines",
        "words",
    },
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ["anomaly_ov", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """``anomaly_ov.images.read`` -> ``images``; the package itself -> ``""``."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> set[str]:
    """Modules of ours that ``path`` imports anywhere, functions and TYPE_CHECKING blocks included."""
    modules = {module_name(file) for file in FILES}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} uses a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else str(node.module))
    return {module for module in found if module.split(".")[0] == "anomaly_ov"}


def test_every_room_is_known() -> None:
    rooms = {room(module_name(path)) for path in FILES} - {""}
    assert rooms <= MAY_IMPORT.keys(), "a new room needs a row here and in docs/architecture.md"


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_imports_only_what_its_room_may(path: Path) -> None:
    own = room(module_name(path))
    if own == "":
        return
    allowed = MAY_IMPORT[own] | {own, ""} | (COMMON if own not in COMMON else {"errors"})
    for module in imports(path):
        assert room(module) in allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_no_cycles_between_modules() -> None:
    graph = {module_name(path): imports(path) for path in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module not in done:
            for other in sorted(graph.get(module, set()) - {"anomaly_ov", module}):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


LIGHT = {
    "import anomaly_ov": "import anomaly_ov",
    "from anomaly_ov import load": "from anomaly_ov import load, Finding, AnomalyOVError",
    "--help": "from anomaly_ov.cli.main import run; run(['--help'])",
    "inspect --help": "from anomaly_ov.cli.main import run; run(['inspect', '--help'])",
    "serve --help": "from anomaly_ov.cli.main import run; run(['serve', '--help'])",
    "ask --help": "from anomaly_ov.cli.main import run; run(['ask', '--help'])",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT.keys())
def test_no_torch_before_it_is_needed(code: str) -> None:
    heavy = "{'torch', 'transformers', 'scipy'}"
    check = f"import sys; print('LOADED', sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


CONTEXT = [module_name(path) for path in FILES if path.parent.name in ("context", "scoring")]


@pytest.mark.parametrize("module", CONTEXT)
def test_contexts_load_no_torch(module: str) -> None:
    """Nor does what they import: pictures are compared in plain arrays."""
    heavy = "{'torch', 'transformers'}"
    code = f"import {module}, safetensors.numpy, sys; print('LOADED', sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("folder", ["images", "data", "instruct", "context", "scoring", "words"])
def test_pictures_and_data_need_no_torch(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"torch", "transformers"}, f"{path}:{node.lineno}"


def test_architecture_page_is_true() -> None:
    """Every file and folder it names exists, and every room has its row with exactly the imports allowed above."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_0-9.]+/)+[a-z_0-9.]*|[a-z_0-9]+\.(?:py|txt|toml|md|json))`", text):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), f"docs/architecture.md names {name}"
    rows = dict(re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE))
    assert rows.keys() == {room(module_name(path)) for path in FILES} - {""}
    for name, listed in rows.items():
        assert set(re.findall(r"[a-z]+", listed)) - {"errors"} == MAY_IMPORT[name], f"row of {name}"


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_files_say_what_they_do(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "says what it does and what it does not"
