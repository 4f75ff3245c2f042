"""``Chat`` and ``answer_each``: what is read anew, what is remembered, what ends an answer, P(yes)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_ov.errors import UsageError
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.reasoning.chat import Chat, answer_each, p_yes
from anomaly_ov.reasoning.evidence import Evidence
from anomaly_ov.reasoning.folder import Reasoner
from talk_fixtures import small_talker

FIRST, SECOND = "Is there a defect?", "Where is it?"


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    return load(str(small_talker(tmp_path_factory.mktemp("talker") / "model")), device="cpu")


@pytest.fixture
def reasoner(inspector: Inspector) -> Reasoner:
    return inspector.reasoner


def picture(seed: int = 0, height: int = 50, width: int = 70) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def evidence(inspector: Inspector, *pictures: np.ndarray) -> list[Evidence]:
    return [one for shown in pictures for one in inspector.inspect(shown).talk.evidence]


@pytest.fixture
def one(inspector: Inspector) -> list[Evidence]:
    return evidence(inspector, picture())


@contextmanager
def lengths_read(reasoner: Reasoner) -> Iterator[list[int]]:
    """How many tokens each call of the language model reads."""
    found: list[int] = []
    hook = reasoner.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        yield found
    finally:
        hook.remove()


def test_pictures_are_told_apart(inspector: Inspector, reasoner: Reasoner) -> None:
    pictures = [picture(seed) // (1 + 2 * seed) for seed in range(8)]  # of very different brightness
    said = {Chat(reasoner, evidence(inspector, one)).ask(FIRST, max_tokens=24).text for one in pictures}
    assert len(said) > 1


def test_a_conversation_is_as_if_read_in_one_go(reasoner: Reasoner, one: list[Evidence]) -> None:
    talk = Chat(reasoner, one)
    first = talk.ask(FIRST, max_tokens=8)
    second = talk.ask(SECOND, max_tokens=8)
    assert talk.history == [("user", FIRST), ("assistant", first.text), ("user", SECOND), ("assistant", second.text)]
    anew = Chat(reasoner, one)
    anew.history = [("user", FIRST), ("assistant", first.text)]
    again = anew.ask(SECOND, max_tokens=8)
    assert (again.text, again.tokens_in) == (second.text, second.tokens_in)
    assert Chat(reasoner, one).ask(SECOND, max_tokens=8).tokens_in < second.tokens_in


def test_the_picture_is_read_once(reasoner: Reasoner, one: list[Evidence], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    whole = reasoner.model.model.picture_tokens
    monkeypatch.setattr(reasoner.model.model, "picture_tokens", lambda *a: made.append(1) or whole(*a))
    talk = Chat(reasoner, one)
    with lengths_read(reasoner) as first:
        before = talk.ask(FIRST, remember=False, max_tokens=4)
    with lengths_read(reasoner) as second:
        talk.ask(SECOND, remember=False, max_tokens=4)
    with lengths_read(reasoner) as third:
        after = talk.ask(FIRST, remember=False, max_tokens=4)
    assert made == [1]
    assert sum(first) == before.tokens_in + 3
    assert sum(first) > talk.places > sum(second) > 0
    assert talk.places > sum(third)
    assert after.text == before.text
    assert talk.history == []


def test_forgetting_begins_anew(reasoner: Reasoner, one: list[Evidence]) -> None:
    talk = Chat(reasoner, one)
    first = talk.ask(FIRST, max_tokens=6)
    talk.ask(SECOND, max_tokens=6)
    talk.history = []
    assert talk.ask(FIRST, max_tokens=6).text == first.text


def test_an_answer_that_was_stopped_leaves_no_trace(reasoner: Reasoner, one: list[Evidence]) -> None:
    def stop(text: str) -> None:
        raise KeyboardInterrupt

    talk = Chat(reasoner, one)
    talk.ask(FIRST, max_tokens=6)
    history = list(talk.history)
    with pytest.raises(KeyboardInterrupt):
        talk.ask(SECOND, max_tokens=30, on_text=stop)
    assert talk.history == history
    anew = Chat(reasoner, one)
    anew.ask(FIRST, max_tokens=6)
    assert talk.ask(SECOND, max_tokens=6).text == anew.ask(SECOND, max_tokens=6).text


def test_a_conversation_remembered_elsewhere_goes_on(reasoner: Reasoner, one: list[Evidence]) -> None:
    """Setting the history to what was said reads nothing again; setting another one answers as if begun with it."""
    talk = Chat(reasoner, one)
    first = talk.ask(FIRST, max_tokens=8)
    talk.history = [("user", FIRST), ("assistant", first.text)]
    with lengths_read(reasoner) as read:
        talk.ask(SECOND, max_tokens=1)
    assert sum(read) < talk.places
    other = [("user", SECOND), ("assistant", "There.")]
    talk.history = list(other)
    anew = Chat(reasoner, one)
    anew.history = list(other)
    assert talk.ask(FIRST, max_tokens=8).text == anew.ask(FIRST, max_tokens=8).text


def test_an_answer_may_be_stopped_between_tokens(reasoner: Reasoner, one: list[Evidence]) -> None:
    talk = Chat(reasoner, one)
    asked: list[int] = []
    answer = talk.ask(FIRST, remember=False, max_tokens=30, stopped=lambda: asked.append(1) or len(asked) == 3)
    assert (answer.finish, answer.tokens_out) == ("length", 3)
    with lengths_read(reasoner) as read:
        again = talk.ask(FIRST, remember=False, max_tokens=30, stopped=lambda: False)
    assert sum(read) < talk.places, "the picture is still read"
    assert again.text == Chat(reasoner, one).ask(FIRST, max_tokens=30).text


def test_what_the_networks_gave_is_let_go_of(inspector: Inspector, reasoner: Reasoner) -> None:
    """The picture's tokens are all that a conversation needs: not the features of the batch it was seen in."""
    (seen,) = evidence(inspector, picture())
    talk = Chat(reasoner, [seen])
    features = weakref.ref(seen)
    del seen
    assert features() is not None
    said = talk.ask(FIRST, remember=False, max_tokens=4)
    gc.collect()
    assert features() is None
    assert talk.ask(FIRST, max_tokens=4).text == said.text


