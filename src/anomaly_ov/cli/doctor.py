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
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from anomaly_ov.cli.console import stdout_console
from anomaly_ov.errors import AnomalyOVError, WeightsError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from anomaly_ov.models.engines.interface import Engine

app = typer.Typer(add_completion=False)
Status = Literal["ok", "note", "fail"]
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")
IMPORT_LIMIT_S = 120
MINIMUM_FREE_BYTES = 2**30
NO_EXTRAS_OF_USERS = {"dev", "serve"}  # for development; another name for server


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
    """All checks, cheap ones first. What only torch's engine needs is a note where the model has graphs."""
    yield Check("python", "ok" if sys.version_info >= (3, 11) else "fail", platform.python_version())
    yield from check_packages()
    needed = needs_torch(model)
    yield check_torchvision(needed)
    torch = check_torch(needed)
    yield torch
    if torch.status == "ok":
        yield check_cuda()
    yield check_cpu()
    yield check_memory()
    yield from check_inspection(model)


def needs_torch(model: str) -> bool:
    """Whether nothing but torch can run it. An unknown model needs nothing: that it is unknown is said later."""
    from anomaly_ov.models.engines.opening import has_graphs
    from anomaly_ov.models.hub import resolve

    try:
        return not has_graphs(resolve(model))
    except WeightsError:
        return False


def check_packages() -> Iterator[Check]:
    """Required packages against their ranges, then one line per extra with the ``pip`` line if it is incomplete."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # comes with onnxruntime
        yield Check("packages", "fail", "packaging is missing", 'pip install -U "anomaly-ov"')
        return
    every = [Requirement(line) for line in metadata.requires("anomaly-ov") or []]
    required = [requirement for requirement in every if requirement.marker is None]
    for problem in filter(None, map(_problem, required)):
        yield Check("packages", "fail", problem, 'pip install -U "anomaly-ov"')
    yield Check("packages", "ok", ", ".join(f"{r.name} {_version(r.name) or 'missing'}" for r in required))
    for extra in sorted(set(metadata.metadata("anomaly-ov").get_all("Provides-Extra") or []) - NO_EXTRAS_OF_USERS):
        wanted = _of_extra(extra, every)
        problems = list(filter(None, map(_problem, wanted)))
        if problems:
            nothing = all(_version(one.name) is None for one in wanted)
            found = "not installed" if nothing else "; ".join(problems)
            yield Check(f"extra {extra}", "note", found, f'pip install "anomaly-ov[{extra}]"')
        else:
            yield Check(f"extra {extra}", "ok", "complete")


def _of_extra(extra: str, every: list[Requirement]) -> list[Requirement]:
    """What an extra asks for, that of the extras it consists of included."""
    found: dict[str, Requirement] = {}
    for one in every:
        if one.marker is None or not one.marker.evaluate({"extra": extra}):
            continue
        if one.name == "anomaly-ov":
            found |= {str(inner): inner for name in sorted(one.extras) for inner in _of_extra(name, every)}
        else:
            found[str(one)] = one
    return list(found.values())


def check_torchvision(needed: bool = True) -> Check:
    """Transformers imports torchvision whenever it is there; one built for another torch takes everything down."""
    if find_spec("torchvision") is None:
        return Check("torchvision", "ok", "absent, and not needed")
    broken: Status = "fail" if needed else "note"
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=IMPORT_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return Check("torchvision", broken, f"its import takes over {IMPORT_LIMIT_S} s", "pip uninstall torchvision")
    if done.returncode == 0:
        return Check("torchvision", "ok", f"{_version('torchvision')} imports, though not needed")
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Check(
        "torchvision",
        broken,
        f"installed but does not import beside torch {_version('torch')}, which breaks transformers: {reason}",
        "pip uninstall torchvision (it is not needed here)",
    )


def check_torch(needed: bool = True) -> Check:
    """Whether it is there and imports; a model with graphs does without it on the CPU."""
    broken: Status = "fail" if needed else "note"
    if find_spec("torch") is None:
        what = "not installed; for models without graphs, CUDA and language models"
        return Check("torch", broken, what, 'pip install "anomaly-ov[torch]"')
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        return Check("torch", broken, reason, 'pip install --force-reinstall torch, or "anomaly-ov[torch]" afresh')
    return Check("torch", "ok", torch.__version__)


def check_cpu() -> Check:
    """What the matrix products can use."""
    flags = [flag for flag in CPU_FLAGS if flag in _cpu_flags()]
    return Check("cpu", "ok", " ".join([platform.machine(), *flags]))


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


def check_inspection(model: str) -> Iterator[Check]:
    """Loads the model, says what runs it, and inspects a made-up picture, end to end."""
    from anomaly_ov.inspector import load

    try:
        inspector = load(model)
        yield check_engine(inspector.engine)
        finding = inspector.inspect(_picture())
    except AnomalyOVError as error:
        yield Check("inspection", "fail", error.message, error.hint)
    except Exception as error:
        yield Check("inspection", "fail", f"{type(error).__name__}: {' '.join(str(error).split())}", "see --debug")
    else:
        milliseconds = sum(finding.timing_ms.values())
        found = f"model {finding.model.name} scored a synthetic picture, {milliseconds:.0f} ms"
        yield Check("inspection", "ok", found)


def check_engine(engine: Engine) -> Check:
    """What runs the model's networks; one thread on a machine of many cores is usually a variable set by accident."""
    from anomaly_ov.models.engines.interface import THREADS_VARIABLE, threads

    cores = os.cpu_count() or 1
    if engine.name == "torch":
        import torch

        package, count, variable = f"torch {torch.__version__}", torch.get_num_threads(), "OMP_NUM_THREADS"
    else:
        package, count, variable = f"ONNX Runtime {_version('onnxruntime')}", threads(), THREADS_VARIABLE
    found = f"{engine.name}: {package}, {engine.device} {engine.dtype}, {count} thread(s) on {cores} core(s)"
    if engine.device == "cpu" and count == 1 and cores > 2:
        return Check("engine", "note", found, f"unset {variable} to use the other cores")
    return Check("engine", "ok", found)


def _picture() -> object:
    """A shaded surface with a bright blob, 256 x 256 x 3."""
    import numpy as np

    rows, columns = np.mgrid[0:256, 0:256]
    blob = 120 * np.exp(-((rows - 90) ** 2 + (columns - 150) ** 2) / 200)
    return np.repeat((60 + rows / 4 + blob).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _problem(requirement: Requirement) -> str | None:
    """What is wrong with an installed package, None if nothing."""
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
