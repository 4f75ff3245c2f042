"""The linear map in which a detector compares tokens: their principal directions and, on wish, learned ones.

The principal directions of labelled sets' tokens lose nothing and make comparing cheaper. Beyond them, good and bad
images of the sets are judged as ``inspect`` does it, by the most suspicious cells of the base view, once against their
own other patches and once against one to four good images of their category; the map is moved until bad ones come out
above good ones (pairwise logistic loss). It starts from the principal directions, is held near them, and what comes out
is mixed with them again. With seventeen sets it learns what the expert learns from them, and costs on some kinds
(``docs/log.md``), so by default nothing is learned.

Legend: D width of an encoder's unit token, M of a compared one, Q cells of a base view that show image.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from anomaly_ov.configuration import to_mapping
from anomaly_ov.context.own_patches import REACH
from anomaly_ov.errors import CheckpointMismatch, DataError, ImageError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.prepared import prepare_one
from anomaly_ov.images.read import DEFAULT_LIMITS
from anomaly_ov.models.engines.interface import Engine
from anomaly_ov.models.engines.opening import has_graphs, open_engine
from anomaly_ov.models.export.folder import DTYPES, export_folder
from anomaly_ov.models.export.linked import precision_of
from anomaly_ov.models.folder import read_config
from anomaly_ov.models.hub import CONFIG_FILE, WEIGHTS_FILE
from anomaly_ov.models.model import CARD_FILE, AnomalyModel
from anomaly_ov.models.token_maps import unit_tokens
from anomaly_ov.provenance import provenance
from anomaly_ov.scoring.cells import Cells
from anomaly_ov.scoring.evidence import FLOOR
from anomaly_ov.streaming import Progress, nobody
from anomaly_ov_lab.data.samples import DataSet
from anomaly_ov_lab.training.checkpoint import RUN
from anomaly_ov_lab.training.leave_one_out import fold, require_fold
from anomaly_ov_lab.training.runs import hash_of_set
from anomaly_ov_lab.training.scoring_fit import ScoringPlan, drawn_categories

Floats = npt.NDArray[np.float32]

REFERENCES = (1, 2, 4)
"""Good images that a step compares with, as many as people have."""


@dataclass(frozen=True)
class MetricPlan:
    """``width``: M. ``steps``: of Adam at ``rate``, falling to zero, each on one category: ``per_label`` images of each
    label. ``decay``: weight of the squared distance from the principal directions. ``learned``: share of the learned
    map in the mixture, the principal directions have the rest; 0 = these alone. ``slope``: of the loss in suspicion.
    ``seed``: of all draws.
    """

    width: int = 128
    steps: int = 300
    rate: float = 1e-3
    decay: float = 3e-3
    learned: float = 0.0
    per_label: int = 10
    slope: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.steps, self.per_label) < 1 or not 0 <= self.learned <= 1:
            raise ValueError("width, steps and per_label must be >= 1, and learned lie in 0..1")


@dataclass(frozen=True)
class Group:
    """One category of a set: labels, and one array an image of its unit tokens and of which cells are neighbours."""

    dataset: str
    labels_I: npt.NDArray[np.int64]
    tokens_IQD: tuple[Tensor, ...]
    near_IQQ: tuple[Tensor, ...]


def learn_metrics(
    sets: Sequence[DataSet],
    model: Path,
    out: Path,
    plan: MetricPlan,
    drawn: ScoringPlan,
    folds: Path | None = None,
    progress: Callable[[str], Progress] = lambda name: nobody,
) -> Path:
    """Writes ``out/model``, the detector in ``model`` with a metric learned on ``sets``; returns that folder.

    ``folds``: of ``leave_one_out``; each gets, in ``out/folds``, a metric that never saw its set either. A killed run
    goes on with the next fold; one with other settings in the same folder is refused.
    """
    record = {
        "plan": to_mapping(plan),
        "drawn": to_mapping(drawn),
        "data": {one.name: hash_of_set(one) for one in sets},
    }
    _require_same_run(out, record | {"model": read_config(model).revision}, plan.seed)
    wanted = [(fold(out / "folds", one.name), require_fold(folds, one.name), one.name) for one in sets] if folds else []
    missing = [one for one in [*wanted, (out / "model", model, "")] if not (one[0] / CONFIG_FILE).is_file()]
    if missing:
        engine = open_engine(model, device="cpu", dtype="float32")
        groups = [group for one in sets for group in groups_of(one, engine, drawn, progress(f"looking at {one.name}"))]
        for target, source, name in missing:
            kept = [group for group in groups if group.dataset != name]
            told = progress(f"learning without {name}" if name else "learning")
            with_metric(source, fit_metric(kept, engine.config.scoring.top, plan, told), target)
    return out / "model"


def with_metric(model: Path, metric_DM: Floats, out: Path) -> Path:
    """A copy of the model folder ``model`` that compares tokens by ``metric_DM``; returns ``out``. Graphs are made
    anew, of full precision.
    """
    found = AnomalyModel.from_pretrained(model)
    made = AnomalyModel(replace(found.config, revision="", metric=metric_DM.shape[1]), found.encoder)
    made.expert, made.metric = found.expert, nn.Parameter(torch.from_numpy(metric_DM), requires_grad=False)
    card = (model / CARD_FILE).read_text(encoding="utf-8") if (model / CARD_FILE).is_file() else ""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=out.parent) as name:
        staging = made.save_pretrained(Path(name) / "model", DTYPES[precision_of(model / WEIGHTS_FILE)], card)
        if has_graphs(model):
            export_folder(staging, staging, overwrite=True)
        os.replace(staging, out)
    return out


def _require_same_run(out: Path, record: dict[str, Any], seed: int) -> None:
    """Writes ``out/run.json``, or raises ``CheckpointMismatch`` where another run has written it."""
    file = out / RUN
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        if {name: found.get(name) for name in record} != json.loads(json.dumps(record)):
            raise CheckpointMismatch(
                f"{out} holds a run of other settings or data", hint="give another --out, or delete that folder"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(record | {"provenance": provenance(seed)}, indent=2) + "\n").encode())


def groups_of(dataset: DataSet, engine: Engine, plan: ScoringPlan, progress: Progress = nobody) -> Iterator[Group]:
    """The base views' tokens of the images that ``plan`` draws; those that cannot be read are left out."""
    wanted = dict(drawn_categories(dataset, plan))
    total, done = sum(len(samples) for samples in wanted.values()), 0
    for samples in wanted.values():
        labels, tokens, near = list[int](), list[Tensor](), list[Tensor]()
        for sample in samples:
            done += 1
            progress(done, total)
            try:
                prepared = prepare_one(str(sample.image), engine.config.views, DEFAULT_LIMITS)
            except ImageError:
                continue
            assert prepared.views is not None
            features = engine.encode(prepared.views.pixels_NHW3[:1])
            shown_hw = Cells.of(prepared.views.geometry, features.grid_hw, engine.patch).shown_Nhw[0]
            tokens.append(torch.from_numpy(unit_tokens(features.levels_NPD)[0][shown_hw.ravel()]))
            near.append(_near(np.argwhere(shown_hw)))
            labels.append(int(sample.label or 0))
        found = np.array(labels, np.int64)
        if (found == 0).sum() > 2 and found.any():
            yield Group(dataset.name, found, tuple(tokens), tuple(near))


