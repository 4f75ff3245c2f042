"""The plain arrangement is a fair rival only if it passes the goldens that ours passes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import golden_fixtures as golden

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from plain_expert import PlainExpert

LIMITS = {
    "local_NQD": ("major_attention_output", 1e-5),
    "global_BD": ("final_attention_output", 2e-6),
    "score_B": ("final_prediction", 1e-6),
    "map_Nhw": ("anomaly_map", 2e-6),
}


@pytest.mark.parametrize("case", ["s1", "s5_3_10"])
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
