"""The language side of a model folder: written whole, read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anomaly_ov.errors import CheckpointMismatch, ConfigError, UnsafeCheckpoint, WeightsError
from anomaly_ov.images.views import anyres
from anomaly_ov.reasoning import folder as folders
from anomaly_ov.reasoning.folder import Reasoner, load_reasoner, save_language
from model_fixtures import save_small_model, small_model, small_reasoner

ROUNDING = {"rtol": 0.0, "atol": 1e-5}
"""Equal weights give logits that differ in the last bits: AMD processors take another path for unaligned memory."""

PICTURE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


def saved(folder: Path, **config: Any) -> tuple[Path, Reasoner]:
    reasoner = small_reasoner(**config)
    assert reasoner.model.model.detector is not None
    reasoner.model.model.detector.save_pretrained(folder)
    save_language(reasoner.model, reasoner.tokenizer, folder)
    return folder, reasoner


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "language" / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})


def logits(reasoner: Reasoner) -> torch.Tensor:
    assert reasoner.model.model.detector is not None
    views = anyres(PICTURE, reasoner.model.model.detector.config.views)
    sample = reasoner.processor.encode([("user", "<image>\nIs there a defect?")], [views], open_answer=True)
    found: torch.Tensor = reasoner.model(**reasoner.processor.collate([sample], labels=False)).logits
    return found


class TestRoundTrip:
    @pytest.mark.parametrize("config", [{}, {"annotate": False, "reading": "highlight", "crop_budget": 5}])
    def test_float32_weights_are_bit_equal(self, tmp_path: Path, config: dict[str, Any]) -> None:
        folder, reasoner = saved(tmp_path / "model", **config)
        again = load_reasoner(folder)
        assert not again.model.training
        expected = reasoner.model.state_dict()
        assert set(again.model.state_dict()) == set(expected)
        for name, value in again.model.state_dict().items():
            assert torch.equal(value, expected[name]), name
        torch.testing.assert_close(logits(again), logits(reasoner), **ROUNDING)
        assert again.model.config.reading == reasoner.model.config.reading
        assert again.tokenizer.get_vocab() == reasoner.tokenizer.get_vocab()
        assert again.tokenizer.chat_template == reasoner.tokenizer.chat_template

    def test_embeddings_stay_tied(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        model = load_reasoner(folder).model
        assert model.lm_head.weight is model.get_input_embeddings().weight
        assert "lm_head.weight" not in load_file(folder / "language" / "model.safetensors")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half(self, tmp_path: Path, dtype: torch.dtype) -> None:
        folder, reasoner = saved(tmp_path / "model")
        save_language(reasoner.model, reasoner.tokenizer, folder, dtype)
        stored = load_file(folder / "language" / "model.safetensors")
        assert {value.dtype for value in stored.values()} == {dtype}
        assert "lm_head.weight" not in stored
        again = load_reasoner(folder)
        assert again.model.lm_head.weight is again.model.get_input_embeddings().weight
        torch.testing.assert_close(logits(again), logits(reasoner), rtol=0.05, atol=0.2)

    def test_loads_in_half_beside_a_float32_detector(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        model = load_reasoner(folder, torch.bfloat16).model
        assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
        assert model.model.detector is not None
        assert {value.dtype for value in model.model.detector.parameters()} == {torch.float32}

    def test_several_shards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folders, "SHARD", "40KB")
        folder, reasoner = saved(tmp_path / "model")
        shards = list((folder / "language").glob("model-*.safetensors"))
        assert len(shards) > 1
        torch.testing.assert_close(logits(load_reasoner(folder)), logits(reasoner), **ROUNDING)
        shards[0].unlink()
        with pytest.raises(WeightsError, match="language"):
            load_reasoner(folder)

    def test_generation_ends_where_the_tokenizer_says(self, tmp_path: Path) -> None:
        folder, reasoner = saved(tmp_path / "model")
        config = load_reasoner(folder).model.generation_config
        assert config.eos_token_id == [reasoner.tokenizer.convert_tokens_to_ids("<|im_end|>")]
        assert not config.do_sample

    def test_saving_again_replaces_the_language_side_alone(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        stale = folder / "language" / "stale.txt"
        stale.write_text("old")
        detector = (folder / "model.safetensors").read_bytes()
        other = small_reasoner(seed=1)
        other.model.model.attach(small_model())
        save_language(other.model, other.tokenizer, folder)
        assert not stale.exists()
        assert (folder / "model.safetensors").read_bytes() == detector
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            ["README.md", "config.json", "language", "model.safetensors"]
        )
        assert torch.equal(load_reasoner(folder).model.model.image_newline, other.model.model.image_newline)

    @pytest.mark.parametrize("step", ["write", "rename"])
    def test_a_failed_save_leaves_the_old_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        folder, reasoner = saved(tmp_path / "model")
        before = logits(load_reasoner(folder))

        def full(*_: Any, **__: Any) -> None:
            raise OSError("disk full")

        with monkeypatch.context() as patched:
            if step == "write":
                patched.setattr(reasoner.tokenizer.__class__, "save_pretrained", full)
            else:
                rename = Path.rename
                failing = lambda path, to: full() if path.name == "new" else rename(path, to)  # noqa: E731
                patched.setattr(Path, "rename", failing)
            with pytest.raises(OSError, match="disk full"):
                save_language(small_reasoner(seed=1).model, reasoner.tokenizer, folder)
        torch.testing.assert_close(logits(load_reasoner(folder)), before, **ROUNDING)


class TestStrictness:
    """In the released code a run that silently lost its tuned weights looked like a normal one.

    See docs/reference-implementation.md, section 7.
    """

    def test_missing_tensors_are_named(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        gone = ["model.image_newline", "model.language_model.layers.1.mlp.up_proj.weight"]
        edit_weights(folder, lambda tensors: [tensors.pop(name) for name in gone])
        with pytest.raises(CheckpointMismatch, match="2 missing") as caught:
            load_reasoner(folder)
        assert all(name in caught.value.message for name in gone)

    def test_missing_token_embeddings_are_named(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        edit_weights(folder, lambda tensors: tensors.pop("model.language_model.embed_tokens.weight"))
        with pytest.raises(CheckpointMismatch, match=r"missing: .*embed_tokens\.weight"):
            load_reasoner(folder)

    def test_an_untied_head_is_missed(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model", tie_word_embeddings=False)
        path = folder / "language" / "config.json"
        config = json.loads(path.read_text())
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
        path.write_text(json.dumps(config))
        edit_weights(folder, lambda tensors: tensors.pop("lm_head.weight", None))
        with pytest.raises(CheckpointMismatch, match=r"1 missing: lm_head\.weight"):
            load_reasoner(folder)

    def test_left_over_tensors_are_named(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        edit_weights(folder, lambda tensors: tensors.update({"model.vision_tower.x": torch.zeros(2)}))
        with pytest.raises(CheckpointMismatch, match=r"1 unexpected: model\.vision_tower\.x"):
            load_reasoner(folder)

    def test_tensors_of_another_shape_are_named(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        edit_weights(folder, lambda tensors: tensors.update({"model.image_newline": torch.zeros(5)}))
        with pytest.raises(CheckpointMismatch, match=r"1 of another shape: .*image_newline"):
            load_reasoner(folder)

    def test_many_faults_are_counted_and_cut_short(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        edit_weights(folder, lambda tensors: tensors.update({f"extra.{i}": torch.zeros(1) for i in range(20)}))
        with pytest.raises(CheckpointMismatch, match=r"20 unexpected: .* and 14 more"):
            load_reasoner(folder)

    def test_another_detector_is_refused(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"revision": "test"', '"revision": "other"'))
        with pytest.raises(CheckpointMismatch, match=r"detector test, .* holds other"):
            load_reasoner(folder)

    def test_a_language_side_for_any_detector(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        for path in (folder / "config.json", folder / "language" / "config.json"):
            values = json.loads(path.read_text())
            values |= {"revision": "other"} if path.parent == folder else {"detector_revision": ""}
            path.write_text(json.dumps(values))
        assert load_reasoner(folder).model.config.detector_revision == ""

    def test_a_folder_without_language_side(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="no language side"):
            load_reasoner(save_small_model(tmp_path / "model"))

    def test_truncated_weights(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        path = folder / "language" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UnsafeCheckpoint, match="safetensors"):
            load_reasoner(folder)

    def test_pickled_weights_are_not_opened(self, tmp_path: Path) -> None:
        folder, reasoner = saved(tmp_path / "model")
        (folder / "language" / "model.safetensors").unlink()
        torch.save(reasoner.model.state_dict(), folder / "language" / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="language"):
            load_reasoner(folder)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
    def test_broken_text_files(self, tmp_path: Path, name: str) -> None:
        folder, _ = saved(tmp_path / "model")
        (folder / "language" / name).write_text("{ not json")
        with pytest.raises(WeightsError, match="language"):
            load_reasoner(folder)

    def test_no_tokenizer(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        for path in (folder / "language").glob("tokenizer*"):
            path.unlink()
        with pytest.raises(WeightsError, match="tokenizer"):
            load_reasoner(folder)

    def test_a_configuration_of_another_type(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        path = folder / "language" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"crop_budget": "many"}))
        with pytest.raises(WeightsError, match="configuration"):
            load_reasoner(folder)

    def test_a_configuration_out_of_range(self, tmp_path: Path) -> None:
        folder, _ = saved(tmp_path / "model")
        path = folder / "language" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"reading": "sideways"}))
        with pytest.raises(ConfigError, match="sideways"):
            load_reasoner(folder)
