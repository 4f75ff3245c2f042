"""One checkpoint format: everything a killed run needs to go on as if nothing had happened.

``checkpoint.pt`` holds tensors and plain values only and is read with ``weights_only=True``; ``run.json`` beside it
says in words what was run (resolved recipe, commit, seed, data hashes). Both are written atomically.
"""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint
from anomaly_ov.files import write_atomic

CHECKPOINT = "checkpoint.pt"
RUN = "run.json"


@dataclass(frozen=True)
class Checkpoint:
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
    ) -> Checkpoint:
        """The present state; tensors are shared with the live modules, so save before the next step."""
        averaged = None if average is None else average.state_dict()
        rng = torch.get_rng_state()
        state = optimiser.state_dict()
        return cls(step, module.state_dict(), averaged, state, rng, dict(window), fingerprint(provenance))

    def restore(
        self,
        module: nn.Module,
        average: nn.Module | None,
        optimiser: torch.optim.Optimizer,
        provenance: dict[str, Any],
        where: Path,
    ) -> None:
        """Loads the state into the live objects; a run with another recipe or other data is refused by name."""
        self.require_same_run(provenance, where)
        try:
            module.load_state_dict(self.module)
            if average is not None and self.average is not None:
                average.load_state_dict(self.average)
            optimiser.load_state_dict(self.optimiser)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointMismatch(f"{where / CHECKPOINT} does not fit: {str(error).splitlines()[0]}") from error
        torch.set_rng_state(self.rng)

    def require_same_run(self, provenance: dict[str, Any], where: Path) -> None:
        """Raises ``CheckpointMismatch``, naming what differs, unless the run in ``where`` had this recipe and data."""
        now = fingerprint(provenance)
        if self.fingerprint != now:
            names = ", ".join(_differences(json.loads(self.fingerprint), json.loads(now)))
            raise CheckpointMismatch(
                f"{where} was started with another recipe or other data: {names} differ",
                hint="choose another --out, or delete it",
            )


def fingerprint(provenance: dict[str, Any]) -> str:
    """The part of the provenance that decides the loss curve, as a canonical string."""
    return json.dumps({key: provenance.get(key) for key in ("recipe", "data")}, sort_keys=True)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Dotted names of the values that differ between two nested mappings."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [name]
    keys = sorted({*before, *now})
    return [found for key in keys for found in _differences(before.get(key), now.get(key), f"{name}.{key}".strip("."))]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes ``checkpoint.pt``; a kill at any moment leaves the old or the new one whole."""
    buffer = io.BytesIO()
    torch.save(vars(checkpoint), buffer)
    write_atomic(folder / CHECKPOINT, buffer.getvalue())


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``, None if there is none; never unpickles anything but tensors and plain values."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
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
    write_atomic(folder / RUN, (json.dumps(provenance, indent=2, sort_keys=True) + "\n").encode())
