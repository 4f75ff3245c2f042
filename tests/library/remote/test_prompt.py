"""What a remote model is told and shown."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.read import Picture, read
from anomaly_ov.records import ContextInfo, ErrorInfo, ImageInfo
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.prompt import Prompt, compose, describe
from remote_fixtures import finding, region

PIXELS_HW3 = np.random.default_rng(1).integers(0, 256, (80, 100, 3), np.uint8)
PICTURE = read(PIXELS_HW3)
URL = "http://localhost/v1"


def images(prompt: Prompt) -> list[np.ndarray[Any, Any]]:
    urls = [part["image_url"]["url"] for part in prompt.messages[1]["content"] if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]


def texts(prompt: Prompt) -> list[str]:
    return [part["text"] for part in prompt.messages[1]["content"] if part["type"] == "text"]


def prompt(picture: Picture = PICTURE, question: str = "Is it broken?", history: Any = (), **options: Any) -> Prompt:
    changes = options.pop("changes", {})
    return compose(finding(**changes), picture, question, history, EndpointConfig(URL, "m", **options))


def test_by_default_the_bare_picture_and_the_findings() -> None:
    made = prompt()
    assert [message["role"] for message in made.messages] == ["system", "user"]
    (sent,) = images(made)
    assert np.array_equal(sent, PIXELS_HW3)
    told, question = texts(made)
    assert question == "Is it broken?"
    for part in ("0.77", "0.60", "anomalous", "highly", "upper left: x 20.0 to 40.0, y 12.5 to 25.0", "2.5 %", "0.91"):
        assert part in told
    assert "crop" not in told
    assert "white boxes" not in told


def test_no_path_is_told() -> None:
    assert "secret-folder" not in str(prompt().messages)


def test_a_crop_when_asked() -> None:
    made = prompt(crop_top_region=True)
    whole, crop = images(made)
    assert np.array_equal(whole, PIXELS_HW3)
    assert crop.shape == (256, 256, 3)  # 32 x 32 of the picture, eight times
    assert "second picture is an enlarged crop" in texts(made)[0]


def test_no_crop_without_a_region() -> None:
    made = prompt(crop_top_region=True, draw_overlay=True, changes={"regions": ()})
    assert len(images(made)) == 1
    assert "No single region" in texts(made)[0]
    assert "crop" not in texts(made)[0]
    assert "white boxes" not in texts(made)[0]


def test_an_overlay_only_when_asked_and_never_on_the_crop() -> None:
    made = prompt(draw_overlay=True, crop_top_region=True)
    whole, crop = images(made)
    assert not np.array_equal(whole, PIXELS_HW3)
    assert np.array_equal(crop, images(prompt(crop_top_region=True))[1])
    assert "white boxes" in texts(made)[0]


def test_pictures_are_shrunk() -> None:
    assert images(prompt(image_side=64))[0].shape == (51, 64, 3)


def test_history_in_order_with_the_picture_in_the_first_turn() -> None:
    made = prompt(question=" Third? ", history=[("First?", "One."), ("Second?", "Two.")])
    assert [message["role"] for message in made.messages] == [
        *("system", "user", "assistant", "user", "assistant", "user")
    ]
    assert texts(made)[1] == "First?"
    assert [message["content"] for message in made.messages[2:]] == ["One.", "Second?", "Two.", "Third?"]
    # The first turn stays the same, so that an endpoint may keep what it has read.
    assert made.messages[:2] == prompt(question="First?").messages


@pytest.mark.parametrize(("question", "history"), [("", []), (" \n", []), ("A?", [("", "b")]), ("A?", [("B?", " ")])])
def test_empty_turns(question: str, history: list[tuple[str, str]]) -> None:
    with pytest.raises(UsageError, match="empty"):
        prompt(question=question, history=history)


def test_a_finding_of_another_picture() -> None:
    with pytest.raises(UsageError, match=r"100 x 80 .* 30 x 20"):
        prompt(read(np.zeros((20, 30, 3), np.uint8)))


def test_a_finding_that_holds_only_an_error() -> None:
    broken = {"score": None, "error": ErrorInfo("UnreadableImage", "cannot read it"), "image": ImageInfo("x.png")}
    with pytest.raises(UsageError, match="cannot read it"):
        prompt(changes=broken)


def test_a_normal_picture_is_called_normal() -> None:
    told = describe(finding(anomalous=False, score=0.1, level="slightly", regions=()), (100, 80))
    assert "calls it normal" in told
    assert "slightly suspicious" in told


def test_without_threshold_no_verdict() -> None:
    told = describe(finding(threshold=None, anomalous=None, level=None), (100, 80))
    assert "threshold" not in told
    assert "Impression" not in told


@pytest.mark.parametrize(
    ("context", "part"),
    [
        (ContextInfo(), "was not told what this object should look like"),
        (ContextInfo("folder", references=7), "the other pictures of its folder (7 of them)."),
        (ContextInfo("references", distance=2.34), "known to be good. It lies 2.3 times as far"),
    ],
)
def test_what_it_was_compared_with(context: ContextInfo, part: str) -> None:
    assert part in describe(finding(context=context), (100, 80))


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0, 0, 10, 10), "upper left"),
        ((45, 35, 55, 45), "centre"),
        ((90, 70, 100, 80), "lower right"),
        ((0, 35, 10, 45), "middle left"),
        ((45, 0, 55, 10), "upper centre"),
    ],
)
def test_places(box: tuple[int, int, int, int], place: str) -> None:
    assert f"  1. {place}: x" in describe(finding(regions=(region(box),)), (100, 80))


def test_many_regions_are_cut_short() -> None:
    told = describe(finding(regions=tuple(region(score=1 - i / 100) for i in range(13))), (100, 80))
    assert " 10. " in told
    assert " 11. " not in told
    assert "and 3 more" in told


def test_looks_are_told_where_they_were_measured() -> None:
    measured = replace(region(), contrast=(-0.2, -0.2, -0.2), elongation=5.0)
    told = describe(finding(regions=(measured, region())), (100, 80))
    assert told.count("what is around it") == 1
    assert "score 0.91; a narrow region much darker than what is around it" in told


def test_more_to_read_is_more_tokens() -> None:
    plain, longer, larger = prompt(), prompt(question="Is it broken? " * 50), prompt(crop_top_region=True)
    assert longer.tokens > plain.tokens + 150
    assert larger.tokens > plain.tokens + 100
