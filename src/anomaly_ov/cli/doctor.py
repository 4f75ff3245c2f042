"""``anomaly-ov doctor``: does this machine have what inspecting needs, and does an inspection really work?"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from anomaly_ov.cli.console import stdout_console
from anomaly_ov.errors import AnomalyOVError, WeightsError

app = typer.Typer(add_completion=False)
Status = Literal["ok", "note", "fail"]
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")
IMPORT_LIMIT_S = 120
MINIMUM_FREE_BYTES = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the report: ``fail`` makes the exit code 4, ``note`` is worth knowing."""

    what: str
    status: Status
    found: str
    hint: str = ""


@app.command()
def doctor(model: Annotated[str, typer.Option(help="The model to try.")] = "tiny") -> None:
    """Check Python, packages, device and memory, and inspect a synthetic picture. Exit 4 if something is broken."""
    from rich.table import Table
    from rich.text import Text

    checks = list(run_checks(model))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"ok": "green", "note": "yellow", "fail": "bold red"}
    for check in checks:
        found = f"{check.found}\n-> {check.hint}" if check.hint else check.found
        table.add_row(Text(check.status, styles[check.status]), check.what, Text(found))
    stdout_console().print(table)
    failed = [check.what for check in checks if check.status == "fail"]
    if failed:
        raise WeightsError(f"doctor found {len(failed)} failure(s): {', '.join(failed)}", hint="see the arrows above")


def run_checks(model: str) -> Iterator[Check]:
    """All checks, cheap ones first. A failed import of torch ends them: nothing after it could work."""
    yield Check("python", "ok" if sys.version_info >= (3, 11) else "fail", platform.python_version())
    yield from check_packages()
    yield check_torchvision()
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        yield Check("torch", "fail", " ".join(str(error).split()), 'pip install -c constraints.txt "anomaly-ov"')
        return
    yield check_torch()
    yield check_cpu()
    yield check_cuda()
    yield check_memory()
    yield check_inspection(model)


def check_packages() -> Iterator[Check]:
    """Required packages against their ranges, then one line per extra with the ``pip`` line if it is incomplete."""
    from packaging.requirements import Requirement

    required: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for line in metadata.requires("anomaly-ov") or []:
        requirement = Requirement(line)
        if requirement.marker is None:
            required.append(requirement)
    for extra in metadata.metadata("anomaly-ov").get_all("Provides-Extra") or []:
        of_extra = [Requirement(line) for line in metadata.requires("anomaly-ov") or [] if "extra ==" in line]
        extras[extra] = [r for r in of_extra if r.marker is not None and r.marker.evaluate({"extra": extra})]
    for problem in filter(None, map(_problem, required)):
        yield Check("packages", "fail", problem, 'pip install -U "anomaly-ov"')
    yield Check("packages", "ok", ", ".join(f"{r.name} {_version(r.name) or 'missing'}" for r in required))
    for extra, requirements in sorted(extras.items()):
        problems = list(filter(None, map(_problem, requirements)))
        if problems:
            yield Check(f"extra {extra}", "note", "; ".join(problems), f'pip install "anomaly-ov[{extra}]"')
        else:
            yield Check(f"extra {extra}", "ok", "complete")


def check_torchvision() -> Check:
    """Transformers imports torchvision whenever it is there; one built for another torch takes everything down."""
    if find_spec("torchvision") is None:
        return Check("torchvision", "ok", "absent, and not needed")
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=IMPORT_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return Check("torchvision", "fail", f"its import takes over {IMPORT_LIMIT_S} s", "pip uninstall torchvision")
    if done.returncode == 0:
        return Check("torchvision", "ok", f"{_version('torchvision')} imports, though not needed")
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Check(
        "torchvision",
        "fail",
        f"installed but does not import beside torch {_version('torch')}, which breaks transformers: {reason}",
        "pip uninstall torchvision (it is not needed here)",
    )


def check_torch() -> Check:
    """Version and threads; one thread on a many-core machine is usually an environment variable by accident."""
    import torch

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    found = f"{torch.__version__}, {threads} thread(s) on {cores} core(s)"
    if threads == 1 and cores > 2:
        return Check("torch", "note", found, "unset OMP_NUM_THREADS to use the other cores")
    return Check("torch", "ok", found)


def check_cpu() -> Check:
    """What the matrix products can use."""
    import torch

    flags = [flag for flag in CPU_FLAGS if flag in _cpu_flags()]
    return Check("cpu", "ok", f"{torch.backends.cpu.get_cpu_capability()}; {' '.join(flags) or platform.machine()}")


def check_cuda() -> Check:
    """Accelerators that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return Check("cuda", "note", "none; everything runs on the CPU")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("cuda", "ok", f"{', '.join(names)}; bfloat16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}")


def check_memory() -> Check:
    """Free main memory, where the system tells."""
    available = _meminfo("MemAvailable:")
    if available is None:
        return Check("memory", "note", "this system does not tell")
    found = f"{available / 2**30:.1f} GiB available"
    if available < MINIMUM_FREE_BYTES:
        return Check("memory", "note", found, "an inspection takes about 1 GiB; close other programs")
    return Check("memory", "ok", found)


def check_inspection(model: str) -> Check:
    """Loads the model and inspects a made-up picture, end to end."""
    from anomaly_ov.inspector import load

    try:
        finding = load(model).inspect(_picture())
    except AnomalyOVError as error:
        return Check("inspection", "fail", error.message, error.hint)
    except Exception as error:
        return Check("inspection", "fail", f"{type(error).__name__}: {' '.join(str(error).split())}", "see --debug")
    milliseconds = sum(finding.timing_ms.values())
    return Check("inspection", "ok", f"model {finding.model.name} scored a synthetic picture, {milliseconds:.0f} ms")


def _picture() -> object:
    """A shaded surface with a bright blob, 256 x 256 x 3."""
    import numpy as np

    rows, columns = np.mgrid[0:256, 0:256]
    blob = 120 * np.exp(-((rows - 90) ** 2 + (columns - 150) ** 2) / 200)
    return np.repeat((60 + rows / 4 + blob).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _problem(requirement: object) -> str | None:
    """What is wrong with an installed package, None if nothing. ``requirement``: packaging's ``Requirement``."""
    from packaging.requirements import Requirement

    assert isinstance(requirement, Requirement)
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} is not {requirement.specifier}"
    return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())


def _meminfo(field: str) -> int | None:
    path = Path("/proc/meminfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)
