"""Where a run's numbers go: ``metrics.jsonl``, TensorBoard if installed, and a progress bar with rate and ETA."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from anomaly_ov.files import write_atomic

METRICS = "metrics.jsonl"


class Tracker:
    """Logs the mean of each value over every ``every`` steps; rows past a resumed checkpoint are cut first.

    ``window``: sums of the row under way; it travels with the checkpoint so that resumed rows are identical.
    """

    def __init__(
        self, folder: Path, *, total: int, start: int, batch: int, every: int, window: dict[str, float] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._every, self._batch = folder / METRICS, every, batch
        _cut_after(self._path, start)
        self.window: dict[str, float] = dict(window or {})
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=self._console,
        )
        self._bar = self._progress.add_task(folder.name, total=total, completed=start, rate="", loss="")
        self._board = _board(folder, start)

    def __enter__(self) -> Tracker:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()
        if self._board is not None:
            self._board.close()

    def say(self, text: str) -> None:
        """A line on stderr beside the bar."""
        self._console.print(text, highlight=False)

    def log(self, step: int, losses: dict[str, Tensor], rate: float) -> None:
        """Values of one finished step."""
        for name, value in losses.items():
            self.window[name] = self.window.get(name, 0.0) + float(value)
        self.window["steps"] = self.window.get("steps", 0.0) + 1
        if step % self._every == 0:
            self._write(step, rate)
        speed = self._progress.tasks[0].speed
        shown = f"{speed * self._batch:.0f} images/s" if speed else ""
        self._progress.update(self._bar, completed=step, rate=shown)

    def _write(self, step: int, rate: float) -> None:
        steps = self.window.pop("steps")
        row = {name: total / steps for name, total in self.window.items()}
        self.window = {}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "lr": rate} | row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)
        self._progress.update(self._bar, loss=f"loss {row['loss']:.4f}")


def say(line: str) -> None:
    """A line on stderr, whole and as it is."""
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)


def _cut_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in rows if json.loads(line)["step"] <= step]
    write_atomic(path, "".join(f"{line}\n" for line in kept).encode())


def _board(folder: Path, start: int) -> Any:
    """A writer that hides what an earlier, killed run had logged after step ``start``."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)


class Quiet:
    """What stands in for ``Tracker`` in all processes of a run but the first: says and writes nothing."""

    def __init__(self) -> None:
        self.window: dict[str, float] = {}

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def say(self, text: str) -> None:
        """Nothing."""

    def log(self, step: int, losses: dict[str, Tensor], rate: float) -> None:
        """Nothing."""
