"""From a model's name to its folder. No network: what is not embedded or on disk is an error that says so."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from anomaly_ov.errors import WeightsError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ENCODER_GRAPH, EXPERT_GRAPH = "encoder.onnx", "expert.onnx"
GRAPH_FILES = (ENCODER_GRAPH, EXPERT_GRAPH, "encoder.xml", "encoder.bin", "expert.xml", "expert.bin")
LANGUAGE_FOLDER = "language"

_HERE = Path(__file__).parent
_EMBEDDED = {"tiny": "EfficientNet-Lite2 with a small expert, on ONNX Runtime, shipped inside the package"}


class Available(NamedTuple):
    """One model that can be loaded by name."""

    name: str
    folder: Path
    description: str


def available() -> list[Available]:
    """The models shipped with this installation, by name."""
    found = (Available(name, _HERE / name, text) for name, text in sorted(_EMBEDDED.items()))
    return [model for model in found if _is_model(model.folder)]


def resolve(name_or_folder: str | Path) -> Path:
    """The folder of an embedded model (by name) or the given model folder itself.

    An existing folder wins only when written as a path (``./tiny``); a bare known name always means the embedded
    model. Raises ``WeightsError`` when neither fits.
    """
    names = {model.name: model.folder for model in available()}
    if isinstance(name_or_folder, str) and name_or_folder in names:
        return names[name_or_folder]
    folder = Path(name_or_folder).expanduser()
    if _is_model(folder):
        return folder
    known = ", ".join(names) or "none installed"
    if folder.is_dir():
        raise WeightsError(
            f"{folder} is no model folder: it needs {CONFIG_FILE} and {WEIGHTS_FILE}",
            hint="run 'anomaly-ov models' for the names that work",
        )
    raise WeightsError(
        f"no model called '{name_or_folder}' (embedded: {known}) and no folder of that name",
        hint="run 'anomaly-ov models' for the names that work",
    )


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()
