"""The tokenizer of a converted checkpoint: its ids, the picture's marker, the chat template; and those refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from anomaly_ov.errors import ConfigError, WeightsError
from anomaly_ov.reasoning.config import prompt_ids_of
from anomaly_ov.reasoning.processor import CHATML
from anomaly_ov.reasoning.tokenizer import train_tokenizer
from llava_fixtures import (
    ROWS,
    Stock,
    converted,
    refused,
    stock_model,
)


def without_marker(tokenizer: Any, words: Sequence[str] = ()) -> Any:
    """The tokenizer as a plain language model has it."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<image>"]
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] = vocabulary.pop("<image>")  # leaves no gap
    content["model"]["merges"] = [m for m in content["model"]["merges"] if "".join(m) != last]
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    plain.chat_template = CHATML
    return plain


@pytest.mark.parametrize("spare", [True, False])
def test_a_marker_is_added_with_a_row_of_its_own(stock: Stock, tmp_path: Path, spare: bool) -> None:
    plain, folder = without_marker(stock.tokenizer), tmp_path / "plain"
    rows = len(plain) + int(spare)
    model = stock_model(rows=rows)
    model.save_pretrained(folder)
    plain.save_pretrained(folder)
    ours = converted(stock, folder, tmp_path / "out")
    marker = ours.tokenizer.convert_tokens_to_ids("<image>")
    assert marker == ours.model.config.image_token_id == len(plain)
    assert ours.tokenizer.encode("a<image>b").count(marker) == 1
    assert ours.model.config.text_config.vocab_size == len(plain) + 1
    ids = torch.tensor([plain.encode("the small scratch")])
    with torch.no_grad():
        logits = ours.model(input_ids=ids).logits
        assert torch.equal(logits[..., :rows], model(input_ids=ids).logits)
    assert (logits[..., marker] < logits.amax(-1)).all()


def test_the_tokenizer_is_kept(stock: Stock, folder: Path, tmp_path: Path) -> None:
    ours = converted(stock, folder, tmp_path / "out")
    text = "<|im_start|>user\n<image>\nIs there a scratch? Ünï 123  \n<|im_end|>"
    assert ours.tokenizer.encode(text) == stock.tokenizer.encode(text)
    assert ours.model.config.image_token_id == stock.tokenizer.convert_tokens_to_ids("<image>")
    assert ours.model.config.prompt_ids == prompt_ids_of(stock.tokenizer)
    assert ours.model.generation_config.eos_token_id == [stock.tokenizer.eos_token_id]


LISTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} "
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] }}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(("template", "kept"), [
    (CHATML.replace("{% for", "{# mine #}{% for", 1), True),
    (LISTS, False),
    ("{{ raise_exception('no') }}", False),
    (None, False),
])  # fmt: skip
def test_a_chat_template_is_kept_if_it_writes_plain_texts(
    stock: Stock, folder: Path, tmp_path: Path, template: str | None, kept: bool
) -> None:
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    ours = converted(stock, folder, tmp_path / "out")
    assert ours.tokenizer.chat_template == (template if kept else CHATML)
    assert "said so" in ours.processor.text([("user", "said so")])


def test_tokenizers_that_do_not_serve(stock: Stock, folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = path.read_text()
    settings = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text(settings.replace("<|im_start|>", "<|start|>"))
    path.write_text(content.replace("<|im_start|>", "<|start|>"))
    assert "the tokenizer has no <|im_start|>" in refused(stock, folder, ConfigError)
    path.write_text(content[:100])
    assert "no tokenizer that can be read" in refused(stock, folder, WeightsError)
    path.unlink()
    assert "no tokenizer that can be read" in refused(stock, folder, WeightsError)
    pairs = [a + b for a in "abcdefghijklm" for b in "nopqrstuvwxyz"]
    train_tokenizer([f"{pair} {pair}" for pair in pairs], 900).save_pretrained(folder)
    assert f"the embeddings {ROWS} rows" in refused(stock, folder, ConfigError)
