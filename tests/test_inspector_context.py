"""The inspector with a context: from files to records; batches, order, copies, pages, odd shapes and requests."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomaly_ov.models.score import expert_alone, logit
from PIL import Image

from anomaly_ov.context.context import Context
from anomaly_ov.context.context_file import save_context
from anomaly_ov.context.tokens import PictureTokens, Scales
from anomaly_ov.errors import ContextMismatch, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.images.maps import map_score, significance_map
from anomaly_ov.images.read import read
from anomaly_ov.images.views import ViewsConfig, anyres
from anomaly_ov.inspector import Inspector
from anomaly_ov.models.config import (
    CalibrationConfig,
    ContextConfig,
    EncoderConfig,
    ExpertConfig,
    ModelConfig,
    ProjectionPart,
)
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.token_maps import Floats
from anomaly_ov.records import Finding
from context_fixtures import assert_same
from model_fixtures import small_config, small_model

CONTEXT = ContextConfig(
    whole_top=0.1,
    detail_top=0.1,
    usual=0.01,
    expert_weight=0.3,
    context_weight=1.5,
    threshold=0.4,
    threshold_source="test of contexts",
    map_threshold=0.3,
)


def pixels(seed: int, odd: bool = False, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A striped cloth; an odd one has a patch of noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    cloth_HW = 120 + 60 * np.sin(columns / 3) + 30 * np.sin(rows / 5)
    cloth_HW3 = cloth_HW[..., None] * [1.0, 0.9, 0.6] + generator.normal(0, 3, (*size, 3))
    if odd:
        y, x = generator.integers(8, 32, 2)
        cloth_HW3[y : y + 24, x : x + 24] = generator.integers(0, 256, (24, 24, 3))
    return np.clip(cloth_HW3, 0, 255).astype(np.uint8)


def inspector_of(revision: str = "test", context: ContextConfig = CONTEXT) -> Inspector:
    """Random weights, but the projection is centred on the cloth: otherwise all tokens point the same way."""
    config = replace(small_config(), context=context, revision=revision, projection=(ProjectionPart((0, 1), 12),))
    torch.manual_seed(0)
    model = AnomalyModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
        part = model.projection.maps[0]
        views_NHW3 = torch.from_numpy(pixels(100)).view(2, 32, 2, 32, 3).transpose(1, 2).flatten(0, 1)
        tokens_NPD = torch.cat(model.encoder(model.encoder.normalise(views_NHW3)).levels_NPD, -1)
        part.bias.copy_(-tokens_NPD.mean((0, 1)) @ part.weight.T)
    return Inspector(model, device="cpu")


def write_folder(folder: Path, count: int = 14, odd: int = 3) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(pixels(index, index < odd)).save(folder / f"{'odd' if index < odd else 'fine'}{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return inspector_of()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen pictures of one cloth, three of them odd. Not to be changed; take a copy."""
    return write_folder(tmp_path_factory.mktemp("shelf") / "shelf")


@pytest.fixture
def own_shelf(shelf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shelf, tmp_path / "own"))


@pytest.fixture(scope="module")
def folder_context(inspector: Inspector, shelf: Path) -> Context:
    return inspector.folder_context(shelf)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {Path(finding.id).name: finding for finding in findings}


def assert_close(first: Finding, second: Finding, tolerance: float = 1e-3) -> None:
    assert first.score == pytest.approx(second.score, abs=tolerance)
    assert first.score_context == pytest.approx(second.score_context, abs=tolerance)
    assert first.significance_map is not None
    assert second.significance_map is not None
    np.testing.assert_allclose(first.significance_map, second.significance_map, atol=5 * tolerance)


def assert_near(first: Scales[Floats], second: Scales[Floats]) -> None:
    """Up to what another batch changes in the last digits."""
    np.testing.assert_allclose(first.whole, second.whole, atol=1e-3, rtol=0)
    np.testing.assert_allclose(first.detail, second.detail, atol=1e-3, rtol=0)


