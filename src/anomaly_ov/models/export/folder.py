"""A detector as a folder for other runtimes: graphs beside the weights, compared with the model, moved into place.

Not here: tracing (``traced``), pointing into the weights (``linked``), eight bits (``quantised``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from anomaly_ov.errors import MissingExtra, UsageError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.sources import Source
from anomaly_ov.models.arrays import Floats, PictureArrays, Pixels
from anomaly_ov.models.engines.graph_info import KEY, GraphInfo
from anomaly_ov.models.engines.interface import Engine, forward
from anomaly_ov.models.engines.onnx import open_onnx
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.export.linked import link, precision_of
from anomaly_ov.models.export.quantised import quantise_encoder, views_of
from anomaly_ov.models.export.traced import EXAMPLE_VIEWS, trace_encoder, trace_expert
from anomaly_ov.models.folder import digest
from anomaly_ov.models.hub import CONFIG_FILE, ENCODER_GRAPH, EXPERT_GRAPH, GRAPH_FILES, WEIGHTS_FILE
from anomaly_ov.models.model import CARD_FILE, AnomalyModel
from anomaly_ov.streaming import Progress, nobody

if TYPE_CHECKING:
    import onnx_ir as ir

FORMATS = ("onnx", "openvino")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
TOLERANCE = 1e-3
"""Largest deviation of a graph's output from the model's, as a share of that output's largest value. Usual: 1e-5."""
STEPS = 4
COMPARED = 16
"""Pictures on which an encoder in eight bits is compared with the model's own."""


@dataclass(frozen=True)
class Deviation:
    """Of an encoder in eight bits: over ``pictures``, the mean and largest difference of the map's values and of
    ``score_raw`` from the model's, both probabilities.
    """

    pictures: int
    map_mean: float
    map_largest: float
    score_largest: float


def export_folder(
    folder: Path,
    out: Path,
    target: str = "onnx",
    precision: str | None = None,
    *,
    pictures: Sequence[Source] = (),
    overwrite: bool = False,
    progress: Progress = nobody,
) -> Deviation | None:
    """Writes the detector in ``folder`` as the model folder ``out``, which engines open with or without torch.

    ``out``: a folder that may exist, or ``folder`` itself, which then gets the graphs and keeps all else. ``target``:
    onnx, or openvino. ``precision``: of the stored weights, fp32 or fp16 (computed in float32 either way), or int8: the
    encoder's products in eight bits, their ranges taken from ``pictures``; None = as the weights are. ``progress``:
    told after each step, four and two for each picture. A language side is not taken along.

    Returns how far eight bits deviate, else None. Raises what loading the model raises, ``MissingExtra``,
    ``UsageError`` (an unknown name, something there already and not ``overwrite``, a network that cannot be traced, no
    pictures for int8) and ``WeightsError`` when graphs of full precision do not compute what the model does. Nothing of
    ``out`` changes before the graphs are complete and compared.
    """
    _require_request(target, precision, pictures)
    in_place = out.exists() and out.samefile(folder)
    stored = precision_of(folder / WEIGHTS_FILE)
    as_stored = precision in (None, stored, "int8")
    if in_place and not as_stored:
        raise UsageError(
            f"{folder} holds its weights in {stored}; writing them in {precision} would make another model of it",
            hint="give --out another folder",
        )
    _require_free(out, GRAPH_FILES if in_place else (CONFIG_FILE, WEIGHTS_FILE), overwrite)
    model = AnomalyModel.from_pretrained(folder)
    step = _Steps(STEPS + 2 * len(pictures), progress)
    with _staging(out) as staging:
        if as_stored:
            for file in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
                if (folder / file).is_file():
                    # Linked only while the graphs are made: two models that share a file would change together.
                    (_linked if in_place else shutil.copyfile)(folder / file, staging / file)
        else:
            card = (folder / CARD_FILE).read_text(encoding="utf-8") if (folder / CARD_FILE).is_file() else ""
            model.save_pretrained(staging, DTYPES[str(precision)], card)
            model = AnomalyModel.from_pretrained(staging)
        step()
        int8 = precision == "int8"
        source = staging / WEIGHTS_FILE
        full = precision_of(source)
        if int8:
            _write(staging / ENCODER_GRAPH, quantise_encoder(model, pictures, staging, step), model, "int8")
        else:
            _write(staging / ENCODER_GRAPH, link(trace_encoder(model.encoder), source), model, full)
        step()
        _write(staging / EXPERT_GRAPH, link(trace_expert(model.expert), source), model, full)
        step()
        own = TorchEngine(model, "cpu", "float32")
        deviation = _deviation(open_onnx(staging), own, pictures, step) if int8 else None
        if deviation is None:
            _require_same(open_onnx(staging), own)
        if target == "openvino":
            _to_openvino(staging)
        step()
        _move(staging, out, in_place)
    return deviation