def fit_metric(groups: Sequence[Group], top: float, plan: MetricPlan, progress: Progress = nobody) -> Floats:
    """(D, M) float32: a unit token times it, made unit again, is what is compared. ``top``: as in ``ScoringConfig``.

    The same groups, plan and library versions give the same map. Raises ``DataError`` without groups.
    """
    if not groups:
        raise DataError("nothing to learn a metric on", hint="name labelled sets with good and bad images")
    of_set: dict[str, list[Group]] = {}
    for group in groups:
        of_set.setdefault(group.dataset, []).append(group)
    names = sorted(of_set)
    start_DM = _principal(of_set, plan.width)
    change_DM = torch.zeros_like(start_DM, requires_grad=True)
    optimiser = torch.optim.Adam([change_DM], plan.rate)
    random = np.random.RandomState(plan.seed)
    for step in range(plan.steps if plan.learned else 0):
        optimiser.param_groups[0]["lr"] = plan.rate * (1 - step / plan.steps)
        own = of_set[names[random.randint(len(names))]]
        loss = _loss(own[random.randint(len(own))], start_DM + change_DM, top, plan, random)
        optimiser.zero_grad()
        torch.autograd.backward(loss + plan.decay * change_DM.square().sum())
        optimiser.step()
        progress(step + 1, plan.steps)
    return _mixed(start_DM, (start_DM + change_DM).detach(), of_set, plan)


