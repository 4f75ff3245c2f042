"""Does a conformal threshold keep its promise on real pictures? ``python benchmarks/calibration.py --data A --data B``.

The good pictures of each set are scored once (rows kept in ``--rows``, gone on with there), copies counted once. Then,
a few hundred times: one random half calibrates a threshold for so many false alarms, the other half, unseen, says how
many there are. Where several pictures show one part, all of them stay on one side (``part_of``). Also for few
calibration pictures. Writes ``results/calibration.json``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from anomaly_ov.cli.console import Bar
from anomaly_ov.inspector import load
from anomaly_ov.scoring.conformal import CERTAINTY, conformal, fewest
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.evaluation.detect import evaluate_detection
from anomaly_ov_lab.evaluation.run_folder import ROWS_NAME, RunFolder
from common import report

FEW = (19, 99)
FRAMES_APART = 600
"""Frames farther apart show another tile. Exposures rise within a tile, and no two of one tile are farther apart than
557 frames; tiles that were photographed soon after each other are taken for one, which parts nothing that belongs
together.
"""

_FRAME = re.compile(r"exp\d+_num_(\d+)")


@dataclass(frozen=True)
class Splits:
    """Of each of S splits: ``rate_S`` of false alarms on unseen pictures, and the bound that was promised for it."""

    rate_S: np.ndarray
    upper_S: np.ndarray
    calibrating: int
    unseen: int

    @property
    def mean(self) -> float:
        """Mean rate of false alarms."""
        return float(self.rate_S.mean())

    @property
    def error(self) -> float:
        """Standard error of ``mean``."""
        return float(self.rate_S.std(ddof=1) / np.sqrt(len(self.rate_S)))


def part_of(names: Sequence[str]) -> list[int]:
    """Which part each picture shows, 0, 1, ...: by the frame numbers of magnetic tiles, else every picture its own."""
    frames = [_FRAME.search(name) for name in names]
    if not all(frames):
        return list(range(len(names)))
    numbers = np.array([int(found.group(1)) for found in frames if found])
    order = np.argsort(numbers)
    parts = np.empty(len(numbers), np.int64)
    parts[order] = np.concatenate([[0], np.cumsum(np.diff(numbers[order]) > FRAMES_APART)])
    return parts.tolist()


def split(
    scores: np.ndarray,
    parts: np.ndarray,
    max_false_alarms: float,
    splits: int,
    seed: int,
    *,
    calibrating: int | None = None,
    one_each: bool = False,
) -> Splits:
    """``calibrating``: so many parts, None = half; the others are unseen. ``one_each``: only one picture, drawn,
    of each part calibrates.
    """
    rng = np.random.default_rng(seed)
    rates, uppers, sizes = [], [], []
    for _ in range(splits):
        order = rng.permutation(parts.max() + 1)
        used = np.isin(parts, order[: len(order) // 2 if calibrating is None else calibrating])
        known, unseen = scores[used], scores[~used]
        if one_each:
            shuffled = rng.permutation(len(known))
            known = known[shuffled[np.unique(parts[used][shuffled], return_index=True)[1]]]
        found = conformal(known, max_false_alarms)
        rates.append(float((unseen >= found.value).mean()))
        uppers.append(found.upper())
        sizes.append((len(known), len(unseen)))
    calibrated, tested = np.mean(sizes, axis=0)
    return Splits(np.array(rates), np.array(uppers), round(float(calibrated)), round(float(tested)))


def good_scores(data: Path, rows: Path, model: str, batch_size: int) -> tuple[str, list[str], np.ndarray]:
    """Name of the set, ids and scores of its distinct good pictures."""
    dataset = discover(data)
    goods = dataset.keep(sample for sample in dataset if sample.label == 0)
    inspector = load(model, dtype="float32")
    folder = rows / dataset.name
    with Bar(None, goods.name) as bar:
        evaluate_detection(inspector, goods, folder, batch_size, bar.at, include_train=True, draws=1)
    with RunFolder(folder, inspector.info) as run:
        kept = run.resume(lambda row: row.score is not None)
    distinct = list({row.sha256: row for row in reversed(kept.values())}.values())[::-1]
    return dataset.name, [row.id for row in distinct], np.array([row.score for row in distinct])


def line(name: str, found: Splits, max_false_alarms: float) -> tuple[str, tuple[float | str, str]]:
    """What is reported of one way of splitting."""
    limit = max_false_alarms + 3 * found.error
    above = float((found.rate_S > found.upper_S).mean())
    remark = (
        f"standard error {found.error:.5f}, target <= {limit:.4f}: {'met' if found.mean <= limit else 'missed'}; "
        f"{len(found.rate_S)} splits, about {found.calibrating} calibrating, {found.unseen} unseen; "
        f"above its {CERTAINTY:.0%} bound in {above:.1%} of splits"
    )
    return f"{name}: mean false alarms on unseen good pictures at {max_false_alarms:g}", (found.mean, remark)


def main(
    data: Annotated[list[Path], typer.Option(help="A set with good pictures; repeatable.")],
    rows: Annotated[Path, typer.Option(help=f"Where {ROWS_NAME} of each set is kept.")],
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "tiny",
    max_false_alarms: Annotated[float, typer.Option(help="Share of good pictures that may be flagged.")] = 0.05,
    splits: Annotated[int, typer.Option(help="Random splits of each kind.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Most pictures per forward pass.")] = 8,
    write: Annotated[bool, typer.Option(help="Write results/calibration.json.")] = True,
) -> None:
    """Measure and report."""
    measured: dict[str, tuple[float | str, str]] = {}
    for path in data:
        name, names, scores = good_scores(path, rows, model, batch_size)
        parts = np.array(part_of(names))
        groups = "" if len(set(parts)) == len(parts) else f" in {len(set(parts))} groups that stay whole"
        measured[f"{name}: distinct good pictures"] = (str(len(names)), f"scored by {model}{groups}")
        ways: dict[str, dict[str, Any]] = {f"{name}, half": {}}
        if groups:
            ways[f"{name}, half, one picture of each group"] = {"one_each": True}
        else:
            enough = [few for few in FEW if fewest(max_false_alarms) <= few < len(names)]
            ways |= {f"{name}, {few} pictures": {"calibrating": few} for few in enough}
        for label, way in ways.items():
            what, values = line(label, split(scores, parts, max_false_alarms, splits, seed, **way), max_false_alarms)
            measured[what] = values
    report("calibration", measured, seed, write)


if __name__ == "__main__":
    typer.run(main)
