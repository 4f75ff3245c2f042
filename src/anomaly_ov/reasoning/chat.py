"""Talking about one picture: encoded once, asked many times.

``Chat`` keeps what the language model has read in its key-value cache. A new question drops what the two have not in
common (with ``remember=False`` the last question and answer, never the picture) and reads only the rest.
``answer_each`` puts one question to many pictures in one batch.

Not here: looking at pictures (``inspector``), other people's models (``remote``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import TextStreamer

from anomaly_ov.errors import UsageError
from anomaly_ov.reasoning.evidence import Evidence
from anomaly_ov.reasoning.folder import Reasoner
from anomaly_ov.reasoning.processor import IMAGE_MARKER, SYSTEM, Message, stop_ids
from anomaly_ov.records import Answer

MAX_TOKENS = 200
COLDEST = 1e-3
"""Below this temperature the most likely answer is given: logits over less would leave the range of numbers."""
SPOKEN_SHARE = 0.01
"""Yes and no together must be at least this likely for P(Yes) to mean anything."""

OnText = Callable[[str], None]
Stopped = Callable[[], bool]


class Chat:
    """A conversation about one picture, or about several views of one thing. Not safe to share between threads.

    ``history``: what was said so far, which may be replaced by what others remember of it; only what differs from what
    the model has read is read again.
    """

    def __init__(self, reasoner: Reasoner, evidence: Sequence[Evidence], reading: str | None = None) -> None:
        self._reasoner, self._evidence = reasoner, tuple(evidence)
        self._reading = reading or reasoner.model.config.reading
        self._cache: Any = None
        self._read: list[int] = []  # the ids whose keys and values the cache holds
        self.history: list[Message] = []

    @cached_property
    def places(self) -> int:
        """Tokens that the pictures take."""
        return sum(len(picture) for picture in self._pictures)

    def ask(
        self,
        question: str,
        *,
        remember: bool = True,
        max_tokens: int = MAX_TOKENS,
        temperature: float = 0.0,
        on_text: OnText | None = None,
        stopped: Stopped | None = None,
    ) -> Answer:
        """The answer to ``question``. ``remember``: whether it belongs to the conversation or stands alone.

        ``temperature`` 0 = greedy; ``on_text``: called with each piece of text as it comes; ``stopped``: asked after
        each token, True ends the answer there. Raises ``UsageError`` for an empty question, image markers in it, or a
        conversation that has outgrown the model. Whatever is raised on the way (``KeyboardInterrupt`` too) leaves the
        conversation as it was.
        """
        started = time.perf_counter()
        history = self.history if remember else []
        ids = self._ids(history, question)
        _require_room(self._reasoner, ids, max_tokens)
        try:
            with torch.inference_mode():
                self._read_up_to(ids)
                made = self._generate(ids, max_tokens, temperature, on_text, stopped, started)
        except BaseException:  # stopped half-way: what the cache holds by then is not known
            self._cache, self._read = None, []
            raise
        if remember:
            self.history = [*history, ("user", question), ("assistant", made.text)]
        return made

    def check(self, question: str, *, max_tokens: int = MAX_TOKENS) -> int:
        """How many tokens the model reads to answer ``question`` next. Raises ``UsageError`` where ``ask`` would."""
        ids = self._ids(self.history, question)
        _require_room(self._reasoner, ids, max_tokens)
        return len(ids)

    @cached_property
    def _pictures(self) -> list[Tensor]:
        with torch.inference_mode():
            readings = [self._reading] * len(self._evidence)
            tokens = self._reasoner.model.model.picture_tokens(self._evidence, readings)
        self._evidence = ()  # some MB each, and now without use
        return tokens

    def _ids(self, history: Sequence[Message], question: str) -> list[int]:
        return _ids(self._reasoner, [len(picture) for picture in self._pictures], [*history, ("user", question)])

    def _read_up_to(self, ids: list[int]) -> None:
        """Brings the cache to all of ``ids`` but the last, which the generation itself reads."""
        model = self._reasoner.model
        common = 0
        for known, wanted in zip(self._read, ids[:-1], strict=False):
            if known != wanted:
                break
            common += 1
        image = model.config.image_token_id
        if self._cache is None or image in ids[common:]:
            self._cache, common = DynamicCache(config=model.config.text_config), 0
        elif common < len(self._read):
            self._cache.crop(common - len(self._read))  # negative: so many fewer
        rest = torch.tensor([ids[common:-1]], device=model.device)
        if rest.shape[1]:
            embeds = model.model.embed(rest, self._pictures if common == 0 else [])
            model.model.language_model(inputs_embeds=embeds, past_key_values=self._cache, use_cache=True)
        self._read = ids[:-1]

    def _generate(
        self,
        ids: list[int],
        max_tokens: int,
        temperature: float,
        on_text: OnText | None,
        stopped: Stopped | None,
        started: float,
    ) -> Answer:
        model, tokenizer = self._reasoner.model, self._reasoner.tokenizer
        watch = _Watch(tokenizer, on_text, started)
        ids_1T = torch.tensor([ids], device=model.device)
        output = model.generate(
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            past_key_values=self._cache,
            streamer=watch,
            stopping_criteria=StoppingCriteriaList([] if stopped is None else [_Stop(stopped)]),
            **_settings(self._reasoner, max_tokens, temperature),
        )
        made = output.sequences[0, len(ids) :].tolist()
        self._read = [*ids, *made[:-1]]
        timing = {"first_text": watch.first_ms, "total": (time.perf_counter() - started) * 1000}
        return _answer(tokenizer, made, output.logits[0][0], len(ids), timing)


def answer_each(
    reasoner: Reasoner,
    evidence: Sequence[Sequence[Evidence]],
    questions: Sequence[str],
    *,
    reading: str | None = None,
    max_tokens: int = MAX_TOKENS,
) -> list[Answer]:
    """Greedy answers in one batch: ``questions[i]`` about the picture (or views) ``evidence[i]``.

    Raises ``UsageError`` for an empty question, image markers in it, or a picture that does not fit into the model.
    """
    model, tokenizer = reasoner.model, reasoner.tokenizer
    if not questions:
        return []
    started = time.perf_counter()
    with torch.inference_mode():
        flat = [one for of_sample in evidence for one in of_sample]
        tokens = model.model.picture_tokens(flat, [reading or model.config.reading] * len(flat))
        samples, at = [], 0
        for of_sample, question in zip(evidence, questions, strict=True):
            counts = [len(picture) for picture in tokens[at : at + len(of_sample)]]
            samples.append(_ids(reasoner, counts, [("user", question)]))
            at += len(of_sample)
        _require_room(reasoner, max(samples, key=len), max_tokens)
        longest = max(map(len, samples))
        padded = [[tokenizer.pad_token_id] * (longest - len(ids)) + ids for ids in samples]
        mask_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in samples], device=model.device)
        embeds_BTE = model.model.embed(torch.tensor(padded, device=model.device), tokens)
        settings = _settings(reasoner, max_tokens, 0.0)
        output = model.generate(inputs_embeds=embeds_BTE, attention_mask=mask_BT, **settings)
    ms = (time.perf_counter() - started) * 1000 / len(samples)
    first_BV = output.logits[0]
    return [
        _answer(tokenizer, made, first_BV[index], len(samples[index]), {"total": ms})
        for index, made in enumerate(output.sequences.tolist())
    ]


def _ids(reasoner: Reasoner, counts: Sequence[int], messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation that is open for the next answer; the pictures stand before the first question."""
    for role, text in messages:
        if role == "user" and not text.strip():
            raise UsageError("the question is empty", hint="ask something")
        markup = [mark for mark in reasoner.tokenizer.all_special_tokens if mark in text]
        if markup:
            # It would be read as markup: a turn, or a picture, that is none.
            raise UsageError(f"a question must not hold {', '.join(markup)}", hint="write it in other words")
    (role, first), *later = messages
    shown = [("system", SYSTEM), (role, f"{IMAGE_MARKER}\n" * len(counts) + first), *later]
    return reasoner.processor.open_ids(shown, counts)


