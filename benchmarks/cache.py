"""What the feature cache saves: ``python benchmarks/cache.py``.

One epoch of stage 1 over the same pictures, features read from the cache against encoded anew, in turns, once for
``tiny`` by its engine and once at the shape of SigLIP-so400m in torch (random weights, 5 views a picture). Writes
``results/cache.json``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer

from anomaly_ov.models.config import EncoderConfig, ExpertConfig
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.engines.opening import open_engine
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.features import Features
from anomaly_ov.models.hub import resolve
from anomaly_ov_lab.training.feature_cache import Encode, FeatureCache
from anomaly_ov_lab.training.runs import encode_with
from anomaly_ov_lab.training.stage1 import Stage1Config, move, stage1_losses
from common import report

CPU = torch.device("cpu")


def epoch(expert: Expert, optimiser: torch.optim.Optimizer, pictures: list[Callable[[], Features]]) -> float:
    """Seconds of one optimiser step per picture, features included."""
    start = time.perf_counter()
    for k, features_of in enumerate(pictures):
        features = move(features_of(), CPU)
        output = expert(features, [len(features.final_NPD)])
        loss = stage1_losses(output, torch.tensor([float(k % 2)]), torch.zeros_like(output.map_Nhw), Stage1Config())
        optimiser.zero_grad()
        loss["loss"].backward()
        optimiser.step()
    return time.perf_counter() - start


def in_torch(encoder: Encoder) -> Encode:
    """What a network without graphs gives."""

    def encode(pixels_NHW3: np.ndarray) -> Features:
        with torch.inference_mode():
            found = encoder(encoder.normalise(torch.from_numpy(pixels_NHW3)))
        # Training may not see inference tensors; the copy is what any uncached loop would pay as well.
        return Features(found.final_NPD.clone(), tuple(level.clone() for level in found.levels_NPD), found.grid_hw)

    return encode


def measure(
    encode: Encode, size: int, expert: Expert, views: int, pictures: int, rounds: int
) -> tuple[float, float, float]:
    """Median ratio, median seconds a picture from the cache and anew. ``size``: side of a view."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (views, size, size, 3), np.uint8) for _ in range(pictures)]
    optimiser = torch.optim.AdamW(expert.parameters(), 1e-4)

    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), "benchmark")
        keys = [f"{k:064x}" for k in range(pictures)]
        for k, key in enumerate(keys):
            cache.get_or_encode(key, encode, pixels[k])
        stored = [lambda key=key, k=k: cache.get_or_encode(key, encode, pixels[k]) for k, key in enumerate(keys)]
        fresh = [lambda k=k: encode(pixels[k]) for k in range(pictures)]
        epoch(expert, optimiser, stored)
        pairs = [(epoch(expert, optimiser, stored), epoch(expert, optimiser, fresh)) for _ in range(rounds)]
    ratio = median(b / a for a, b in pairs)
    return ratio, median(a for a, _ in pairs) / pictures, median(b for _, b in pairs) / pictures


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    rounds: Annotated[int, typer.Option(help="Paired rounds.")] = 3,
    so400m: Annotated[bool, typer.Option(help="Measure the full shape too (minutes, 3 GB).")] = True,
    write: Annotated[bool, typer.Option(help="Write results/cache.json.")] = True,
) -> None:
    """Measure and report."""
    torch.manual_seed(0)
    rows: dict[str, tuple[float | str, str]] = {}
    engine = open_engine(resolve(model), device="cpu", dtype="float32")
    config = engine.config
    ratio, cached, fresh = measure(encode_with(engine), config.encoder.image_size, Expert(config.expert), 5, 16, rounds)
    rows[f"stage-1 epoch from cache, {config.name}"] = (
        f"{ratio:.1f} x faster",
        f"{1e3 * cached:.0f} against {1e3 * fresh:.0f} ms a picture of 5 views, engine {engine.name}",
    )
    if so400m:
        encoder = Encoder(EncoderConfig())
        ratio, cached, fresh = measure(
            in_torch(encoder), encoder.config.image_size, Expert(ExpertConfig()), 5, 2, min(rounds, 2)
        )
        remark = f"{cached:.2f} against {fresh:.1f} s a picture of 5 views; target >= 10"
        rows["stage-1 epoch from cache, SigLIP-so400m shape"] = (f"{ratio:.1f} x faster", remark)
    report("cache", rows, 0, write)


if __name__ == "__main__":
    typer.run(main)
