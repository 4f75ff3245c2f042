"""WinCLIP against its definition written as loops."""

from __future__ import annotations

import pytest
import torch

from anomaly_ov.errors import ConfigError
from anomaly_ov_lab.baselines import winclip
from anomaly_ov_lab.baselines.clip_towers import ClipTowers, compositional
from anomaly_ov_lab.baselines.winclip import window_patches


def feature_of(towers: ClipTowers, tokens: torch.Tensor, patches: list[int]) -> torch.Tensor:
    """(E,): one window of one picture through the blocks by itself."""
    sequence = torch.stack([tokens[0], *(tokens[1 + patch] for patch in patches)])[None]
    for layer in towers.vision.encoder.layers:
        sequence = layer(sequence, None)
    joint = towers.visual_projection(towers.vision.post_layernorm(sequence[0, 0]))
    return joint / joint.norm()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_windows_one_by_one(
    towers: ClipTowers, pixels_b3ss: torch.Tensor, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winclip, "TOKENS_PER_FORWARD", 7 * (size * size + 1))  # several parts, the last not full
    tokens, windows = towers.embed(pixels_b3ss), window_patches((4, 4), size)
    found = winclip.WinClipJudge(towers).window_features(tokens, windows)
    expected = [[feature_of(towers, one, patches) for patches in windows.tolist()] for one in tokens]
    torch.testing.assert_close(found, torch.stack([torch.stack(row) for row in expected]), rtol=0, atol=1e-5)


def test_score_and_map_by_definition(towers: ClipTowers, pixels_b3ss: torch.Tensor) -> None:
    judged = winclip.WinClipJudge(towers).judge(pixels_b3ss, ["bottle"] * 3)
    states = towers.states(compositional("bottle"))

    def score(feature: torch.Tensor) -> float:
        return float((feature @ states.T / 0.07).softmax(dim=-1)[1])

    for index, tokens in enumerate(towers.embed(pixels_b3ss)):
        whole = score(feature_of(towers, tokens, list(range(16))))
        assert float(judged.scores_B[index]) == pytest.approx(whole, abs=1e-5)
        for patch in (0, 5, 15):
            inverse = 1 / whole
            for size in (2, 3):
                over = [one for one in window_patches((4, 4), size).tolist() if patch in one]
                inverse += sum(1 / score(feature_of(towers, tokens, one)) for one in over) / len(over)
            assert float(judged.maps_Bhw[index, patch // 4, patch % 4]) == pytest.approx(3 / inverse, abs=1e-5)


def test_objects_have_sentences_of_their_own(towers: ClipTowers, pixels_b3ss: torch.Tensor) -> None:
    judge = winclip.WinClipJudge(towers)
    mixed = judge.judge(pixels_b3ss, ["bottle", "cable", "bottle"])
    for index, name in enumerate(["bottle", "cable", "bottle"]):
        alone = judge.judge(pixels_b3ss[index : index + 1], [name])
        torch.testing.assert_close(mixed.scores_B[index], alone.scores_B[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(mixed.maps_Bhw[index], alone.maps_Bhw[0], rtol=0, atol=1e-6)
    other = judge.judge(pixels_b3ss, ["cable"] * 3)
    assert not torch.allclose(mixed.scores_B[0], other.scores_B[0], atol=1e-6)


def test_settings(towers: ClipTowers) -> None:
    with pytest.raises(ConfigError, match="5 x 5 patches does not fit into 4 x 4"):
        winclip.WinClipJudge(towers, winclip.WinClipConfig(windows=(2, 5)))
    with pytest.raises(ValueError, match="temperature"):
        winclip.WinClipConfig(temperature=0)
    with pytest.raises(ValueError, match="windows"):
        winclip.WinClipConfig(windows=(0,))
    revisions = {winclip.WinClipJudge(towers, winclip.WinClipConfig(temperature=t)).revision for t in (0.07, 0.01)}
    assert len(revisions) == 2
