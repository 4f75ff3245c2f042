"""From a recipe and a data folder to a trained model folder: reads data, builds the task, runs the loop, exports."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import ConfigError, DataError
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.engines.interface import Engine
from anomaly_ov.models.engines.opening import open_engine
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.features import Features
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.weights import require_same, shapes_of
from anomaly_ov.provenance import provenance
from anomaly_ov_lab.data.hashing import sha256_file
from anomaly_ov_lab.data.layouts import discover_all
from anomaly_ov_lab.data.leakage import LeakageReport, check
from anomaly_ov_lab.data.samples import DataSet
from anomaly_ov_lab.training.checkpoint import write_run
from anomaly_ov_lab.training.defect_samples import DefectSamples
from anomaly_ov_lab.training.feature_cache import Encode, FeatureCache, feature_key, model_key
from anomaly_ov_lab.training.loop import run
from anomaly_ov_lab.training.multi_view_samples import MultiViewSamples
from anomaly_ov_lab.training.recipe import ExpertRecipe
from anomaly_ov_lab.training.stage1 import CachedStage1, EncoderAndExpert, LiveStage1, merge_lora
from anomaly_ov_lab.training.synthetic_set import synthetic_set

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
MASK_FOLDERS = {"ground_truth", "masks", "mask"}


def train_expert(
    recipe: ExpertRecipe,
    data: Path,
    start: Path,
    out: Path,
    *,
    leave_out: Sequence[str] = (),
    test: Sequence[Path] = (),
    cache: Path | None = None,
    card: str = "",
    device: str = "cpu",
) -> Path:
    """Stage 1 from the encoder (with ``warm_start`` also the expert) of model folder ``start``; returns ``out/model``.

    ``leave_out``: names of sets not to train on. ``card``: the model card's text. ``test``: folders that will be tested
    on; a picture of theirs among the training pictures is a ``LeakageError``.
    """
    sets = labelled_sets([data / folder for folder in recipe.sets], leave_out)
    sets = [_at_most(one, recipe.images, recipe.loop.seed) for one in sets] if recipe.images else sets
    if recipe.sets and not sets and not (recipe.synthetic_pictures if recipe.cached else recipe.mix.synthetic):
        raise DataError("no set is left to train on", hint="name one more in the recipe, or ask for synthetic pictures")
    photos = pictures_in(data / folder for folder in recipe.photos)
    refuse_leakage([s.image for one in sets for s in one.samples] + photos, test)
    base = AnomalyModel.from_pretrained(start)
    if recipe.views.base_size != base.encoder.image_size:
        raise ConfigError(
            f"recipe '{recipe.name}': views.base_size = {recipe.views.base_size}, but the encoder of {start} reads "
            f"views of {base.encoder.image_size} pixels",
            hint="make base_size that size",
        )
    hashes = {"start": model_key(base, recipe.views), "photos": hash_of(photos)}
    hashes |= {one.name: hash_of_set(one) for one in sets}
    engine = open_engine(start, device=device, dtype="float32") if recipe.cached else None
    if engine is not None:
        hashes["engine"] = engine.name
    record = {"recipe": to_mapping(recipe), "data": hashes, "provenance": provenance(recipe.loop.seed)}
    write_run(out, record)
    torch.manual_seed(recipe.loop.seed)
    expert = Expert(expert_for(base.encoder, recipe.expert))
    if recipe.warm_start:
        require_same(shapes_of(expert.state_dict()), shapes_of(base.expert.state_dict()), f"the expert of {start}")
        expert.load_state_dict(base.expert.state_dict())
    config = replace(base.config, name=recipe.name, revision="", views=recipe.views, expert=expert.config)
    if engine is not None:
        if recipe.synthetic_pictures:
            made = f"synthetic-{recipe.synthetic_pictures}-{recipe.loop.seed}-{hashes['photos'][:8]}"
            folder = (cache or out) / made  # beside the cache, so that runs which share one share the pictures too
            sets = [*sets, synthetic_set(folder, recipe.synthetic_pictures, recipe.loop.seed, photos)]
        store = FeatureCache(cache or out / "features", feature_key(base.encoder, recipe.views, engine.name))
        samples = MultiViewSamples(store, recipe.views, sets, recipe.loop.seed)
        samples.fill(encode_with(engine))
        del engine  # its weights are not needed any more
        trained = run(CachedStage1(expert, recipe.stage1, samples, device), recipe.loop, out, record)
        return _export(AnomalyModel(config), base.encoder, trained, out / "model", card)
    live = DefectSamples(
        recipe.mix,
        photos=photos,
        sets=sets,
        size=recipe.views.base_size,
        grid_hw=base.encoder.grid_hw,
        seed=recipe.loop.seed,
    )
    both = run(LiveStage1(base.encoder, expert, recipe.stage1, live, device), recipe.loop, out, record)
    assert isinstance(both, EncoderAndExpert)
    if recipe.stage1.train_encoder == "lora":
        merge_lora(both.encoder)
    return _export(AnomalyModel(config), both.encoder, both.expert, out / "model", card)


def _at_most(dataset: DataSet, images: int, seed: int) -> DataSet:
    """At most so many images of each label, drawn by seed."""
    kept: set[int] = set()
    for label in (0, 1):
        own = [k for k, sample in enumerate(dataset.samples) if sample.label == label]
        kept.update(own[i] for i in np.random.RandomState(seed).permutation(len(own))[:images])
    return dataset.keep(sample for k, sample in enumerate(dataset.samples) if k in kept)


def labelled_sets(folders: Sequence[Path], leave_out: Sequence[str] = ()) -> list[DataSet]:
    """The labelled data sets in ``folders``, without those named in ``leave_out``.

    Raises ``DataError`` for an unknown name there, for two sets of one name, and for a set without both labels.
    """
    found = [one.labelled() for folder in folders for one in discover_all(folder)]
    names_once = {one.name for one in found}
    if len(names_once) < len(found):
        twice = sorted(name for name in names_once if sum(one.name == name for one in found) > 1)
        raise DataError(f"several data sets are called {', '.join(twice)}", hint="rename all but one of the folders")
    for one in found:
        if not (one.counts["normal"] and one.counts["anomalous"]):
            raise DataError(
                f"{one.root} has {one.counts['normal']} normal and {one.counts['anomalous']} anomalous pictures",
                hint="training needs both in each set; take the folder out of the recipe's sets",
            )
    unknown = set(leave_out) - {one.name for one in found}
    if unknown:
        names = ", ".join(one.name for one in found)
        raise DataError(f"no data set named {', '.join(sorted(unknown))} to leave out", hint=f"there are: {names}")
    return [one for one in found if one.name not in leave_out]


def pictures_in(folders: Iterable[Path]) -> list[Path]:
    """All pictures below ``folders`` in sorted order, masks left out."""
    found: list[Path] = []
    for folder in folders:
        here = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in PICTURES and not MASK_FOLDERS.intersection(path.relative_to(folder).parts)
        )
        if not here:
            raise DataError(f"no pictures in {folder}", hint="check --data and the recipe's folders")
        found += here
    return found


def refuse_leakage(train: Sequence[Path], test: Sequence[Path]) -> LeakageReport | None:
    """Raises ``LeakageError`` if a test picture is among the training pictures, byte for byte; warns if by sight.

    ``test``: folders, of which every picture counts, or lists of pictures.
    """
    if not test:
        return None
    listed = [sample.image for path in test if path.is_file() for one in discover_all(path) for sample in one]
    report = check(train, [*pictures_in(path for path in test if not path.is_file()), *listed])
    report.raise_if_any()
    return report


def hash_of(paths: Iterable[Path]) -> str:
    """One hash over the bytes of many files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256_file(path)))
    return digest.hexdigest()


def hash_of_set(one: DataSet) -> str:
    """One hash over the pictures, labels and masks of a set, in order."""
    digest = hashlib.sha256()
    for sample in one.samples:
        mask = "" if sample.mask is None else sha256_file(sample.mask)
        digest.update(f"{sha256_file(sample.image)} {sample.label} {mask}\n".encode())
    return digest.hexdigest()


def encode_with(engine: Engine) -> Encode:
    """What an engine gives, as tensors in main memory."""

    def encode(pixels_NHW3: npt.NDArray[np.uint8]) -> Features:
        found = engine.encode(pixels_NHW3)
        levels_NPD = tuple(torch.from_numpy(level) for level in found.levels_NPD)
        return Features(torch.from_numpy(found.final_NPD), levels_NPD, found.grid_hw)

    return encode


def _export(model: AnomalyModel, encoder: nn.Module, expert: nn.Module, folder: Path, card: str) -> Path:
    model.encoder.load_state_dict(encoder.state_dict())
    model.expert.load_state_dict(expert.state_dict())
    model.save_pretrained(folder, dtype=torch.float16, card=card)
    return folder
