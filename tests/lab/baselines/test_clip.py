"""Plain CLIP against transformers' own zero-shot answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anomaly_ov_lab.baselines.clip import ClipConfig, ClipJudge
from anomaly_ov_lab.baselines.clip_towers import ClipTowers


def test_score_is_clips_own_answer(towers: ClipTowers, clip_folder: Path, pixels_b3ss: torch.Tensor) -> None:
    from transformers import CLIPModel

    texts = ["a photo of a normal zipper.", "a photo of an anomalous zipper."]
    tokens = towers.tokenizer(texts, padding=True, return_tensors="pt")
    outputs = CLIPModel.from_pretrained(clip_folder)(**tokens, pixel_values=pixels_b3ss)
    judged = ClipJudge(towers).judge(pixels_b3ss, ["zipper"] * 3)
    expected = outputs.logits_per_image.softmax(dim=1)[:, 1]
    torch.testing.assert_close(judged.scores_B, expected, rtol=0, atol=1e-5)
    patch = towers.project(outputs.vision_model_output.last_hidden_state[2, 1 + 6])
    likely = (patch @ towers.sentences(texts).T / towers.temperature).softmax(dim=-1)[1]
    assert judged.maps_Bhw.shape == (3, 4, 4)
    assert float(judged.maps_Bhw[2, 1, 2]) == pytest.approx(float(likely), abs=1e-4)


def test_ensemble_differs(towers: ClipTowers, pixels_b3ss: torch.Tensor) -> None:
    two, many = ClipJudge(towers), ClipJudge(towers, ClipConfig(sentences="ensemble"))
    assert (two.name, many.name) == ("clip", "clip-ensemble")
    assert two.revision != many.revision
    scores = [one.judge(pixels_b3ss, ["object"] * 3).scores_B for one in (two, many)]
    assert not torch.allclose(*scores, atol=1e-4)