def _principal(of_set: dict[str, list[Group]], width: int) -> Tensor:
    """(D, M): the directions in which the tokens of all sets are longest, every set counting the same."""
    moments = []
    for groups in of_set.values():
        tokens_TD = torch.cat([torch.cat(group.tokens_IQD) for group in groups])
        moments.append(tokens_TD.T @ tokens_TD / len(tokens_TD))
    _, directions_DD = torch.linalg.eigh(torch.stack(moments).mean(0))
    found_DM: Tensor = directions_DD[:, -width:].flip(1).contiguous()
    return found_DM


def _mixed(start_DM: Tensor, learned_DM: Tensor, of_set: dict[str, list[Group]], plan: MetricPlan) -> Floats:
    """Both maps side by side, each first made to give tokens of length one on average, in the ``width`` directions that
    keep most of it: cosines are then the mixture's.
    """
    tokens_TD = torch.cat([group.tokens_IQD[0] for groups in of_set.values() for group in groups])
    parts = [
        share**0.5 * part_DM / (tokens_TD @ part_DM).norm(dim=1).mean()
        for share, part_DM in ((1 - plan.learned, start_DM), (plan.learned, learned_DM))
    ]
    directions, size, _ = torch.linalg.svd(torch.cat(parts, 1), full_matrices=False)
    return np.ascontiguousarray((directions[:, : plan.width] * size[: plan.width]).numpy(), np.float32)


def _loss(group: Group, metric_DM: Tensor, top: float, plan: MetricPlan, random: np.random.RandomState) -> Tensor:
    """How far good images lie above bad ones, judged alone and beside references drawn from the good ones."""
    good, bad = (random.permutation(np.flatnonzero(group.labels_I == label)) for label in (0, 1))
    count = min(REFERENCES[random.randint(len(REFERENCES))], len(good) - 1)
    judged = [*good[count:][: plan.per_label], *bad[: plan.per_label]]
    compared = {int(i): normalize(group.tokens_IQD[i] @ metric_DM, dim=-1) for i in (*good[:count], *judged)}
    references_TM = torch.cat([compared[int(i)] for i in good[:count]])
    is_bad = torch.from_numpy(group.labels_I[judged] == 1)
    losses = []
    for found in (
        [_suspicion(compared[int(i)], compared[int(i)], top, group.near_IQQ[i]) for i in judged],
        [_suspicion(compared[int(i)], references_TM, top) for i in judged],
    ):
        suspicion = torch.stack(found)
        apart = suspicion[is_bad][:, None] - suspicion[~is_bad][None]
        losses.append(softplus(-plan.slope * apart).mean())
    return torch.stack(losses).sum()


def _suspicion(tokens_QM: Tensor, others_TM: Tensor, top: float, near_QT: Tensor | None = None) -> Tensor:
    """Mean logarithm of the largest distances to the nearest counterpart, those ``near`` left out."""
    with torch.no_grad():  # the search alone: gradients flow through the pairs that it finds
        similar_QT = tokens_QM.bfloat16() @ others_TM.bfloat16().T
        if near_QT is not None:
            similar_QT = similar_QT.masked_fill_(near_QT, -2)
        nearest_Q = similar_QT.argmax(1)
    distance_Q = (1 - (tokens_QM * others_TM[nearest_Q]).sum(1)).clamp_min(FLOOR)
    strongest: Tensor = distance_Q.log().topk(max(1, round(top * len(distance_Q)))).values.mean()
    return strongest


def _near(places_Q2: npt.NDArray[np.int64]) -> Tensor:
    places = torch.from_numpy(places_Q2)
    return (places[:, None] - places[None]).abs().amax(-1) <= REACH
