"""Findings that can be asked, ``Inspector.chat``, several views of one thing."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.errors import UnreadableImage, UsageError, WeightsError
from anomaly_ov.images.sources import expand
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.models.config import ModeConfig
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.words import from_record
from model_fixtures import save_small_model, small_model
from talk_fixtures import small_talker

QUESTION = "Is there a defect?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_talker(tmp_path_factory.mktemp("talker") / "model")


@pytest.fixture(scope="module")
def inspector(folder: Path) -> Inspector:
    return load(str(folder), device="cpu")


def encoder_of(inspector: Inspector) -> torch.nn.Module:
    assert isinstance(inspector.engine, TorchEngine)
    return inspector.engine.runner.encoder


@contextmanager
def encoder_calls(inspector: Inspector) -> Iterator[list[int]]:
    found: list[int] = []
    hook = encoder_of(inspector).register_forward_hook(lambda *_: found.append(1))
    try:
        yield found
    finally:
        hook.remove()


def test_a_finding_is_asked_without_looking_again(inspector: Inspector, pictures: Path) -> None:
    with encoder_calls(inspector) as calls:
        finding = inspector.inspect(pictures / "p1.png")
        looked = len(calls)
        said = [finding.ask(question, max_tokens=6) for question in (QUESTION, "Where is it?", QUESTION)]
        talk = inspector.chat(finding)
        assert talk.ask(QUESTION, max_tokens=6).text == said[0].text == said[2].text
    assert looked >= 1
    assert len(calls) == looked


def test_a_conversation_by_path_is_the_findings_own(inspector: Inspector, pictures: Path) -> None:
    path = pictures / "p1.png"
    by_path = inspector.chat(path).ask(QUESTION, max_tokens=6)
    assert by_path.text == inspector.inspect(path).ask(QUESTION, max_tokens=6).text
    assert inspector.chat(path, reading="full").places > inspector.chat(path, reading="focus").places


def test_what_a_finding_keeps_is_not_written(inspector: Inspector, pictures: Path) -> None:
    finding = inspector.inspect(pictures / "p1.png")
    assert finding.talk is not None
    assert "talk" not in finding.to_json()
    assert finding.to_json()["answer"] is None


def test_streams_keep_pictures_only_when_told(inspector: Inspector, pictures: Path) -> None:
    (plain,) = inspector.stream([pictures / "p1.png"])
    with pytest.raises(UsageError, match=r"p1\.png"):
        plain.ask(QUESTION)
    with pytest.raises(UsageError, match=r"p1\.png"):
        inspector.chat(plain)
    ((kept, _),) = inspector.stream_with_previews([pictures / "p1.png"], talk=True)
    assert kept.ask(QUESTION, max_tokens=6).text == inspector.chat(pictures / "p1.png").ask(QUESTION, max_tokens=6).text


def test_a_picture_that_cannot_be_read_cannot_be_asked(inspector: Inspector, pictures: Path) -> None:
    ((unread, _),) = inspector.stream_with_previews([pictures / "none.png"], talk=True)
    with pytest.raises(UsageError, match=r"none\.png"):
        unread.ask(QUESTION)
    with pytest.raises(UnreadableImage):
        inspector.chat(pictures / "none.png")
    with pytest.raises(UnreadableImage):
        inspector.inspect_views([pictures / "p1.png", pictures / "none.png"])


@pytest.mark.parametrize("level_score", ["head", "fused"])
def test_the_prompt_follows_the_score_it_was_taught_with(tmp_path: Path, pictures: Path, level_score: str) -> None:
    folder = save_small_model(small_talker(tmp_path / "model", level_score=level_score), alone=ModeConfig(usual=-2.0))
    own = load(str(folder), device="cpu")
    finding = own.inspect(pictures / "p1.png")
    (shown,) = finding.talk.evidence
    assert shown.score == (finding.score if level_score == "fused" else finding.score_raw)
    assert finding.score != finding.score_raw


class TestViews:
    def test_each_is_looked_at_whole(self, inspector: Inspector, pictures: Path) -> None:
        paths = [pictures / "p1.png", pictures / "p2.png"]
        found = inspector.inspect_views(paths)
        assert [finding.image.path for finding in found] == [str(path) for path in paths]
        assert [one.geometry.views for finding in found for one in finding.talk.seen] == [1, 1]
        (alone,) = inspector.inspect_views(paths[:1])
        assert alone.talk.seen[0].geometry.views > 1
        assert alone.score == inspector.inspect(paths[0]).score

    def test_one_answer_about_all(self, inspector: Inspector, pictures: Path) -> None:
        paths = [pictures / f"p{k}.png" for k in (1, 2, 3)]
        talk = inspector.chat(paths, views=True)
        answer = talk.ask(QUESTION, max_tokens=12)
        assert (
            inspector.chat(inspector.inspect_views(paths), views=True).ask(QUESTION, max_tokens=12).text == answer.text
        )
        assert talk.places == 3 * inspector.chat(paths[:2], views=True).places / 2
        others = [inspector.chat(order, views=True).ask(QUESTION, max_tokens=12) for order in (paths[::-1], paths[:2])]
        assert any(other.text != answer.text for other in others)

    def test_pages_of_a_file(self, inspector: Inspector, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        pages = [Image.fromarray(rng.integers(0, 256, (20, 30 + k, 3), np.uint8)) for k in range(3)]
        pages[0].save(tmp_path / "turn.tif", save_all=True, append_images=pages[1:])
        found = inspector.inspect_views(expand([tmp_path / "turn.tif"]))
        assert [finding.image.width for finding in found] == [30, 31, 32]
        assert [finding.id for finding in found] == [f"{tmp_path / 'turn.tif'}#page={k}" for k in (1, 2, 3)]
        assert len({finding.score for finding in found}) == 3

    @pytest.mark.parametrize("method", ["chat", "inspect_views"])
    def test_none(self, inspector: Inspector, method: str) -> None:
        with pytest.raises(UsageError, match="no views"):
            inspector.inspect_views([]) if method == "inspect_views" else inspector.chat([], views=True)


class TestWithoutLanguage:
    def test_in_a_folder(self, small_folder: Path, pictures: Path) -> None:
        mute = load(str(small_folder), device="cpu")
        assert not mute.speaks
        with pytest.raises(WeightsError, match="no language side"):
            mute.chat(pictures / "p1.png")
        finding = mute.inspect(pictures / "p1.png")
        with pytest.raises(UsageError, match="has not kept"):
            mute.chat(finding)

    def test_the_record_answers(self, small_folder: Path, pictures: Path) -> None:
        """From any thread, after pickling, from a stream too."""
        mute = load(str(small_folder), device="cpu")
        finding = mute.inspect(pictures / "p1.png")
        questions = [QUESTION, "Where is it?", "How many defects are there?", "Who won?"] * 8
        expected = [from_record.answer(finding, question) for question in questions]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(finding.ask, questions)) == expected
        assert [pickle.loads(pickle.dumps(finding)).ask(question) for question in questions] == expected
        (streamed,) = mute.stream([pictures / "p1.png"])
        assert streamed.ask(QUESTION) == expected[0]

    def test_the_record_takes_a_question_and_no_options(self, small_folder: Path, pictures: Path) -> None:
        finding = load(str(small_folder), device="cpu").inspect(pictures / "p1.png")
        with pytest.raises(UsageError, match="option max_tokens is a language model's"):
            finding.ask(QUESTION, max_tokens=3)
        with pytest.raises(UsageError, match="question is empty"):
            finding.ask(" ")

    def test_without_a_folder(self, pictures: Path) -> None:
        mute = Inspector(small_model(), device="cpu")
        assert not mute.speaks
        with pytest.raises(WeightsError, match="small"):
            mute.chat(pictures / "p1.png")

    def test_nothing_is_loaded_until_it_is_asked(self, folder: Path, pictures: Path) -> None:
        own = load(str(folder), device="cpu")
        own.inspect(pictures / "p1.png")
        assert own.speaks
        assert "reasoner" not in vars(own)
