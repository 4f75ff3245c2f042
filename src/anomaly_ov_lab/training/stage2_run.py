"""From a recipe, a data folder and a model folder to a model that talks: builds the language side, trains, saves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import DataError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models import talk_model
from anomaly_ov.models.hub import CONFIG_FILE, WEIGHTS_FILE
from anomaly_ov.models.model import CARD_FILE, AnomalyModel
from anomaly_ov.provenance import provenance
from anomaly_ov.reasoning.config import AnomalyOVConfig, prompt_ids_of
from anomaly_ov.reasoning.decoder import behind_detector
from anomaly_ov.reasoning.folder import Reasoner, load_reasoner, save_language
from anomaly_ov.reasoning.model import AnomalyOV
from anomaly_ov.reasoning.processor import IMAGE_MARKER, Processor
from anomaly_ov.reasoning.tokenizer import train_tokenizer
from anomaly_ov_lab.data.synthetic import generate, normal
from anomaly_ov_lab.instruct.conversation import conversation_about
from anomaly_ov_lab.instruct.seen import is_held_out
from anomaly_ov_lab.training.checkpoint import write_run
from anomaly_ov_lab.training.conversations import (
    Conversations,
    ConversationSource,
    Epochs,
    Labelled,
    Synthetic,
    TalkConfig,
)
from anomaly_ov_lab.training.feature_cache import model_key
from anomaly_ov_lab.training.json_talk import SKIPPED, JsonTalk, SkipLog, index_conversations
from anomaly_ov_lab.training.loop import run
from anomaly_ov_lab.training.parallel import World, gathered, joined
from anomaly_ov_lab.training.projector_start import standardise
from anomaly_ov_lab.training.recipe import FreshLanguage, Stage2Recipe, with_steps
from anomaly_ov_lab.training.runs import hash_of, hash_of_set, labelled_sets, pictures_in, refuse_leakage
from anomaly_ov_lab.training.stage1 import merge_lora
from anomaly_ov_lab.training.stage2 import Stage2, prepare
from anomaly_ov_lab.training.tracker import say

TEXT_SIZE = 64  # pictures that only their facts are wanted of


def train_stage2(
    recipe: Stage2Recipe, data: Path, start: Path, out: Path, device: str = "cpu", test: Sequence[Path] = ()
) -> Path:
    """Tunes the language side of model folder ``start`` (or a fresh one); returns the model folder ``out/model``.

    Under ``torchrun`` every process calls this; the first alone writes. ``test``: folders that will be tested on; a
    picture of theirs among the training pictures is a ``LeakageError``.
    """
    with joined(recipe.loop.parallel, device) as world:
        torch.manual_seed(recipe.loop.seed)
        reasoner = load_reasoner(start) if recipe.language is None else fresh(recipe.language, recipe.talk, start)
        detector = reasoner.model.model.detector
        assert detector is not None
        views = detector.config.views
        if recipe.projector == "standardised":
            standardise(reasoner.model, recipe.loop.seed)
        sets = labelled_sets([data / folder for folder in recipe.sets])
        photos = pictures_in(data / folder for folder in recipe.photos)
        hashes = {"start": model_key(detector, views), "photos": hash_of(photos)}
        hashes |= {one.name: hash_of_set(one) for one in sets}
        key = hash_of(data / file for file in _existing(recipe, data))
        if recipe.conversations:
            hashes["conversations"] = key
        record = {"recipe": to_mapping(recipe), "data": hashes, "provenance": provenance(recipe.loop.seed)}
        record["defaults"] = to_mapping(Stage2Recipe(recipe.name))
        if world.first:
            write_run(out, record)
        talk = _json_talk(recipe, data, out, key[:12], world)
        if world.first and test:
            told = [] if talk is None else list(talk.pictures())
            refuse_leakage([sample.image for one in sets for sample in one.samples] + photos + told, test)
        world.wait()
        plan = recipe if talk is None else with_steps(recipe, len(talk))
        samples = conversations(plan, sets, photos, reasoner.processor, views, talk)
        task = Stage2(reasoner.model, reasoner.processor, recipe.stage2, samples, str(world.device))
        trained = run(task, plan.loop, out, record, world)
        if talk is not None and world.first:
            say(f"conversations: {SkipLog(out / SKIPPED).settle()}")
        final = _whole(trained, recipe, detector, world)
        if final is not None:
            export(final, reasoner.tokenizer, start, out / "model", recipe.name)
        world.wait()
    return out / "model"


def _existing(recipe: Stage2Recipe, data: Path) -> Sequence[str]:
    for name in recipe.conversations:
        if not (data / name).is_file():
            raise DataError(f"no conversations at {data / name}", hint="check --data and the recipe's conversations")
    return recipe.conversations


def _json_talk(recipe: Stage2Recipe, data: Path, out: Path, key: str, world: World) -> JsonTalk | None:
    """The recipe's conversations, indexed by the first process."""
    if recipe.talk.json == 0:
        return None
    files, talk = [data / name for name in recipe.conversations], None
    if world.first:
        talk, said = index_conversations(files, data / recipe.images, out, key)
        say(said)
    world.wait()
    return talk or index_conversations(files, data / recipe.images, out, key)[0]


