"""Conversations to ids, labels and batches, against the released preparation; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.errors import UsageError
from anomaly_ov.images.views import Views, ViewsConfig, anyres, anyres_geometry, multi_image, multi_image_geometry
from anomaly_ov.reasoning.config import READINGS, AnomalyOVConfig
from anomaly_ov.reasoning.processor import (
    IMAGE_MARKER,
    Encoded,
    Processor,
    released_turns,
    with_markers,
)
from golden_fixtures import PICTURE, QWEN2_IMAGE, SIDE, qwen2_tokenizer, tokenizer_json
from model_fixtures import small_reasoner
from token_oracle import token_counts

LABELS = tokenizer_json("labels")
SMALL = small_reasoner(crop_budget=9, focus_pool=3)


def views_of(*sizes: tuple[int, int]) -> list[Views]:
    assert SMALL.model.model.detector is not None
    config = SMALL.model.model.detector.config.views
    pixels = [np.full((height, width, 3), index, np.uint8) for index, (width, height) in enumerate(sizes)]
    return [anyres(pixels[0], config)] if len(pixels) == 1 else multi_image(pixels, config)


class TestReleased:
    """Golden ``tokenizer/``: through the chat template, the tokenizer and the label mask, picture places folded."""

    @pytest.fixture(scope="class")
    @classmethod
    def processor(cls) -> Processor:
        prompts = {adverb: prompt["ids"] for adverb, prompt in tokenizer_json("prompt_tokens")["prompts"].items()}
        config = AnomalyOVConfig(image_token_index=QWEN2_IMAGE, prompt_ids=prompts)
        return Processor(qwen2_tokenizer(), config, (SIDE, SIDE))

    @staticmethod
    def folded(sample: Encoded) -> tuple[list[int], list[int]]:
        """Ids and labels with each picture's places as one mark again."""
        ids, labels, lengths = [], [], list(sample.lengths)
        t = 0
        while t < len(sample.ids_T):
            picture = sample.ids_T[t] == QWEN2_IMAGE
            ids.append(PICTURE if picture else sample.ids_T[t])
            labels.append(sample.labels_T[t])
            t += lengths.pop(0) if picture else 1
        assert not lengths
        return ids, labels

    @pytest.mark.parametrize("name", LABELS)
    def test_ids_and_labels(self, name: str, processor: Processor) -> None:
        golden = LABELS[name]
        turns = released_turns([(turn["from"], turn["value"]) for turn in golden["conversation"]])
        expected = golden["values_after_preprocess_multimodal"]
        assert [text for _, text in turns] == expected[-len(turns) :]
        pictures = golden["input_ids"].count(PICTURE)
        make = anyres_geometry if pictures == 1 else multi_image_geometry
        geometry = make((20, 10), ViewsConfig())
        views = [Views(np.zeros((geometry.views, 1, 1, 3), np.uint8), geometry)] * pictures
        sample = processor.encode(turns, views, mask="released")
        assert self.folded(sample) == (golden["input_ids"], golden["labels"])

    def test_only_answers(self, processor: Processor) -> None:
        """The mask of our own: the assistant's words and the end mark, not the line break after it."""
        golden = LABELS["single_image_two_turns"]
        turns = [(turn[0], turn[1].replace("<image>\n", "")) for turn in released_turns_of(golden)]
        sample = processor.encode(turns)
        learnt = [label for label in sample.labels_T if label != -100]
        end = processor.end_id
        assert learnt == [9454, 13, end, 1925, 279, 2115, 6821, 382, 2132, 374, 264, 18778, 13, end]

    def test_the_detection_question(self, processor: Processor) -> None:
        golden = tokenizer_json("prompt_tokens")["detection_prompt"]
        question = golden["string"].split("user\n")[1].split("<|im_end|>")[0]
        geometry = anyres_geometry((384, 384), ViewsConfig())
        views = Views(np.zeros((2, 1, 1, 3), np.uint8), geometry)
        sample = processor.encode([("user", question)], [views], open_answer=True)
        asked = [("system", "You are a helpful assistant."), ("user", question)]
        assert processor.text(asked, open_answer=True) == golden["string"]
        assert self.folded(sample)[0] == golden["ids_with_-200_for_image"]
        assert set(sample.labels_T) == {-100}

    def test_template_of_the_tokenizer_is_kept(self) -> None:
        reasoner = small_reasoner()
        other = reasoner.tokenizer.chat_template.replace("\n{% endfor %}", "{% endfor %}")
        assert other != reasoner.tokenizer.chat_template
        reasoner.tokenizer.chat_template = other
        processor = Processor(reasoner.tokenizer, reasoner.model.config, (4, 4))
        assert processor.text([("user", "Hi")]) == "<|im_start|>user\nHi<|im_end|>"


