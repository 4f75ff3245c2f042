"""Leave-one-set-out: for every training set an expert that never saw it; ``training.scoring_fit`` judges with them."""

from __future__ import annotations

from pathlib import Path

from anomaly_ov.errors import WeightsError
from anomaly_ov_lab.training.recipe import ExpertRecipe
from anomaly_ov_lab.training.runs import labelled_sets, train_expert


def leave_one_set_out(
    recipe: ExpertRecipe, data: Path, start: Path, out: Path, cache: Path, device: str = "cpu"
) -> dict[str, Path]:
    """Trains one expert per left-out set; by the set's name, the model folder. Resumable: a finished run returns at
    once, one of another recipe or start is refused rather than used.
    """
    names = [one.name for one in labelled_sets([data / folder for folder in recipe.sets])]
    return {
        name: train_expert(recipe, data, start, fold(out, name).parent, leave_out=[name], cache=cache, device=device)
        for name in names
    }


def fold(out: Path, name: str) -> Path:
    """Where the model lies that never saw the set ``name``."""
    return out / f"without-{name}" / "model"


def require_fold(out: Path, name: str) -> Path:
    """As ``fold``. Raises ``WeightsError`` if there is none."""
    folder = fold(out, name)
    if not folder.is_dir():
        raise WeightsError(f"{folder} is missing", hint="run 'anomaly-ov train leave-one-out' with the same sets")
    return folder
