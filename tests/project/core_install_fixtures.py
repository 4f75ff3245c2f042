"""An installation with the core's packages alone, played in a subprocess: all others are hidden from its imports.

Read from ``pyproject.toml`` rather than from what is installed, so that a dependency added there is seen at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORBIDDEN = ("torch", "transformers", "yaml", "jinja2", "onnx", "openai")
LIMIT_S = 240

# Not a finder before the others: absent packages must also be absent for find_spec and importlib.metadata.
_HIDE = """
import json, sys
from importlib import metadata
from importlib.machinery import PathFinder

hidden_modules, hidden_packages, requires = json.loads(sys.argv.pop(1))
hidden_modules, hidden_packages = set(hidden_modules), set(hidden_packages)
hidden_modules -= sys.modules.keys()  # loaded when the interpreter starts


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in hidden_modules or name == "safetensors.torch":
            return None
        return super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *args, **kwargs):
        found = super().find_distributions(*args, **kwargs)
        return (one for one in found if one.name.lower().replace("_", "-") not in hidden_packages)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
# Of the checkout that is tested, which may be newer than what was installed from it.
metadata.requires = lambda name, of=metadata.requires: requires if name == "anomaly-ov" else of(name)
"""
_CHECK = """
loaded = hidden_modules & {name.partition(".")[0] for name in sys.modules}
assert not loaded, loaded
sys.exit(code)
"""


def requirements(*extras: str) -> list[Requirement]:
    """What the core and ``extras`` ask for, extras of extras included."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            one = Requirement(line)
            found += requirements(*one.extras) if one.name == "anomaly-ov" else [one]
    return found


def as_installed() -> list[str]:
    """The requirements in the form in which an installation records them."""
    extras = PROJECT["optional-dependencies"].items()
    optional = [f'{line} ; extra == "{extra}"' for extra, lines in extras for line in lines]
    return [*PROJECT["dependencies"], *optional]


def closure(wanted: list[Requirement]) -> set[str]:
    """Names of these packages and of all that they need, as far as they are installed here."""
    found = set[str]()
    waiting = list(wanted)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(one.name) or []
        except metadata.PackageNotFoundError:
            continue
        inner = [Requirement(line) for line in lines]
        waiting += [r for r in inner if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def hidden(*extras: str) -> tuple[list[str], list[str]]:
    """Top-level modules and packages that an installation with ``extras`` lacks, of those installed here."""
    kept = closure(requirements(*extras)) | {"anomaly-ov"}
    modules = [
        module
        for module, packages in metadata.packages_distributions().items()
        if not {canonicalize_name(one) for one in packages} & kept
    ]
    packages = {canonicalize_name(one.name) for one in metadata.distributions()} - kept
    return sorted(modules), sorted(packages)


def python(code: str, *args: str, extras: tuple[str, ...] = (), cwd: Path | None = None) -> Any:
    """``code`` run where only the core and ``extras`` are installed. The exit code is what it leaves in ``code``.

    Any hidden module among those loaded ends it with an AssertionError.
    """
    what = json.dumps([*hidden(*extras), as_installed()])
    return subprocess.run(
        [sys.executable, "-c", f"{_HIDE}\ncode = 0\n{code}\n{_CHECK}", what, *args],
        cwd=cwd,
        env=os.environ | {"ANOMALY_OV_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


_LINES = """
import contextlib, io
from anomaly_ov.cli.main import run

for args in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        ended = run(args)
    print(json.dumps([ended, out.getvalue(), err.getvalue()]))
"""


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


def command_lines(*lines: Sequence[object], extras: tuple[str, ...] = (), cwd: Path | None = None) -> list[Ended]:
    """Each line run there, one after the other in one process."""
    given = json.dumps([[str(word) for word in line] for line in lines])
    done = python(_LINES, given, extras=extras, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return [Ended(*json.loads(line)) for line in done.stdout.splitlines()]
