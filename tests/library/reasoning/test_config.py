"""The configuration of the language side: adverbs, prompts, and values that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anomaly_ov.errors import ConfigError
from anomaly_ov.reasoning.config import ADVERBS, AnomalyOVConfig, prompt_ids_of, prompt_text
from golden_fixtures import fusion_meta, qwen2_tokenizer, tokenizer_json
from model_fixtures import small_reasoner

PROMPTS = {adverb: [index, 9] for index, adverb in enumerate(ADVERBS)}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_adverbs_at_the_bounds(dtype: str) -> None:
    """36 scores as the released code has them; it makes "highly" of NaN, which no score of ours is."""
    config = AnomalyOVConfig()
    for _, stored, level in fusion_meta()["levels"][f"torch.{dtype}"]:
        if stored != "nan":
            assert f"prompt:{ADVERBS[config.level(stored)]}" == level
            assert config.level(torch.tensor(stored, dtype=getattr(torch, dtype)).item()) == config.level(stored)


def test_bounds_are_configurable() -> None:
    config = AnomalyOVConfig(level_bounds=[0.1, 0.2])
    assert [config.level(score) for score in (0.05, 0.15, 0.25)] == [0, 1, 2]


def test_prompt_ids_come_from_the_tokenizer() -> None:
    golden = tokenizer_json("prompt_tokens")["prompts"]
    for adverb in ADVERBS:
        assert prompt_text(adverb) == golden[adverb]["string"]
    found = prompt_ids_of(qwen2_tokenizer())
    assert found == {adverb: golden[adverb]["ids"] for adverb in ADVERBS}
    assert [ids[1] for ids in found.values()] == [10078, 69251, 7548]
    own = small_reasoner()
    assert own.model.config.prompt_ids == prompt_ids_of(own.tokenizer) != found


def test_prompts_are_ordered_by_rising_suspicion() -> None:
    shuffled = {adverb: PROMPTS[adverb] for adverb in reversed(ADVERBS)}
    assert AnomalyOVConfig(prompt_ids=shuffled).prompts == ([0, 9], [1, 9], [2, 9])


def test_prompts_must_be_equally_long() -> None:
    class Stub:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return list(range(len(text)))

    with pytest.raises(ConfigError, match="equally many"):
        prompt_ids_of(Stub())


@pytest.mark.parametrize(
    "values",
    [
        {"reading": "sideways"},
        {"level_score": "map"},
        {"level_bounds": [0.7, 0.3]},
        {"level_bounds": [0.3]},
        {"level_bounds": [-0.1, 0.5]},
        {"crop_budget": -1},
        {"max_views": 0},
        {"focus_pool": 0},
        {"prompt_ids": {"slightly": [1], "moderately": [1]}},
        {"prompt_ids": {"slightly": [1], "moderately": [1, 2], "highly": [1]}},
        {"prompt_ids": {"slightly": [], "moderately": [], "highly": []}},
    ],
)
def test_values_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        AnomalyOVConfig(**values)


def test_prompts_that_no_tokenizer_gave() -> None:
    with pytest.raises(ConfigError, match="prompt_ids"):
        _ = AnomalyOVConfig().prompt_length


def test_fields_survive_a_round_trip(tmp_path: Any) -> None:
    values = {"prompt_ids": PROMPTS, "level_bounds": [0.2, 0.8], "level_score": "fused", "reading": "highlight"}
    values |= {"crop_budget": 3, "focus_pool": 2, "max_views": 4, "annotate": True, "detector_revision": "abc"}
    AnomalyOVConfig(**values).save_pretrained(tmp_path)
    again = AnomalyOVConfig.from_pretrained(tmp_path)
    assert {key: getattr(again, key) for key in values} == values
