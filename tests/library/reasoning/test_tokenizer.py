"""Our own tokenizer: loses nothing, spells the prompts evenly, marks pictures and turns by one token each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from anomaly_ov.reasoning.config import prompt_ids_of, prompt_text
from anomaly_ov.reasoning.processor import IMAGE_MARKER
from anomaly_ov.reasoning.tokenizer import train_tokenizer
from model_fixtures import small_reasoner

TOKENIZER = small_reasoner().tokenizer


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


def test_marks_are_single_tokens() -> None:
    for mark in (IMAGE_MARKER, "<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert len(TOKENIZER.encode(mark, add_special_tokens=False)) == 1
    assert TOKENIZER.eos_token == "<|im_end|>"
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id
    assert TOKENIZER.decode(TOKENIZER.encode(f"a{IMAGE_MARKER}<|im_end|>"), skip_special_tokens=True) == "a"


def test_adverbs_are_one_token_each_and_the_rest_is_shared() -> None:
    prompts = list(prompt_ids_of(TOKENIZER).values())
    assert len({ids[1] for ids in prompts}) == 3
    assert len({(ids[0], *ids[2:]) for ids in prompts}) == 1
    assert TOKENIZER.decode(prompts[2]) == prompt_text("highly")


def test_vocabulary_is_bounded_and_frequent_words_are_short() -> None:
    few = train_tokenizer(["scratch on the weld"] * 50, 340)
    assert len(few) <= 340
    assert len(few.encode("scratch on the weld")) < len(few.encode("weld the no hctarcs"))


def test_same_texts_same_tokenizer(tmp_path: Path) -> None:
    first, second = (train_tokenizer(["a crack in the tile", "no crack"] * 9, 330) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    first.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\n<image>\nno crack?<|im_end|>\n"
    assert again.encode(text) == first.encode(text)
    assert again.chat_template == first.chat_template


@pytest.mark.parametrize("text", ["123", "4 56"])
def test_each_digit_is_a_token(text: str) -> None:
    pieces = [TOKENIZER.decode([i]).strip() for i in TOKENIZER.encode(text, add_special_tokens=False)]
    assert [piece for piece in pieces if piece] == [character for character in text if character.isdigit()]
