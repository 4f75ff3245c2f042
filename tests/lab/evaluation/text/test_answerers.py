"""Our own model and an endpoint behind one protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov import load
from anomaly_ov.errors import EndpointRefused, WeightsError
from anomaly_ov.records import Answer, ErrorInfo
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.endpoint import Endpoint
from anomaly_ov_lab.evaluation.text.answerers import Answerer, EndpointAnswerer, ImageToAsk, InspectorAnswerer
from question_fixtures import picture
from remote_fixtures import FakeTime, Server, failing, ok, serving, token
from talk_fixtures import small_talker


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_talker(tmp_path_factory.mktemp("talker"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    return tmp_path / "a.png"


def remote(server: Server, parallel: int = 1) -> EndpointAnswerer:
    config = EndpointConfig(server.url, "seer", api_key_env="", retries=0)
    return EndpointAnswerer(Endpoint(config, clock=FakeTime().clock), parallel=parallel)


def test_our_model_answers_as_its_chat_does(talker: Path, image: Path, tmp_path: Path) -> None:
    picture(tmp_path / "b.png", seed=1)
    inspector = load(str(talker))
    answerer: Answerer = InspectorAnswerer(inspector, batch_size=2, max_tokens=4)
    asked = [
        ImageToAsk(image, ("Is there a defect?",)),
        ImageToAsk(tmp_path / "none.png", ("Is there a defect?", "Where is it?")),
        ImageToAsk(tmp_path / "b.png", ("Is there a defect?",)),
        ImageToAsk(image, ("Is there a defect?", "Where is it?")),
        ImageToAsk(image, ("Is there a defect?", "Where is it?"), remember=True),
    ]
    found = list(answerer.stream(asked))
    assert [len(replies) for replies in found] == [1, 2, 1, 2, 2]
    assert all(isinstance(reply, ErrorInfo) and reply.type == "UnreadableImage" for reply in found[1])
    chat = inspector.chat(image)
    alone = [chat.ask(text, remember=False, max_tokens=4).text for text in asked[3].questions]
    assert [reply.text for reply in found[3]] == alone  # type: ignore[union-attr]
    assert found[0][0].text == alone[0]  # type: ignore[union-attr]
    chat = inspector.chat(image)
    assert [reply.text for reply in found[4]] == [chat.ask(text, max_tokens=4).text for text in asked[4].questions]  # type: ignore[union-attr]
    assert "at most 4 tokens" in answerer.settings
    assert answerer.info == inspector.info


def test_a_model_that_does_not_speak_says_so(small_folder: Path) -> None:
    with pytest.raises(WeightsError, match="no language side"):
        InspectorAnswerer(load(str(small_folder)))


def test_an_endpoint_is_shown_the_picture_and_nothing_else(image: Path) -> None:
    with serving(ok("Yes", logprobs=[token("Yes", -0.1, ("No", -3.0))])) as server:
        answerer = remote(server)
        ((answer,),) = answerer.stream([ImageToAsk(image, ("Is it broken?",))])
    assert isinstance(answer, Answer)
    assert answer.text == "Yes"
    assert answer.p_yes is not None
    assert answer.p_yes > 0.9
    (message,) = server.bodies[0]["messages"]
    shown, question = message["content"]
    assert shown["image_url"]["url"].startswith("data:image/png;base64,")
    assert question == {"type": "text", "text": "Is it broken?"}
    assert (answerer.info.name, answerer.info.revision) == ("seer", server.url)


def test_a_remembered_conversation_is_sent_whole(image: Path) -> None:
    with serving(ok("a dent"), ok("a fall")) as server:
        list(remote(server).stream([ImageToAsk(image, ("What?", "Why?"), remember=True)]))
    first, answer, second = server.bodies[1]["messages"]
    assert first["content"][1]["text"] == "What?"
    assert answer == {"role": "assistant", "content": "a dent"}
    assert second == {"role": "user", "content": "Why?"}


def test_failures_of_an_endpoint_end_up_beside_the_question(image: Path, tmp_path: Path) -> None:
    with serving(failing(500), ok("fine"), failing(500), ok("a dent")) as server:
        alone, together, missing, rest = remote(server).stream(
            [
                ImageToAsk(image, ("What?", "Why?")),
                ImageToAsk(image, ("What?", "Why?"), remember=True),
                ImageToAsk(tmp_path / "none.png", ("What?",)),
                ImageToAsk(image, ("What?",)),
            ]
        )
    assert isinstance(alone[0], ErrorInfo)
    assert "status 500" in alone[0].message
    assert isinstance(alone[1], Answer)
    assert isinstance(together[1], ErrorInfo)
    assert "an earlier question" in together[1].message
    assert isinstance(missing[0], ErrorInfo)
    assert missing[0].type == "UnreadableImage"
    assert isinstance(rest[0], Answer)


def test_an_endpoint_that_refuses_ends_the_run(image: Path) -> None:
    with serving(failing(401)) as server, pytest.raises(EndpointRefused):
        list(remote(server, parallel=2).stream([ImageToAsk(image, ("What?",))] * 5))
