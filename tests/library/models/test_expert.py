"""The expert against the released code's outputs, against the plain formulas, and at its edges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import expert_oracle
import golden_fixtures as golden
from anomaly_ov.errors import UsageError
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.expert import Expert, ExpertOutput
from anomaly_ov.models.features import Features

TYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}
GOLDEN_NAMES = {
    "local_NQD": "major_attention_output",
    "global_BD": "final_attention_output",
    "score_B": "final_prediction",
    "map_Nhw": "anomaly_map",
}
TOLERANCES = {
    "f32": {"local_NQD": 1e-5, "global_BD": 2e-6, "score_B": 1e-6, "map_Nhw": 2e-6},
    "bf16": {"local_NQD": 5e-2, "global_BD": 2.5e-2, "score_B": 5e-3, "map_Nhw": 1.2e-2},
}
SMALL = ExpertConfig(width=12, hidden=8, grid_hw=(5, 4), levels=2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@cache
def inputs(case: str) -> tuple[Features, tuple[int, ...]]:
    facts = golden.read_json("meta.json")["cases"][case]
    views = tuple(facts["split_sizes"])
    return golden.expert_inputs(facts["input_seed"], views), views


@pytest.fixture(scope="module", autouse=True)
def _forget_inputs() -> Iterator[None]:
    """The inputs take 0.4 GB; they are kept for this file only."""
    yield
    inputs.cache_clear()


def cast(features: Features, dtype: torch.dtype) -> Features:
    levels = tuple(level.to(dtype) for level in features.levels_NPD)
    return Features(features.final_NPD.to(dtype), levels, features.grid_hw)


def released(dtype: torch.dtype = torch.float32) -> Expert:
    expert = Expert().to(dtype)
    expert.load_state_dict(golden.expert_state(dtype))
    return expert


def error(output: ExpertOutput, name: str, stored: dict[str, np.ndarray]) -> np.ndarray:
    expected = stored[GOLDEN_NAMES[name]]
    return np.abs(getattr(output, name).detach().double().numpy().reshape(expected.shape) - expected)


def random_case(config: ExpertConfig, views: tuple[int, ...], seed: int = 0) -> tuple[Expert, Features]:
    """A float64 expert with lively parameters and matching features."""
    stream = torch.Generator().manual_seed(seed)
    expert = Expert(config).double()
    for parameter in expert.parameters():
        scale = parameter.shape[1] ** -0.5 if parameter.ndim == 2 and len(parameter) > 1 else 1.0
        parameter.data = torch.randn(parameter.shape, generator=stream, dtype=torch.float64) * scale
    patches, n = config.grid_hw[0] * config.grid_hw[1], sum(views)
    widths = (config.width, *(config.level_widths or (config.width,) * config.levels))
    final, *levels = (torch.randn(n, patches, w, generator=stream, dtype=torch.float64) for w in widths)
    return expert, Features(final, tuple(levels), config.grid_hw)


def against_oracle(config: ExpertConfig, views: tuple[int, ...]) -> None:
    expert, features = random_case(config, views)
    with torch.inference_mode():
        output = expert(features, views)
    expected = expert_oracle.run(
        {name: value.numpy() for name, value in expert.state_dict().items()},
        config,
        features.final_NPD.numpy(),
        [level.numpy() for level in features.levels_NPD],
        views,
    )
    np.testing.assert_allclose(output.map_Nhw.flatten(1), expected["map"], rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(output.local_NQD, expected["local"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(output.global_BD, expected["global"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(output.score_B, expected["score"], rtol=1e-9)


# The released code's outputs


def checksum(value: np.ndarray) -> str:
    return hashlib.sha256(str(value.dtype).encode() + str(value.shape).encode() + value.tobytes()).hexdigest()


def test_the_seeded_parameters_and_inputs_are_those_of_the_golden_run() -> None:
    drawn = golden.expert_parameters(golden.released_shapes())
    facts = golden.read_json("params_check.json")["params"]
    assert {name: checksum(value) for name, value in drawn.items()} == {k: v["sha256"] for k, v in facts.items()}
    features, _ = inputs("s1")
    stored = golden.read_json("meta.json")["cases"]["s1"]["inputs"]
    names = ["ov", "level0", "level1", "level2", "level3"]
    tensors = (features.final_NPD, *features.levels_NPD)
    assert [checksum(tensor.numpy()) for tensor in tensors] == [stored[name]["sha256"] for name in names]


def test_names_shapes_and_order_are_those_of_a_released_checkpoint() -> None:
    expert = Expert()
    assert {name: tuple(value.shape) for name, value in expert.state_dict().items()} == golden.released_shapes()
    assert sum(parameter.numel() for parameter in expert.parameters()) == 7_086_811


@pytest.mark.slow
@pytest.mark.parametrize("case", ["s1", "s5", "s5_3_10"])
def test_float32_is_within_the_stated_tolerances(case: str) -> None:
    features, views = inputs(case)
    with torch.inference_mode():
        output = released()(features, views)
    stored = golden.outputs(f"{case}_f32")
    assert {name: error(output, name, stored).max() < limit for name, limit in TOLERANCES["f32"].items()} == (
        dict.fromkeys(GOLDEN_NAMES, True)
    )
    np.testing.assert_allclose(output.significance_N, stored["patch_significance"], rtol=1e-6)
    np.testing.assert_allclose(output.logit_B, stored["final_logit"][:, 0], rtol=2e-6, atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["s1", "s5", "s5_3_10"])
def test_float64_agrees_to_seven_digits(case: str) -> None:
    """Relative to each output's largest value: the released code divides by a float32 square root of 512."""
    features, views = inputs(case)
    with torch.inference_mode():
        output = released(torch.float64)(cast(features, torch.float64), views)
    stored = golden.outputs(f"{case}_f64")
    for name, key in GOLDEN_NAMES.items():
        assert error(output, name, stored).max() < 1e-7 * np.abs(stored[key]).max(), name


