"""The same fusion before a Qwen2 and before a Llama: ``text_config`` decides, and nothing else does.

``tests/golden/decoders`` holds what our code gave with small random weights (no other code has Llama behind this
fusion). Run this file to write it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from anomaly_ov.errors import ConfigError, WeightsError
from anomaly_ov.reasoning.chat import Chat, answer_each
from anomaly_ov.reasoning.decoder import behind_detector
from anomaly_ov.reasoning.folder import Reasoner, load_reasoner, save_language
from anomaly_ov.reasoning.processor import CHATML
from anomaly_ov.reasoning.tokenizer import train_tokenizer
from model_fixtures import said, save_small_model, small_decoder, small_reasoner

GOLDEN = Path(__file__).parents[2] / "golden" / "decoders"
DECODERS = ("qwen2", "llama")
CASES: dict[str, Any] = {"one": [(45, 70)], "views": [(30, 30), (64, 20)], "text": []}


def outputs(reasoner: Reasoner, case: str) -> dict[str, np.ndarray]:
    """Loss, logits of the last 12 places, and six greedy tokens."""
    model, process = reasoner.model, reasoner.processor
    with torch.no_grad():
        batch = process.collate([said(reasoner, CASES[case])])
        told = model(**batch)
        asked = process.collate([said(reasoner, CASES[case], answer=None)], labels=False)
        made = model.generate(**asked, max_new_tokens=6, do_sample=False, pad_token_id=0)
    return {
        "loss": told.loss.numpy(),
        "logits": told.logits[0, -12:].numpy(),
        "tokens": made[0, asked["input_ids"].shape[1] :].numpy(),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_golden(decoder: str, case: str, one_thread: None) -> None:
    found = outputs(small_reasoner(decoder=decoder), case)
    with np.load(GOLDEN / f"{decoder}.npz") as golden:
        assert found["loss"] == pytest.approx(golden[f"{case}_loss"], abs=2e-5)
        np.testing.assert_allclose(found["logits"], golden[f"{case}_logits"], rtol=0, atol=1e-4)
        assert found["tokens"].tolist() == golden[f"{case}_tokens"].tolist()


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_stock_decoder_says_the_same_of_the_same_embeddings(decoder: str) -> None:
    reasoner = small_reasoner(decoder=decoder)
    ours = reasoner.model
    stock = AutoModelForCausalLM.from_config(ours.config.text_config).eval()
    stock.model.load_state_dict(ours.model.language_model.state_dict())
    stock.tie_weights()
    batch = reasoner.processor.collate([said(reasoner, CASES["one"])], labels=False)
    with torch.no_grad():
        names = ("pixel_values", "image_sizes", "batch_num_images", "image_lengths", "image_readings")
        tokens = ours.model.get_image_features(**{name: batch[name] for name in names}).pooler_output
        embeds = ours.model.embed(batch["input_ids"], tokens)
        assert torch.equal(ours(**batch).logits, stock(inputs_embeds=embeds).logits)
    assert type(stock).__name__.lower().startswith(decoder)


def test_a_llama_is_saved_loaded_and_asked(tmp_path: Path) -> None:
    reasoner = small_reasoner(decoder="llama")
    detector = reasoner.model.model.detector
    assert detector is not None
    detector.save_pretrained(tmp_path)
    save_language(reasoner.model, reasoner.tokenizer, tmp_path)
    again = load_reasoner(tmp_path)
    assert again.model.config.text_config.model_type == "llama"
    assert outputs(again, "one")["logits"].tolist() == outputs(reasoner, "one")["logits"].tolist()
    views = said(reasoner, CASES["one"]).views[0]
    evidence = reasoner.model.model.look(torch.from_numpy(views.pixels_NHW3), [views.geometry])
    alone = Chat(again, evidence).ask("Is there a defect?", max_tokens=8)
    (together,) = answer_each(again, [evidence], ["Is there a defect?"], max_tokens=8)
    assert alone.text == together.text
    assert alone.tokens_in == together.tokens_in


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return small_decoder(tmp_path / "decoder")


def test_a_decoder_is_put_behind_a_detector(decoder: Path, tmp_path: Path) -> None:
    detector = save_small_model(tmp_path / "small")
    reasoner = behind_detector(decoder, detector, reading="focus", focus_pool=2)
    stock = AutoModelForCausalLM.from_pretrained(decoder).eval()
    ids = torch.tensor([reasoner.tokenizer.encode("Is there a scratch?")])
    with torch.no_grad():
        logits = reasoner.model(input_ids=ids).logits
        rows = stock.config.vocab_size
        assert torch.equal(logits[..., :rows], stock(input_ids=ids).logits)
        assert reasoner.model.config.image_token_id == rows
    assert reasoner.model.config.reading == "focus"
    assert reasoner.model.lm_head.weight is reasoner.model.get_input_embeddings().weight
    save_language(reasoner.model, reasoner.tokenizer, detector)
    assert outputs(load_reasoner(detector), "one")["loss"] == outputs(reasoner, "one")["loss"]


def test_what_is_no_decoder_is_named(decoder: Path, tmp_path: Path) -> None:
    detector = save_small_model(tmp_path / "small")
    with pytest.raises(WeightsError, match="holds no language model"):
        behind_detector(detector, detector)
    tokenizer = train_tokenizer(["Is there a defect?"] * 20, 400)
    tokenizer.add_tokens([f"<{k}>" for k in range(200)])
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(decoder)
    with pytest.raises(ConfigError, match="the tokenizer has ids up to"):
        behind_detector(decoder, detector)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in DECODERS:
        found = {
            f"{case}_{part}": value
            for case in CASES
            for part, value in outputs(small_reasoner(decoder=name), case).items()
        }
        np.savez_compressed(GOLDEN / f"{name}.npz", **found)
