"""Look-back, prompts and matching, part by part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import golden_fixtures as golden
from anomaly_ov.errors import ConfigError
from anomaly_ov.models import look_twice
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.features import Features
from anomaly_ov.models.look_twice import LookTwice

SMALL = ExpertConfig(width=6, hidden=8, grid_hw=(3, 3), levels=2)


def small_features(views: int, config: ExpertConfig = SMALL) -> Features:
    patches = config.grid_hw[0] * config.grid_hw[1]
    final, *levels = torch.randn(1 + config.levels, views, patches, config.width).unbind(0)
    return Features(final, tuple(levels), config.grid_hw)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def look(module: LookTwice, features: Features) -> look_twice.Look:
    views = len(features.final_NPD)
    return module.look(features, torch.zeros(views, dtype=torch.long), torch.tensor([0]), torch.float32)


def test_look_back_and_prompts_are_those_of_the_released_code() -> None:
    module = LookTwice(ExpertConfig()).double()
    module.load_state_dict(golden.expert_state(torch.float64), strict=False)
    stored = golden.outputs("s1_f64")
    final = torch.from_numpy(golden.expert_tokens(101, [1])).double()
    class_BE = module.class_vectors(final)
    np.testing.assert_allclose(class_BE.detach(), stored["class_prediction"], rtol=0, atol=1e-12)
    prompts = torch.stack([torch.stack(pair) for pair in module.prompts(class_BE, 1)])
    np.testing.assert_allclose(prompts.detach(), stored["prompts_unnormalised"], rtol=0, atol=1e-12)


def test_the_second_prompt_is_the_anomalous_one() -> None:
    module = LookTwice(replace(SMALL, levels=1))
    tokens = torch.randn(1, 9, 6)
    ((positive, negative),) = module.prompts(module.class_vectors(tokens), 1)
    adaptor = module.siglip_adaptors[0]
    with torch.no_grad():
        adaptor.weight.zero_()
        adaptor.bias.copy_(negative[0])
    assert look(module, Features(tokens, (tokens,), (3, 3))).map_NP.min() > 0.5
    with torch.no_grad():
        adaptor.bias.copy_(positive[0])
    assert look(module, Features(tokens, (tokens,), (3, 3))).map_NP.max() < 0.5


@pytest.mark.parametrize("match", ["cosine", "covariance"])
def test_matching_ignores_the_length_of_the_adapted_tokens(match: str) -> None:
    module = LookTwice(replace(SMALL, match=match))
    features = small_features(2)
    before = look(module, features).logits_NP
    with torch.no_grad():
        for adaptor in module.siglip_adaptors:
            adaptor.weight.mul_(7)
            adaptor.bias.mul_(7)
    torch.testing.assert_close(look(module, features).logits_NP, before, rtol=1e-4, atol=1e-4)


def test_covariance_ignores_what_all_patches_of_a_view_share() -> None:
    module = LookTwice(replace(SMALL, match="covariance"))
    row = torch.randn(1, 1, 6).expand(1, 9, 6)
    assert look(module, Features(row, (row, row), (3, 3))).logits_NP.abs().max() < 0.1
    varied = small_features(1)
    assert look(module, varied).logits_NP.abs().max() > 1


def test_a_second_pass_changes_the_map_by_what_the_first_one_saw() -> None:
    once, twice = LookTwice(SMALL), LookTwice(replace(SMALL, passes=2))
    twice.load_state_dict(once.state_dict())
    features = small_features(2)
    first = look(once, features)
    modulated = tuple(level * (1 + first.map_NP.unsqueeze(-1)) for level in features.levels_NPD)
    second = look(once, replace(features, levels_NPD=modulated))
    both = look(twice, features)
    torch.testing.assert_close(both.map_NP, (first.map_NP + second.map_NP) / 2)
    assert not torch.allclose(both.map_NP, first.map_NP, atol=1e-4)


def test_logarithms_stay_finite_where_the_map_is_0_or_1() -> None:
    seen = look_twice._combine(torch.tensor([[[-200.0, 200.0, 0.0]], [[-200.0, 200.0, 150.0]]]))
    assert seen.map_NP.tolist() == [[0.0, 1.0, 0.75]]
    assert seen.log_map_NP.tolist()[0] == pytest.approx([-200.0, 0.0, np.log(0.75)])
    assert seen.logits_NP.tolist()[0] == pytest.approx([-200.0, 200.0, np.log(3)])


def test_a_fresh_expert_is_seeded_and_its_map_is_not_saturated() -> None:
    """The documented start: logits of spread about 1, where the sigmoid passes gradient."""
    config = ExpertConfig(width=96, hidden=64, grid_hw=(8, 8))
    spreads = []
    for seed in range(10):
        torch.manual_seed(seed)
        module = LookTwice(config)
        spreads.append(look(module, small_features(4, config)).logits_NP.std().item())
    assert 0.3 < np.mean(spreads) < 3
    torch.manual_seed(3)
    first = LookTwice(config).state_dict()
    torch.manual_seed(3)
    assert all(torch.equal(value, first[name]) for name, value in LookTwice(config).state_dict().items())
    assert not torch.equal(LookTwice(config).positive_embedding, first["positive_embedding"])


def test_prompts_without_embeddings_differ_from_each_other() -> None:
    module = LookTwice(replace(SMALL, embeddings=False))
    (positive, negative), _ = module.prompts(module.class_vectors(torch.randn(3, 9, 6)), 3)
    assert positive.shape == negative.shape == (3, 8)
    assert not torch.allclose(positive, negative)


def test_an_expert_with_neither_source_of_prompts_is_refused() -> None:
    with pytest.raises(ConfigError, match="both off"):
        LookTwice(replace(SMALL, look_back=False, embeddings=False))
