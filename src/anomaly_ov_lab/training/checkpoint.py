"""One checkpoint format: everything a killed run needs to go on as if nothing had happened.

``checkpoint.pt`` holds tensors and plain values only and is read with ``weights_only=True``; ``run.json`` beside it
says in words what was run (resolved recipe, commit, seed, data hashes). Both are written atomically.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint
from anomaly_ov.files import replacing, write_atomic
from anomaly_ov_lab.training.parallel import gathered, split_like

CHECKPOINT = "checkpoint.pt"
RUN = "run.json"


@dataclass(frozen=True)
class RunCheckpoint:
    """State after ``step`` finished steps.

    ``window``: sums of the log row that was under way. ``fingerprint``: the recipe and data the run was started with.
    """

    step: int
    module: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimiser: dict[str, Any]
    rng: Tensor
    window: dict[str, float]
    fingerprint: str

    @classmethod
    def capture(
        cls,
        step: int,
        module: nn.Module,
        average: nn.Module | None,
        optimiser: torch.optim.Optimizer,
        window: dict[str, float],
        provenance: dict[str, Any],
        keep: bool = True,
    ) -> RunCheckpoint:
        """The present state; tensors are shared with the live modules, so save before the next step.

        Shards are gathered, so every process of a run calls this; ``keep``: False on all but the one that saves.
        """
        averaged = None if average is None else average.state_dict()
        rng = torch.get_rng_state()
        whole, state = gathered(module.state_dict(), keep), gathered(optimiser.state_dict(), keep)
        return cls(step, whole, averaged, state, rng, dict(window), fingerprint(provenance))

    def restore(
        self,
        module: nn.Module,
        average: nn.Module | None,
        optimiser: torch.optim.Optimizer,
        provenance: dict[str, Any],
        where: Path,
    ) -> None:
        """Loads the state into the live objects, split as these are; a run with another recipe or other data is
        refused by name."""
        self.require_same_run(provenance, where)
        live = module.state_dict()
        try:
            module.load_state_dict({name: split_like(value, live.get(name)) for name, value in self.module.items()})
            if average is not None and self.average is not None:
                average.load_state_dict(self.average)
            optimiser.load_state_dict(_moments_split(self.optimiser, optimiser))
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointMismatch(f"{where / CHECKPOINT} does not fit: {str(error).splitlines()[0]}") from error
        torch.set_rng_state(self.rng)

    def require_same_run(self, provenance: dict[str, Any], where: Path) -> None:
        """Raises ``CheckpointMismatch``, naming what differs, unless the run in ``where`` had this recipe and data."""
        now = json.loads(fingerprint(provenance))
        before = _deciding(_filled(json.loads(self.fingerprint), {"recipe": provenance.get("defaults", {})}))
        if before != now:
            names = ", ".join(_differences(before, now))
            raise CheckpointMismatch(
                f"{where} was started with another recipe or other data: {names} differ",
                hint="choose another --out, or delete it",
            )


def fingerprint(provenance: dict[str, Any]) -> str:
    """The part of the provenance that decides the loss curve, as a canonical string.

    How many processes share the work does not. A provenance may hold the recipe's ``defaults``: a checkpoint that is
    older than one of the recipe's fields was trained with that field's default.
    """
    return json.dumps(_deciding({key: provenance.get(key) for key in ("recipe", "data")}), sort_keys=True)


def _deciding(provenance: dict[str, Any]) -> dict[str, Any]:
    recipe = provenance.get("recipe")
    loop = recipe.get("loop") if isinstance(recipe, dict) else None
    if not isinstance(recipe, dict) or not isinstance(loop, dict):
        return provenance
    kept = {name: value for name, value in loop.items() if name != "parallel"}
    return provenance | {"recipe": recipe | {"loop": kept}}


def _filled(values: Any, defaults: Any) -> Any:
    """``values`` with the fields of ``defaults`` that it lacks, also in nested mappings."""
    if not (isinstance(values, dict) and isinstance(defaults, dict)):
        return values
    own = {name: _filled(value, defaults.get(name)) for name, value in values.items()}
    return {name: value for name, value in defaults.items() if name not in own} | own


def _moments_split(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's whole state, with what is kept per parameter split as the parameter is."""
    parameters = dict(enumerate(p for group in optimiser.param_groups for p in group["params"]))
    moments = {
        index: {name: split_like(value, parameters.get(index)) for name, value in of_one.items()}
        for index, of_one in state["state"].items()
    }
    return state | {"state": moments}


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Dotted names of the values that differ between two nested mappings."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [name]
    keys = sorted({*before, *now})
    return [found for key in keys for found in _differences(before.get(key), now.get(key), f"{name}.{key}".strip("."))]


def save_checkpoint(folder: Path, checkpoint: RunCheckpoint) -> None:
    """Writes ``checkpoint.pt``; a kill at any moment leaves the old or the new one whole."""
    # Straight to the disk: the state of a large model would not fit in memory twice.
    with replacing(folder / CHECKPOINT) as file:
        torch.save(vars(checkpoint), file)


def load_checkpoint(folder: Path, lazily: bool = False) -> RunCheckpoint | None:
    """The checkpoint in ``folder``, None if there is none; never unpickles anything but tensors and plain values.

    ``lazily``: tensors are read from the disk as they are used, so that many processes can split one large state.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        return RunCheckpoint(**torch.load(path, map_location="cpu", weights_only=True, mmap=lazily))
    except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UnsafeCheckpoint(
            f"{path} is damaged or not a checkpoint: {reason}", hint="delete it to start over"
        ) from None


def write_run(folder: Path, provenance: dict[str, Any]) -> None:
    """``run.json``: the resolved recipe, data hashes, commit, seed and machine of a run.

    A folder with a checkpoint keeps what its run was started with, and lists each time it was resumed under
    ``resumed``. Raises ``CheckpointMismatch``, before anything is written, if that was another recipe or other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(folder)
    if checkpoint is not None:
        checkpoint.require_same_run(provenance, folder)
        if (folder / RUN).is_file():
            first = json.loads((folder / RUN).read_text(encoding="utf-8"))
            provenance = first | {"resumed": [*first.get("resumed", []), provenance.get("provenance")]}
    provenance = {name: value for name, value in provenance.items() if name != "defaults"}
    write_atomic(folder / RUN, (json.dumps(provenance, indent=2, sort_keys=True) + "\n").encode())
