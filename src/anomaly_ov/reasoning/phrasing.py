"""Puts plain answers into other words with the small language model of ``models pull talk``, which sees no image.

Its words are used only where ``words.agreement.added`` finds nothing in them that the plain answer does not say;
otherwise the plain answer stands. What is the same for every answer (instruction and examples) is read once and kept.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from anomaly_ov.records import Answer
from anomaly_ov.words.agreement import added

MAX_TOKENS = 120
MOST_READ = 600
"""Characters of a plain answer that are put into other words; longer ones stand."""
SYSTEM = (
    "You rewrite answers of an inspection system in plain English. Keep every number, place and verdict exactly. Add "
    "nothing. One or two short sentences."
)
EXAMPLES = (
    (
        "Is it ok?",
        "No, the image is anomalous (score 0.702, threshold 0.500).",
        "No. The image is anomalous: its score of 0.702 lies above the threshold of 0.500.",
    ),
    (
        "Where?",
        "1 region stands out: on the right (score 0.702, x 400 to 470, y 90 to 160).",
        "One region stands out. It is on the right, between x 400 and 470 and y 90 and 160.",
    ),
)


class Phraser:
    """Not safe to share between threads. ``folder``: a decoder and its tokenizer, as transformers saves them."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        ).eval()

    def phrase(self, question: str, answer: Answer) -> Answer:
        """``answer`` with its text in other words, or as it is where these would add something to it.

        ``timing_ms["phrase"]`` is set either way, ``tokens_out`` only where the model's words are used.
        """
        started = time.perf_counter()
        if len(question) + len(answer.text) > MOST_READ:
            return answer
        text, count = self._written(question, answer.text)
        timing = answer.timing_ms | {"phrase": round((time.perf_counter() - started) * 1000, 3)}
        if not text or added(answer.text, text):
            return replace(answer, timing_ms=timing)
        return replace(answer, text=text, tokens_out=count, timing_ms=timing)

    def _written(self, question: str, plain: str) -> tuple[str, int]:
        made = self._made(
            self._ids([*_opening(), {"role": "user", "content": _asked(question, plain)}], open_answer=True)
        )
        ended = made[-1:] == [self._tokenizer.eos_token_id]
        return (self._tokenizer.decode(made, skip_special_tokens=True).strip() if ended else ""), len(made)

    def _made(self, ids: list[int]) -> list[int]:
        with torch.inference_mode():
            made: list[int] = self._model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                past_key_values=copy.deepcopy(self._opened),
                max_new_tokens=MAX_TOKENS,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            )[0, len(ids) :].tolist()
        return made

    @cached_property
    def _opened(self) -> Any:
        """What the model has read of instruction and examples."""
        ids = self._ids(_opening(), open_answer=False)
        cache = DynamicCache(config=self._model.config)
        with torch.inference_mode():
            self._model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
        return cache

    def _ids(self, messages: list[dict[str, str]], *, open_answer: bool) -> list[int]:
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_answer)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def _opening() -> list[dict[str, str]]:
    messages = [{"role": "system", "content": SYSTEM}]
    for question, plain, phrased in EXAMPLES:
        messages += [
            {"role": "user", "content": _asked(question, plain)},
            {"role": "assistant", "content": phrased},
        ]
    return messages


def _asked(question: str, plain: str) -> str:
    return f"Question: {question}\nAnswer: {plain}"