@pytest.mark.parametrize("case", ["s1", "s5", "s5_3_10"])
def test_bfloat16_is_within_the_stated_tolerances(case: str) -> None:
    """Of the float64 run, and of the bfloat16 run, whose stored values stand for an interval half a unit wide."""
    features, views = inputs(case)
    with torch.inference_mode():
        output = released(torch.bfloat16)(cast(features, torch.bfloat16), views)
    exact, rounded = golden.outputs(f"{case}_f64"), golden.outputs(f"{case}_bf16")
    for name, limit in TOLERANCES["bf16"].items():
        assert error(output, name, exact).max() < limit, name
        half_unit = np.abs(rounded[GOLDEN_NAMES[name]]) * 2**-8
        assert (error(output, name, rounded) < limit + half_unit).all(), name


def test_autocast_agrees_with_a_half_type_expert() -> None:
    features, views = inputs("s1")
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = released()(features, views)
    exact = golden.outputs("s1_f64")
    assert output.local_NQD.dtype == output.score_B.dtype == torch.float32
    for name, limit in TOLERANCES["bf16"].items():
        assert error(output, name, exact).max() < limit, name
    assert error(output, "map_Nhw", exact).max() > 10 * TOLERANCES["f32"]["map_Nhw"]  # the products did run in half


def swap_embeddings(expert: Expert, features: Features) -> Features:
    state = expert.state_dict()
    names = ("positive_embedding", "negative_embedding")
    expert.load_state_dict({**state, names[0]: state[names[1]].clone(), names[1]: state[names[0]].clone()})
    return features


def reverse_levels(expert: Expert, features: Features) -> Features:
    return replace(features, levels_NPD=features.levels_NPD[::-1])


def transpose_grid(expert: Expert, features: Features) -> Features:
    tensors = (features.final_NPD, *features.levels_NPD)
    final, *levels = (x.unflatten(1, (27, 27)).transpose(1, 2).flatten(1, 2) for x in tensors)
    return Features(final, tuple(levels), (27, 27))


@pytest.mark.parametrize("mistake", [swap_embeddings, reverse_levels, transpose_grid])
def test_the_tolerances_would_catch_a_mistake(mistake: Any) -> None:
    features, views = inputs("s1")
    expert = released()
    with torch.inference_mode():
        output = expert(mistake(expert, features), views)
    stored = golden.outputs("s1_f32")
    assert any(error(output, name, stored).max() > 100 * limit for name, limit in TOLERANCES["f32"].items())


def test_every_recorded_mistake_lies_outside_the_tolerances() -> None:
    limits = {GOLDEN_NAMES[name]: limit for name, limit in TOLERANCES["f32"].items()}
    distances = golden.read_json("power_check.json")
    right = {"official float32 vs float64", "lean (right)"}
    for mistake in distances.keys() - right - {"official bfloat16 vs float64"}:
        assert any(distance > 10 * limits[key] for key, distance in distances[mistake].items()), mistake
    for run in right:
        assert all(distance < limits[key] for key, distance in distances[run].items())