class _Steps:
    """Called once for each step that is done."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)


def _write(path: Path, graph: ir.Model, model: AnomalyModel, precision: str) -> None:
    """The graph with what it says about itself."""
    import onnx_ir as ir

    encoder = model.encoder
    patch = float(encoder.patch) if encoder.patch is not None and encoder.config.grid_hw is None else None
    info = GraphInfo(path.stem, digest(path.parent / WEIGHTS_FILE), precision, patch, encoder.grid_hw)
    graph.metadata_props[KEY] = info.to_json(model.config)
    write_atomic(path, ir.to_proto(graph).SerializeToString())


def _require_same(graphs: Engine, model: Engine) -> None:
    """Raises ``WeightsError`` unless both give the same for views of noise, of other numbers than were traced."""
    side = model.config.encoder.image_size
    noise_NHW3 = np.random.default_rng(0).integers(0, 256, (EXAMPLE_VIEWS + 1, side, side, 3), np.uint8)
    views = [noise_NHW3[:1], noise_NHW3[1:]]
    for found, want in zip(forward(graphs, views, features=True), forward(model, views, features=True), strict=True):
        for (name, mine), theirs in zip(_outputs(found).items(), _outputs(want).values(), strict=True):
            largest = float(np.abs(theirs).max())
            off = float(np.abs(mine - theirs).max())
            if not off <= TOLERANCE * max(largest, 1e-6):
                raise WeightsError(
                    f"the graphs of '{model.config.name}' deviate from the model: {name} by {off:.2g} of {largest:.2g}",
                    hint="use this model with its own engine, torch",
                )


def _outputs(said: PictureArrays) -> dict[str, Floats]:
    assert said.features is not None
    levels = {f"level {index}": level for index, level in enumerate(said.features.levels_NPD)}
    return {
        "final feature": said.features.final_NPD,
        **levels,
        "map": said.map_Nhw,
        "score": np.array(said.score_raw, np.float32),
        "local tokens": said.local_NQD,
        "global token": said.global_D,
    }


def _deviation(graphs: Engine, model: Engine, pictures: Sequence[Source], step: _Steps) -> Deviation:
    means, largest, scores = list[float](), list[float](), list[float]()
    for index, source in enumerate(pictures):
        views_NHW3: Pixels | None = views_of(source, model.config.views) if index < COMPARED else None
        if views_NHW3 is not None:
            (found,), (want,) = forward(graphs, [views_NHW3]), forward(model, [views_NHW3])
            off_Nhw = np.abs(found.map_Nhw - want.map_Nhw)
            means.append(float(off_Nhw.mean()))
            largest.append(float(off_Nhw.max()))
            scores.append(abs(found.score_raw - want.score_raw))
        step()
    return Deviation(len(means), float(np.mean(means)), max(largest), max(scores))


def _to_openvino(staging: Path) -> None:
    """Both graphs as OpenVINO's own pair of files, weights inside; the ONNX files go."""
    try:
        import openvino
    except ImportError:
        raise MissingExtra("openvino", "openvino") from None
    core = openvino.Core()
    for name in (ENCODER_GRAPH, EXPERT_GRAPH):
        path = staging / name
        openvino.save_model(core.read_model(path), path.with_suffix(".xml"), compress_to_fp16=False)
        path.unlink()


def _move(staging: Path, out: Path, in_place: bool) -> None:
    for file in GRAPH_FILES:  # of an older export, which may have been for another runtime
        if not (staging / file).exists() and not in_place:
            (out / file).unlink(missing_ok=True)
    # The configuration comes last: a folder without it is no model yet.
    own = () if in_place else (WEIGHTS_FILE, CARD_FILE)
    for file in (*own, *GRAPH_FILES, *(() if in_place else (CONFIG_FILE,))):
        if (staging / file).is_file():
            os.replace(staging / file, out / file)


def _require_request(target: str, precision: str | None, pictures: Sequence[Source]) -> None:
    if target not in FORMATS:
        raise UsageError(f"unknown format '{target}'", hint=f"use {' or '.join(FORMATS)}")
    if precision not in (None, "int8", *DTYPES):
        raise UsageError(f"unknown precision '{precision}'", hint=f"use {', '.join(DTYPES)} or int8")
    if (precision == "int8") != bool(pictures):
        raise UsageError(
            "int8 takes the ranges of its numbers from pictures, the other precisions take none",
            hint="give --precision int8 together with --calibrate FOLDER, some dozens of pictures like those to come",
        )


def _require_free(out: Path, files: Sequence[str], overwrite: bool) -> None:
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


def _linked(source: Path, target: Path) -> None:
    """The same file at ``target``, without copying its bytes where the disk allows it."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
