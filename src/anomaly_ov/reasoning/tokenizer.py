"""A byte-level BPE tokenizer of our own, for compact language models; larger ones bring that of their family."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from anomaly_ov.reasoning.config import ADVERBS, prompt_ids_of, prompt_text
from anomaly_ov.reasoning.processor import CHATML, IMAGE_MARKER

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
WORDS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
PROMPT_REPEATS = 1000  # so that the three adverbs become one token each


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most ``vocabulary`` tokens that spells ``texts`` shortly and any other text without loss.

    Carries the chat template; the image marker is one special token. Raises ``ConfigError`` if the texts are so few
    that the adverbs of the indicative prompt take unequally many tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, START, END, IMAGE_MARKER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = (prompt_text(adverb) for _ in range(PROMPT_REPEATS) for adverb in ADVERBS)
    roles = (f"{role}\n" for _ in range(PROMPT_REPEATS) for role in ("system", "user", "assistant"))
    tokenizer.train_from_iterator(chain(prompts, roles, texts), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START, IMAGE_MARKER],
    )
    fast.chat_template = CHATML
    prompt_ids_of(fast)
    return fast
