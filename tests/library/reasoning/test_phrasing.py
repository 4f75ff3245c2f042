"""Other words for plain answers, used only where they add nothing. A small random Llama stands for the real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anomaly_ov.cli.main import run
from anomaly_ov.reasoning.phrasing import MAX_TOKENS, MOST_READ, Phraser, _opening
from anomaly_ov.records import Answer
from anomaly_ov.words.from_record import answer
from model_fixtures import save_small_model, small_decoder
from words_fixtures import ONE

ASK = "Is there a defect?"


@pytest.fixture
def phraser(tmp_path: Path) -> Phraser:
    return Phraser(small_decoder(tmp_path / "talk"), torch.float32)


def says(phraser: Phraser, monkeypatch: pytest.MonkeyPatch, text: str) -> Answer:
    monkeypatch.setattr(phraser, "_written", lambda question, plain: (text, 9))
    return phraser.phrase(ASK, answer(ONE, ASK))


def test_words_that_add_nothing_are_used(phraser: Phraser, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, said = answer(ONE, ASK), says(phraser, monkeypatch, "Yes: the image is anomalous, with a score of 0.812.")
    assert said.text == "Yes: the image is anomalous, with a score of 0.812."
    assert (said.p_yes, said.tokens_out) == (plain.p_yes, 9)
    assert said.timing_ms["phrase"] >= 0


@pytest.mark.parametrize("text", ["No, it is fine.", "Yes, a scratch.", "Yes, score 0.9.", ""])
def test_words_that_add_something_are_not(phraser: Phraser, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    said = says(phraser, monkeypatch, text)
    assert replace(said, timing_ms={}) == answer(ONE, ASK)


def test_a_long_answer_stands(phraser: Phraser) -> None:
    long = Answer("x" * MOST_READ, None, "stop")
    assert phraser.phrase(ASK, long) is long


def test_what_is_read_once_changes_no_word(phraser: Phraser) -> None:
    messages = [*_opening(), {"role": "user", "content": f"Question: {ASK}\nAnswer: {answer(ONE, ASK).text}"}]
    ids = phraser._ids(messages, open_answer=True)
    assert 0 < phraser._opened.get_seq_length() < len(ids)
    anew = phraser._model.generate(torch.tensor([ids]), max_new_tokens=MAX_TOKENS, do_sample=False)[0, len(ids) :]
    for _ in range(2):
        assert phraser._made(ids) == anew.tolist()


def test_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pictures: Path
) -> None:
    monkeypatch.setenv("ANOMALY_OV_CACHE", str(tmp_path))
    model = save_small_model(tmp_path / "small")
    asked = ["ask", "--model", str(model), "--device", "cpu", "--context", "none", str(pictures / "p1.png"), "Where?"]
    assert run([*asked, "--phrase"]) == 4
    assert "hint: run 'anomaly-ov models pull talk'" in capsys.readouterr().err
    small_decoder(tmp_path / "talk")
    assert run(asked) == 0
    plain = capsys.readouterr().out
    assert run([*asked, "--phrase"]) == 0
    assert capsys.readouterr().out == plain  # random words are never used
