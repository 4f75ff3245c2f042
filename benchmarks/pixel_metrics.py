"""Pixel metrics against the straightforward way: ``python benchmarks/pixel_metrics.py``.

Both ways in fresh processes of one thread each, in turns, over the same masks and maps from disk: ours (streamed one
picture at a time; and exact, on as many pictures as fit 50 million pixels) and the plain one, which holds everything,
labels each mask once, tries 200 thresholds for PRO and leaves pixel AUROC to scikit-learn. Plain times leave out
reading the files, ours include it. Ratios are of processor seconds, which other work on the machine changes little;
wall seconds are given beside them. Then a set of VisA's size, metrics alone. Writes ``results/pixel-metrics.json``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from scipy import ndimage

from anomaly_ov_lab.evaluation.pixel_metrics import MAX_EXACT, ExactPixels, HistogramPixels
from common import report

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
THRESHOLDS, MAX_FPR = 200, 0.3
FASTER, LEANER, VISA_GIB = 25, 5, 2
VISA_CLASSES, VISA_NORMAL, VISA_ANOMALOUS = 12, 962, 1200

app = typer.Typer(add_completion=False)


def mask_and_map(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask with a few blobs, and a smooth map in 0..1 that partly finds them."""
    small = (height // 8, width // 8)
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(rng.integers(1, 6)):
        size = rng.integers(8, max(9, height // 8), 2)
        top, left = rng.integers(0, height - size[0]), rng.integers(0, width - size[1])
        mask[top : top + size[0], left : left + size[1]] = True
    coarse = ndimage.gaussian_filter(rng.normal(size=small), 3) * 4
    smooth = np.kron(coarse, np.ones((8, 8)))[:height, :width]
    padded = np.zeros((height, width))
    padded[: smooth.shape[0], : smooth.shape[1]] = smooth
    logits = padded + 0.2 * rng.normal(size=(height, width)) + 1.5 * mask * rng.random()
    return mask, (1 / (1 + np.exp(-logits))).astype(np.float32)


def plain(masks: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """PRO as a loop over thresholds and regions, trapezoids up to the limit; pixel AUROC by scikit-learn."""
    from sklearn.metrics import roc_auc_score

    regions = []
    for index, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, np.nonzero(labelled == number + 1)) for number in range(count)]
    inverse = ~masks
    normal = int(inverse.sum())
    curve = []
    for threshold in np.linspace(maps.max(), maps.min(), THRESHOLDS):
        flagged = maps >= threshold
        overlap = np.mean([flagged[index][inside].mean() for index, inside in regions])
        curve.append((np.logical_and(flagged, inverse).sum() / normal, overlap))
    rates, overlaps = np.array(curve).T
    at = np.append(rates[rates < MAX_FPR], MAX_FPR)
    pro = np.trapezoid(np.interp(at, rates, overlaps), at) / MAX_FPR
    return {"auroc": float(roc_auc_score(masks.ravel(), maps.ravel())), "pro": float(pro)}


def peak_mib() -> float:
    """Highest resident set of this process so far (Linux counts in KiB, macOS in bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@app.command(hidden=True)
def worker(way: str, folder: Path, count: int) -> None:
    """One way over ``count`` pictures of ``folder``; prints its figures and its cost."""
    names = [(folder / f"mask{index}.npy", folder / f"map{index}.npy") for index in range(count)]
    if way == "plain":
        masks, maps = (np.stack([np.load(pair[side]) for pair in names]) for side in (0, 1))
        start = time.perf_counter(), time.process_time()
        found: dict[str, Any] = plain(masks, maps)
    else:
        start = time.perf_counter(), time.process_time()
        counter = ExactPixels(MAX_FPR) if way == "exact" else HistogramPixels(0.0, 1.0, MAX_FPR)
        for mask, map_HW in names:
            counter.add(np.load(mask), np.load(map_HW))
        result = counter.result()
        found = {"auroc": result.auroc, "pro": result.pro, "error": result.error}
    found |= {"wall": time.perf_counter() - start[0], "cpu": time.process_time() - start[1], "mib": peak_mib()}
    print(json.dumps(found))


@app.command(hidden=True)
def visa(count: int, height: int, width: int, seed: int) -> None:
    """Image and pixel figures per class and pooled over a set of VisA's size; making the maps is not timed."""
    from anomaly_ov.records import ModelInfo
    from anomaly_ov_lab.evaluation.figures import figures_of, mean_of
    from anomaly_ov_lab.evaluation.run_folder import Row

    rng = np.random.default_rng(seed)
    pool = [mask_and_map(rng, height, width) for _ in range(8)]
    share = VISA_ANOMALOUS / (VISA_NORMAL + VISA_ANOMALOUS)
    labels = np.diff(np.floor(np.arange(count + 1) * share)) > 0
    owners = rng.integers(0, VISA_CLASSES, count)
    info, groups, error = ModelInfo("synthetic", "0", "cpu", "float32"), [], 0.0
    pooled = HistogramPixels()
    wall, cpu = 0.0, 0.0
    nothing = np.zeros((height, width), dtype=bool)
    for category in range(VISA_CLASSES):
        own = np.flatnonzero(owners == category)
        counter = HistogramPixels()
        rows = [
            Row(str(i), None, info, score=s, score_raw=s, score_map=s, threshold=0.5)
            for i, s in zip(own, 1 / (1 + np.exp(-rng.normal(size=own.size) - labels[own])), strict=True)
        ]
        for index in own:
            mask, map_HW = pool[rng.integers(len(pool))]
            shift = int(rng.integers(width))
            map_HW, mask = np.roll(map_HW, shift, 1), np.roll(mask, shift, 1) if labels[index] else nothing
            start = time.perf_counter(), time.process_time()
            counter.add(mask, map_HW)
            pooled.add(mask, map_HW)
            wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
        start = time.perf_counter(), time.process_time()
        groups.append(
            figures_of(str(category), rows, labels[own].astype(int).tolist(), seed=category, pixels=counter.result())
        )
        wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
    start = time.perf_counter(), time.process_time()
    figures, total = mean_of(groups), pooled.result()
    wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
    error = max(figures.pixels.error if figures.pixels else 0.0, total.error)
    found = {"wall": wall, "cpu": cpu, "mib": peak_mib(), "pixels": total.pixels, "error": error}
    print(json.dumps(found))


def run(*arguments: str) -> dict[str, Any]:
    """The JSON that one fresh process of this script prints."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def against(way: str, folder: Path, count: int, rounds: int) -> dict[str, tuple[float | str, str]]:
    """Rows for one of our ways against the plain one."""
    runs = [[run("worker", name, str(folder), str(count)) for name in (way, "plain")] for _ in range(rounds)]
    ours, theirs = ([pair[side] for pair in runs] for side in (0, 1))

    def ratio(key: str) -> float:
        return median(b[key] / a[key] for a, b in runs)

    def of(side: list[dict[str, Any]], key: str) -> float:
        return median(one[key] for one in side)

    what = f"{way}, {count} masks"
    error = f"; bound on the error {of(ours, 'error'):.1e}" if way != "exact" else ""
    off = max(abs(a["auroc"] - b["auroc"]) for a, b in runs)
    times = f"processor seconds {of(ours, 'cpu'):.2f} against {of(theirs, 'cpu'):.1f}"
    return {
        f"{what}: times faster": (
            ratio("cpu"),
            f"{times} (wall {of(ours, 'wall'):.2f} against {of(theirs, 'wall'):.1f}, {ratio('wall'):.0f} times); "
            f"median of {rounds} paired rounds, one thread each; target >= {FASTER}",
        ),
        f"{what}: share of memory": (
            1 / ratio("mib"),
            f"peak {of(ours, 'mib'):.0f} against {of(theirs, 'mib'):.0f} MiB; target <= {1 / LEANER}",
        ),
        f"{what}: pixel AUROC off by": (f"{off:.1e}", f"from scikit-learn's{error}"),
        f"{what}: PRO": (of(ours, "pro"), f"the plain way's {THRESHOLDS} thresholds give {of(theirs, 'pro'):.4f}"),
    }


@app.command()
def main(
    count: Annotated[int, typer.Option(help="Masks.")] = 200,
    side: Annotated[int, typer.Option(help="Their height and width.")] = 1024,
    rounds: int = 3,
    visa_count: Annotated[int, typer.Option(help="Pictures of the set of VisA's size.")] = VISA_NORMAL + VISA_ANOMALOUS,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    exact_count = min(count, MAX_EXACT // side**2)
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(seed)
        for index in range(count):
            mask, map_HW = mask_and_map(rng, side, side)
            np.save(folder / f"mask{index}.npy", mask)
            np.save(folder / f"map{index}.npy", map_HW)
        rows = against("streamed", folder, count, rounds) | against("exact", folder, exact_count, rounds)
    large = run("visa", str(visa_count), "1000", "1500", str(seed))
    size = f"{visa_count} pictures of 1500 x 1000, {large['pixels'] / 1e9:.1f} thousand million pixels"
    rows |= {
        "size of VisA: peak memory, GiB": (large["mib"] / 1024, f"{size}; target < {VISA_GIB}"),
        "size of VisA: processor seconds": (
            large["cpu"],
            f"all figures with intervals, {VISA_CLASSES} classes, mean and pooled; wall {large['wall']:.0f}; "
            f"bound on the error {large['error']:.1e}",
        ),
        "machine": ("shared", "other work ran on it; hence processor seconds"),
    }
    report("pixel-metrics", rows, seed, write)


if __name__ == "__main__":
    app() if len(sys.argv) > 1 and sys.argv[1] in ("worker", "visa") else typer.run(main)