@pytest.mark.slow
def test_gradients_agree_with_the_released_code() -> None:
    facts = golden.read_json("meta.json")["gradients"]
    stored = golden.outputs("grads_s5_3_f64")
    views = facts["split_sizes"]
    expert = released(torch.float64)
    output = expert(golden.expert_inputs(facts["input_seed"], views, torch.float64), views)
    loss = F.binary_cross_entropy(output.score_B, torch.tensor([1.0, 0.0], dtype=torch.float64))
    (loss + output.local_NQD.square().mean()).backward()
    assert loss.item() == pytest.approx(float(stored["bce"]), rel=1e-7)
    for name, parameter in expert.named_parameters():
        assert parameter.grad is not None
        gradient = parameter.grad.flatten().numpy()
        if name == "q_former.key_proj.bias":  # a constant over patches cancels in the softmax: rounding noise only
            assert np.abs(gradient).max() < 1e-15
            continue
        limit = 1e-7 * facts["per_param"][name]["abs_max"]
        np.testing.assert_allclose(gradient[:32], stored[f"grad_head/{name}"], rtol=0, atol=limit)
        strided = gradient[:: max(1, len(gradient) // 64)][:64]
        np.testing.assert_allclose(strided, stored[f"grad_stride/{name}"], rtol=0, atol=limit)
        assert np.linalg.norm(gradient) == pytest.approx(facts["per_param"][name]["l2"], rel=1e-7)


# Underflow


def vanishing_map(dtype: torch.dtype, sign: float = 1.0) -> Expert:
    """All patches equal to the positive prompt and opposite to the negative one (``sign`` -1: the reverse)."""
    expert = released(dtype)
    first = torch.zeros(1, 512, dtype=dtype)
    first[0, 0] = 1.0
    with torch.no_grad():
        expert.positive_embedding.copy_(sign * first)
        expert.negative_embedding.copy_(-sign * first)
        for prompt, token in zip(expert.prompt_adaptors, expert.siglip_adaptors, strict=True):
            prompt.weight.copy_(torch.eye(512, 1024))
            prompt.bias.zero_()
            token.weight.zero_()
            token.bias.copy_(first[0])
    return expert


@pytest.mark.parametrize(("kind", "tolerance"), [("f64", 1e-8), ("f32", 2e-6), ("bf16", 5e-4)])
def test_a_map_that_underflows_gives_the_score_of_its_true_values(kind: str, tolerance: float) -> None:
    features, views = inputs("s1")
    output = vanishing_map(TYPES[kind])(cast(features, TYPES[kind]), views)
    true_score = golden.read_json("meta.json")["edge_underflow"]["f64"]["final_prediction"][0]
    assert output.map_Nhw.max().item() < 1e-80
    assert output.score_B.item() == pytest.approx(true_score, abs=tolerance)
    assert output.map_logits_Nhw.flatten().tolist() == pytest.approx([-200.0] * 729)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_training_through_an_underflowing_map_stays_finite(sign: float) -> None:
    features, views = inputs("s1")
    expert = vanishing_map(torch.float32, sign)
    output = expert(features, views)
    (output.logit_B.sum() + output.map_logits_Nhw.mean() + output.significance_N.sum()).backward()
    for name, parameter in expert.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name


def test_zero_features_give_finite_outputs() -> None:
    expert = Expert(SMALL)
    with torch.no_grad():
        for adaptor in expert.siglip_adaptors:
            adaptor.bias.zero_()
    zeros = torch.zeros(2, 20, 12)
    output = expert(Features(zeros, (zeros, zeros), (5, 4)), [2])
    assert output.map_Nhw.tolist() == torch.full((2, 5, 4), 0.5).tolist()
    assert output.score_B.isfinite().all()


# Other shapes, ablations, options


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, grid_hw=(1, 1), levels=1),
        replace(SMALL, grid_hw=(7, 3), levels=5, width=6, hidden=10),
        replace(SMALL, grid_hw=(2, 6), levels=3, level_widths=(4, 9, 16)),
        replace(SMALL, look_back=False),
        replace(SMALL, embeddings=False),
        replace(SMALL, q_former=False),
        replace(SMALL, look_back=False, q_former=False, passes=2),
        replace(SMALL, match="covariance"),
        replace(SMALL, passes=2),
        replace(SMALL, passes=2, match="covariance", level_widths=(5, 12)),
    ],
    ids=str,
)
def test_every_shape_and_switch_agrees_with_the_plain_formulas(config: ExpertConfig) -> None:
    against_oracle(config, (2, 1, 3))


