"""hub.py: names and folders resolve, everything else is one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov.errors import WeightsError
from anomaly_ov.models import hub


def _model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / hub.CONFIG_FILE).write_text("{}")
    (folder / hub.WEIGHTS_FILE).write_bytes(b"")
    return folder


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder that holds ``tiny``."""
    monkeypatch.setattr(hub, "_HERE", tmp_path / "package")
    return _model(tmp_path / "package" / "tiny")


def test_embedded_name(embedded: Path) -> None:
    assert hub.resolve("tiny") == embedded
    assert [(model.name, model.folder) for model in hub.available()] == [("tiny", embedded)]
    assert hub.available()[0].description


def test_a_folder_as_path_wins_over_the_name(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = _model(tmp_path / "mine" / "tiny")
    monkeypatch.chdir(mine.parent)
    assert hub.resolve("tiny") == embedded
    assert hub.resolve("./tiny").resolve() == mine
    assert hub.resolve(mine) == mine


def test_unknown_names_and_incomplete_folders(embedded: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no model called 'huge'.*tiny") as caught:
        hub.resolve("huge")
    assert "anomaly-ov models" in caught.value.hint
    with pytest.raises(WeightsError, match=r"needs config\.json and model\.safetensors"):
        hub.resolve(tmp_path)


def test_nothing_embedded_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_HERE", tmp_path)
    assert hub.available() == []
    with pytest.raises(WeightsError, match="none installed"):
        hub.resolve("tiny")
