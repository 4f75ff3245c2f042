"""Instruction samples: a function of seed and place alone, bad ones named, lengths known before pictures are read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import ConfigError, DataError, UnreadableImage
from anomaly_ov.images.read import read
from anomaly_ov.reasoning.folder import Reasoner
from anomaly_ov.reasoning.processor import IGNORED
from anomaly_ov_lab.training.conversations import Conversations, Epochs, Synthetic, TalkConfig
from anomaly_ov_lab.training.json_talk import SKIPPED, JsonTalk, SkipLog, index_conversations, size_wh
from anomaly_ov_lab.training.passes import Passes
from model_fixtures import small_reasoner
from talk_fixtures import sample, talk_data

TALK = TalkConfig(synthetic=0.0, json=1.0, max_length=512)


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    return small_reasoner()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return talk_data(tmp_path / "data")


def indexed(data: Path, out: Path, name: str = "talk.jsonl") -> tuple[JsonTalk, str]:
    return index_conversations([data / name], data / "images", out, "key")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def samples(reasoner: Reasoner, talk: JsonTalk, epochs: float = 0.0, config: TalkConfig = TALK) -> Conversations:
    detector = reasoner.model.model.detector
    assert detector is not None
    order = Epochs(len(talk), epochs, 0) if epochs else None
    return Conversations(config, [(talk, 1.0)], reasoner.processor, detector.config.views, 0, 4, order)


def text(reasoner: Reasoner, ids: list[int]) -> str:
    said: str = reasoner.tokenizer.decode([i for i in ids if i != reasoner.processor.config.image_token_id])
    return said


@pytest.mark.parametrize("line", [True, False])
def test_bad_samples_are_skipped_counted_and_named(tmp_path: Path, line: bool) -> None:
    data = talk_data(tmp_path / "data", line=line)
    talk, said = indexed(data, tmp_path / "run", "talk.jsonl" if line else "talk.json")
    assert len(talk) == 15
    assert "15 conversations in talk.json" in said
    assert "4 skipped (1 x image missing, " in said
    rows = rows_of(tmp_path / "run" / SKIPPED)
    assert [(row["index"], row["id"]) for row in rows] == [(14, "absent"), (15, "few"), (16, "mute"), (18, "empty")]
    assert talk.entry(2).id == "views"
    assert len(talk.entry(2).images) == 3
    assert talk.entry(14).id == "broken", "whether a picture decodes is not known yet"


def test_a_picture_that_does_not_decode_is_replaced_and_counted_once(
    reasoner: Reasoner, data: Path, tmp_path: Path
) -> None:
    talk, _ = indexed(data, tmp_path / "run")
    found = samples(reasoner, talk, epochs=1.0)
    order = Epochs(len(talk), 1.0, 0)
    (place,) = [i for i in range(15) if order.number(i) == 14]
    (first,) = [i for i in range(15) if order.number(i) == 0]
    for _ in range(2):
        assert found[place].ids_T == found[first].ids_T, "the next sample, which after the last is the first"
    log = tmp_path / "run" / SKIPPED
    assert [row["id"] for row in rows_of(log)].count("broken") == 1
    SkipLog(log).note("talk.jsonl", 17, "broken", "image unreadable: in another process")
    assert pickle.loads(pickle.dumps(found))[place].ids_T == found[first].ids_T
    talk, said = indexed(data, tmp_path / "run")  # as a resumed run does
    assert "5 skipped" in said
    rows = rows_of(tmp_path / "run" / SKIPPED)
    assert [row["id"] for row in rows] == ["absent", "few", "mute", "broken", "empty"]
    assert rows[3]["reason"].startswith("image unreadable: ")


def test_a_resumed_run_keeps_its_samples_though_the_files_change(
    reasoner: Reasoner, data: Path, tmp_path: Path
) -> None:
    talk, _ = indexed(data, tmp_path / "run")
    before = [samples(reasoner, talk)[i].ids_T for i in range(6)]
    (data / "talk.jsonl").unlink()
    again, _ = indexed(data, tmp_path / "run")
    assert [samples(reasoner, again)[i].ids_T for i in range(6)] == before


def test_each_sample_once_per_epoch_and_nothing_behind(reasoner: Reasoner, data: Path, tmp_path: Path) -> None:
    order = Epochs(15, 2.5, 7)
    assert order.total == 38
    numbers = [order.number(i) for i in range(40)]
    assert sorted(numbers[:15]) == sorted(numbers[15:30]) == list(range(15))  # type: ignore[type-var]
    assert numbers[:15] != numbers[15:30] != list(range(15))
    assert len(set(numbers[30:38])) == 8
    assert numbers[38:] == [None, None]
    assert numbers[:38] != [Epochs(15, 2.5, 8).number(i) for i in range(38)]
    talk, _ = indexed(data, tmp_path / "run")
    behind = samples(reasoner, talk, epochs=1.0)[15]
    assert set(behind.labels_T) == {IGNORED}


def test_lengths_are_known_without_decoding(reasoner: Reasoner, data: Path, tmp_path: Path) -> None:
    talk, _ = indexed(data, tmp_path / "run")
    for epochs in (0.0, 1.0):
        found = samples(reasoner, talk, epochs)
        order = Epochs(len(talk), 1.0, 0)
        indices = [i for i in range(16) if epochs == 0.0 or order.number(i) != 14]
        assert found.lengths(indices) == [len(found[i].ids_T) for i in indices]
        assert len(set(found.lengths(indices))) > 5


def test_generated_samples_have_no_length_beforehand(reasoner: Reasoner, data: Path, tmp_path: Path) -> None:
    talk, _ = indexed(data, tmp_path / "run")
    detector = reasoner.model.model.detector
    assert detector is not None
    config = TalkConfig(synthetic=0.5, json=0.5, sizes=(64,), max_length=512)
    sources = [(Synthetic(config), 0.5), (talk, 0.5)]
    mixed = Conversations(config, sources, reasoner.processor, detector.config.views, 0)
    with pytest.raises(ConfigError, match="not known before"):
        mixed.lengths([0])
    assert mixed[3].ids_T == mixed[3].ids_T
    told = {text(reasoner, talk_ids) for talk_ids in (samples(reasoner, talk)[i].ids_T for i in range(40))}
    drawn = [text(reasoner, mixed[i].ids_T) in told for i in range(12)]
    assert any(drawn)
    assert not all(drawn)


def test_grouping_saves_padding_and_keeps_the_steps_samples(reasoner: Reasoner, data: Path, tmp_path: Path) -> None:
    talk, _ = indexed(data, tmp_path / "run")
    found = samples(reasoner, talk)
    lengths = dict(zip(range(24), found.lengths(range(24)), strict=True))

    def padded(measured: Conversations | None) -> int:
        passes = [Passes(4, 24, 0, 1, measured=measured).of(0)]
        assert sorted(i for one in passes[0] for i in one) == list(range(24))
        return sum(len(one) * max(lengths[i] for i in one) for one in passes[0])

    assert padded(found) < padded(None)
    assert padded(found) - sum(lengths.values()) < 0.6 * (padded(None) - sum(lengths.values()))
    first = Passes(4, 24, 0, 1, measured=found).of(0)[0]
    assert max(lengths.values()) in [lengths[i] for i in first], "the longest first, so that memory fails at once"


def test_a_marker_inside_the_question_is_put_first_as_released(reasoner: Reasoner, tmp_path: Path) -> None:
    data = talk_data(tmp_path / "data")
    one = sample("inside", "0.png", "No.")
    one["conversations"][0]["value"] = "Look at this <image> and say: is there a defect?"
    (data / "talk.jsonl").write_text(json.dumps(one) + "\n")
    talk, _ = indexed(data, tmp_path / "run")
    assert talk.entry(0).messages[0] == ("user", "<image>\nLook at this  and say: is there a defect?")
    assert len(samples(reasoner, talk)[0].views) == 1


def test_too_long_a_picture_is_read_in_focus(reasoner: Reasoner, data: Path, tmp_path: Path) -> None:
    talk, _ = indexed(data, tmp_path / "run")
    whole = samples(reasoner, talk, epochs=1.0)
    longest = max(range(14), key=lambda i: len(whole[i].ids_T))
    short = samples(reasoner, talk, 1.0, TalkConfig(synthetic=0.0, json=1.0, max_length=len(whole[longest].ids_T) - 1))
    assert short[longest].readings == ("focus",)
    assert len(short[longest].ids_T) < len(whole[longest].ids_T)
    assert text(reasoner, short[longest].ids_T) == text(reasoner, whole[longest].ids_T)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_header_tells_the_size_that_is_read(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((20, 50, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    picture = read(tmp_path / "turned.jpg")
    assert size_wh(tmp_path / "turned.jpg") == (picture.width, picture.height)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UnreadableImage, match=r"text\.jpg"):
        size_wh(tmp_path / "text.jpg")


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    data = talk_data(tmp_path / "data")
    with pytest.raises(DataError, match="no folder of images"):
        index_conversations([data / "talk.jsonl"], data / "nowhere", tmp_path / "run", "key")
    (data / "talk.jsonl").write_text(json.dumps(sample("absent", "none.png", "No.")) + "\n")
    with pytest.raises(DataError, match=r"0 conversations in talk\.jsonl, 1 skipped"):
        indexed(data, tmp_path / "other")


def test_only_undecodable_pictures_end_the_run(reasoner: Reasoner, tmp_path: Path) -> None:
    data = talk_data(tmp_path / "data")
    (data / "talk.jsonl").write_text(json.dumps(sample("broken", "broken.png", "No.")) + "\n")
    talk, _ = indexed(data, tmp_path / "run")
    with pytest.raises(DataError, match="none of 1 samples in a row"):
        samples(reasoner, talk)[0]


@pytest.mark.parametrize(("share", "longest"), [(1.0, 8), (0.0, None)])
def test_short_conversations_have_short_answers(share: float, longest: int | None) -> None:
    source = Synthetic(TalkConfig(sizes=(64,), turns=8, short=share))
    said = []
    for seed in range(8):
        _, messages = source.draw(np.random.default_rng(seed))
        said += [text for role, text in messages if role == "assistant"]
    assert max(len(one.split()) for one in said) <= longest if longest else max(len(one.split()) for one in said) > 8


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="short"):
        TalkConfig(short=1.5)


def test_a_size_that_the_generator_cannot_draw_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="sizes must lie in"):
        TalkConfig(sizes=(32,))
