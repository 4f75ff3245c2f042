"""Conversations and pictures to what the model reads: ids with a place for every image token, padded batches, labels.

Text goes through the tokenizer's own chat template. Each ``<image>`` marker becomes as many placeholder ids as
``layout`` counts, so that ids, attention mask and labels have their final length here; truncation comes after that, and
a picture cut by it says how many of its tokens are left. No torchvision: views are cut by ``images.views``.

Legend: B samples, T ids, N views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import dropwhile
from typing import Any, Literal

import torch
from torch import Tensor

from anomaly_ov.errors import UsageError
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import Views
from anomaly_ov.reasoning.config import READINGS, AnomalyOVConfig
from anomaly_ov.reasoning.layout import layout

IMAGE_MARKER = "<image>"
SYSTEM = "You are a helpful assistant."
END_MARK = "<|im_end|>"
IGNORED = -100
LabelMask = Literal["released", "answers"]
ROLES = ("system", "user", "assistant")
Message = tuple[str, str]
"""(role, text)."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The released chat template, for tokenizers that bring none of their own."""


@dataclass(frozen=True)
class Encoded:
    """One sample: ``ids_T`` with expanded placeholders and ``labels_T``; ``lengths``: places left of each picture."""

    ids_T: list[int]
    labels_T: list[int]
    views: tuple[Views, ...]
    lengths: tuple[int, ...]
    readings: tuple[str, ...]


