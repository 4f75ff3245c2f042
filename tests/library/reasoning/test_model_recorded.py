"""Anomaly-OV as a language model: the loss, logits and greedy decode that the released code gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_ov.images.views import Views, ViewsConfig, anyres_geometry
from anomaly_ov.reasoning.model import AnomalyOV
from anomaly_ov.reasoning.processor import Processor
from golden_fixtures import (
    PICTURE,
    QWEN2_IMAGE,
    SIDE,
    SeededDetector,
    fusion_arrays,
    fusion_meta,
    language_parameters,
    qwen2_tokenizer,
    released_reasoner,
    with_recorded_tokens,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class TestEndToEnd:
    """Loss, logits and greedy decode of the released code, seeded weights, case ``square_384``."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> AnomalyOV:
        recorded = fusion_meta()["end_to_end"]
        case = fusion_meta()["cases"]["square_384"]
        detector = SeededDetector(case["feature_seed"], case["split_sizes"])
        model: AnomalyOV = with_recorded_tokens(released_reasoner(detector, layers=2))
        config = model.config.text_config
        named = {key: value for key, value in recorded["config"].items() if key != "rope_theta"}
        assert {key: getattr(config, key) for key in named} == named
        weights = {
            name.replace("model.", "model.language_model.", 1): weight
            for name, weight in language_parameters(recorded["filled_shapes"]).items()
        }
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert not unexpected
        assert {name.removeprefix("model.").split(".")[0] for name in missing} == {
            "image_newline",
            "multi_modal_projector",
            "language_model",
        }
        assert [name for name in missing if "language_model" in name] == ["model.language_model.embed_tokens.weight"]
        return model

    @staticmethod
    def batch(model: AnomalyOV, answered: bool) -> dict[str, Tensor]:
        case = fusion_meta()["cases"]["square_384"]
        ids, labels = case["input_ids"][0], case["labels"][0]
        if not answered:
            ids, labels = ids[:-4], labels[:-4]
        processor = Processor(qwen2_tokenizer(), model.config, (SIDE, SIDE))
        views = Views(np.zeros((2, 1, 1, 3), np.uint8), anyres_geometry((384, 384), ViewsConfig(cap=None)))
        sample = processor.assemble([QWEN2_IMAGE if i == PICTURE else i for i in ids], labels, [views])
        return processor.collate([sample], labels=answered)

    def test_loss_and_last_logits(self, model: AnomalyOV) -> None:
        golden = fusion_arrays("end_to_end")
        batch = self.batch(model, answered=True)
        # All answers lie within the last 8 places; the logits of all 1547 would take 1 GB.
        batch["labels"] = batch["labels"][:, -8:]
        output = model(**batch, logits_to_keep=8)
        assert output.loss.item() == pytest.approx(golden["loss"].item(), abs=2e-5)
        np.testing.assert_allclose(output.logits[0, :, ::64], golden["logits_last8_every64"], rtol=0, atol=1e-4)
        argmax = output.logits[0, -5:].argmax(-1).tolist()
        assert argmax == fusion_meta()["end_to_end"]["argmax_last5"]

    def test_logits_all_along_from_embeddings(self, model: AnomalyOV) -> None:
        golden = fusion_arrays("end_to_end")
        batch = self.batch(model, answered=True)
        names = ("pixel_values", "image_sizes", "batch_num_images", "image_lengths", "image_readings")
        tokens = model.model.get_image_features(**{name: batch[name] for name in names}).pooler_output
        embeds = model.model.embed(batch["input_ids"], tokens)
        places = torch.arange(0, embeds.shape[1], 50)
        logits = model(inputs_embeds=embeds, logits_to_keep=places).logits[0, :, ::1024]
        np.testing.assert_allclose(logits, golden["logits_every50_every1024"], rtol=0, atol=1e-4)

    def test_greedy_tokens(self, model: AnomalyOV) -> None:
        expected = fusion_arrays("end_to_end")["generated"].tolist()
        batch = self.batch(model, answered=False)
        found = model.generate(**batch, max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert found[:, batch["input_ids"].shape[1] :].tolist() == expected

    def test_greedy_tokens_from_embeddings(self, model: AnomalyOV) -> None:
        batch = self.batch(model, answered=False)
        features = model.model.get_image_features(batch["pixel_values"], batch["image_sizes"])
        embeds = model.model.embed(batch["input_ids"], features.pooler_output)
        found = model.generate(inputs_embeds=embeds, max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert found.tolist() == fusion_arrays("end_to_end")["generated"].tolist()
