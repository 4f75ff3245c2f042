"""A model folder with ONNX graphs beside its weights: traced, linked, compared with the model, then moved into place.

Not here: tracing (``traced``), pointing into the weights (``linked``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from anomaly_ov.errors import UsageError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.models.arrays import Floats
from anomaly_ov.models.engines.graph_info import KEY, GraphInfo
from anomaly_ov.models.engines.interface import Engine, forward
from anomaly_ov.models.engines.onnx import open_onnx
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.export.linked import link, precision_of
from anomaly_ov.models.export.traced import EXAMPLE_VIEWS, trace_encoder, trace_expert
from anomaly_ov.models.folder import digest
from anomaly_ov.models.hub import CONFIG_FILE, ENCODER_GRAPH, EXPERT_GRAPH, WEIGHTS_FILE
from anomaly_ov.models.model import CARD_FILE, AnomalyModel
from anomaly_ov.streaming import Progress, nobody

if TYPE_CHECKING:
    import onnx_ir as ir

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
TOLERANCE = 1e-3
"""Largest deviation of a graph's output from the model's, as a share of that output's largest value. Usual: 1e-5."""
STEPS = 4


def export_onnx(
    folder: Path, out: Path, precision: str | None = None, *, overwrite: bool = False, progress: Progress = nobody
) -> Path:
    """The detector in ``folder`` as the model folder ``out``, which engines open with or without torch.

    ``out``: a folder that may exist, or ``folder`` itself, which then gets the graphs and keeps all else.
    ``precision``: of the stored weights, fp32 or fp16 (computed in float32 either way); None = as they are.
    ``progress``: told after each of ``STEPS`` steps. A language side is not taken along.

    Raises what loading the model raises, ``MissingExtra``, ``UsageError`` (unknown precision, something there already
    and not ``overwrite``, a network that cannot be traced) and ``WeightsError`` when the graphs do not compute what
    the model does. Nothing of ``out`` changes before the graphs are complete and compared.
    """
    if precision is not None and precision not in DTYPES:
        raise UsageError(f"unknown precision '{precision}'", hint=f"use {', '.join(DTYPES)}")
    in_place = out.exists() and out.samefile(folder)
    stored = precision_of(folder / WEIGHTS_FILE)
    if in_place and precision not in (None, stored):
        raise UsageError(
            f"{folder} holds its weights in {stored}; writing them in {precision} would make another model of it",
            hint="give --out another folder",
        )
    _require_free(out, (ENCODER_GRAPH, EXPERT_GRAPH) if in_place else (CONFIG_FILE, WEIGHTS_FILE), overwrite)
    model = AnomalyModel.from_pretrained(folder)
    with _staging(out) as staging:
        if precision in (None, stored):
            for file in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
                _share(folder / file, staging / file)
        else:
            card = (folder / CARD_FILE).read_text(encoding="utf-8") if (folder / CARD_FILE).is_file() else ""
            model.save_pretrained(staging, DTYPES[precision], card)
            model = AnomalyModel.from_pretrained(staging)
        progress(1, STEPS)
        _write(staging / ENCODER_GRAPH, trace_encoder(model.encoder), model)
        progress(2, STEPS)
        _write(staging / EXPERT_GRAPH, trace_expert(model.expert), model)
        progress(3, STEPS)
        _require_same(open_onnx(staging), TorchEngine(model, "cpu", "float32"))
        progress(4, STEPS)
        own = () if in_place else (WEIGHTS_FILE, CARD_FILE)
        # The configuration comes last: a folder without it is no model yet.
        for file in (*own, ENCODER_GRAPH, EXPERT_GRAPH, *(() if in_place else (CONFIG_FILE,))):
            if (staging / file).is_file():
                os.replace(staging / file, out / file)
    return out


def _write(path: Path, graph: ir.Model, model: AnomalyModel) -> None:
    """The graph, linked to the weights beside ``path``, with what it says about itself."""
    import onnx_ir as ir

    source = path.parent / WEIGHTS_FILE
    part = path.stem
    encoder = model.encoder
    patch = float(encoder.patch) if encoder.patch is not None and encoder.config.grid_hw is None else None
    info = GraphInfo(part, digest(source), precision_of(source), patch, encoder.grid_hw)
    link(graph, source)
    graph.metadata_props[KEY] = info.to_json(model.config)
    write_atomic(path, ir.to_proto(graph).SerializeToString())


def _require_same(graphs: Engine, model: Engine) -> None:
    """Raises ``WeightsError`` unless both give the same for views of noise, of other numbers than were traced."""
    side = model.config.encoder.image_size
    noise_NHW3 = np.random.default_rng(0).integers(0, 256, (EXAMPLE_VIEWS + 1, side, side, 3), np.uint8)
    views = [noise_NHW3[:1], noise_NHW3[1:]]
    for found, want in zip(forward(graphs, views, features=True), forward(model, views, features=True), strict=True):
        assert found.features is not None
        assert want.features is not None
        pairs: dict[str, tuple[Floats, Floats]] = {
            "map": (found.map_Nhw, want.map_Nhw),
            "score": (np.array(found.score_raw, np.float32), np.array(want.score_raw, np.float32)),
            "local tokens": (found.local_NQD, want.local_NQD),
            "global token": (found.global_D, want.global_D),
            "final feature": (found.features.final_NPD, want.features.final_NPD),
        }
        for name, (mine, theirs) in pairs.items():
            largest = float(np.abs(theirs).max())
            off = float(np.abs(mine - theirs).max())
            if not off <= TOLERANCE * max(largest, 1e-6):
                raise WeightsError(
                    f"the graphs of '{model.config.name}' deviate from the model: {name} by {off:.2g} of {largest:.2g}",
                    hint="use this model with its own engine, torch",
                )


def _require_free(out: Path, files: tuple[str, ...], overwrite: bool) -> None:
    if out.is_file():
        raise UsageError(f"{out} is a file, and a model is a folder", hint="give --out a folder's name")
    there = [name for name in files if (out / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{out} already holds {there[0]}", hint="give --overwrite, or another folder")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder inside ``out``; both are removed if they hold nothing in the end."""
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=out) as name:
            yield Path(name)
    except OSError as error:
        raise UsageError(
            f"cannot write {out}: {error.strerror or error}", hint="the folder must be writable and have room"
        ) from error
    finally:
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def _share(source: Path, target: Path) -> None:
    """The same file at ``target``, without copying its bytes where the disk allows it."""
    if not source.is_file():
        return
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