def _whole(trained: AnomalyOV, recipe: Stage2Recipe, detector: AnomalyModel, world: World) -> AnomalyOV | None:
    """The trained model in one piece on the CPU, adapters merged, in the first process; None in all others."""
    if recipe.loop.parallel == "fsdp":
        state = gathered(trained.state_dict(), keep=world.first)
        if not world.first:
            return None
        trained = prepare(AnomalyOV(trained.config, detector), recipe.stage2)
        trained.load_state_dict(state)
    if not world.first:
        return None
    if recipe.stage2.train == "lora":
        merge_lora(trained.model.language_model)
    whole: AnomalyOV = trained.cpu().eval()
    return whole


def fresh(language: FreshLanguage, talk: TalkConfig, detector_folder: Path) -> Reasoner:
    """A language side for the detector in ``detector_folder``: compact, of random weights, or a decoder of others.

    Raises ``WeightsError`` for a decoder that is not there.
    """
    reading = {
        "reading": language.reading,
        "level_score": language.level_score,
        "annotate": language.annotate,
        "crop_budget": language.crop_budget,
        "focus_pool": language.focus_pool,
    }
    if language.decoder:
        return behind_detector(_decoder_folder(language.decoder), detector_folder, **reading)
    detector = AnomalyModel.from_pretrained(detector_folder)
    tokenizer = train_tokenizer(texts(language.texts, talk), language.vocabulary)
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=language.hidden,
        intermediate_size=language.intermediate,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        num_key_value_heads=language.kv_heads,
        max_position_embeddings=language.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = AnomalyOVConfig(
        # Only its width is read: the tower itself is the detector's encoder.
        vision_config={"model_type": "siglip_vision_model", "hidden_size": detector.encoder.width},
        text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_MARKER),
        tie_word_embeddings=True,
        prompt_ids=prompt_ids_of(tokenizer),
        **reading,
    )
    return Reasoner(AnomalyOV(config, detector), Processor(tokenizer, config, detector.encoder.grid_hw))


def _decoder_folder(name: str) -> Path:
    if name != talk_model.NAME:
        return Path(name)
    folder = talk_model.talk_folder()
    if folder is None:
        raise WeightsError(f"{talk_model.PUBLISHED_AS} is not on this machine", hint=f"run '{talk_model.HOW_TO_GET}'")
    return folder


def texts(pictures: int, talk: TalkConfig) -> Iterator[str]:
    """Questions and answers about generated pictures, for a tokenizer to learn from."""
    rng = np.random.default_rng(0)
    for seed in range(pictures):
        facts = (normal if seed % 5 < 2 else generate)(seed, TEXT_SIZE).facts
        if not is_held_out(facts):
            for turn in conversation_about(facts, rng, 2 * talk.turns).turns:
                yield turn.question
                yield turn.answer


def conversations(
    recipe: Stage2Recipe,
    sets: Sequence[Any],
    photos: Sequence[Path],
    processor: Processor,
    views: ViewsConfig,
    json_talk: JsonTalk | None = None,
) -> Conversations:
    """The samples of a run."""
    talk, seed = recipe.talk, recipe.loop.seed
    sources: list[tuple[ConversationSource | JsonTalk, float]] = [(Synthetic(talk, photos), talk.synthetic)]
    if sets:
        sources.append((Labelled(talk, sets), talk.labelled))
    epochs = None
    if json_talk is not None:
        sources.append((json_talk, talk.json))
        epochs = Epochs(len(json_talk), recipe.epochs, seed) if recipe.epochs > 0 else None
    return Conversations(talk, sources, processor, views, seed, recipe.loop.batch, epochs)


def export(model: AnomalyOV, tokenizer: Any, detector_folder: Path, folder: Path, name: str) -> Path:
    """The detector's weights as they are under the run's own ``name``, and the language side beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    if detector_folder.resolve() != folder.resolve():
        shutil.copyfile(detector_folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    config = json.loads((detector_folder / CONFIG_FILE).read_text(encoding="utf-8"))
    card = detector_folder / CARD_FILE
    told = card.read_text(encoding="utf-8") if card.is_file() else ""
    made = (
        f"# {name}\n\nThe detector is `{config.get('name')}`; its language side was tuned by `train stage2`.\n\n{told}"
    )
    write_atomic(folder / CARD_FILE, made.encode())
    write_atomic(folder / CONFIG_FILE, f"{json.dumps(config | {'name': name}, indent=2)}\n".encode())
    save_language(model, tokenizer, folder, torch.float16)
    return folder
