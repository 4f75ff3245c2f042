"""The released layout of learned prompts: converted whole, or refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from anomaly_ov.errors import CheckpointMismatch, ConfigError, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov_lab.baselines.clip_towers import ClipTowers
from anomaly_ov_lab.baselines.learned_prompts import convert_prompts, expected_shapes, read_config, read_prompts

WORDS, DEEP_WORDS, DEPTH = 6, 2, 2


def released(towers: ClipTowers) -> dict[str, torch.Tensor]:
    """A state dict as the released code saves it, for the small CLIP."""
    generator = torch.Generator().manual_seed(4)
    table = towers.text.embeddings.token_embedding.weight.detach()
    tensors: dict[str, torch.Tensor] = {}
    for state, text in (("pos", "object."), ("neg", "damaged object.")):
        tokens = torch.zeros(77, dtype=torch.int32)  # that code pads with 0
        own = towers.tokenizer(text)["input_ids"]
        x = [towers.tokenizer("x")["input_ids"][1]] * WORDS
        ids = [own[0], *x, *own[1:]]
        tokens[: len(ids)] = torch.tensor(ids)
        embedded = table[tokens.long()]
        tensors[f"tokenized_prompts_{state}"] = tokens[None, None]
        tensors[f"token_prefix_{state}"] = embedded[None, None, :1].clone()
        tensors[f"token_suffix_{state}"] = embedded[None, None, 1 + WORDS :].clone()
        tensors[f"ctx_{state}"] = torch.randn(1, 1, WORDS, 24, generator=generator)
    for index in range(DEPTH):
        tensors[f"compound_prompts_text.{index}"] = torch.randn(DEEP_WORDS, 24, generator=generator)
        tensors[f"compound_prompt_projections.{index}.weight"] = torch.randn(896, 24, generator=generator)
        tensors[f"compound_prompt_projections.{index}.bias"] = torch.randn(896, generator=generator)
    return tensors


@pytest.fixture
def tensors(towers: ClipTowers) -> dict[str, torch.Tensor]:
    return released(towers)


def save(tensors: Any, folder: Path) -> Path:
    torch.save({"prompt_learner": tensors}, folder / "epoch_15.pth")
    return folder / "epoch_15.pth"


def test_the_released_shapes() -> None:
    """As in the released code for ViT-L/14 at 336: width 768, 77 tokens, 12 words, 8 times 4 deeper ones."""
    found = {f"compound_prompts_text.{index}": torch.empty(4, 768) for index in range(8)}
    shapes = expected_shapes(found, 768, 77)
    assert shapes["ctx_pos"] == shapes["ctx_neg"] == (1, 1, 12, 768)
    assert shapes["token_suffix_neg"] == (1, 1, 64, 768)
    assert shapes["tokenized_prompts_pos"] == (1, 1, 77)
    assert shapes["compound_prompt_projections.7.weight"] == (896, 768)
    assert len(shapes) == 8 + 3 * 8


def test_converted_whole(
    tensors: dict[str, torch.Tensor], towers: ClipTowers, clip_folder: Path, tmp_path: Path
) -> None:
    out = convert_prompts(
        save(tensors, tmp_path), clip_folder, tmp_path / "out", image_size=64, changed=2, layers=[2, 3]
    )
    config, prompts = read_config(out), read_prompts(out, towers)
    assert (config.changed, config.layers, config.image_size, config.source) == (2, (2, 3), 64, "epoch_15.pth")
    assert Path(config.clip) == clip_folder
    assert len(config.source_sha256) == 64
    torch.testing.assert_close(prompts.sentences_2LD[1, 1 : 1 + WORDS], tensors["ctx_neg"][0, 0])
    torch.testing.assert_close(prompts.deep[1], tensors["compound_prompts_text.1"])
    eot = towers.text.config.eos_token_id
    ends = [int((tensors[f"tokenized_prompts_{s}"][0, 0] == eot).nonzero()) for s in ("pos", "neg")]
    assert prompts.ends_2.tolist() == ends
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    again = convert_prompts(save(half, tmp_path), clip_folder, tmp_path / "half", image_size=64, changed=2)
    torch.testing.assert_close(read_prompts(again, towers).deep[0], prompts.deep[0], rtol=0, atol=2e-3)


def test_misfits_are_named(tensors: dict[str, torch.Tensor], clip_folder: Path, tmp_path: Path) -> None:
    def refused(changed: dict[str, torch.Tensor], message: str) -> None:
        with pytest.raises(CheckpointMismatch, match=message):
            convert_prompts(save(changed, tmp_path), clip_folder, tmp_path / "out", changed=2)
        assert not (tmp_path / "out").exists()

    lacking = {name: tensor for name, tensor in tensors.items() if name != "ctx_neg"}
    refused(lacking, "1 missing: ctx_neg")
    refused(tensors | {"bias": torch.zeros(1)}, "1 unexpected: bias")
    refused(tensors | {"ctx_neg": torch.zeros(1, 1, 7, 24)}, r"ctx_neg is \[1, 1, 7, 24\], must be \[1, 1, 6, 24\]")
    refused(tensors | {"compound_prompts_text.1": torch.zeros(2, 32)}, r"compound_prompts_text\.1 is \[2, 32\]")
    gap = {name.replace("text.1", "text.5"): tensor for name, tensor in tensors.items()}
    refused(gap, r"1 missing: compound_prompts_text\.1; 1 unexpected: compound_prompts_text\.5")
    refused(tensors | {"ctx_pos": tensors["ctx_pos"] * float("nan")}, "1 tensors are not finite, such as ctx_pos")
    refused(tensors | {"tokenized_prompts_pos": tensors["tokenized_prompts_pos"] + 500}, "tokens that the CLIP lacks")


def test_another_clip_is_found_out(tensors: dict[str, torch.Tensor], other_clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="learned with another CLIP"):
        convert_prompts(save(tensors, tmp_path), other_clip_folder, tmp_path / "out", changed=2)


class Harmful:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_nothing_in_a_file_is_run(clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.pth"
    bad.write_bytes(pickle.dumps({"prompt_learner": Harmful()}, protocol=2))
    with pytest.raises(UnsafeCheckpoint, match="more than plain tensors"):
        convert_prompts(bad, clip_folder, tmp_path / "out")
    assert "ran" not in capsys.readouterr().out


def test_broken_files(tensors: dict[str, torch.Tensor], clip_folder: Path, tmp_path: Path) -> None:
    whole = save(tensors, tmp_path)
    (tmp_path / "torn.pth").write_bytes(whole.read_bytes()[:5000])
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"prompt_learner": {"ctx_pos": "text"}}, tmp_path / "text.pth")
    for name, kind, message in (
        ("torn.pth", UnsafeCheckpoint, "truncated"),
        ("list.pth", CheckpointMismatch, "holds a list"),
        ("text.pth", CheckpointMismatch, "'ctx_pos' is not a plain tensor"),
        ("none.pth", WeightsError, "no checkpoint file"),
    ):
        with pytest.raises(kind, match=message):
            convert_prompts(tmp_path / name, clip_folder, tmp_path / "out")
    with pytest.raises(UsageError, match="is a file"):
        convert_prompts(whole, clip_folder, whole)
    with pytest.raises(ConfigError, match="do not fit a vision tower of 3 blocks"):
        convert_prompts(whole, clip_folder, tmp_path / "out", image_size=64)
    with pytest.raises(ConfigError, match="518 is no multiple of the patch of 8"):
        convert_prompts(whole, clip_folder, tmp_path / "out", changed=2)


def test_a_damaged_folder(
    tensors: dict[str, torch.Tensor], towers: ClipTowers, clip_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"it has no anomaly_clip\.json"):
        read_config(tmp_path)
    out = convert_prompts(save(tensors, tmp_path), clip_folder, tmp_path / "out", image_size=64, changed=2)
    values = json.loads((out / "anomaly_clip.json").read_text())
    for text, message in (
        ("{", "is no JSON"),
        ("{}", "does not name its CLIP"),
        (json.dumps(values | {"changed": 0}), "changed"),
        (json.dumps(values | {"colour": 1}), "colour"),
    ):
        (out / "anomaly_clip.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_config(out)
    (out / "anomaly_clip.json").write_text(json.dumps(values | {"clip": "../near"}))
    assert Path(read_config(out).clip).resolve() == (tmp_path / "near").resolve()
    (out / "prompts.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(UnsafeCheckpoint):
        read_prompts(out, towers)