def test_a_question_is_checked_without_an_answer(reasoner: Reasoner, one: list[Evidence]) -> None:
    talk = Chat(reasoner, one)
    talk.ask(FIRST, max_tokens=4)
    with lengths_read(reasoner) as read:
        count = talk.check(SECOND, max_tokens=4)
        with pytest.raises(UsageError, match="model reads"):
            talk.check(SECOND, max_tokens=10**6)
    assert read == []
    assert talk.ask(SECOND, max_tokens=4).tokens_in == count


def test_text_comes_in_pieces(reasoner: Reasoner, one: list[Evidence]) -> None:
    pieces: list[str] = []
    answer = Chat(reasoner, one).ask(FIRST, max_tokens=30, on_text=pieces.append)
    assert "".join(pieces).strip() == answer.text
    assert all(pieces)
    assert 0 < answer.timing_ms["first_text"] <= answer.timing_ms["total"]


@pytest.mark.parametrize("most", [1, 5])
def test_longest_answer(reasoner: Reasoner, one: list[Evidence], most: int) -> None:
    answer = Chat(reasoner, one).ask(FIRST, max_tokens=most)
    assert (answer.finish, answer.tokens_out) == ("length", most)


def test_the_end_token_ends_an_answer(inspector: Inspector, one: list[Evidence], tmp_path: Path) -> None:
    own = load(str(small_talker(tmp_path / "model")), device="cpu").reasoner
    tokenizer = own.tokenizer
    whole = Chat(own, one).ask(FIRST, max_tokens=8)
    ids: list[int] = []
    real = own.model.generate

    def spied(**options: object) -> object:
        output = real(**options)
        ids.extend(output.sequences[0].tolist()[-8:])
        return output

    own.model.generate = spied  # type: ignore[method-assign]
    Chat(own, one).ask(FIRST, max_tokens=8)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ids[2])
    at = ids.index(ids[2])
    for answer in (Chat(own, one).ask(FIRST, max_tokens=8), answer_each(own, [one], [FIRST], max_tokens=8)[0]):
        assert (answer.finish, answer.tokens_out) == ("stop", at + 1)
        assert whole.text.startswith(answer.text)


def test_hardly_any_temperature_is_none(reasoner: Reasoner, one: list[Evidence]) -> None:
    """Logits over a temperature this small would leave the range of numbers."""
    talk = Chat(reasoner, one)
    likely = talk.ask(FIRST, remember=False, max_tokens=5).text
    assert talk.ask(FIRST, remember=False, temperature=5e-324, max_tokens=5).text == likely


