"""The sentences, counted."""

from __future__ import annotations

from anomaly_ov_lab.baselines.clip_towers import TEMPLATES, compositional, spoken, two_sentences


def test_counts_of_the_ensemble() -> None:
    prompts = compositional("bottle")
    assert len(set(TEMPLATES)) == 22
    assert len(set(prompts.normal)) == 7 * 22
    assert len(set(prompts.anomalous)) == 4 * 22
    assert not set(prompts.normal) & set(prompts.anomalous)


def test_sentences_read_as_published() -> None:
    prompts = compositional("metal_nut")
    assert "a cropped photo of the metal nut." in prompts.normal
    assert "a jpeg corrupted photo of a metal nut without defect." in prompts.normal
    assert "a photo of the large damaged metal nut." in prompts.anomalous
    assert "a photo of a metal nut with flaw for anomaly detection." in prompts.anomalous
    assert all(text.count("metal nut") == 1 and "{" not in text for text in prompts.normal + prompts.anomalous)


def test_names_become_words() -> None:
    assert spoken("metal_nut") == "metal nut"
    assert spoken(" 02-x ") == "02 x"
    assert spoken("_") == spoken("") == "object"
    assert two_sentences("{}").normal == ("a photo of a normal {}.",)