def test_odd_pictures_of_a_folder_come_first(inspector: Inspector, shelf: Path, folder_context: Context) -> None:
    found = list(inspector.stream(shelf, context=folder_context))
    ranked = sorted(found, key=lambda finding: -(finding.score or 0))
    assert {Path(finding.id).name[:3] for finding in ranked[:3]} == {"odd"}


def test_record_names_its_context(inspector: Inspector, shelf: Path, folder_context: Context) -> None:
    finding = next(iter(inspector.stream(shelf, context=folder_context)))
    values = json.loads(json.dumps(finding.to_json()))
    assert values["context"].keys() == {"kind", "source", "references", "group", "distance", "note"}
    assert values["context"]["kind"] == "folder"
    assert values["context"]["source"] == str(shelf)
    assert values["context"]["references"] == len(folder_context.bank)
    assert values["context"]["group"] == 0
    assert values["context"]["distance"] > 0
    assert 0 <= values["score_context"] <= 1
    assert 0 <= values["score_expert"] <= 1
    assert values["threshold"] == {"value": 0.4, "source": "test of contexts"}
    assert values["anomalous"] == (values["score"] >= 0.4)
    assert values["timing_ms"]["context"] > 0


def test_without_context_the_expert_answers_alone(inspector: Inspector, shelf: Path) -> None:
    finding = inspector.inspect(shelf / "fine05.png")
    values = finding.to_json()
    assert values["context"]["kind"] == "none"
    assert values["score_context"] is None
    assert values["score_expert"] == values["score"]
    assert finding.threshold == inspector.threshold == inspector.threshold_with(None)


def test_expert_says_the_same_with_a_context(inspector: Inspector, shelf: Path, folder_context: Context) -> None:
    for alone, beside in zip(inspector.stream(shelf), inspector.stream(shelf, context=folder_context), strict=True):
        assert beside.score_expert == pytest.approx(alone.score, abs=1e-5)
        assert beside.score_raw == pytest.approx(alone.score_raw, abs=1e-5)
        assert beside.score_map == pytest.approx(alone.score_map, abs=1e-5)
        assert beside.level == alone.level


def rimmed_config(**calibration: float) -> ModelConfig:
    """A transformer whose patches leave a rim: 3 x 3 patches of 8 in views of 30."""
    network = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    network |= {"intermediate_size": 16, "patch_size": 8, "image_size": 30}
    return replace(
        small_config(**calibration),
        encoder=EncoderConfig(backbone=network, levels=(1, 2), final=2, image_size=30),
        expert=ExpertConfig(width=16, hidden=8, grid_hw=(3, 3), levels=2),
        views=ViewsConfig(base_size=30, grids=((1, 1), (2, 2), (2, 1)), cap=60),
        context=CONTEXT,
    )