def test_an_ablation_has_no_unused_parameters() -> None:
    full = set(Expert(SMALL).state_dict())

    def dropped(**switch: Any) -> set[str]:
        return {name.split(".")[0] for name in full - set(Expert(replace(SMALL, **switch)).state_dict())}

    assert dropped(look_back=False) == {"pooling_layer", "class_predictor"}
    assert dropped(embeddings=False) == {"positive_embedding", "negative_embedding"}
    assert dropped(q_former=False) == {"q_former"}
    for switch in ("look_back", "embeddings", "q_former"):
        expert, features = random_case(replace(SMALL, **{switch: False}), (2, 1))
        expert(features, (2, 1)).logit_B.sum().backward()
        assert all(parameter.grad is not None for parameter in expert.parameters()), switch


def test_images_do_not_see_each_other_and_every_view_counts() -> None:
    expert, features = random_case(SMALL, (3, 1, 2))
    together = expert(features, (3, 1, 2))
    for image, views in enumerate((slice(0, 3), slice(3, 4), slice(4, 6))):
        levels = tuple(level[views] for level in features.levels_NPD)
        alone = expert(Features(features.final_NPD[views], levels, (5, 4)), (views.stop - views.start,))
        torch.testing.assert_close(alone.score_B[0], together.score_B[image], rtol=1e-12, atol=0)
        torch.testing.assert_close(alone.map_Nhw, together.map_Nhw[views], rtol=1e-12, atol=0)
    other_split = expert(features, (2, 2, 2))
    assert not torch.allclose(other_split.map_Nhw[2], together.map_Nhw[2])  # now read with its own base view


def test_the_three_forms_of_the_map_agree() -> None:
    expert, features = random_case(SMALL, (2,))
    output = expert(features, (2,))
    torch.testing.assert_close(output.map_logits_Nhw.sigmoid(), output.map_Nhw)
    torch.testing.assert_close(output.map_Nhw.mean((1, 2)), output.significance_N)
    torch.testing.assert_close(output.logit_B.sigmoid(), output.score_B)
    assert output.map_Nhw.shape == (2, 5, 4)
    assert output.views_per_image == (2,)


def test_half_type_features_are_read_by_a_float32_expert() -> None:
    expert, features = random_case(SMALL, (2,))
    half = cast(features, torch.float16)
    output = expert.float()(half, (2,))
    torch.testing.assert_close(output.score_B, expert(cast(half, torch.float32), (2,)).score_B)


def test_gradients_reach_the_features_for_a_trained_encoder() -> None:
    expert, features = random_case(SMALL, (2, 1))
    tensors = (features.final_NPD, *features.levels_NPD)
    for tensor in tensors:
        tensor.requires_grad_()

    def loss(*given: torch.Tensor) -> torch.Tensor:
        output = expert(Features(given[0], given[1:], (5, 4)), (2, 1))
        return output.logit_B.sum() + output.map_logits_Nhw.square().mean()

    assert torch.autograd.gradcheck(loss, tensors, fast_mode=True)


# Bad input


@pytest.mark.parametrize("views", [(), (2, 0), (1,), (2, 1), (-1, 3)])
def test_views_that_do_not_add_up_are_refused(views: tuple[int, ...]) -> None:
    expert, features = random_case(SMALL, (2,))
    with pytest.raises(UsageError, match="does not describe 2 views"):
        expert(features, views)


def test_features_of_another_encoder_are_refused_with_both_shapes() -> None:
    expert, features = random_case(SMALL, (2,))
    level = features.levels_NPD[0]
    for wrong in (
        replace(features, grid_hw=(4, 5)),
        replace(features, levels_NPD=features.levels_NPD[:1]),
        replace(features, levels_NPD=(level, level[..., :5])),
        replace(features, final_NPD=features.final_NPD[:, :6]),
    ):
        with pytest.raises(UsageError, match=r"expected grid \(5, 4\) with \[\(2, 20, 12\)"):
            expert(wrong, (2,))
