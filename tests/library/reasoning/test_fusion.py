"""The order and the embeddings of what the language model reads, against the released code's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import Views, ViewsConfig, anyres_geometry, multi_image_geometry
from anomaly_ov.reasoning.annotation import remarks
from anomaly_ov.reasoning.config import READINGS
from anomaly_ov.reasoning.evidence import Evidence
from anomaly_ov.reasoning.layout import GLOBAL, IMAGE, LOCAL, NEWLINE, PAD, PROMPT, TEXT, layout
from anomaly_ov.reasoning.processor import Processor
from golden_fixtures import (
    PICTURE,
    QWEN2_IMAGE,
    SIDE,
    SeededDetector,
    fusion_arrays,
    fusion_meta,
    qwen2_tokenizer,
    released_reasoner,
    sketch,
    with_recorded_tokens,
)
from model_fixtures import small_reasoner

CASES = list(fusion_meta()["cases"])
EMBEDDED = ["one_image_2x1", "square_384", "tall_1x2", "two_images_in_batch", "multi_view_4"]
EMBEDDED += ["mixed_batch_multi_then_single", "reduced_1920x1080"]
HALF = ["square_384", "multi_view_4"]
UNCAPPED = ViewsConfig(cap=None)
GRID = (SIDE, SIDE)

pytestmark = pytest.mark.usefixtures("one_thread")


def geometries_of(case: dict[str, Any]) -> list[Geometry]:
    """One view = one of several pictures, else crops of the uncapped picture; as many views as were recorded."""
    made = []
    for (width, height), views in zip(case["image_sizes_wh"], case["split_sizes"], strict=True):
        make = multi_image_geometry if views == 1 else anyres_geometry
        made.append(make((width, height), UNCAPPED))
        assert made[-1].views == views
    return made


def batch_of(case: dict[str, Any], processor: Processor, labels: bool = True) -> dict[str, Tensor]:
    """The recorded ids through our expansion, truncation and padding."""
    options = case["config_overrides"]
    pictures = iter(geometries_of(case))
    samples = []
    for ids, own in zip(case["input_ids"], case["labels"], strict=True):
        geometries = itertools.islice(pictures, ids.count(PICTURE))
        views = [Views(np.zeros((one.views, 1, 1, 3), np.uint8), one) for one in geometries]
        marked = [QWEN2_IMAGE if i == PICTURE else i for i in ids]
        samples.append(processor.assemble(marked, own, views, max_length=options.get("tokenizer_model_max_length")))
    return processor.collate(samples, options.get("tokenizer_padding_side", "right"), labels)


class TestOrder:
    """All 13 cases: features that say what they are and a projector that lets them through name every position."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Any:
        model = released_reasoner(SeededDetector(0, [1]), hidden=4, width=4)
        embed = model.get_input_embeddings().weight
        embed.zero_()
        embed[:, 0], embed[:, 1] = TEXT, torch.arange(len(embed))
        model.model.multi_modal_projector.weight.copy_(torch.eye(4))
        model.model.multi_modal_projector.bias.zero_()
        model.model.image_newline.copy_(torch.tensor([NEWLINE, 0, -1, -1]))
        return model

    @staticmethod
    def evidence(case: dict[str, Any]) -> list[Evidence]:
        made, first = [], 0
        pairs = zip(geometries_of(case), case["scores_used_for_layout"], strict=True)
        for picture, (geometry, score) in enumerate(pairs):
            crop_N = torch.arange(first, first + geometry.views)
            final_NPD = torch.zeros(geometry.views, SIDE**2, 4)
            final_NPD[..., 0], final_NPD[..., 2], final_NPD[..., 3] = IMAGE, crop_N[:, None], torch.arange(SIDE**2)
            local_NQD = torch.zeros(geometry.views, 4, 4)
            local_NQD[..., 0], local_NQD[..., 2], local_NQD[..., 3] = LOCAL, crop_N[:, None], torch.arange(4)
            global_D = torch.tensor([GLOBAL, 0.0, picture, 0.0])
            map_Nhw = torch.full((geometry.views, *GRID), 0.5)
            made.append(Evidence(final_NPD, map_Nhw, local_NQD, global_D, score, geometry))
            first += geometry.views
        return made

    @pytest.mark.parametrize("name", CASES)
    def test_every_position_is_the_released_one(self, name: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        case, golden = fusion_meta()["cases"][name], fusion_arrays(name)
        batch = batch_of(case, Processor(qwen2_tokenizer(), model.config, GRID), "labels" in golden)
        monkeypatch.setattr(model.model, "look", lambda *_: self.evidence(case))
        picture = {key: batch[key] for key in ("pixel_values", "image_sizes", "image_lengths", "image_readings")}
        tokens = model.model.get_image_features(**picture).pooler_output
        code_BTE = model.model.embed(batch["input_ids"], tokens)
        kind_BT, id_BT, crop_BT, index_BT = code_BTE.round().long().unbind(-1)
        places_BT, read_BT = batch["input_ids"] == QWEN2_IMAGE, batch["attention_mask"].bool()
        kind_BT = torch.where(places_BT & (kind_BT == TEXT), PROMPT, kind_BT).where(read_BT, PAD)
        worded_BT = (kind_BT == TEXT) | (kind_BT == PROMPT)
        assert np.array_equal(golden["attention_mask"], read_BT)
        assert np.array_equal(golden["kind"], kind_BT)
        assert np.array_equal(golden["token_id"], id_BT.where(worded_BT, -1))
        whole = golden["crop"] != -2  # those of a reduced grid are mixtures; compared in TestEmbeddings
        nowhere_BT = worded_BT | (kind_BT == PAD)
        assert np.array_equal(golden["crop"][whole], crop_BT.where(~nowhere_BT, -1)[whole])
        assert np.array_equal(golden["index"][whole], index_BT.where(~nowhere_BT, -1)[whole])
        assert ("labels" in golden) == ("labels" in batch)
        if "labels" in golden:
            assert np.array_equal(golden["labels"], batch["labels"])

    @pytest.mark.parametrize("name", CASES)
    def test_lengths_and_padded_shape(self, name: str, model: Any) -> None:
        case = fusion_meta()["cases"][name]
        batch = batch_of(case, Processor(qwen2_tokenizer(), model.config, GRID))
        assert batch["attention_mask"].sum(1).tolist() == case["lengths"]

    @pytest.mark.parametrize("name", ["left_padding", "two_images_in_batch"])
    def test_padding_carries_no_label(self, name: str, model: Any) -> None:
        batch = batch_of(fusion_meta()["cases"][name], Processor(qwen2_tokenizer(), model.config, GRID))
        assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


class TestEmbeddings:
    """Whole way from (seeded) features through expert, projector and fusion. Every position is compared through its
    sketch, a seventh of them and all prompt, global and local tokens number by number."""

    @staticmethod
    def embeds(name: str, dtype: torch.dtype) -> tuple[np.ndarray, list[float]]:
        """(all positions, hidden), padding zeroed as recorded; and the scores."""
        case = fusion_meta()["cases"][name]
        detector = SeededDetector(case["feature_seed"], case["split_sizes"], dtype)
        model = with_recorded_tokens(released_reasoner(detector, case["hidden"])).to(dtype)
        batch = batch_of(case, Processor(qwen2_tokenizer(), model.config, GRID))
        seen: list[Evidence] = []
        look = model.model.look
        model.model.look = lambda *given: seen.extend(look(*given)) or seen
        names = ("pixel_values", "image_sizes", "batch_num_images", "image_lengths", "image_readings")
        tokens = model.model.get_image_features(**{key: batch[key] for key in names}).pooler_output
        embeds_BTE = model.model.embed(batch["input_ids"], tokens)
        assert embeds_BTE.dtype == dtype
        embeds_BTE = embeds_BTE.float() * batch["attention_mask"].unsqueeze(-1)
        return embeds_BTE.flatten(0, 1).numpy(), [one.score for one in seen]

    @pytest.mark.parametrize("name", EMBEDDED)
    def test_float32(self, name: str) -> None:
        golden, recorded = fusion_arrays(name), fusion_meta()["cases"][name]["inputs_embeds_f32"]
        embeds_SE, scores = self.embeds(name, torch.float32)
        np.testing.assert_allclose(scores, golden["final_preds_f32"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(embeds_SE[golden["positions"]], golden["embeds_f32"], rtol=0, atol=1e-5)
        # 64 differences of up to 1e-5 with weights of about 1 add up to 1e-4 at most.
        np.testing.assert_allclose(sketch(embeds_SE), golden["sketch_f32"], rtol=0, atol=1e-4)
        found = {"mean": embeds_SE.mean(dtype=np.float64), "std": embeds_SE.std(dtype=np.float64)}
        found |= {"l2": np.linalg.norm(embeds_SE.astype(np.float64)), "min": embeds_SE.min(), "max": embeds_SE.max()}
        assert found == {key: pytest.approx(recorded[key], rel=1e-5) for key in found}

    @pytest.mark.parametrize("name", HALF)
    def test_bf16(self, name: str) -> None:
        """Within two steps of bf16 at the largest values (4 to 8): our expert computes in float32, the released one
        rounds after each layer, which the anomaly tokens show (0.03 measured). What is only looked up is exact.
        """
        golden = fusion_arrays(name)
        embeds_SE, scores = self.embeds(name, torch.bfloat16)
        np.testing.assert_allclose(scores, golden["final_preds_bf16"], rtol=0, atol=5e-3)
        np.testing.assert_allclose(embeds_SE[golden["positions"]], golden["embeds_bf16"], rtol=0, atol=0.0625)
        np.testing.assert_allclose(sketch(embeds_SE), golden["sketch_bf16"], rtol=0, atol=0.4)
        looked_up = np.isin(golden["kind"].ravel()[golden["positions"]], (TEXT, NEWLINE, PROMPT))
        assert np.array_equal(embeds_SE[golden["positions"]][looked_up], golden["embeds_bf16"][looked_up])


class TestReadings:
    """``focus`` and ``highlight`` take their tokens from where ``full`` does, with and without annotation."""

    @pytest.fixture(scope="class", params=[True, False], ids=["annotated", "plain"])
    @classmethod
    def looked(cls, request: pytest.FixtureRequest) -> Any:
        model = small_reasoner(annotate=request.param, crop_budget=7).model.model
        views = model.detector.config.views
        geometries = [anyres_geometry((70, 50), views), anyres_geometry((20, 31), views)]
        count = sum(one.views for one in geometries)
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
        return model, model.look(pixels, geometries)

    @staticmethod
    def order(model: Any, one: Evidence, reading: str) -> Any:
        config = model.config
        map_Nhw = one.map_Nhw.numpy()
        counts = (config.max_views, config.crop_budget, config.focus_pool)
        return layout(one.geometry, one.grid_hw, config.prompt_length, reading, *counts, map_Nhw)

    @pytest.mark.parametrize("reading", ["focus", "highlight"])
    def test_tokens_are_those_of_full(self, looked: Any, reading: str) -> None:
        model, evidence = looked
        pairs = zip(evidence, model.picture_tokens(evidence), strict=True)
        for (one, full_TE), found_TE in zip(pairs, model.picture_tokens(evidence, [reading] * 2), strict=True):
            orders = [self.order(model, one, name) for name in ("full", reading)]
            keys, wanted = (list(zip(o.kind_T, o.view_T, o.cell_T, strict=True)) for o in orders)
            where = {key: t for t, key in enumerate(keys)}
            rows = [where[key] for key in wanted]
            torch.testing.assert_close(found_TE, full_TE[rows])

    def test_mixed_readings_give_what_each_gives_alone(self, looked: Any) -> None:
        model, evidence = looked
        for readings in itertools.product(READINGS, repeat=2):
            together = model.picture_tokens(evidence, list(readings))
            for one, reading, found_TE in zip(evidence, readings, together, strict=True):
                torch.testing.assert_close(found_TE, model.picture_tokens([one], [reading])[0])

    def test_highlight_keeps_the_most_suspicious_cells_in_reading_order(self, looked: Any) -> None:
        model, (one, _) = looked
        order = self.order(model, one, "highlight")
        kept = (order.kind_T == IMAGE) & (order.view_T > 0)
        assert kept.sum() == 7
        map_Nhw = one.map_Nhw.flatten(1)
        full = self.order(model, one, "full")
        crops = (full.kind_T == IMAGE) & (full.view_T > 0)
        keys = list(zip(full.view_T[crops], full.cell_T[crops], strict=True))
        ranked = sorted(keys, key=lambda key: -float(map_Nhw[key]))
        chosen = list(zip(order.view_T[kept], order.cell_T[kept], strict=True))
        assert set(chosen) == set(ranked[:7])
        assert chosen == [key for key in keys if key in set(chosen)]

    def test_focus_reads_no_crop_token(self, looked: Any) -> None:
        model, (one, _) = looked
        order = self.order(model, one, "focus")
        assert not ((order.kind_T == IMAGE) & (order.view_T > 0)).any()

    def test_annotation_says_place_and_suspicion(self) -> None:
        """The same features at another place, or found more suspicious, give other tokens; without annotation not."""
        for annotated in (True, False):
            model = small_reasoner(annotate=annotated).model.model
            geometry = anyres_geometry((64, 64), model.detector.config.views)
            final_NPD = torch.ones(geometry.views, 16, 16)
            tokens = [torch.ones(geometry.views, 4, 16), torch.ones(16)]
            map_Nhw = torch.full((geometry.views, 4, 4), 0.5)
            map_Nhw[0, 0, 1] = 0.9
            one = Evidence(final_NPD, map_Nhw, *tokens, 0.5, geometry)
            first_TE = model.picture_tokens([one])[0][:16]
            moved, suspicious = first_TE[0] - first_TE[5], first_TE[1] - first_TE[2]
            assert bool(moved.abs().max() > 1e-3) == annotated
            assert bool(suspicious.abs().max() > 1e-3) == annotated


class TestPooled:
    """``focus_pool``: the base view in blocks, each the mean of its cells weighted by the expert's map."""

    def test_blocks_are_weighted_means(self) -> None:
        model = small_reasoner(annotate=False, focus_pool=2).model.model
        model.multi_modal_projector = torch.nn.Linear(16, 32).requires_grad_(False)
        geometry = anyres_geometry((64, 64), model.detector.config.views)
        generator = torch.Generator().manual_seed(2)
        final_NPD = torch.randn(geometry.views, 16, 16, generator=generator)
        map_Nhw = torch.rand(geometry.views, 4, 4, generator=generator)
        tokens = [torch.randn(geometry.views, 4, 16), torch.randn(16)]
        one = Evidence(final_NPD, map_Nhw, *tokens, 0.5, geometry)
        found_TE = model.picture_tokens([one], ["focus"])[0]
        cells, weight = final_NPD[0].reshape(2, 2, 2, 2, 16), map_Nhw[0].reshape(2, 2, 2, 2, 1)
        expected = (cells * weight).sum((1, 3)) / weight.sum((1, 3))
        torch.testing.assert_close(found_TE[:4], model.multi_modal_projector(expected.flatten(0, 1)))

    def test_without_any_suspicion_they_are_plain_means(self) -> None:
        model = small_reasoner(annotate=False, focus_pool=2).model.model
        geometry = anyres_geometry((64, 64), model.detector.config.views)
        final_NPD = torch.randn(geometry.views, 16, 16, generator=torch.Generator().manual_seed(2))
        tokens = [torch.ones(geometry.views, 4, 16), torch.ones(16)]
        zero, even = (
            Evidence(final_NPD, torch.full((geometry.views, 4, 4), value), *tokens, 0.5, geometry)
            for value in (0.0, 0.5)
        )
        found = model.picture_tokens([zero, even], ["focus"] * 2)
        torch.testing.assert_close(found[0], found[1])

    def test_full_is_never_pooled(self) -> None:
        pooled, plain = (small_reasoner(focus_pool=pool).model.model for pool in (2, 1))
        geometry = anyres_geometry((64, 64), plain.detector.config.views)
        pixels = torch.full((geometry.views, 32, 32, 3), 77, dtype=torch.uint8)
        evidence = plain.look(pixels, [geometry])
        pooled_TE, plain_TE = pooled.picture_tokens(evidence)[0], plain.picture_tokens(evidence)[0]
        torch.testing.assert_close(pooled_TE, plain_TE, rtol=0, atol=1e-5)


class TestUnderflow:
    def test_a_map_of_zeros_gives_finite_tokens_in_every_reading(self) -> None:
        """The released code gives NaN, and then "highly" (docs/reference-implementation.md, section 7)."""
        for annotated in (True, False):
            model = small_reasoner(annotate=annotated, focus_pool=3).model.model
            geometry = anyres_geometry((64, 64), model.detector.config.views)
            tokens = [torch.ones(geometry.views, 4, 16), torch.ones(16)]
            map_Nhw = torch.zeros(geometry.views, 4, 4)
            one = Evidence(torch.ones(geometry.views, 16, 16), map_Nhw, *tokens, 0.0, geometry)
            for reading in READINGS:
                assert model.picture_tokens([one], [reading])[0].isfinite().all()
            assert all(part.isfinite().all() for part in remarks(one))