def _require_room(reasoner: Reasoner, ids: Sequence[int], max_tokens: int) -> None:
    longest = reasoner.model.config.text_config.max_position_embeddings
    if len(ids) + max_tokens > longest:
        raise UsageError(
            f"the conversation takes {len(ids)} tokens and up to {max_tokens} more, the model reads {longest}",
            hint="begin a new conversation, ask for fewer tokens, or read the picture in 'focus'",
        )


def _settings(reasoner: Reasoner, max_tokens: int, temperature: float) -> dict[str, Any]:
    if max_tokens < 1:
        raise UsageError(f"max_tokens = {max_tokens} must be >= 1", hint="200 is the default")
    warm = temperature >= COLDEST
    sampling = {"do_sample": True, "temperature": temperature} if warm else {"do_sample": False}
    return sampling | {
        "max_new_tokens": max_tokens,
        "eos_token_id": stop_ids(reasoner.tokenizer),
        "pad_token_id": reasoner.tokenizer.pad_token_id,
        "return_dict_in_generate": True,
        "output_logits": True,
        "suppress_tokens": [reasoner.model.config.image_token_id],  # a picture is nothing that can be said
    }


def _answer(tokenizer: Any, made: list[int], first_V: Tensor, read: int, timing_ms: dict[str, float]) -> Answer:
    stops = set(stop_ids(tokenizer))
    spoken = list(takewhile(lambda token: token not in stops, made))
    ended = len(spoken) < len(made)
    return Answer(
        text=tokenizer.decode(spoken, skip_special_tokens=True).strip(),
        p_yes=p_yes(tokenizer, first_V),
        finish="stop" if ended else "length",
        tokens_in=read,
        tokens_out=len(spoken) + ended,
        timing_ms={part: round(ms, 3) for part, ms in timing_ms.items()},
    )


def p_yes(tokenizer: Any, logits_V: Tensor) -> float | None:
    """P(yes) / (P(yes) + P(no)) of the next token; None where the model is about to say neither."""
    probability_V = logits_V.float().softmax(-1)
    yes, no = (float(probability_V[_spellings(tokenizer, word)].sum()) for word in ("yes", "no"))
    return yes / (yes + no) if yes + no >= SPOKEN_SHARE else None


def _spellings(tokenizer: Any, word: str) -> list[int]:
    """Ids of the first token of the word in all spellings, where that token is the whole word."""
    found = set()
    for text in (word, word.capitalize(), word.upper(), f" {word}", f" {word.capitalize()}"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) == 1:
            found.add(int(ids[0]))
    return sorted(found)


class _Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends an answer that nobody waits for any more. The cache stays whole, unlike when something is raised."""

    def __init__(self, stopped: Stopped) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), self._stopped(), dtype=torch.bool, device=input_ids.device)


class _Watch(TextStreamer):  # type: ignore[misc]
    """Hands on pieces of text as they are made and notes when the first token came."""

    def __init__(self, tokenizer: Any, on_text: OnText | None, started: float) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text, self._started, self.first_ms = on_text, started, 0.0
        self._tokens = 0

    def put(self, value: Tensor) -> None:
        self._tokens += 1
        if self._tokens == 2:  # the first value is the prompt
            self.first_ms = (time.perf_counter() - self._started) * 1000
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if self._on_text is not None and text:
            self._on_text(text)
