"""What a remote model is told and shown: a finding in words, the picture, the conversation so far, the question.

``compose`` is for a picture that was inspected. ``plain`` puts a question by itself, with a picture or without.

The picture and the findings stand in the first user message and never change during a conversation, so that an
endpoint that keeps prefixes reads them once. Boxes are given in percent of width and height, which holds whatever
size the endpoint scales the picture to. No path or file name is sent.

Drawing the regions on the picture is off by default: overlays drawn on a picture are known to hurt detection (reported
in the paper), and a detector's mistakes drawn there look like part of the object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.looks import shade_of, shape_of
from anomaly_ov.images.read import Picture
from anomaly_ov.records import Finding, Region
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.pictures import crop_box, cropped, data_url, outlined, shrunk

Turns = Sequence[tuple[str, str]]

MAX_REGIONS = 10
SYSTEM = (
    "You inspect pictures for anomalies: damage, contamination, missing, wrong or misplaced parts, and anything else "
    "that should not be there. An automatic detector has looked at the picture before you. It can raise a false alarm "
    "and it can miss something: take its findings as a hint where to look, and judge by what you see. Answer the "
    "question in plain words. If it can be answered with yes or no, begin with Yes or No. Say so when the picture does "
    "not show what is asked."
)
_COLUMNS, _ROWS = ("left", "centre", "right"), ("upper", "middle", "lower")
# Rough counts for limits and caps; `limits.Budget` corrects them by what endpoints really count.
CHARACTERS_PER_TOKEN, _PIXELS_PER_TOKEN, _TOKENS_PER_PICTURE, _TOKENS_PER_MESSAGE = 3, 28 * 28, 100, 8


@dataclass(frozen=True)
class Prompt:
    """Messages in the chat-completions format, and roughly how many tokens they are."""

    messages: list[dict[str, Any]]
    tokens: int


def compose(finding: Finding, picture: Picture, question: str, history: Turns, config: EndpointConfig) -> Prompt:
    """The messages that put ``question`` about ``picture`` after the turns of ``history``, (question, answer) each.

    Raises UsageError for an empty turn, a finding without a score, or one that is of a picture of another size.
    """
    _check(finding, picture, question, history)
    images = _images(finding, picture, config)
    questions = [_clean(asked) for asked in (*(asked for asked, _ in history), question)]
    shows_crop = len(images) > 1
    told = describe(finding, (picture.width, picture.height), shows_crop, config.draw_overlay)
    first = [_text(told), *map(_shown, images), _text(questions[0])]
    messages = _conversation(SYSTEM, first, questions, [_clean(answer) for _, answer in history])
    return Prompt(messages, _tokens(messages, images))


def plain(question: str, image: Image.Image | None, history: Turns, system: str | None) -> Prompt:
    """The messages that put ``question`` and nothing of a detector, after the (question, answer) turns of ``history``.

    Texts are kept as they are, and ``image``, which stands first, in its own size.
    """
    questions = [_sendable(asked) for asked in (*(asked for asked, _ in history), question)]
    images = [] if image is None else [image]
    first = [*map(_shown, images), _text(questions[0])] if images else questions[0]
    told = None if system is None else _sendable(system)
    messages = _conversation(told, first, questions, [_sendable(answer) for _, answer in history])
    return Prompt(messages, _tokens(messages, images))


def _conversation(
    system: str | None, first: str | list[dict[str, Any]], questions: Sequence[str], answers: Sequence[str]
) -> list[dict[str, Any]]:
    """``first``: the content of the first user message, which holds the first question."""
    messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": first})
    for answer, asked in zip(answers, questions[1:], strict=True):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": asked}]
    return messages


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _shown(image: Image.Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(image)}}


def _clean(text: str) -> str:
    """Without blanks around it, and without what cannot be sent."""
    return _sendable(text.strip())


def _sendable(text: str) -> str:
    """Arguments of a command, and JSON, may hold broken characters."""
    return text.encode("utf-8", "replace").decode("utf-8")


def describe(finding: Finding, image_wh: tuple[int, int], shows_crop: bool = False, marked: bool = False) -> str:
    """What the detector found, in words. ``shows_crop``, ``marked``: what else is to be seen in the pictures sent."""
    lines = ["Findings of the detector (scores from 0, inconspicuous, to 1, highly suspicious):"]
    lines.append(f"- Score {finding.score:.2f}.{_verdict(finding)}")
    if finding.level is not None:
        lines.append(f"- Impression of the whole picture: {finding.level} suspicious.")
    lines += [f"- {text}" for text in _compared_with(finding)]
    lines += _regions(finding.regions, image_wh)
    if shows_crop:
        lines.append("The second picture is an enlarged crop around region 1.")
    if marked and finding.regions:
        lines.append("The white boxes in the first picture mark the regions; they are no part of the object.")
    return "\n".join(lines)


def _verdict(finding: Finding) -> str:
    if finding.threshold is None or finding.anomalous is None:
        return ""
    side = "at or above, so it calls the picture anomalous" if finding.anomalous else "below, so it calls it normal"
    return f" Its threshold is {finding.threshold.value:.2f}; the score lies {side}."


def _compared_with(finding: Finding) -> list[str]:
    """Against what else the picture was held, where it was."""
    context = finding.context
    if context.kind == "none":
        return ["The detector was not told what this object should look like."]
    what = "the other pictures of its folder" if context.kind == "folder" else "pictures known to be good"
    count = f" ({context.references} of them)" if context.references else ""
    text = f"The picture was compared with {what}{count}."
    if context.distance is not None:
        text += f" It lies {context.distance:.1f} times as far from them as is usual among them."
    return [text]


def _regions(regions: tuple[Region, ...], image_wh: tuple[int, int]) -> list[str]:
    if not regions:
        return ["- No single region stands out."]
    lines = ["- Suspicious regions, in percent of the picture's width (x) and height (y):"]
    for number, region in enumerate(regions[:MAX_REGIONS], 1):
        x0, x1 = (100 * region.box[i] / image_wh[0] for i in (0, 2))
        y0, y1 = (100 * region.box[i] / image_wh[1] for i in (1, 3))
        share = 100 * region.area / (image_wh[0] * image_wh[1])
        lines.append(
            f"  {number}. {_place((x0 + x1) / 2, (y0 + y1) / 2)}: x {x0:.1f} to {x1:.1f}, y {y0:.1f} to {y1:.1f}; "
            f"{share:.2g} % of the picture; score {region.score:.2f}{_looks(region)}"
        )
    if len(regions) > MAX_REGIONS:
        lines.append(f"  and {len(regions) - MAX_REGIONS} more with lower scores")
    return lines


def _looks(region: Region) -> str:
    if region.contrast is None:
        return ""
    return f"; {shape_of(region.elongation)}{shade_of(region.contrast)}"


def _place(x: float, y: float) -> str:
    """Percent to one of nine places."""
    column, row = (min(max(int(value * 3 / 100), 0), 2) for value in (x, y))
    return "centre" if column == row == 1 else f"{_ROWS[row]} {_COLUMNS[column]}"


def _images(finding: Finding, picture: Picture, config: EndpointConfig) -> list[Image.Image]:
    whole = shrunk(picture.pixels_HW3, config.image_side)
    image_wh = picture.width, picture.height
    if config.draw_overlay:
        whole = outlined(whole, finding.regions[:MAX_REGIONS], image_wh)
    if not (config.crop_top_region and finding.regions):
        return [whole]
    box = crop_box(finding.regions[0].box, image_wh)
    return [whole, cropped(picture.pixels_HW3, box, config.image_side)]


def _tokens(messages: list[dict[str, Any]], images: list[Image.Image]) -> int:
    texts = []
    for message in messages:
        content = message["content"]
        texts += [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
    characters = sum(len(text.encode()) for text in texts)
    pictures = sum(_TOKENS_PER_PICTURE + image.width * image.height // _PIXELS_PER_TOKEN for image in images)
    return math.ceil(characters / CHARACTERS_PER_TOKEN) + pictures + _TOKENS_PER_MESSAGE * len(messages)


def _check(finding: Finding, picture: Picture, question: str, history: Turns) -> None:
    if not question.strip() or any(not asked.strip() for asked, _ in history):
        raise UsageError("a question is empty", hint="ask something, for example 'Is anything wrong here?'")
    if any(not answer.strip() for _, answer in history):
        raise UsageError("an answer in the history is empty", hint="leave that turn out")
    if finding.score is None:
        why = f": {finding.error.message}" if finding.error else ""
        raise UsageError(f"the finding of {finding.id} has no score{why}", hint="inspect the picture again")
    found_wh, given_wh = (finding.image.width, finding.image.height), (picture.width, picture.height)
    if found_wh != given_wh and None not in found_wh:
        raise UsageError(
            f"the finding is of a picture of {found_wh[0]} x {found_wh[1]} pixels, {picture.path} has "
            f"{given_wh[0]} x {given_wh[1]}",
            hint="give the picture that was inspected",
        )
