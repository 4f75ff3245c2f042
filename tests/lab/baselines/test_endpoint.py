"""A remote model asked yes or no: what it is sent, what its answers score, what happens where it gives none."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import ConfigError, EndpointError, EndpointRefused, UsageError
from anomaly_ov.images.sources import expand
from anomaly_ov.records import Answer, Detector
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov_lab.baselines.endpoint import QUESTION, EndpointDetector, endpoint_config, score_of
from anomaly_ov_lab.baselines.load import load_baseline
from remote_fixtures import FakeTime, Scripted, Server, failing, ok, serving, token

Connect = Callable[..., tuple[EndpointDetector, Server]]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    opened: list[Any] = []

    def connected(*script: Scripted, **config: Any) -> tuple[EndpointDetector, Server]:
        context = serving(*script)
        server = context.__enter__()
        opened.append(context)
        settings = {"api_key_env": "", "timeout_s": 5.0} | config
        return EndpointDetector(EndpointConfig(server.url, "brain-1", **settings), clock=FakeTime().clock), server

    yield connected
    for context in reversed(opened):
        context.__exit__(None, None, None)


def likely(yes: float) -> Scripted:
    return ok("Yes" if yes > 0.5 else "No", logprobs=[token("Yes", math.log(yes), ("No", math.log(1 - yes)))])


def test_scores_in_order(connect: Connect, pictures: Path) -> None:
    detector, server = connect(likely(0.9), likely(0.2), ok("Yes."), ok("no, none"))
    assert isinstance(detector, Detector)
    found = list(detector.stream(expand([pictures])[:4], batch_size=1))
    assert [one.score for one in found] == pytest.approx([0.9, 0.2, 1, 0], abs=1e-6)
    assert [one.anomalous for one in found] == [True, False, True, False]
    assert [Path(one.id).name for one in found] == ["p0.png", "p1.png", "p2.png", "p3.png"]
    assert found[2].answer is not None
    assert found[2].answer.text == "Yes."
    assert found[0].significance_map is None
    assert found[0].image.width == 40
    assert len(server.bodies) == 4


def test_sent_are_picture_and_question_alone(connect: Connect, pictures: Path) -> None:
    detector, server = connect(ok("No"))
    list(detector.stream(expand([pictures / "p0.png"])))
    (message,) = server.bodies[0]["messages"]
    assert message["role"] == "user"
    picture, question = message["content"]
    assert question == {"type": "text", "text": QUESTION}
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert "p0" not in json.dumps(question)
    assert (server.bodies[0]["temperature"], server.bodies[0]["logprobs"]) == (0.0, True)


def test_failures_are_records(connect: Connect, pictures: Path) -> None:
    (pictures / "p0.png").write_bytes(b"broken")
    script = [ok("Perhaps."), ok("eyes wide open"), failing(400, "bad picture"), ok("Yes")]
    detector, _ = connect(*script, retries=0)
    found = list(detector.stream(expand([pictures])[:5], batch_size=1))
    assert [one.error.type if one.error else None for one in found] == [
        "UnreadableImage", "EndpointError", "EndpointError", "EndpointError", None,
    ]  # fmt: skip
    assert found[1].error is not None
    assert found[1].error.message == "the model answered neither yes nor no: Perhaps."
    assert found[1].image.sha256 is not None
    assert [one.score for one in found] == [None, None, None, None, 1.0]


def test_a_refusal_ends_the_run(connect: Connect, pictures: Path) -> None:
    detector, server = connect(ok("Yes"), *[failing(401)] * 9)
    findings = detector.stream(expand([pictures]), batch_size=1)
    assert next(findings).score == 1
    with pytest.raises(EndpointRefused, match="does not accept"):
        next(findings)
    assert len(server.bodies) < 6


def test_several_under_way_keep_the_order(pictures: Path, connect: Connect) -> None:
    """The first request is answered only once the third has come."""
    detector, _ = connect(*[ok("Yes")] * 6)
    third, plain, calls = threading.Event(), detector._endpoint.say, itertools.count(1)

    def say(question: str, image: Any) -> Answer:
        if next(calls) == 3:
            third.set()
        assert third.wait(10)
        return plain(question, image)

    detector._endpoint.say = say  # type: ignore[method-assign,assignment]
    found = list(detector.stream(expand([pictures]), batch_size=3))
    assert [Path(one.id).name for one in found] == [f"p{index}.png" for index in range(6)]


def test_scores_of_answers() -> None:
    assert score_of(Answer("No", 0.25, "stop")) == 0.25
    assert score_of(Answer("Yes", 0.0, "stop")) == 0
    assert score_of(Answer(" yes", None, "stop")) == 1
    for text in ("", "Nothing", "I see no yes", "\x1b[2J" * 50):
        with pytest.raises(EndpointError, match="neither yes nor no") as caught:
            score_of(Answer(text, None, "stop"))
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 320


def test_revision_follows_what_is_asked(connect: Connect) -> None:
    base = EndpointConfig("http://localhost:1/v1", "m", "")

    def revision(question: str = QUESTION, **changed: Any) -> str:
        return EndpointDetector(EndpointConfig(**vars(base) | changed), question).info.revision

    assert revision() == revision(timeout_s=9.0, retries=0, spend_cap=1.0, price_in=1.0)
    assert len({revision(), revision("Is it broken?"), revision(model="n"), revision(image_side=512)}) == 4
    assert EndpointDetector(base).info.name == "m at localhost:1"
    with pytest.raises(UsageError, match="question is empty"):
        EndpointDetector(base, " ")


def test_specifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = endpoint_config("llava:7b@http://localhost:11434/v1")
    assert (config.model, config.base_url, config.api_key_env) == ("llava:7b", "http://localhost:11434/v1", "")
    assert endpoint_config("a@b@https://host/v1").model == "a@b"
    assert endpoint_config("m@https://host/v1").api_key_env == "OPENAI_API_KEY"
    settings = tmp_path / "remote.yaml"
    settings.write_text("base_url: http://127.0.0.1:9/v1\nmodel: m\napi_key_env: ''\nimage_side: 512\n")
    assert endpoint_config(str(settings)).image_side == 512
    assert load_baseline(f"endpoint:{settings}").info.name == "m at 127.0.0.1:9"
    settings.write_text("base_url: http://127.0.0.1:9/v1\nmodel: m\ncolour: red\n")
    with pytest.raises(ConfigError, match="colour"):
        endpoint_config(str(settings))
    for wrong in ("gpt", "@http://localhost/v1", "m@ftp://x", "m@"):
        with pytest.raises(UsageError, match="endpoint:"):
            endpoint_config(wrong)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds no key"):
        load_baseline("endpoint:m@https://host/v1")