def test_sampling_follows_the_seed(reasoner: Reasoner, one: list[Evidence]) -> None:
    talk, said = Chat(reasoner, one), []
    for seed in (1, 1, 2, 3):
        torch.manual_seed(seed)
        said.append(talk.ask(FIRST, remember=False, temperature=3.0, max_tokens=10).text)
    assert said[0] == said[1]
    assert len(set(said)) > 1


@pytest.mark.parametrize(
    ("question", "most", "part"),
    [
        (" \n", 5, "empty"),
        ("What is <image>?", 5, "<image>"),
        (FIRST, 0, "max_tokens = 0"),
        (FIRST, 10**6, "model reads"),
    ],
)
def test_what_cannot_be_asked(reasoner: Reasoner, one: list[Evidence], question: str, most: int, part: str) -> None:
    talk = Chat(reasoner, one)
    with pytest.raises(UsageError, match=part):
        talk.ask(question, max_tokens=most)
    assert talk.history == []
    with pytest.raises(UsageError, match=part):
        answer_each(reasoner, [one], [question], max_tokens=most)


def test_a_conversation_may_outgrow_the_model(
    reasoner: Reasoner, one: list[Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Chat(reasoner, one)
    length = talk.ask(FIRST, max_tokens=4).tokens_in
    monkeypatch.setattr(reasoner.model.config.text_config, "max_position_embeddings", length + 4)
    with pytest.raises(UsageError, match=f"reads {length + 4}"):
        talk.ask(FIRST, max_tokens=4)
    talk.history = []
    talk.ask(FIRST, max_tokens=4)


@pytest.mark.parametrize("reading", [None, "full", "focus"])
def test_a_batch_says_what_each_says_alone(inspector: Inspector, reasoner: Reasoner, reading: str | None) -> None:
    """Pictures of different sizes, one of two views, questions of different lengths."""
    shown = [[picture(0)], [picture(1, 96, 96)], [picture(2, 10, 10), picture(3, 20, 90)], [picture(0)]]
    questions = [FIRST, "Where?", SECOND, "Is there a scratch, and where is it?"]
    all_evidence = [evidence(inspector, *pictures) for pictures in shown]
    together = answer_each(reasoner, all_evidence, questions, reading=reading, max_tokens=10)
    for answer, of_sample, question in zip(together, all_evidence, questions, strict=True):
        alone = Chat(reasoner, of_sample, reading).ask(question, max_tokens=10)
        assert (answer.text, answer.finish) == (alone.text, alone.finish)
        assert (answer.tokens_in, answer.tokens_out) == (alone.tokens_in, alone.tokens_out)
        assert answer.p_yes == (None if alone.p_yes is None else pytest.approx(alone.p_yes, abs=1e-4))
        assert answer.timing_ms["total"] > 0


def test_a_batch_of_none(reasoner: Reasoner) -> None:
    assert answer_each(reasoner, [], []) == []


def test_places_are_those_of_the_reading(inspector: Inspector, reasoner: Reasoner) -> None:
    (large,) = evidence(inspector, picture(0, 96, 96))
    places = {reading: Chat(reasoner, [large], reading).places for reading in ("full", "focus")}
    assert places["full"] > places["focus"]
    assert places == {reading: reasoner.processor.places(large.geometry, reading) for reading in places}


@pytest.mark.parametrize(("yes", "no"), [(0.5, 0.5), (0.9, 0.05), (0.0, 0.6), (0.008, 0.004), (0.004, 0.004)])
def test_probability_of_yes(reasoner: Reasoner, yes: float, no: float) -> None:
    """All spellings count together; where neither word is likely there is none."""
    tokenizer = reasoner.tokenizer
    vocabulary = tokenizer.get_vocab()
    words = {
        word: ids[0] for word in ("Yes", "No") if len(ids := tokenizer.encode(word, add_special_tokens=False)) == 1
    }
    assert words.keys() == {"Yes", "No"}, "the fixture's tokenizer knows both words"
    probability_V = torch.full((len(vocabulary),), (1 - yes - no) / (len(vocabulary) - 2))
    probability_V[words["Yes"]], probability_V[words["No"]] = yes, no
    found = p_yes(tokenizer, probability_V.log())
    if yes + no < 0.01:
        assert found is None
    else:
        assert found == pytest.approx(yes / (yes + no), abs=0.03)
