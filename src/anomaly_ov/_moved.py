"""Import paths of version 0.1 lead to where things are now, with a ``DeprecationWarning``, until version 0.3.

One table for modules, packages included with all that is in them, and one for names that ``anomaly_ov`` had itself. A
module has one identity: an old path gives the module of the new one, not a copy.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "anomaly_ov.baselines": "anomaly_ov_lab.baselines",
    "anomaly_ov.baselines.prompts": "anomaly_ov_lab.baselines.clip_towers",
    "anomaly_ov.baselines.settings": "anomaly_ov_lab.baselines.detector",
    "anomaly_ov.baselines.windows": "anomaly_ov_lab.baselines.winclip",
    "anomaly_ov.chat": "anomaly_ov.reasoning.chat",
    "anomaly_ov.data": "anomaly_ov_lab.data",
    "anomaly_ov.data.synthetic.scenes": "anomaly_ov_lab.data.synthetic.generator",
    "anomaly_ov.evaluation": "anomaly_ov_lab.evaluation",
    "anomaly_ov.evaluation.page.charts": "anomaly_ov_lab.evaluation.page.curves",
    "anomaly_ov.evaluation.picture_labels": "anomaly_ov_lab.evaluation.run_folder",
    "anomaly_ov.evaluation.text.overlap": "anomaly_ov_lab.evaluation.text.similarity",
    "anomaly_ov.evaluation.text.parsing": "anomaly_ov_lab.instruct.reading",
    "anomaly_ov.evaluation.worst": "anomaly_ov_lab.evaluation.detect",
    "anomaly_ov.images.maps": "anomaly_ov.scoring.anomaly_map",
    "anomaly_ov.images.regions": "anomaly_ov.scoring.regions",
    "anomaly_ov.instruct": "anomaly_ov_lab.instruct",
    "anomaly_ov.instruct.grammar": "anomaly_ov_lab.instruct.phrases",
    "anomaly_ov.instruct.held_out": "anomaly_ov_lab.instruct.seen",
    "anomaly_ov.instruct.manner": "anomaly_ov_lab.instruct.phrases",
    "anomaly_ov.models.reasoning": "anomaly_ov.reasoning",
    "anomaly_ov.remote.dialect": "anomaly_ov.remote.endpoint",
    "anomaly_ov.remote.parallel": "anomaly_ov.remote.limits",
    "anomaly_ov.scoring.look": "anomaly_ov.look",
    "anomaly_ov.serving": "anomaly_ov_server",
    "anomaly_ov.talk": "anomaly_ov.reasoning.session",
    "anomaly_ov.thresholds": "anomaly_ov.scoring.conformal",
    "anomaly_ov.training": "anomaly_ov_lab.training",
    "anomaly_ov.training.losses": "anomaly_ov_lab.training.stage1",
    "anomaly_ov.training.stage2_recipe": "anomaly_ov_lab.training.recipe",
}
NAMES = {"load_baseline": "anomaly_ov_lab.baselines.load"}


def moved_name(name: str) -> Any:
    """What ``anomaly_ov.name`` was. Raises ``AttributeError`` for what it never had."""
    if name not in NAMES:
        raise AttributeError(f"module 'anomaly_ov' has no attribute '{name}'")
    _warn(f"anomaly_ov.{name}", f"{NAMES[name]}.{name}", stacklevel=4)
    return getattr(import_module(NAMES[name]), name)


def new_path(module: str) -> str | None:
    """Where ``module`` is now; None for a path that is not an old one."""
    old = module
    while old not in MODULES:
        old, _, last = old.rpartition(".")
        if not last:
            return None
    return MODULES[old] + module[len(old) :]


class OldPaths:
    """A finder for ``sys.meta_path``. It stands first: a package has its old paths, but also a folder to search."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """The protocol of finders."""
        now = new_path(fullname) if fullname.startswith("anomaly_ov.") else None
        return None if now is None else ModuleSpec(fullname, _Alias(fullname, now))  # type: ignore[arg-type]  # duck-typed


class _Alias:
    """Loads nothing: hands out the module of the new path."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _warn(self.old, self.new, stacklevel=3)
        module = import_module(self.new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the old path's there


def _warn(old: str, new: str, stacklevel: int) -> None:
    warnings.warn(f"{old} has moved to {new}; the old path goes in version 0.3", DeprecationWarning, stacklevel)


def install() -> None:
    """Once per process."""
    if OldPaths not in sys.meta_path:
        sys.meta_path.insert(0, OldPaths)
