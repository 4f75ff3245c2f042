"""AnomalyCLIP's changed attention, second path and learned sentences against loops and known cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anomaly_ov.errors import ConfigError
from anomaly_ov_lab.baselines.anomaly_clip import AnomalyClipJudge, learned_states, two_paths, value_attention
from anomaly_ov_lab.baselines.clip_towers import ClipTowers
from anomaly_ov_lab.baselines.learned_prompts import AnomalyClipConfig, LearnedPrompts

WORDS = 5


def embedded(towers: ClipTowers, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = towers.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    ends = (tokens == towers.text.config.eos_token_id).int().argmax(dim=1)
    return towers.text.embeddings.token_embedding(tokens), ends


def some_prompts(towers: ClipTowers, depth: int = 2) -> LearnedPrompts:
    sentences, ends = embedded(towers, ["xxxxx object.", "xxxxx damaged object."])
    generator = torch.Generator().manual_seed(1)
    sentences = sentences.clone()
    sentences[:, 1 : 1 + WORDS] = torch.randn(2, WORDS, 24, generator=generator) * 0.3
    return LearnedPrompts(sentences, ends, tuple(torch.randn(depth, 3, 24, generator=generator) * 0.3))


def test_value_attention_against_a_loop(towers: ClipTowers) -> None:
    attention = towers.vision.encoder.layers[1].self_attn
    tokens = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(2))
    values = tokens @ attention.v_proj.weight.T + attention.v_proj.bias
    expected = torch.zeros_like(tokens)
    for picture in range(2):
        for head in range(4):
            own = values[picture, :, 8 * head : 8 * head + 8]
            for to in range(6):
                weights = torch.stack([own[to] @ own[start] / 8**0.5 for start in range(6)]).softmax(dim=0)
                mixed = sum(weight * value for weight, value in zip(weights, own, strict=True))
                expected[picture, to, 8 * head : 8 * head + 8] = mixed
    expected = expected @ attention.out_proj.weight.T + attention.out_proj.bias
    torch.testing.assert_close(value_attention(attention, tokens), expected, rtol=0, atol=1e-5)


def test_the_usual_path_is_unchanged(towers: ClipTowers, pixels_b3ss: torch.Tensor) -> None:
    tokens = towers.embed(pixels_b3ss)
    class_token, _ = two_paths(towers, tokens, 2, (3,))
    torch.testing.assert_close(class_token, towers.run(tokens)[:, 0], rtol=0, atol=1e-5)


def test_the_second_path_adds_value_attention_alone(towers: ClipTowers, pixels_b3ss: torch.Tensor) -> None:
    """Of three blocks the last two are changed; the sum is written out."""
    first, second, third = towers.vision.encoder.layers
    start = towers.embed(pixels_b3ss)
    after_first = first(start, None)
    after_second = second(after_first, None)
    one = after_first + value_attention(second.self_attn, second.layer_norm1(after_first))
    two = one + value_attention(third.self_attn, third.layer_norm1(after_second))
    _, kept = two_paths(towers, start, 2, (1, 2, 3))
    for found, expected in zip(kept, (after_first, one, two), strict=True):
        torch.testing.assert_close(found, expected[:, 1:], rtol=0, atol=1e-5)


def test_unlearned_sentences_are_plain_text(towers: ClipTowers) -> None:
    """Known case: where the words are a sentence's own and nothing is replaced, the vector is CLIP's."""
    texts = ["a fine object.", "a damaged object."]
    states = learned_states(towers, LearnedPrompts(*embedded(towers, texts), deep=()))
    unit = states / states.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(unit, towers.sentences(texts), rtol=0, atol=1e-5)


def test_replaced_words_block_by_block(towers: ClipTowers) -> None:
    """Against all 77 tokens and each block by hand: words 1..3 are replaced before the second and third block."""
    prompts = some_prompts(towers)
    hidden = prompts.sentences_2LD + towers.text.embeddings.position_embedding.weight
    mask = torch.full((77, 77), float("-inf")).triu(1)[None, None]
    first, second, third = towers.text.encoder.layers
    hidden = first(hidden, mask)
    for words, layer in zip(prompts.deep, (second, third), strict=True):
        hidden = hidden.clone()
        hidden[:, 1:4] = words
        hidden = layer(hidden, mask)
    normed = towers.text.final_layer_norm(hidden)
    expected = (
        torch.stack([normed[row, end] for row, end in enumerate(prompts.ends_2)]) @ towers.text_projection.weight.T
    )
    torch.testing.assert_close(learned_states(towers, prompts), expected, rtol=0, atol=1e-4)


def test_scores_and_maps(towers: ClipTowers) -> None:
    """At 48 pixels, so 6 x 6 patches; the class token is projected without the final norm."""
    prompts, config = some_prompts(towers), AnomalyClipConfig("", image_size=48, changed=2, layers=(2, 3))
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    judged = AnomalyClipJudge(towers, prompts, config).judge(pixels, ["object"] * 2)
    states = learned_states(towers, prompts)
    states = states / states.norm(dim=-1, keepdim=True)
    class_token, kept = two_paths(towers, towers.embed(pixels), 2, (2, 3))
    joint = class_token @ towers.visual_projection.weight.T
    expected = ((joint / joint.norm(dim=-1, keepdim=True)) @ states.T / 0.07).softmax(dim=-1)[:, 1]
    torch.testing.assert_close(judged.scores_B, expected, rtol=0, atol=1e-5)
    each = [(towers.project(patches) @ states.T / 0.07).softmax(dim=-1)[..., 1] for patches in kept]
    torch.testing.assert_close(judged.maps_Bhw, ((each[0] + each[1]) / 2).reshape(2, 6, 6), rtol=0, atol=1e-5)


def test_settings_must_fit_the_tower(towers: ClipTowers) -> None:
    prompts, config = some_prompts(towers), AnomalyClipConfig("", image_size=32, changed=2)
    for wrong in (replace(config, changed=4), replace(config, layers=(1, 4))):
        with pytest.raises(ConfigError, match="do not fit a vision tower of 3 blocks"):
            AnomalyClipJudge(towers, prompts, wrong)
    for field, value in (("image_size", 8), ("changed", 0), ("temperature", 0), ("smoothing", -1), ("layers", (0,))):
        with pytest.raises(ValueError, match=field):
            replace(config, **{field: value})


def test_revision_ignores_where_the_clip_lies(towers: ClipTowers, tmp_path: Path) -> None:
    prompts, config = some_prompts(towers), AnomalyClipConfig("a", image_size=32, changed=2)
    revisions = [
        AnomalyClipJudge(towers, prompts, one).revision
        for one in (config, replace(config, clip=str(tmp_path)), replace(config, changed=3))
    ]
    assert revisions[0] == revisions[1] != revisions[2]