class Processor:
    """``encode`` one conversation, ``collate`` several. ``tokenizer``: a fast tokenizer with chat markup tokens."""

    def __init__(self, tokenizer: Any, config: AnomalyOVConfig, grid_hw: tuple[int, int]) -> None:
        self.tokenizer, self.config, self.grid_hw = tokenizer, config, grid_hw
        if getattr(tokenizer, "chat_template", None) is None:
            tokenizer.chat_template = CHATML

    def places(self, geometry: Geometry, reading: str | None = None) -> int:
        """How many tokens a picture takes."""
        config = self.config
        read = (reading or config.reading, config.max_views, config.crop_budget, config.focus_pool)
        return len(layout(geometry, self.grid_hw, config.prompt_length, *read))

    def text(self, messages: Sequence[Message], *, open_answer: bool = False) -> str:
        """The chat markup of ``messages``; ``open_answer``: up to where the assistant begins to speak."""
        turns = [{"role": role, "content": text} for role, text in messages]
        marked: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_answer)
        return marked

    def encode(
        self,
        messages: Sequence[Message],
        views: Sequence[Views] = (),
        *,
        reading: str | None = None,
        mask: LabelMask = "answers",
        open_answer: bool = False,
        max_length: int | None = None,
    ) -> Encoded:
        """One conversation about ``views``, one marker in the text for each; a system message is put first if absent.

        ``mask``: which ids are learnt. ``answers``: what the assistant says, and that it has ended. ``released``: the
        authors' mask (golden ``tokenizer/``), which also keeps every turn's markup tokens and the assistant's role.
        Raises ``UsageError`` when markers and pictures differ in number, a question is empty, a role is unknown, or
        views are not those of one picture with crops or of several without.
        """
        if not messages or messages[0][0] != "system":
            messages = [("system", SYSTEM), *messages]
        _check(messages, views)
        ids, labels = self._tokens(messages, mask, open_answer)
        return self.assemble(ids, labels, views, reading=reading, max_length=max_length)

    def assemble(
        self,
        ids: list[int],
        labels: list[int],
        views: Sequence[Views],
        *,
        reading: str | None = None,
        max_length: int | None = None,
    ) -> Encoded:
        """Ids with one placeholder for each of ``views`` to a sample; what lies beyond ``max_length`` is cut off.

        Raises ``UsageError`` when placeholders and pictures differ in number.
        """
        placeholders = ids.count(self.config.image_token_id)
        if placeholders != len(views):
            raise UsageError(
                f"{placeholders} image placeholders among the ids for {len(views)} pictures",
                hint=f"write {IMAGE_MARKER} once for each picture, and no other image token",
            )
        reading = reading or self.config.reading
        counts = [self.places(one.geometry, reading) for one in views]
        ids, labels, starts = self._expanded(ids, labels, counts)
        end = len(ids) if max_length is None else max_length
        lengths = tuple(max(0, min(count, end - start)) for start, count in zip(starts, counts, strict=True))
        return Encoded(ids[:end], labels[:end], tuple(views), lengths, (reading,) * len(views))

    def open_ids(self, messages: Sequence[Message], counts: Sequence[int]) -> list[int]:
        """Expanded ids of a conversation up to where the assistant speaks; ``counts``: tokens of each picture."""
        ids, labels = self._tokens(messages, "answers", True)
        return self._expanded(ids, labels, counts)[0]

    def collate(
        self, samples: Sequence[Encoded], padding: Literal["left", "right"] = "right", labels: bool = True
    ) -> dict[str, Tensor]:
        """The model's inputs. Views are padded to the most of a picture, uint8 (pictures, N, H, W, 3)."""
        longest = max(len(sample.ids_T) for sample in samples)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0

        def padded(values: Sequence[int], filler: int) -> list[int]:
            filling = [filler] * (longest - len(values))
            return [*filling, *values] if padding == "left" else [*values, *filling]

        batch = {
            "input_ids": torch.tensor([padded(sample.ids_T, pad) for sample in samples]),
            "attention_mask": torch.tensor([padded([1] * len(sample.ids_T), 0) for sample in samples]),
        }
        if labels:
            batch["labels"] = torch.tensor([padded(sample.labels_T, IGNORED) for sample in samples])
        return batch | self._pictures(samples)

    def _pictures(self, samples: Sequence[Encoded]) -> dict[str, Tensor]:
        # A picture that truncation removed whole is sent all the same, with length 0: a sample's other pictures are
        # read by how many it has.
        views = [one for sample in samples for one in sample.views]
        if not views:
            return {}
        pixels = [torch.from_numpy(one.pixels_NHW3) for one in views]
        return {
            "pixel_values": torch.nn.utils.rnn.pad_sequence(pixels, batch_first=True),
            "image_sizes": torch.tensor([one.geometry.image_wh[::-1] for one in views]),
            "batch_num_images": torch.tensor([len(sample.views) for sample in samples if sample.views]),
            "image_lengths": torch.tensor([length for sample in samples for length in sample.lengths]),
            "image_readings": torch.tensor([READINGS.index(r) for sample in samples for r in sample.readings]),
        }

    def _tokens(self, messages: Sequence[Message], mask: LabelMask, open_answer: bool) -> tuple[list[int], list[int]]:
        """Ids and labels with one placeholder per marker, message by message."""
        ids: list[int] = []
        labels: list[int] = []
        markup = self._markup()
        for index, (role, _) in enumerate(messages):
            own = self._ids(self._message_text(messages, index))
            if mask == "released":
                learnt = own if role == "assistant" else [i if i in markup else IGNORED for i in own]
            else:
                learnt = self._answer_only(own, role)
            ids += own
            labels += [
                IGNORED if i == self.config.image_token_id else label for i, label in zip(own, learnt, strict=True)
            ]
        if open_answer:
            ids += self._opening
            labels += [IGNORED] * len(self._opening)
        return ids, labels

    def _message_text(self, messages: Sequence[Message], index: int) -> str:
        """Markup of one message alone: the template may add a system message of its own when it sees none."""
        before, text = self.text(messages[:index]) if index else "", self.text(messages[: index + 1])
        if not text.startswith(before):
            raise UsageError(
                f"the chat template rewrites earlier messages when message {index} is added",
                hint="use a template that only appends, such as the released one (processor.CHATML)",
            )
        return text.removeprefix(before)

    def _answer_only(self, ids: list[int], role: str) -> list[int]:
        """The assistant's words and the end mark; not the markup before them, nor the line break after."""
        if role != "assistant":
            return [IGNORED] * len(ids)
        start, end = len(self._opening), len(ids) - ids[::-1].index(self.end_id)
        return [IGNORED] * start + ids[start:end] + [IGNORED] * (len(ids) - end)

    @cached_property
    def _opening(self) -> list[int]:
        """The markup after which the assistant speaks."""
        question = [("user", "?")]
        return self._ids(self.text(question, open_answer=True).removeprefix(self.text(question)))

    def _ids(self, text: str) -> list[int]:
        """Ids of marked-up text, markers as the placeholder id."""
        parts = [self.tokenizer.encode(part, add_special_tokens=False) for part in text.split(IMAGE_MARKER)]
        ids: list[int] = list(parts[0])
        for part in parts[1:]:
            ids += [self.config.image_token_id, *part]
        return ids

    @property
    def end_id(self) -> int:
        """Id of the mark that ends a message."""
        return int(self.tokenizer.convert_tokens_to_ids(END_MARK))

    def _markup(self) -> set[int]:
        newline = self.tokenizer.encode("\n", add_special_tokens=False)
        return {int(self.tokenizer.convert_tokens_to_ids("<|im_start|>")), self.end_id, *newline}

    def _expanded(
        self, ids: list[int], labels: list[int], counts: Sequence[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """Each placeholder repeated as often as its picture has tokens; and where each picture starts."""
        long_ids: list[int] = []
        long_labels: list[int] = []
        starts: list[int] = []
        for i, label in zip(ids, labels, strict=True):
            if i == self.config.image_token_id:
                count = counts[len(starts)]
                starts.append(len(long_ids))
                long_ids += [i] * count
                long_labels += [IGNORED] * count
            else:
                long_ids.append(i)
                long_labels.append(label)
        return long_ids, long_labels, starts


def stop_ids(tokenizer: Any) -> list[int]:
    """Ids that end an answer: the mark at the end of a message, and the tokenizer's own end of text (Qwen2's base has
    another one).
    """
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return sorted({int(tokenizer.convert_tokens_to_ids(END_MARK)), *own})


def with_markers(turns: Sequence[Message], pictures: int) -> list[Message]:
    """``turns`` with ``pictures`` markers before the first user message, as released, unless it has some."""
    found = list(turns)
    for index, (role, text) in enumerate(found):
        if role == "user":
            if IMAGE_MARKER not in text:
                found[index] = (role, f"{IMAGE_MARKER}\n" * pictures + text)
            break
    return found


def released_turns(turns: Sequence[tuple[str, str]]) -> list[Message]:
    """LLaVA turns, "human" and "gpt", as messages, prepared as in the released code (golden ``tokenizer/``).

    What is said before the first question is dropped; the only marker of a message is moved to its front.
    """
    roles = {"human": "user", "gpt": "assistant"}
    messages = [(roles.get(role, role), _marker_first(text)) for role, text in turns]
    return list(dropwhile(lambda message: message[0] == "assistant", messages))


def _marker_first(text: str) -> str:
    if text.count(IMAGE_MARKER) != 1 or text.startswith(IMAGE_MARKER):
        return text
    return f"{IMAGE_MARKER}\n{text.replace(IMAGE_MARKER, '').strip()}".strip()


def _check(messages: Sequence[Message], views: Sequence[Views]) -> None:
    markers = sum(text.count(IMAGE_MARKER) for _, text in messages)
    if markers != len(views):
        raise UsageError(
            f"{markers} {IMAGE_MARKER} markers for {len(views)} pictures", hint="write one marker for each picture"
        )
    # The model tells crops from whole pictures by how many there are.
    if any((one.geometry.views == 1) != (len(views) > 1) for one in views):
        raise UsageError(
            "one picture is read with its crops, several are read whole",
            hint="cut one picture with images.views.anyres, several with multi_image",
        )
    for role, text in messages:
        if role not in ROLES:
            raise UsageError(f"unknown role {role!r}", hint=f"one of: {', '.join(ROLES)}")
        if role == "user" and not text.replace(IMAGE_MARKER, "").strip():
            raise UsageError("the question is empty", hint="ask something")
