"""Where a measured number comes from: command, commit, seed, versions and machine, as written into ``results/``."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("anomaly-ov", "torch", "transformers", "numpy")
CPU_INFO = Path("/proc/cpuinfo")


def provenance(seed: int | None) -> dict[str, Any]:
    """A JSON-ready record of this run; what cannot be found out is ``"unknown"``, never an error.

    ``commit``/``dirty`` are those of the checkout this package runs from; an installed copy has none. ``threads`` is
    torch's number, or None when torch is not loaded. ``load``: processes running on average over the last minute, which
    tells a quiet machine from a busy one; None where the system does not say.
    """
    commit, dirty = _git_state(Path(__file__).resolve())
    torch = sys.modules.get("torch")
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads() if torch is not None else None,
    }


def _git_state(file: Path) -> tuple[str, bool | None]:
    """Commit and whether tracked files differ from it; ("unknown", None) where ``file`` is in no commit."""
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return "unknown", None
    commit = _git(file, "rev-parse", "HEAD")
    status = _git(file, "status", "--porcelain", "--untracked-files=no")
    return (commit, bool(status)) if commit and status is not None else ("unknown", None)


def _git(file: Path, *arguments: str) -> str | None:
    """Output of git in the folder of ``file``; None when git is absent or fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(file.parent), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _cpu_model() -> str:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or "unknown"
