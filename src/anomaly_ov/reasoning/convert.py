"""LLaVA-OneVision checkpoints made into model folders that see and talk: detector at the root, ``language/`` in it.

1. Configuration and tokenizer are read (``llava``), and which tensor goes where is settled (``checkpoint``).
2. The detector: the checkpoint's vision tower, or another encoder, with an expert behind it.
3. The language side: language model, projector and newline, values unchanged but for the type asked for.

Strict: every tensor is used once or named, every place filled once or named, before a weight is read. The folder
appears whole or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from anomaly_ov.errors import CheckpointMismatch, ConfigError, UsageError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models import backbones, weights
from anomaly_ov.models.config import RELEASED_SCORING, EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.convert import load_released_expert
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.encoder import Encoder, encoder_from_pretrained
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.reasoning.checkpoint import WHOLE_HINT, Checkpoint, fit, rename
from anomaly_ov.reasoning.config import AnomalyOVConfig, prompt_ids_of
from anomaly_ov.reasoning.folder import save_language
from anomaly_ov.reasoning.llava import EXPERT, LEFTOVER, PARTS, TOWER, Llava, read_llava, read_tokenizer
from anomaly_ov.reasoning.model import AnomalyOV

PRECISIONS = ("bfloat16", "float16", "float32")
NETWORK = "network."  # before the names of an encoder's weights
HEAD, EMBEDDINGS = "lm_head.weight", "model.language_model.embed_tokens.weight"
SAME = 1e-3  # relative difference up to which two tensors are one, stored in different types


@dataclass(frozen=True)
class _Plan:
    """What fills what, settled before a weight is read. ``names``: target -> name in ``stored``.

    ``language`` and, if the checkpoint has one, ``tower`` are still empty; so is ``expert`` if the checkpoint has it.
    ``donor``: the model of ours whose expert is taken; ``released``: the file whose expert is.
    """

    llava: Llava
    stored: Checkpoint
    names: dict[str, str]
    settings: EncoderConfig
    language: AnomalyOV
    tower: Encoder | None
    expert: Expert
    donor: AnomalyModel | None
    released: Path | None

    def part(self, prefix: str, instead: str = "") -> dict[str, str]:
        """The names of one part, ``prefix`` of its targets replaced."""
        return {instead + t.removeprefix(prefix): name for t, name in self.names.items() if t.startswith(prefix)}


def convert_llava(
    checkpoint: str | Path,
    out: str | Path,
    *,
    expert: str | Path | None = None,
    encoder: str | Path | None = None,
    dtype: str = "bfloat16",
    levels: Sequence[int] | None = None,
    final: int | None = None,
) -> Path:
    """Writes the model folder ``out`` from the LLaVA-OneVision checkpoint in the folder ``checkpoint``; returns it.

    ``expert``: a released ``.pth``, a ``.safetensors`` of it, or a model folder of ours; None = the one inside the
    checkpoint. ``encoder``: name or folder of the vision tower's own checkpoint, if the checkpoint has no tower, or has
    one but does not say how it is built. ``levels``, ``final``: hidden states that the expert reads, default those of
    the expert's model folder, else the released ones. ``dtype``: one of ``PRECISIONS``, of the language side; the
    detector is kept in float32. An expert's calibration is kept if the encoder it was made with is this one.

    Raises ``CheckpointMismatch`` (what is missing, unexpected or of another shape, by name), ``UnsafeCheckpoint``,
    ``WeightsError``, ``ConfigError`` and ``UsageError`` (``out`` exists, no expert or two).
    """
    if dtype not in PRECISIONS:
        raise UsageError(f"dtype = {dtype!r} is unknown", hint=f"one of: {', '.join(PRECISIONS)}")
    folder, target = Path(checkpoint), Path(out)
    _check_free(target)
    llava, stored = read_llava(folder, encoder), Checkpoint(folder)
    tokenizer, image_id = read_tokenizer(folder, llava.vocabulary)
    # The marker needs a row of its own; most vocabularies have some to spare.
    text = llava.fields["text_config"] | {"vocab_size": max(llava.vocabulary, image_id + 1)}
    found = {"text_config": text, "image_token_index": image_id, "prompt_ids": prompt_ids_of(tokenizer)}
    config, given = AnomalyOVConfig(**(llava.fields | found)), None if expert is None else Path(expert)
    plan = _plan(llava, stored, config, given, encoder, levels, final)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=target.parent) as name:
        staging = Path(name) / "new"
        plan.language.config.detector_revision = _write_detector(plan, encoder, staging, target.resolve().name)
        plan = replace(plan, tower=None, donor=None)  # their memory is the language model's now
        save_language(_filled(plan, getattr(torch, dtype)), tokenizer, staging, getattr(torch, dtype))
        staging.rename(target)
    return target


def _plan(
    llava: Llava,
    stored: Checkpoint,
    config: AnomalyOVConfig,
    expert: Path | None,
    encoder: str | Path | None,
    levels: Sequence[int] | None,
    final: int | None,
) -> _Plan:
    donor = AnomalyModel.from_pretrained(expert) if expert is not None and expert.is_dir() else None
    settings = _encoder_settings(llava, stored.folder, encoder, donor, levels, final)
    has_tower, has_expert = (_holds(llava, stored, prefix) for prefix in (TOWER, EXPERT))
    _check_sources(llava, stored, has_tower, encoder, has_expert, expert)
    with weights.empty_parameters():
        language, tower = AnomalyOV(config), Encoder(settings)
    shape = expert_for(tower, ExpertConfig())
    with torch.device("meta"):
        own = Expert(shape) if has_expert else None
    inside = tower if has_tower or encoder is None else None
    expected = _language_shapes(llava, language)
    for part, prefix in ((inside, TOWER), (own, EXPERT)):
        shapes = {} if part is None else weights.shapes_of(part.state_dict())
        expected |= {prefix + name.removeprefix(NETWORK): size for name, size in shapes.items()}
    names = fit(stored, llava.renames, expected, PARTS, _leftover(llava, settings))
    released = expert if donor is None else None
    if donor is not None:
        own = donor.expert
    elif released is not None:
        own = load_released_expert(released, shape)
    assert own is not None  # _check_sources
    return _Plan(llava, stored, names, settings, language, inside, own, donor, released)


def _encoder_settings(
    llava: Llava,
    folder: Path,
    encoder: str | Path | None,
    donor: AnomalyModel | None,
    levels: Sequence[int] | None,
    final: int | None,
) -> EncoderConfig:
    like = EncoderConfig() if donor is None else donor.config.encoder
    told_by = folder if encoder is None or llava.knows_tower else encoder
    mean, std = backbones.preprocessing(told_by, llava.vision)
    settings = EncoderConfig(
        backbone=backbones.minimal_mapping(llava.vision),
        levels=tuple(like.levels if levels is None else levels),
        final=like.final if final is None else final,
        image_size=backbones.side_of(llava.vision.image_size) or like.image_size,
        grid_hw=None if donor is None else like.grid_hw,
        mean=mean,  # type: ignore[arg-type]
        std=std,  # type: ignore[arg-type]
    )
    if settings.final != llava.feature:
        raise ConfigError(
            f"{folder}: its projector reads hidden state {llava.feature} of the vision tower, not {settings.final}",
            hint="set final, and the levels below it, for this vision tower",
        )
    return settings


def _holds(llava: Llava, stored: Checkpoint, prefix: str) -> bool:
    return any((rename(name, llava.renames) or "").startswith(prefix) for name in stored.tensors)


def _check_sources(
    llava: Llava, stored: Checkpoint, has_tower: bool, encoder: str | Path | None, has_expert: bool, expert: Path | None
) -> None:
    """One tower, one expert: not none, and not two of which one would be dropped in silence."""
    folder = stored.folder
    if has_tower and encoder is not None and llava.knows_tower:
        raise UsageError(f"{folder} has a vision tower of its own", hint="leave --encoder out")
    if not has_tower and llava.tower_tuned:
        raise CheckpointMismatch(
            f"{folder}: missing is the vision tower, which was tuned as its configuration says", hint=WHOLE_HINT
        )
    if has_expert and expert is not None:
        raise UsageError(f"{folder} has an expert of its own", hint="leave --expert out")
    if not has_expert and expert is None:
        raise UsageError(
            f"{folder} has no anomaly expert", hint="give --expert a released .pth file or a model folder of yours"
        )


def _language_shapes(llava: Llava, language: AnomalyOV) -> weights.Shapes:
    shapes = weights.shapes_of(language.state_dict())
    width = shapes[EMBEDDINGS][1]
    shapes |= {EMBEDDINGS: (llava.vocabulary, width), HEAD: (llava.vocabulary, width)}
    if llava.tied:
        del shapes[HEAD]
    return shapes


def _leftover(llava: Llava, settings: EncoderConfig) -> list[str]:
    """Patterns of targets that may be there and are not read: blocks beyond the feature, a head that is tied."""
    unread = range(settings.final, llava.vision.num_hidden_layers)
    blocks = [rf"{TOWER}encoder\.layers\.{index}\..*" for index in unread]
    return [*LEFTOVER, *blocks, *([HEAD] if llava.tied else [])]


def _write_detector(plan: _Plan, encoder: str | Path | None, folder: Path, name: str) -> str:
    """Writes the detector and returns its revision."""
    tower = plan.tower
    if tower is None:
        assert encoder is not None
        tower = encoder_from_pretrained(encoder, plan.settings.levels, plan.settings.final)
        width = plan.llava.fields["vision_config"]["hidden_size"]
        if tower.width != width:
            raise ConfigError(
                f"the encoder '{encoder}' is {tower.width} wide, the projector of {plan.stored.folder} reads {width}",
                hint="give --encoder the vision tower that this checkpoint was trained with",
            )
    else:
        tensors = dict(plan.stored.read(plan.part(TOWER, NETWORK), torch.float32))
        tower.load_state_dict(tensors, strict=True, assign=True)
    if own := plan.part(EXPERT):
        plan.expert.load_state_dict(dict(plan.stored.read(own, torch.float32)), strict=True, assign=True)
    expert, kept = plan.expert, plan.donor is not None and _same(plan.donor.encoder, tower)
    settings = ModelConfig(
        name,
        encoder=tower.config,
        expert=expert.config,
        views=ViewsConfig(tower.image_size),
        scoring=RELEASED_SCORING,
    )
    if kept and plan.donor is not None:
        settings = replace(plan.donor.config, name=name, revision="", encoder=tower.config)
    model = AnomalyModel(settings, tower.eval())
    model.expert.load_state_dict(expert.state_dict())
    model.save_pretrained(folder, card=_card(plan, encoder, name, kept))
    return model.config.revision


def _same(donor: Encoder, tower: Encoder) -> bool:
    """Whether two encoders give the same features, but for the rounding of what they are stored as."""
    ours, theirs = donor.state_dict(), tower.state_dict()
    fields = ("levels", "final", "image_size", "grid_hw", "mean", "std")
    if any(getattr(donor.config, field) != getattr(tower.config, field) for field in fields):
        return False
    if weights.shapes_of(ours) != weights.shapes_of(theirs):
        return False
    return all(float((ours[n] - theirs[n]).norm()) <= SAME * float(theirs[n].norm()) for n in theirs)


def _filled(plan: _Plan, dtype: torch.dtype) -> AnomalyOV:
    """The language side with its weights."""
    wanted = {t: name for t, name in plan.names.items() if not t.startswith((TOWER, EXPERT))}
    if plan.llava.tied:
        _check_tied(plan)
    model, tensors = plan.language, dict[str, Tensor]()
    rows = model.config.text_config.vocab_size
    for target, tensor in plan.stored.read(wanted, dtype):
        tensors[target] = _with_marker(tensor, rows) if target in (EMBEDDINGS, HEAD) else tensor
    if plan.llava.tied:
        tensors[HEAD] = tensors[EMBEDDINGS]
    model.load_state_dict(tensors, strict=True, assign=True)
    model.tie_weights()
    model.eval()
    return model


def _with_marker(rows_VE: Tensor, count: int) -> Tensor:
    """``count`` rows; new ones are the mean of all, which as a row of the head is never the likeliest."""
    if len(rows_VE) == count:
        return rows_VE
    mean_1E = rows_VE.float().mean(0, keepdim=True).to(rows_VE.dtype)
    return torch.cat([rows_VE, mean_1E.expand(count - len(rows_VE), -1)])


def _check_tied(plan: _Plan) -> None:
    """A head saved beside the embeddings that it is tied to must be theirs, else tuned weights would be lost."""
    heads = [name for name in plan.stored.tensors if rename(name, plan.llava.renames) == HEAD]
    for head in heads:
        pair = dict(plan.stored.read({HEAD: head, EMBEDDINGS: plan.names[EMBEDDINGS]}, torch.float32))
        if not torch.equal(pair[HEAD], pair[EMBEDDINGS]):
            raise CheckpointMismatch(
                f"{plan.stored.folder}: {head} is not {plan.names[EMBEDDINGS]}, but the configuration ties them",
                hint="set tie_word_embeddings to false in config.json if the head was trained alone",
            )


def _check_free(target: Path) -> None:
    if target.suffix == ".safetensors":
        raise UsageError(f"{target} is no folder, and a model is one", hint="give --out a folder's name")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} exists already", hint="give --out the name of a new folder")


def _card(plan: _Plan, encoder: str | Path | None, name: str, kept: bool) -> str:
    taken = plan.stored.folder.resolve().name
    expert = "the checkpoint's own"
    if plan.donor is not None:
        expert = f"`{plan.donor.config.name}`, revision {plan.donor.config.revision}"
    elif plan.released is not None:
        expert = f"`{plan.released.name}`"
    states = f"hidden states {', '.join(map(str, plan.settings.levels))} and {plan.settings.final}"
    calibration = "calibrated as the expert's own model" if kept else "not calibrated: `score` is the head's own"
    return (
        f"# {name}\n\n- Language model and projector: `{taken}`, LLaVA-OneVision in {plan.llava.layout} layout\n"
        f"- Encoder: {'of the same' if plan.tower is not None else f'`{encoder}`'}, {states}\n- Expert: {expert}\n\n"
        f"Converted, {calibration}. Unless `{taken}` was tuned with this expert, its language model has never read "
        "anomaly tokens. The licences of all apply."
    )