def rimmed_model(**calibration: float) -> AnomalyModel:
    torch.manual_seed(0)
    model = AnomalyModel(rimmed_config(**calibration)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("make", [small_model, rimmed_model])
def test_expert_alone_is_what_the_inspector_records(make: Callable[..., AnomalyModel], shelf: Path) -> None:
    inspector = Inspector(make(head_weight=0.8, map_weight=0.5, bias=-0.2, map_top=0.05), device="cpu")
    calibration = replace(CalibrationConfig(), head_weight=0.8, map_weight=0.5, bias=-0.2, map_top=0.05)
    patch = 8.0 if make is rimmed_model else None
    folder = inspector.folder_context(shelf)
    recorded = dict(zip(folder.bank.digests, folder.bank.expert_logit_R.tolist(), strict=True))
    assert recorded
    for path in sorted(shelf.iterdir()):
        views = anyres(read(path).pixels_HW3, inspector.views_config)
        with torch.inference_mode():
            features = inspector.encoder(inspector.encoder.normalise(torch.from_numpy(views.pixels_NHW3)))
            output = inspector.expert(features, [len(views.pixels_NHW3)])
        found = expert_alone(output.map_Nhw.numpy(), float(output.score_B[0]), views.geometry, calibration, patch)
        blended_HW = significance_map(output.map_Nhw.numpy(), views.geometry, patch=patch)
        assert found.score_map == map_score(blended_HW, calibration.map_top)
        np.testing.assert_array_equal(found.map_HW, blended_HW)
        finding = inspector.inspect(path)
        assert finding.significance_map is not None
        assert finding.map is not None
        np.testing.assert_allclose(found.map_HW, finding.significance_map, atol=1e-5)
        assert found.grid == finding.map.grid
        assert found.score_map == pytest.approx(finding.score_map, abs=1e-5)
        assert found.score == pytest.approx(finding.score, abs=1e-5)
        beside = inspector.inspect(path, folder)
        assert found.score == pytest.approx(beside.score_expert, abs=1e-5)
        # So does what a context remembers of its references.
        if finding.image.sha256 in recorded:
            assert recorded[finding.image.sha256] == pytest.approx(float(logit(found.score)), abs=1e-3)


def test_rim_of_a_transformer_is_left_out_of_the_contexts_map(shelf: Path) -> None:
    inspector = Inspector(rimmed_model(), device="cpu")
    context = inspector.context(shelf)
    compared: list[PictureTokens] = []
    judge = Context.judge

    def watched(self: Context, result: Any, picture: PictureTokens, *rest: Any) -> Any:
        compared.append(picture)
        return judge(self, result, picture, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Context, "judge", watched)
        assert inspector.inspect(shelf / "odd00.png", context).score_context is not None
    (picture,) = compared
    assert picture.patch == 8
    np.testing.assert_array_equal(picture.shown_Nhw, picture.geometry.content_share((3, 3), 8) >= 0.5)


def test_map_and_regions_are_the_fused_ones(inspector: Inspector, folder_context: Context) -> None:
    marked = pixels(50)
    marked[32:56, 8:24] = np.random.default_rng(0).integers(0, 256, (24, 16, 3))
    finding = inspector.inspect(marked, folder_context)
    map_HW = finding.significance_map
    assert map_HW is not None
    assert map_HW.shape == (64, 64)
    assert 0 <= map_HW.min() <= map_HW.max() <= 1
    inside, outside = map_HW[36:52, 10:22].mean(), map_HW[:24, 36:].mean()
    assert inside > outside + 0.1
    assert inspector.map_threshold_with(folder_context) == 0.3
    assert inspector.map_threshold_with(None) == inspector.map_threshold == 0.5


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_nothing(
    inspector: Inspector, shelf: Path, folder_context: Context, batch_size: int
) -> None:
    context = inspector.folder_context(shelf, batch_size=batch_size)
    assert context.bank.digests == folder_context.bank.digests
    assert_near(context.bank.tokens, folder_context.bank.tokens)
    assert context.bank.usual[0].distance == pytest.approx(folder_context.bank.usual[0].distance, abs=1e-4)
    expected = list(inspector.stream(shelf, context=folder_context))
    for found, one in zip(inspector.stream(shelf, batch_size, context), expected, strict=True):
        assert_close(found, one)


def test_one_by_one_equals_the_stream(inspector: Inspector, shelf: Path, folder_context: Context) -> None:
    for found in inspector.stream(shelf, context=folder_context):
        assert_close(found, inspector.inspect(found.image.path, folder_context))


@pytest.mark.parametrize("build", ["context", "folder_context"])
def test_order_changes_nothing(inspector: Inspector, shelf: Path, build: str) -> None:
    paths = sorted(shelf.iterdir())
    there = getattr(inspector, build)(paths, batch_size=1)
    back = getattr(inspector, build)(paths[::-1], batch_size=1)
    assert there.bank.digests == back.bank.digests
    assert_same(there.bank.tokens, back.bank.tokens)
    assert np.array_equal(there.bank.descriptor_RE, back.bank.descriptor_RE)
    assert there.bank.usual == back.bank.usual
    assert there.source == back.source == str(shelf)


def test_copies_change_nothing_in_a_folder(inspector: Inspector, own_shelf: Path, folder_context: Context) -> None:
    """Whether a picture is there once or six times, it has no say about itself."""
    for index in range(5):
        shutil.copy(own_shelf / "odd01.png", own_shelf / f"odd01 copy {index}.png")
    context = inspector.folder_context(own_shelf)
    assert context.bank.digests == folder_context.bank.digests
    copies = by_name(list(inspector.stream(own_shelf, context=context)))
    original = inspector.inspect(own_shelf / "odd01.png", folder_context)
    for name in ("odd01.png", "odd01 copy 0.png", "odd01 copy 4.png"):
        assert_close(copies[name], original)


def test_the_same_picture_in_other_bytes_does_not_excuse_itself(inspector: Inspector, own_shelf: Path) -> None:
    alone = inspector.folder_context(own_shelf)
    Image.open(own_shelf / "odd01.png").save(own_shelf / "odd01 again.bmp")
    both = inspector.folder_context(own_shelf)
    before = inspector.inspect(own_shelf / "odd01.png", alone).score_context
    after = inspector.inspect(own_shelf / "odd01.png", both).score_context
    assert after is not None
    assert after == pytest.approx(before, abs=0.1)


def test_a_copy_does_serve_among_good_references(inspector: Inspector, shelf: Path) -> None:
    path = shelf / "odd00.png"
    own = inspector.inspect(path, inspector.context(path))
    assert own.context.distance == pytest.approx(0, abs=0.05)
    other = inspector.inspect(shelf / "odd01.png", inspector.context(path))
    assert (other.score or 0) > (own.score or 0)


def test_a_folder_with_nothing_but_itself_to_compare(inspector: Inspector, own_shelf: Path) -> None:
    """Three pictures, context of them; then all references but the picture itself are its copies."""
    context = inspector.folder_context(sorted(own_shelf.iterdir())[:3])
    digest = inspector.inspect(own_shelf / "odd00.png").image.sha256
    assert digest is not None
    lonely = replace(context, bank=replace(context.bank, digests=(digest,) * len(context.bank)))
    finding = inspector.inspect(own_shelf / "odd00.png", lonely)
    assert finding.score == finding.score_expert
    assert finding.score_context is None
    assert finding.context.kind == "folder"
    assert "copies" in str(finding.context.note)
    assert finding.threshold == inspector.threshold


def test_unreadable_pictures_among_a_folder(inspector: Inspector, own_shelf: Path, folder_context: Context) -> None:
    (own_shelf / "fine00 broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    context = inspector.folder_context(own_shelf)
    assert context.bank.digests == folder_context.bank.digests
    broken = by_name(list(inspector.stream(own_shelf, context=context)))["fine00 broken.png"]
    assert broken.error is not None
    assert broken.score is None
    assert broken.context.kind == "folder"


@pytest.mark.parametrize("broken", [1, 5])
def test_broken_files_among_references_change_no_score(inspector: Inspector, own_shelf: Path, broken: int) -> None:
    alone = inspector.context(sorted(own_shelf.glob("fine*")), batch_size=1)
    assert not alone.notes
    for index in range(broken):
        (own_shelf / f"fine0{index} broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([index]))
    among = inspector.context(sorted(own_shelf.glob("fine*")), batch_size=1)
    assert among.bank.usual == alone.bank.usual
    assert_same(among.bank.tokens, alone.bank.tokens)
    assert among.notes == (f"11 of {11 + broken} pictures serve (unreadable: {broken})",)
    for path in sorted(own_shelf.glob("odd*")):
        assert inspector.inspect(path, among).score == inspector.inspect(path, alone).score


def test_only_unreadable_pictures(inspector: Inspector, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        path.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="0 of them readable"):
        inspector.folder_context(paths)
    with pytest.raises(UsageError, match="no readable picture"):
        inspector.context(paths)
    context, reason = inspector.auto_context([*paths, *(tmp_path / f"gone {i}.png" for i in range(9))])
    assert context is None
    assert "it takes 8 readable, distinct pictures" in reason


def test_too_few_distinct_pictures(inspector: Inspector, own_shelf: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for copies in range(6):
        shutil.copy(own_shelf / "fine09.png", few / f"{copies}.png")
        with pytest.raises(UsageError, match="1 of them readable and distinct") as raised:
            inspector.folder_context(few)
        assert raised.value.hint
    shutil.copy(own_shelf / "fine10.png", few / "other.png")
    with pytest.raises(UsageError, match="2 of them readable and distinct"):
        inspector.folder_context(few)


def test_no_pictures_at_all(inspector: Inspector, tmp_path: Path) -> None:
    for build in (inspector.context, inspector.folder_context):
        with pytest.raises(UsageError):
            build([])
        with pytest.raises(UsageError, match="no picture in folder"):
            build(tmp_path)


def test_equal_pictures_in_different_files(inspector: Inspector, tmp_path: Path) -> None:
    """Same pixels, different bytes: nothing to tell them apart by, and no error."""
    for index, suffix in enumerate(("png", "bmp", "tif", "ppm")):
        Image.fromarray(pixels(1)).save(tmp_path / f"{index}.{suffix}")
    context = inspector.folder_context(tmp_path)
    for finding in inspector.stream(tmp_path, context=context):
        assert finding.score is not None
        assert np.isfinite(finding.score)
        # What half precision leaves of 0; told by what is usual, which among equal pictures lies far down itself.
        distance = finding.context.distance
        assert distance is not None
        assert distance * context.usual(0).distance == pytest.approx(0, abs=5e-4)
        assert distance < 0.3
        assert finding.score < 0.01


def test_pages_of_one_file_are_no_copies_of_each_other(inspector: Inspector, tmp_path: Path) -> None:
    pages = [Image.fromarray(pixels(seed, seed == 3)) for seed in range(6)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    context = inspector.folder_context(tmp_path / "pages.tif")
    assert len(set(context.bank.digests)) == 6
    found = list(inspector.stream(tmp_path / "pages.tif", context=context))
    assert max(range(6), key=lambda page: found[page].score_context or 0) == 3
    # A page sees the others and not itself.
    assert min(finding.context.distance or 0 for finding in found) > 0.2


def test_sizes_and_strips_of_all_kinds(inspector: Inspector) -> None:
    shapes = [(64, 64), (200, 300), (1, 1), (1, 400), (400, 1), (3, 200), (10, 10), (33, 97)]
    pictures = [pixels(seed, size=size) for seed, size in enumerate(shapes)]
    for context in (inspector.folder_context(pictures), inspector.context(pictures[3])):
        for finding in inspector.stream(pictures, context=context):
            assert finding.error is None
            assert finding.score is not None
            assert np.isfinite(finding.score)
            assert finding.significance_map is not None
            assert np.isfinite(finding.significance_map).all()


def test_one_reference_in_every_form(inspector: Inspector, shelf: Path) -> None:
    path = shelf / "fine09.png"
    expected = inspector.context(path)
    assert (expected.kind, expected.source, len(expected.bank)) == ("references", str(path), 1)
    for given in (str(path), [path], path.read_bytes(), Image.open(path), np.asarray(Image.open(path))):
        found = inspector.context(given)
        assert len(found.bank) == 1
        # Tokens are drawn by digest, and a picture in memory has another than its file.
        assert_close(
            inspector.inspect(shelf / "fine10.png", found), inspector.inspect(shelf / "fine10.png", expected), 0.02
        )


def test_a_context_file_is_loaded(inspector: Inspector, shelf: Path, tmp_path: Path) -> None:
    good = inspector.context(shelf)
    folder = inspector.folder_context(shelf)
    for name, made in (("good.ctx", good), ("folder.CTX", folder)):
        save_context(tmp_path / name, made)
        for given in (tmp_path / name, str(tmp_path / name)):
            found = inspector.context(given)
            assert (found.kind, found.source, found.bank.usual) == (made.kind, str(shelf), made.bank.usual)
            expected = inspector.inspect(shelf / "odd00.png", made)
            assert inspector.inspect(shelf / "odd00.png", found).score == expected.score


def test_a_context_file_that_will_not_do(inspector: Inspector, shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no context file"):
        inspector.context(tmp_path / "gone.ctx")
    (tmp_path / "text.ctx").write_text("none")
    with pytest.raises(UnsafeCheckpoint, match="no context file"):
        inspector.context(str(tmp_path / "text.ctx"))
    save_context(tmp_path / "other.ctx", inspector_of(revision="another").context(shelf))
    with pytest.raises(ContextMismatch, match="another"):
        inspector.context(tmp_path / "other.ctx")


def test_a_folder_may_be_called_like_a_context_file(inspector: Inspector, shelf: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shelf, tmp_path / "part.ctx"))
    assert inspector.context(folder).bank.digests == inspector.context(shelf).bank.digests


def test_references_need_not_have_the_size_of_what_they_judge(inspector: Inspector, shelf: Path) -> None:
    large = inspector.context([pixels(0, size=(96, 96))])
    assert inspector.inspect(shelf / "fine05.png", large).score_context is not None


def test_context_of_another_model(inspector: Inspector, shelf: Path, folder_context: Context) -> None:
    other = inspector_of(revision="another")
    for use in (
        lambda: other.inspect(shelf / "fine05.png", folder_context),
        lambda: list(other.stream(shelf, context=folder_context)),
    ):
        with pytest.raises(ContextMismatch, match="another") as raised:
            use()
        assert "test" in raised.value.message
        assert "context build" in raised.value.hint


def test_threshold_of_the_caller_holds_with_a_context(shelf: Path) -> None:
    model = small_model()
    inspector = Inspector(model, device="cpu", threshold=0.9)
    context = inspector.folder_context(shelf)
    assert inspector.threshold_with(context).value == 0.9
    assert inspector.threshold_with(context).source == "set by the caller"


@pytest.mark.parametrize("build", ["context", "folder_context", "auto_context"])
def test_progress_is_told(inspector: Inspector, shelf: Path, build: str) -> None:
    told: list[tuple[int, int]] = []
    getattr(inspector, build)(shelf, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 14) for done in range(1, 15)]


@pytest.mark.parametrize("build", ["context", "folder_context"])
def test_bad_batch_size(inspector: Inspector, shelf: Path, build: str) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        getattr(inspector, build)(shelf, batch_size=0)


def test_auto_states_its_reason(inspector: Inspector, shelf: Path) -> None:
    context, reason = inspector.auto_context(shelf)
    assert reason
    assert context is None or context.kind == "folder"
    none, reason = inspector.auto_context(sorted(shelf.iterdir())[:3])
    assert none is None
    assert "it takes 8 readable, distinct pictures" in reason


def test_out_of_memory_while_building_changes_nothing(
    shelf: Path, folder_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = inspector_of()
    whole = inspector.encoder.forward

    def small_memory(views: torch.Tensor) -> object:
        if len(views) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(views)

    monkeypatch.setattr(inspector.encoder, "forward", small_memory)
    context = inspector.folder_context(shelf)
    assert context.bank.digests == folder_context.bank.digests
    assert_near(context.bank.tokens, folder_context.bank.tokens)


def test_streams_serve_like_their_bytes(inspector: Inspector, shelf: Path) -> None:
    """A stream can be read once only; finding out whether it is a copy must not use it up."""
    contents = [path.read_bytes() for path in sorted(shelf.iterdir())[:5]]
    expected = inspector.context(contents)
    context = inspector.context([io.BytesIO(content) for content in contents])
    assert sorted(context.bank.digests) == sorted(expected.bank.digests)
    assert_close(inspector.inspect(shelf / "fine10.png", context), inspector.inspect(shelf / "fine10.png", expected))
    again = inspector.context([io.BytesIO(content) for content in [*contents, contents[0]]])
    assert sorted(again.bank.digests) == sorted(expected.bank.digests)


def test_source_of_pictures_in_memory(inspector: Inspector, shelf: Path) -> None:
    assert inspector.context([pixels(0), pixels(1)]).source == "2 pictures"
    assert inspector.context([shelf / "fine05.png", pixels(1)]).source == "2 pictures"
    assert inspector.context([shelf / "fine05.png", shelf / "fine06.png"]).source == str(shelf)