def released_turns_of(golden: dict[str, Any]) -> list[tuple[str, str]]:
    return released_turns([(turn["from"], turn["value"]) for turn in golden["conversation"]])


class TestTurns:
    def test_several_markers_stay_where_they_are(self) -> None:
        assert released_turns([("human", "A <image> and <image>?")]) == [("user", "A <image> and <image>?")]

    def test_answers_before_the_first_question_are_dropped(self) -> None:
        turns = [("gpt", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]
        assert released_turns(turns) == [("user", "c"), ("assistant", "d")]
        assert released_turns([("gpt", "a")]) == []

    def test_markers_are_put_before_the_first_question(self) -> None:
        turns = [("system", "S"), ("user", "A?"), ("assistant", "B"), ("user", "C?")]
        marked = with_markers(turns, 2)
        assert marked == [("system", "S"), ("user", "<image>\n<image>\nA?"), *turns[2:]]
        assert with_markers(marked, 2) == marked
        assert with_markers(turns, 0) == turns


class TestPlaces:
    @settings(max_examples=40, deadline=None)
    @given(width=st.integers(1, 300), height=st.integers(1, 300), reading=st.sampled_from(READINGS))
    def test_as_many_as_the_model_fills(self, width: int, height: int, reading: str) -> None:
        """In every reading the count depends on the size alone, and is what the model makes of the evidence."""
        model = SMALL.model.model
        assert model.detector is not None
        geometry = anyres_geometry((width, height), model.detector.config.views)
        generator = torch.Generator().manual_seed(width * 301 + height)
        pixels = torch.randint(0, 256, (geometry.views, 32, 32, 3), generator=generator, dtype=torch.uint8)
        with torch.no_grad():
            tokens = model.picture_tokens(model.look(pixels, [geometry]), [reading])[0]
        assert len(tokens) == SMALL.processor.places(geometry, reading)

    @settings(max_examples=100, deadline=None)
    @given(width=st.integers(1, 4000), height=st.integers(1, 4000), capped=st.booleans())
    def test_full_agrees_with_the_counts_of_unpad(self, width: int, height: int, capped: bool) -> None:
        views = ViewsConfig(cap=1024 if capped else None)
        config = AnomalyOVConfig(prompt_ids={"slightly": [1] * 6, "moderately": [2] * 6, "highly": [3] * 6})
        processor = Processor(qwen2_tokenizer(), config, (SIDE, SIDE))
        for make in (anyres_geometry, multi_image_geometry):
            geometry = make((width, height), views)
            assert processor.places(geometry, "full") == token_counts(geometry, (SIDE, SIDE)).total
            assert processor.places(geometry, "focus") <= processor.places(geometry, "full")

    def test_a_large_picture_in_focus(self) -> None:
        """1024 x 1024: 0.12 of the tokens of ``full`` or less, without blocks (issue's target)."""
        config = AnomalyOVConfig(prompt_ids={"slightly": [1] * 6, "moderately": [2] * 6, "highly": [3] * 6})
        processor = Processor(qwen2_tokenizer(), config, (SIDE, SIDE))
        geometry = anyres_geometry((1024, 1024), ViewsConfig())
        assert processor.places(geometry, "focus") <= 0.12 * processor.places(geometry, "full")


class TestTruncation:
    @pytest.mark.parametrize("reading", READINGS)
    @pytest.mark.parametrize("sizes", [[(70, 50)], [(40, 30), (64, 64), (9, 50)]])
    def test_counts_stay_equal_wherever_it_is_cut(self, reading: str, sizes: list[tuple[int, int]]) -> None:
        views = views_of(*sizes)
        messages = [("user", f"{IMAGE_MARKER}\n" * len(sizes) + "Is there a defect?"), ("assistant", "No.")]
        whole = SMALL.processor.encode(messages, views, reading=reading)
        placeholder = SMALL.model.config.image_token_id
        for length in range(1, len(whole.ids_T) + 5, 3):
            cut = SMALL.processor.encode(messages, views, reading=reading, max_length=length)
            assert cut.ids_T == whole.ids_T[:length]
            assert cut.labels_T == whole.labels_T[:length]
            assert sum(cut.lengths) == cut.ids_T.count(placeholder)
            assert all(cut <= full for cut, full in zip(cut.lengths, whole.lengths, strict=True))

    def test_a_sample_that_fits_is_left_alone(self) -> None:
        whole = SMALL.processor.encode([("user", "Is there a defect?"), ("assistant", "No.")])
        asked = [("user", "Is there a defect?"), ("assistant", "No.")]
        assert SMALL.processor.encode(asked, max_length=len(whole.ids_T)) == whole


class TestCollate:
    @pytest.mark.parametrize("padding", ["left", "right"])
    def test_padding(self, padding: Any) -> None:
        samples = [SMALL.processor.encode([("user", "?" * n), ("assistant", "No.")]) for n in (1, 4)]
        batch = SMALL.processor.collate(samples, padding=padding)
        for row, sample in enumerate(samples):
            read = batch["attention_mask"][row].bool()
            assert batch["input_ids"][row][read].tolist() == sample.ids_T
            assert batch["labels"][row][read].tolist() == sample.labels_T
            assert batch["input_ids"][row][~read].eq(SMALL.tokenizer.pad_token_id).all()
            assert batch["labels"][row][~read].eq(-100).all()
            edge = 0 if padding == "left" else -1
            assert bool(read[edge]) == (len(sample.ids_T) == batch["input_ids"].shape[1])

    def test_pictures_and_what_belongs_to_them(self) -> None:
        asked = [("user", f"{IMAGE_MARKER}\nIs there a defect?")]
        alone = SMALL.processor.encode(asked, views_of((70, 50)), reading="focus")
        text = SMALL.processor.encode([("user", "Is there a defect?")])
        three = [("user", f"{IMAGE_MARKER}\n" * 3 + "Is there a defect?")]
        several = SMALL.processor.encode(three, views_of((40, 30), (64, 64), (9, 50)))
        batch = SMALL.processor.collate([alone, text, several], labels=False)
        assert "labels" not in batch
        assert batch["image_sizes"].tolist() == [[50, 70], [30, 40], [64, 64], [50, 9]]
        assert batch["batch_num_images"].tolist() == [1, 3]
        assert batch["image_lengths"].tolist() == [*alone.lengths, *several.lengths]
        assert [READINGS[index] for index in batch["image_readings"]] == ["focus", "full", "full", "full"]
        assert batch["pixel_values"].dtype == torch.uint8
        assert batch["pixel_values"].shape[0] == 4
        for row, one in enumerate([*alone.views, *several.views]):
            assert np.array_equal(batch["pixel_values"][row, : len(one)], one.pixels_NHW3)


class TestRefusals:
    @pytest.mark.parametrize("markers", [0, 2, 3])
    def test_a_marker_too_many_or_too_few(self, markers: int) -> None:
        with pytest.raises(UsageError, match=f"{markers} <image> markers for 1 pictures"):
            SMALL.processor.encode([("user", IMAGE_MARKER * markers + "?")], views_of((70, 50)))

    def test_a_marker_without_pictures(self) -> None:
        with pytest.raises(UsageError, match="1 <image> markers for 0 pictures"):
            SMALL.processor.encode([("user", "What does <image> mean?")])

    def test_a_placeholder_that_came_in_another_way(self) -> None:
        with pytest.raises(UsageError, match="2 image placeholders"):
            SMALL.processor.assemble([SMALL.model.config.image_token_id] * 2, [-100] * 2, views_of((70, 50)))

    @pytest.mark.parametrize("question", ["", "  \n", f"{IMAGE_MARKER}\n", f" {IMAGE_MARKER} "])
    def test_an_empty_question(self, question: str) -> None:
        views = views_of((70, 50)) if IMAGE_MARKER in question else []
        with pytest.raises(UsageError, match="question is empty"):
            SMALL.processor.encode([("user", question)], views)

    def test_an_unknown_role(self) -> None:
        with pytest.raises(UsageError, match="'gpt'"):
            SMALL.processor.encode([("user", "?"), ("gpt", "!")])

    def test_crops_of_several_pictures(self) -> None:
        """The model would read them as whole pictures, from the wrong pixels."""
        both = [*views_of((70, 50)), *views_of((40, 30))]
        with pytest.raises(UsageError, match="several are read whole"):
            SMALL.processor.encode([("user", f"{IMAGE_MARKER}\n{IMAGE_MARKER}\n?")], both)

    def test_one_picture_without_crops(self) -> None:
        with pytest.raises(UsageError, match="with its crops"):
            SMALL.processor.encode([("user", f"{IMAGE_MARKER}\n?")], views_of((70, 50), (40, 30))[:1])

    def test_a_template_that_rewrites(self) -> None:
        reasoner = small_reasoner()
        reasoner.tokenizer.chat_template = "{{ messages | length }}" + reasoner.tokenizer.chat_template
        with pytest.raises(UsageError, match="template"):
            reasoner.processor.encode([("user", "Hi"), ("assistant", "Hello")])
