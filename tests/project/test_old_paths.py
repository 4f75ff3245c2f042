"""Import paths of version 0.1 still work, say where things are now, and give the same modules."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator

import pytest

from anomaly_ov import _moved

INSIDE = ("evaluation.detect", "evaluation.text.run", "training.recipe", "serving.settings", "models.reasoning.config")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[warnings.WarningMessage]]:
    """The warnings of a process that has used no old path yet."""
    for name in [name for name in sys.modules if _moved.new_path(name)]:
        monkeypatch.delitem(sys.modules, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@pytest.mark.parametrize("old", [*_moved.MODULES, *(f"anomaly_ov.{name}" for name in INSIDE)])
def test_an_old_path_gives_the_module_of_the_new_one(old: str, told: list[warnings.WarningMessage]) -> None:
    module = importlib.import_module(old)
    now = _moved.new_path(old)
    new = importlib.import_module(str(now))
    assert module is new
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__ == now
    assert {one.category for one in told} == {DeprecationWarning}
    assert str(told[-1].message) == f"{old} has moved to {now}; the old path goes in version 0.3"


def test_names_through_old_paths(told: list[warnings.WarningMessage]) -> None:
    from anomaly_ov.thresholds import conformal

    from anomaly_ov.scoring.conformal import conformal as now
    from anomaly_ov_lab.baselines.load import load_baseline as there

    assert conformal is now
    from anomaly_ov import load_baseline

    assert load_baseline is there
    assert {one.filename for one in told} == {__file__}, "a warning shows the line that is to be changed"
    assert "anomaly_ov.load_baseline has moved to anomaly_ov_lab.baselines.load.load_baseline" in str(told[-1].message)


def test_what_never_was_stays_unknown(told: list[warnings.WarningMessage]) -> None:
    for name in ("anomaly_ov.nothing", "anomaly_ov.training.nothing"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert _moved.new_path("anomaly_ov.scoring.score") is None
    assert _moved.new_path("anomaly_ov_lab.data") is None
    assert _moved.new_path("anomaly_ov.database") is None
