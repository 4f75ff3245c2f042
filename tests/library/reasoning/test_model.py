"""Anomaly-OV as a language model: batches, generation, what it refuses. Training: test_model_training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anomaly_ov.errors import UsageError
from anomaly_ov.reasoning.config import READINGS
from anomaly_ov.reasoning.folder import Reasoner
from anomaly_ov.reasoning.model import AnomalyOV
from anomaly_ov.reasoning.processor import Encoded
from model_fixtures import said, small_reasoner

ALONE = {"rtol": 1e-5, "atol": 1e-5}

pytestmark = pytest.mark.usefixtures("one_thread")


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


class TestBatches:
    @pytest.mark.parametrize("padding", ["right", "left"])
    def test_each_sample_reads_as_it_does_alone(self, reasoner: Reasoner, mixed: list[Encoded], padding: Any) -> None:
        """A text-only sample crashes the released code, and of two pictures it drops the second.

        See docs/reference-implementation.md, section 7.
        """
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
        """The released code reads another picture twice, or shifts those of the next sample.

        See docs/reference-implementation.md, section 7.
        """
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
