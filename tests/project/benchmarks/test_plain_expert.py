"""The plain arrangement is a fair rival only if it passes the goldens that ours passes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import expert_oracle
import golden_fixtures as golden
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.features import Features

SMALL = ExpertConfig(width=12, hidden=8, grid_hw=(5, 4), levels=2)
LIMITS = {
    "local_NQD": ("major_attention_output", 1e-5),
    "global_BD": ("final_attention_output", 2e-6),
    "score_B": ("final_prediction", 1e-6),
    "map_Nhw": ("anomaly_map", 2e-6),
}


def plain_expert() -> ModuleType:
    """By its path: the benchmarks are scripts, not a package."""
    path = Path(__file__).parents[3] / "benchmarks" / "plain_expert.py"
    spec = importlib.util.spec_from_file_location("plain_expert", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", ["s1", "s5"])
def test_the_plain_arrangement_passes_the_same_goldens(case: str) -> None:
    torch.set_num_threads(1)
    facts = golden.read_json("meta.json")["cases"][case]
    expert = plain_expert().PlainExpert()
    expert.load_state_dict(golden.expert_state())
    with torch.inference_mode():
        output = expert(golden.expert_inputs(facts["input_seed"], facts["split_sizes"]), facts["split_sizes"])
    stored = golden.outputs(f"{case}_f32")
    for name, (key, limit) in LIMITS.items():
        assert np.abs(getattr(output, name).numpy().reshape(stored[key].shape) - stored[key]).max() < limit, name
    np.testing.assert_allclose(output.significance_N, stored["patch_significance"], rtol=1e-6)


def test_the_plain_arrangement_keeps_images_apart() -> None:
    torch.manual_seed(0)
    state = Expert(SMALL).double().state_dict()
    expert = plain_expert().PlainExpert(SMALL.width, SMALL.hidden, SMALL.grid_hw, SMALL.levels).double()
    expert.load_state_dict(state)
    final, *levels = torch.randn(3, 6, 20, 12, dtype=torch.float64)
    with torch.inference_mode():
        output = expert(Features(final, tuple(levels), SMALL.grid_hw), (2, 1, 3))
    parameters = {name: value.numpy() for name, value in state.items()}
    arrays = [level.numpy() for level in levels]
    expected = expert_oracle.run(parameters, SMALL, final.numpy(), arrays, (2, 1, 3))
    np.testing.assert_allclose(output.map_Nhw.flatten(1), expected["map"], rtol=1e-9)
    np.testing.assert_allclose(output.global_BD, expected["global"], rtol=1e-9)
    np.testing.assert_allclose(output.score_B, expected["score"], rtol=1e-9)
