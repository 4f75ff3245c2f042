"""``ChatWorker``: what is read once, what is kept, how an answer ends early, when questions are refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import DeviceError
from anomaly_ov.images.sources import Source
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.reasoning.chat import Chat
from anomaly_ov.records import Answer
from anomaly_ov.words.from_record import answer, answer_together
from anomaly_ov_server.chat_worker import Begun, ChatQuestion, ChatWorker, Subject
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.inference_worker import InferenceWorker
from model_fixtures import save_small_model
from talk_fixtures import small_talker

FIRST, SECOND = "Is there a defect?", "Where is it?"
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    """With a threshold that every picture has a region at."""
    return load(str(small_talker(tmp_path_factory.mktemp("talker") / "model")), device="cpu", threshold=0.0)


@pytest.fixture(scope="module")
def engine(inspector: Inspector) -> Iterator[InferenceWorker]:
    engine = InferenceWorker(inspector)
    engine.start()
    yield engine
    engine.stop()


@contextmanager
def speaking(inspector: Inspector, engine: InferenceWorker, **options: int) -> Iterator[ChatWorker]:
    speaker = ChatWorker(inspector, engine, **options)
    speaker.start()
    try:
        yield speaker
    finally:
        speaker.stop()


@pytest.fixture
def speaker(inspector: Inspector, engine: InferenceWorker) -> Iterator[ChatWorker]:
    with speaking(inspector, engine) as speaker:
        yield speaker


def picture(seed: int = 0, height: int = 50, width: int = 70) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def subject(*pictures: bytes) -> Subject:
    sources = tuple(Source(data, f"p{number}.png") for number, data in enumerate(pictures))
    return Subject(sources, tuple(hashlib.sha256(data).hexdigest() for data in pictures))


def asked(*pictures: bytes, question: str = FIRST, max_tokens: int = 6, **options: Any) -> ChatQuestion:
    return ChatQuestion(subject(*(pictures or (picture(),))), question, max_tokens=max_tokens, **options)


def run(work: Callable[[], Awaitable[Result]]) -> Result:
    async def main() -> Result:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(main())


@contextmanager
def counted(inspector: Inspector) -> Iterator[dict[str, list[int]]]:
    """Calls of the encoder, and lengths that the language model reads."""
    found: dict[str, list[int]] = {"encoder": [], "language": []}
    language = inspector.reasoner.model.model.language_model
    hook = language.register_forward_pre_hook(
        lambda module, args, kwargs: found["language"].append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    encode = inspector.engine.encode
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(inspector.engine, "encode", lambda views: found["encoder"].append(1) or encode(views))
            yield found
    finally:
        hook.remove()


def test_the_second_question_reads_only_what_is_new(inspector: Inspector, speaker: ChatWorker) -> None:
    """The client resends picture and conversation; neither is decoded, encoded or read again."""
    with counted(inspector) as first:
        told = run(lambda: speaker.answer(asked()))
    history = (("user", FIRST), ("assistant", told.answer.text))
    with counted(inspector) as second:
        again = run(lambda: speaker.answer(asked(question=SECOND, history=history)))
    assert first["encoder"]
    assert second["encoder"] == []
    places = inspector.chat(picture()).places
    assert sum(first["language"]) > places > sum(second["language"])
    assert speaker.open == 1
    talk = inspector.chat(picture())
    assert talk.ask(FIRST, max_tokens=6).text == told.answer.text
    expected = talk.ask(SECOND, max_tokens=6)
    assert (again.answer.text, again.answer.tokens_in) == (expected.text, expected.tokens_in)
    assert again.records == told.records
    assert (told.records[0]["id"], told.records[0]["image"]["path"]) == ("p0.png", "p0.png")


def test_conversations_about_one_picture_do_not_mix(speaker: ChatWorker) -> None:
    """Two clients talk about the same picture by turns, each with its own history."""

    async def both() -> list[str]:
        said = []
        for history in ((), (("user", SECOND), ("assistant", "There.")), ()):
            said.append((await speaker.answer(asked(history=history))).answer.text)
        return said

    first, _, third = run(both)
    assert first == third


def test_only_so_many_conversations_are_kept(inspector: Inspector, engine: InferenceWorker) -> None:
    with speaking(inspector, engine, max_open=2) as speaker, counted(inspector) as found:
        calls = []
        for seed in (0, 1, 0, 2, 0, 1):
            run(lambda seed=seed: speaker.answer(asked(picture(seed), max_tokens=1)))
            calls.append(len(found["encoder"]))
        assert speaker.open == 2
    assert [after > before for before, after in zip([0, *calls], calls, strict=False)] == [
        True, True, False, True, False, True
    ]  # fmt: skip


@pytest.mark.parametrize("other", [{"reading": "full"}, {"context_id": "c_1"}])
def test_what_is_kept_belongs_to_reading_and_context(
    inspector: Inspector, speaker: ChatWorker, other: dict[str, str]
) -> None:
    one = asked(reading=other.get("reading") and "focus")
    two = ChatQuestion(Subject(one.subject.pictures, one.subject.digests, None, other.get("context_id")), FIRST,
                max_tokens=6, reading=other.get("reading"))  # fmt: skip
    run(lambda: speaker.answer(one))
    run(lambda: speaker.answer(two))
    assert speaker.open == 2


def test_a_context_has_its_say(inspector: Inspector, speaker: ChatWorker, tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(picture(seed + 10))
    context = inspector.context([str(path) for path in tmp_path.iterdir()])
    one = asked()
    told = run(lambda: speaker.answer(ChatQuestion(Subject(*_parts(one), context, "c_1"), FIRST, max_tokens=4)))
    expected = inspector.inspect(picture(), context)
    assert told.records[0]["context"]["kind"] == "references"
    assert told.records[0]["score"] == pytest.approx(expected.score)


def _parts(one: ChatQuestion) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    return one.subject.pictures, one.subject.digests


def test_several_pictures_are_views_of_one_thing(inspector: Inspector, speaker: ChatWorker) -> None:
    pictures = picture(0), picture(1, 30, 90)
    told = run(lambda: speaker.answer(asked(*pictures)))
    expected = inspector.chat(list(pictures), views=True).ask(FIRST, max_tokens=6)
    assert (told.answer.text, told.answer.tokens_in) == (expected.text, expected.tokens_in)
    assert [record["id"] for record in told.records] == ["p0.png", "p1.png"]
    with counted(inspector) as found:
        run(lambda: speaker.answer(asked(*pictures, question=SECOND)))
    assert found["encoder"] == []


def test_a_picture_goes_by_the_name_it_was_sent_under(inspector: Inspector, speaker: ChatWorker) -> None:
    one = subject(picture())
    other = Subject((Source(picture(), "other.png"),), one.digests)
    first = run(lambda: speaker.answer(ChatQuestion(one, FIRST, max_tokens=1)))
    with counted(inspector) as found:
        second = run(lambda: speaker.answer(ChatQuestion(other, FIRST, max_tokens=1)))
    assert found["encoder"] == []
    assert (first.records[0]["id"], second.records[0]["id"]) == ("p0.png", "other.png")
    assert second.records[0]["image"] == first.records[0]["image"] | {"path": "other.png"}


def test_a_region_is_put_into_words(inspector: Inspector, speaker: ChatWorker) -> None:
    plain = run(lambda: speaker.answer(asked()))
    assert plain.records[0]["regions"], "the fixture's picture has a region"
    with pytest.raises(Fault, match="counted from 0") as caught:
        run(lambda: speaker.answer(asked(region=len(plain.records[0]["regions"]))))
    assert caught.value.status == 400
    about = run(lambda: speaker.answer(asked(region=0)))
    assert about.answer.tokens_in > plain.answer.tokens_in


def test_pieces_add_up_to_the_answer(inspector: Inspector, speaker: ChatWorker) -> None:
    async def pieces(one: ChatQuestion) -> tuple[list[Any], Answer]:
        *events, answer = [event async for event in speaker.say(one)]
        return events, answer

    for options in ({}, {"temperature": 2.0}, {"temperature": 2.0}):
        (begun, *texts), answer = run(lambda options=options: pieces(asked(max_tokens=60, **options)))
        assert isinstance(begun, Begun)
        assert all(texts)
        assert "".join(texts) == answer.text
    assert len(texts) > 1, "at this temperature there are blanks"


@pytest.mark.parametrize("told", ["  One two ", "\n", "One\n\n two\n"])
def test_blanks_around_an_answer_are_not_sent(speaker: ChatWorker, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    def ask(self: Chat, question: str, *, on_text: Any, **options: Any) -> Answer:
        for letter in told:
            on_text(letter)
        return Answer(told.strip(), None, "stop")

    monkeypatch.setattr(Chat, "ask", ask)

    async def texts() -> str:
        return "".join([event async for event in speaker.say(asked()) if isinstance(event, str)])

    assert run(texts) == told.strip()


def test_nobody_listens_any_more(inspector: Inspector, speaker: ChatWorker) -> None:
    """The answer ends, and the next question finds the conversation as it was."""
    most = 300
    whole = inspector.chat(picture()).ask(FIRST, max_tokens=most)
    assert whole.tokens_out > 60, "long enough to be stopped"

    async def leave() -> None:
        async with aclosing(speaker.say(asked(max_tokens=most))) as events:
            assert isinstance(await anext(events), Begun)
            while len(found["language"]) < 5:
                await asyncio.sleep(0.001)

    with counted(inspector) as found:
        run(leave)
        again = run(lambda: speaker.answer(asked(max_tokens=5)))
    assert len(found["language"]) < whole.tokens_out
    assert len(found["encoder"]) == 1
    assert again.answer.text == inspector.chat(picture()).ask(FIRST, max_tokens=5).text
    assert speaker.waiting == 0


def test_a_question_that_is_cancelled_while_it_waits_is_never_asked(
    speaker: ChatWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, questions = threading.Event(), []

    def ask(self: Chat, question: str, **options: Any) -> Answer:
        questions.append(question)
        go.wait(30)
        return Answer("So.", None, "stop")

    monkeypatch.setattr(Chat, "ask", ask)

    async def main() -> None:
        first = asyncio.create_task(speaker.answer(asked()))
        while not questions:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(speaker.answer(asked(question=SECOND)))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        assert (await first).answer.text == "So."

    run(main)
    speaker.stop()
    assert questions == [FIRST]


def test_too_many_questions_are_refused(
    inspector: Inspector, engine: InferenceWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def ask(self: Chat, question: str, **options: Any) -> Answer:
        go.wait(30)
        return Answer("So.", None, "stop")

    monkeypatch.setattr(Chat, "ask", ask)
    with speaking(inspector, engine, max_waiting=2) as speaker:

        async def main() -> None:
            taken = [asyncio.create_task(speaker.answer(asked())) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Fault) as caught:
                await speaker.answer(asked())
            fault = caught.value
            assert (fault.status, fault.type) == (429, "overloaded")
            assert 1 <= int(fault.headers["Retry-After"]) <= 60
            assert speaker.waiting == 2
            go.set()
            assert [told.answer.text for told in await asyncio.gather(*taken)] == ["So."] * 3
            assert (await speaker.answer(asked())).answer.text == "So."

        run(main)


def test_stopping_finishes_what_was_taken(inspector: Inspector, engine: InferenceWorker) -> None:
    speaker = ChatWorker(inspector, engine)
    for state in ("not started", "stopped"):
        with pytest.raises(Fault) as caught:
            run(lambda: speaker.answer(asked()))
        assert (caught.value.status, caught.value.type) == (503, "stopping"), state
        speaker.start()

        async def main() -> list[str]:
            await speaker.answer(asked(max_tokens=1))
            tasks = [asyncio.create_task(speaker.answer(asked(max_tokens=20))) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.to_thread(speaker.stop)
            return [told.answer.text for told in await asyncio.gather(*tasks)]

        assert len(set(run(main))) == 1
        speaker.stop()


@pytest.mark.parametrize("count", [1, 2])
def test_a_picture_that_cannot_be_read(speaker: ChatWorker, count: int) -> None:
    pictures = [picture()[:60], picture(1)][:count]
    with pytest.raises(Fault) as caught:
        run(lambda: speaker.answer(asked(*pictures)))
    fault = caught.value
    assert (fault.status, fault.type, fault.param) == (422, "unreadable_image", "messages")
    assert "p0.png" in fault.message
    assert speaker.open == 0


@pytest.mark.parametrize(
    ("one", "part"), [({"question": "What is <image>?"}, "<image>"), ({"max_tokens": 10**6}, "model reads")]
)
def test_a_question_that_cannot_be_asked(speaker: ChatWorker, one: dict[str, Any], part: str) -> None:
    with pytest.raises(Fault, match=part) as caught:
        run(lambda: speaker.answer(asked(**one)))
    assert (caught.value.status, caught.value.param) == (400, "messages")
    run(lambda: speaker.answer(asked()))


def test_a_model_that_does_not_speak(tmp_path: Path) -> None:
    """Answers from the record: of one picture, of one of its regions, of several views."""
    silent = load(str(save_small_model(tmp_path / "model")), device="cpu", threshold=0.0)
    engine = InferenceWorker(silent)
    engine.start()
    try:
        with speaking(silent, engine) as speaker:
            finding = silent.inspect(picture())
            told = run(lambda: speaker.answer(asked()))
            assert told.answer == answer(finding, FIRST)
            assert told.records[0]["score"] == pytest.approx(finding.score)
            second = run(lambda: speaker.answer(asked(question=SECOND, history=(("user", FIRST), ("assistant", "x")))))
            assert second.answer == answer(finding, SECOND)
            assert speaker.open == 1, "the picture is looked at once"
            of_region = run(lambda: speaker.answer(asked(question="How big?", region=0)))
            assert of_region.answer == answer(finding, "Region 1: How big?")
            assert of_region.answer.text.startswith("Region 1 of 1 lies ")
            with pytest.raises(Fault, match="has 1 regions"):
                run(lambda: speaker.answer(asked(region=1)))
            views = run(lambda: speaker.answer(asked(picture(1), picture(2))))
            assert views.answer == answer_together(silent.inspect_views([picture(1), picture(2)]), FIRST)
    finally:
        engine.stop()


def test_memory_that_runs_out_is_given_back(speaker: ChatWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(self: Chat, question: str, **options: Any) -> Answer:
        raise RuntimeError("CUDA out of memory")

    run(lambda: speaker.answer(asked(picture(1))))
    with monkeypatch.context() as patched:
        patched.setattr(Chat, "ask", ask)
        with pytest.raises(DeviceError):
            run(lambda: speaker.answer(asked()))
    assert speaker.open == 0
    run(lambda: speaker.answer(asked()))
