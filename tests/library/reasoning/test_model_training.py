"""Anomaly-OV learns: gradients, precision, adapters, the stock trainer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anomaly_ov.reasoning.folder import Reasoner
from anomaly_ov.reasoning.model import AnomalyOV
from model_fixtures import said, small_reasoner

pytestmark = pytest.mark.usefixtures("one_thread")


class TestTraining:
    def test_gradient_reaches_the_language_side_and_not_the_detector(self) -> None:
        reasoner = small_reasoner()
        reasoner.model.train()
        reasoner.model(**reasoner.processor.collate([said(reasoner, [(70, 50)])])).loss.backward()
        without = [name for name, value in reasoner.model.named_parameters() if value.grad is None]
        assert without == []
        zero = [name for name, value in reasoner.model.named_parameters() if not value.grad.abs().sum() > 0]
        assert zero == []
        detector = reasoner.model.model.detector
        assert detector is not None
        assert all(value.grad is None and not value.requires_grad for value in detector.parameters())

    def test_the_detector_is_no_part_of_the_language_side(self) -> None:
        reasoner = small_reasoner()
        model, detector = reasoner.model, reasoner.model.model.detector
        assert detector is not None
        expected = model.model.look(*self.views(reasoner))
        model.train().to(torch.bfloat16)
        assert not any(module.training for module in detector.modules())
        assert {value.dtype for value in detector.parameters()} == {torch.float32}
        assert not [name for name in model.state_dict() if "detector" in name or "expert" in name]
        found = model.model.look(*self.views(reasoner))
        assert torch.equal(found[0].final_NPD, expected[0].final_NPD)
        assert found[0].score == expected[0].score

    @staticmethod
    def views(reasoner: Reasoner) -> tuple[Tensor, list[Any]]:
        views = said(reasoner, [(70, 50)]).views[0]
        return torch.from_numpy(views.pixels_NHW3), [views.geometry]

    def test_bf16_language_model_reads_float32_evidence(self) -> None:
        """In the released code: "mat1 and mat2 must have the same dtype"."""
        reasoner = small_reasoner()
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)])])
        expected = reasoner.model(**batch).loss
        found = reasoner.model.to(torch.bfloat16)(**batch)
        assert found.logits.dtype == torch.bfloat16
        assert found.loss.item() == pytest.approx(expected.item(), rel=0.05)

    def test_autocast_leaves_the_detector_in_float32(self) -> None:
        reasoner = small_reasoner()
        expected = reasoner.model.model.look(*self.views(reasoner))[0]
        with torch.autocast("cpu", torch.bfloat16):
            found = reasoner.model.model.look(*self.views(reasoner))[0]
            loss = reasoner.model(**reasoner.processor.collate([said(reasoner, [(70, 50)])])).loss
        assert torch.equal(found.map_Nhw, expected.map_Nhw)
        assert loss.isfinite()

    def test_gradient_checkpointing_changes_nothing(self) -> None:
        gradients = []
        for checkpointed in (False, True):
            reasoner = small_reasoner()
            reasoner.model.train()
            if checkpointed:
                reasoner.model.gradient_checkpointing_enable()
            reasoner.model(**reasoner.processor.collate([said(reasoner, [(70, 50)])]), use_cache=False).loss.backward()
            gradients.append([value.grad for value in reasoner.model.parameters()])
        torch.testing.assert_close(gradients[0], gradients[1])

    def test_lora_wraps_learns_and_merges(self) -> None:
        from peft import LoraConfig, get_peft_model

        reasoner = small_reasoner()
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)]), said(reasoner, [], "No.")])
        before = reasoner.model(**batch).loss.item()
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["multi_modal_projector"])
        tuned = get_peft_model(reasoner.model, lora)
        assert tuned(**batch).loss.item() == pytest.approx(before, abs=1e-6)
        optimizer = torch.optim.AdamW([value for value in tuned.parameters() if value.requires_grad], lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            tuned(**batch).loss.backward()
            optimizer.step()
        tuned.eval()
        after = tuned(**batch).loss.item()
        assert after < before
        merged = tuned.merge_and_unload()
        assert isinstance(merged, AnomalyOV)
        assert merged(**batch).loss.item() == pytest.approx(after, abs=1e-5)
        names = set(merged.state_dict())
        assert names == set(small_reasoner().model.state_dict())

    @pytest.mark.slow
    def test_trainer_runs_unchanged(self, tmp_path: Any) -> None:
        from transformers import Trainer, TrainingArguments

        reasoner = small_reasoner()
        samples = [said(reasoner, [(70, 50)]), said(reasoner, [], "No."), said(reasoner, [(40, 30), (9, 50)])]
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            remove_unused_columns=False,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
        )
        before = {name: value.clone() for name, value in reasoner.model.state_dict().items()}
        collate = reasoner.processor.collate
        Trainer(reasoner.model, arguments, data_collator=collate, train_dataset=samples).train()
        moved = {name for name, value in reasoner.model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == set(before)
        trainer = Trainer(reasoner.model, arguments, data_collator=collate, train_dataset=samples)
        trainer.save_model(str(tmp_path / "saved"))
        again = AnomalyOV.from_pretrained(tmp_path / "saved")
        for name, value in again.state_dict().items():
            assert torch.equal(value, reasoner.model.state_dict()[name])
