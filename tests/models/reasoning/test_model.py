"""Anomaly-OV as a language model: the recorded loss and decode, batches, generation, training, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_ov.errors import UsageError
from anomaly_ov.images.views import Views, ViewsConfig, anyres, anyres_geometry, multi_image
from anomaly_ov.models.reasoning.config import READINGS
from anomaly_ov.models.reasoning.folder import Reasoner
from anomaly_ov.models.reasoning.model import AnomalyOV
from anomaly_ov.models.reasoning.processor import Encoded, Processor
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
from model_fixtures import small_reasoner

ALONE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def said(
    reasoner: Reasoner,
    sizes: Sequence[tuple[int, int]] = (),
    answer: str | None = "Yes, a scratch.",
    question: str = "Is there a defect?",
    seed: int = 0,
    **options: Any,
) -> Encoded:
    """One question about pictures of these (width, height), with crops if there is one; open without an answer."""
    assert reasoner.model.model.detector is not None
    config = reasoner.model.model.detector.config.views
    pixels = [picture(*size, seed + index) for index, size in enumerate(sizes)]
    views = [anyres(pixels[0], config)] if len(pixels) == 1 else multi_image(pixels, config)
    messages = [("user", "<image>\n" * len(sizes) + question)]
    if answer is not None:
        messages.append(("assistant", answer))
    return reasoner.processor.encode(messages, views, open_answer=answer is None, **options)


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    return small_reasoner()


@pytest.fixture(scope="module")
def mixed(reasoner: Reasoner) -> list[Encoded]:
    """One picture with crops, text alone, three views of an object, another picture cut in the middle."""
    return [
        said(reasoner, [(70, 50)]),
        said(reasoner, [], "No.", question="Is it?"),
        said(reasoner, [(40, 30), (64, 64), (9, 50)], "No."),
        said(reasoner, [(96, 20)], max_length=60, seed=5),
    ]


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


class TestBatches:
    @pytest.mark.parametrize("padding", ["right", "left"])
    def test_each_sample_reads_as_it_does_alone(self, reasoner: Reasoner, mixed: list[Encoded], padding: Any) -> None:
        """A text-only sample crashes the released code, and of two pictures it drops the second (reference, 1)."""
        model, collate = reasoner.model, reasoner.processor.collate
        batch = collate(mixed, padding=padding)
        with torch.no_grad():
            together = model(**batch)
            losses, counts = [], []
            for row, sample in enumerate(mixed):
                alone = model(**collate([sample]))
                read = batch["attention_mask"][row].bool()
                torch.testing.assert_close(together.logits[row][read], alone.logits[0], **ALONE)
                learnt = int((torch.tensor(sample.labels_T)[1:] != -100).sum())
                if learnt:
                    losses.append(alone.loss * learnt)
                    counts.append(learnt)
        torch.testing.assert_close(together.loss, torch.stack(losses).sum() / sum(counts), **ALONE)

    def test_text_alone(self, reasoner: Reasoner) -> None:
        batch = reasoner.processor.collate([said(reasoner)])
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
        assert reasoner.model(**batch).loss.isfinite()

    def test_every_picture_of_a_sample_matters(self, reasoner: Reasoner) -> None:
        views = [said(reasoner, [(40, 30), (64, 64), (9, 50)], seed=seed) for seed in (0, 1)]
        batch = reasoner.processor.collate(views[:1])
        before = reasoner.model(**batch).logits[0, -1]
        for index in range(3):
            changed = dict(batch, pixel_values=batch["pixel_values"].clone())
            changed["pixel_values"][index] = 255 - changed["pixel_values"][index]
            assert (reasoner.model(**changed).logits[0, -1] - before).abs().max() > 1e-4

    def test_padded_views_are_not_looked_at(self, reasoner: Reasoner, mixed: list[Encoded]) -> None:
        batch = reasoner.processor.collate([mixed[2], mixed[0]])
        before = reasoner.model(**batch).logits
        batch["pixel_values"][:3, 1:] = 200
        assert torch.equal(reasoner.model(**batch).logits, before)

    def test_flat_and_normalised_views_are_taken_too(self, reasoner: Reasoner) -> None:
        sample = said(reasoner, [(70, 50)])
        batch = reasoner.processor.collate([sample])
        flat = torch.from_numpy(sample.views[0].pixels_NHW3)
        expected = reasoner.model(**batch).logits
        assert torch.equal(reasoner.model(**batch | {"pixel_values": flat}).logits, expected)
        assert reasoner.model.model.detector is not None
        normalised = reasoner.model.model.detector.encoder.normalise(flat)
        torch.testing.assert_close(reasoner.model(**batch | {"pixel_values": normalised}).logits, expected)

    def test_a_picture_cut_in_the_middle_and_one_cut_away(self, reasoner: Reasoner) -> None:
        sizes = [(40, 30), (64, 64), (9, 50)]
        whole = said(reasoner, sizes)
        first = whole.ids_T.index(reasoner.model.config.image_token_id)
        places = whole.lengths[0]
        cut = said(reasoner, sizes, max_length=first + places + 1 + places // 2)
        assert cut.lengths == (places, places // 2, 0)
        batch = reasoner.processor.collate([cut])
        logits = reasoner.model(**batch).logits[0]
        expected = reasoner.model(**reasoner.processor.collate([whole])).logits[0, : len(logits)]
        torch.testing.assert_close(logits, expected, **ALONE)


class TestGeneration:
    @pytest.mark.parametrize("reading", READINGS)
    def test_cache_changes_nothing(self, reading: str) -> None:
        reasoner = small_reasoner(seed=3, reading=reading, crop_budget=6, focus_pool=2)
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)], None)], labels=False)
        options = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [reasoner.model.config.image_token_id]}
        with_cache, without = (reasoner.model.generate(**batch, **options, use_cache=use) for use in (True, False))
        assert torch.equal(with_cache, without)
        assert with_cache.shape[1] > batch["input_ids"].shape[1]

    def test_a_batch_speaks_as_each_alone(self, reasoner: Reasoner) -> None:
        samples = [
            said(reasoner, [(70, 50)], None),
            said(reasoner, [], None),
            said(reasoner, [(40, 30), (64, 64)], None),
        ]
        options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
        batch = reasoner.processor.collate(samples, padding="left", labels=False)
        together = reasoner.model.generate(**batch, **options)[:, -5:]
        for row, sample in enumerate(samples):
            alone = reasoner.model.generate(**reasoner.processor.collate([sample], labels=False), **options)
            assert together[row].tolist() == alone[0, -5:].tolist()

    def test_several_answers_to_one_batch_keep_their_pictures(self, reasoner: Reasoner) -> None:
        """Beams repeat the inputs; pictures must go with their own sample, in order."""
        samples = [said(reasoner, [(40, 30), (64, 64)], None), said(reasoner, [(70, 50)], None)]
        options = {"max_new_tokens": 4, "do_sample": False, "num_beams": 2, "pad_token_id": 0, "eos_token_id": -1}
        batch = reasoner.processor.collate(samples, padding="left", labels=False)
        together = reasoner.model.generate(**batch, **options)[:, -4:]
        for row, sample in enumerate(samples):
            alone = reasoner.model.generate(**reasoner.processor.collate([sample], labels=False), **options)
            assert together[row].tolist() == alone[0, -4:].tolist()

    def test_a_picture_looked_at_once_can_be_asked_twice(self, reasoner: Reasoner) -> None:
        """Evidence is independent of the question: embeddings made from it give what pixels give."""
        sample = said(reasoner, [(70, 50)], None, question="Where is it?")
        model = reasoner.model.model
        batch = reasoner.processor.collate([sample], labels=False)
        evidence = model.look(torch.from_numpy(sample.views[0].pixels_NHW3), [sample.views[0].geometry])
        embeds = model.embed(batch["input_ids"], model.picture_tokens(evidence))
        logits = reasoner.model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
        torch.testing.assert_close(logits, reasoner.model(**batch).logits)


class TestRefusals:
    def test_more_or_fewer_places_than_tokens(self, reasoner: Reasoner) -> None:
        """The released code reads another picture twice, or shifts those of the next sample (reference, 1)."""
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)])])
        placeholder = torch.tensor([[reasoner.model.config.image_token_id]])
        one_more = {
            "input_ids": torch.cat([batch["input_ids"], placeholder], 1),
            "attention_mask": torch.ones(1, batch["input_ids"].shape[1] + 1, dtype=torch.long),
        }
        pictures = {key: value for key, value in batch.items() if key not in ("labels", *one_more)}
        with pytest.raises(UsageError, match="image places"):
            reasoner.model(**one_more, **pictures)
        with pytest.raises(UsageError, match="image places"):
            reasoner.model.generate(**one_more, **pictures, max_new_tokens=1)
        fewer = {key: value[:, 10:] for key, value in batch.items() if key in ("input_ids", "attention_mask")}
        fewer["input_ids"] = fewer["input_ids"].masked_fill(fewer["input_ids"] == placeholder, 0)
        with pytest.raises(UsageError, match="0 image places"):
            reasoner.model(**fewer, **pictures)

    def test_places_without_pictures(self, reasoner: Reasoner) -> None:
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)], None)], labels=False)
        text = {key: batch[key] for key in ("input_ids", "attention_mask")}
        with pytest.raises(UsageError, match="0 pictures"):
            reasoner.model(**text)
        with pytest.raises(UsageError, match="0 pictures"):
            reasoner.model.generate(**text, max_new_tokens=1)

    @pytest.mark.parametrize("absent", ["image_sizes", "input_ids"])
    def test_pixels_without_what_belongs_to_them(self, reasoner: Reasoner, absent: str) -> None:
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)])])
        batch.pop(absent)
        if absent == "input_ids":
            batch["inputs_embeds"] = torch.zeros(1, batch["attention_mask"].shape[1], 32)
        with pytest.raises(UsageError, match="image_sizes and input_ids"):
            reasoner.model(**batch)

    def test_pixels_without_a_detector(self, reasoner: Reasoner) -> None:
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)])])
        with pytest.raises(UsageError, match="detector"):
            AnomalyOV(reasoner.model.config)(**batch)

    def test_a_reading_other_than_the_ids_were_made_for(self, reasoner: Reasoner) -> None:
        batch = reasoner.processor.collate([said(reasoner, [(70, 50)])])
        with pytest.raises(UsageError, match="reading"):
            reasoner.model(**batch | {"image_readings": torch.tensor([READINGS.index("focus")])})


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
