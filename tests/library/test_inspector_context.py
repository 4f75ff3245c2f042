"""The inspector with a context: from files to records; batches, order, copies, pages, odd shapes and requests."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.context import context as context_module
from anomaly_ov.context.context import Context
from anomaly_ov.context.context_file import save_context
from anomaly_ov.errors import ContextMismatch, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.inspector import Inspector
from anomaly_ov.models.config import EncoderConfig, ExpertConfig, ModeConfig
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.records import Finding
from anomaly_ov.scoring.cells import Floats, Scales
from context_fixtures import assert_same
from model_fixtures import small_config, small_model, with_random_weights


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


def inspector_of(revision: str = "test", **scoring: object) -> Inspector:
    torch.manual_seed(0)
    model = AnomalyModel(replace(small_config(**scoring), revision=revision))
    return Inspector(with_random_weights(model), device="cpu")


def encoder_of(inspector: Inspector) -> torch.nn.Module:
    assert isinstance(inspector.engine, TorchEngine)
    return inspector.engine.runner.encoder


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


def assert_close(first: Finding, second: Finding, tolerance: float = 3e-3) -> None:
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
    drawn = f", drawn towards the leave-one-out figures of {len(folder_context.bank)} references"
    assert values["threshold"] == {"value": 0.5, "source": "small, folder" + drawn}
    assert values["anomalous"] == (values["score"] >= 0.5) == bool(values["regions"])
    assert values["score"] == values["score_context"]
    assert values["timing_ms"]["context"] > 0


def test_without_context_the_image_answers_alone(inspector: Inspector, shelf: Path) -> None:
    finding = inspector.inspect(shelf / "fine05.png")
    values = finding.to_json()
    assert values["context"]["kind"] == "none"
    assert values["score_context"] is None
    assert values["score_expert"] == values["score"]
    assert finding.threshold == inspector.threshold == inspector.threshold_with(None)


def test_what_the_image_says_alone_is_the_same_with_a_context(
    inspector: Inspector, shelf: Path, folder_context: Context
) -> None:
    for alone, beside in zip(inspector.stream(shelf), inspector.stream(shelf, context=folder_context), strict=True):
        assert beside.score_expert == pytest.approx(alone.score, abs=1e-4)
        assert beside.score_raw == pytest.approx(alone.score_raw, abs=1e-5)
        assert beside.score_map == pytest.approx(alone.score_map, abs=1e-5)


def test_the_level_follows_the_score_that_is_told(inspector: Inspector, shelf: Path, folder_context: Context) -> None:
    """Not what the image says alone: level and verdict never contradict each other."""
    for finding in inspector.stream(shelf, context=folder_context):
        assert (finding.level == "slightly") == (not finding.anomalous)


def rimmed_model(**scoring: object) -> AnomalyModel:
    """A transformer whose patches leave a rim: 3 x 3 patches of 8 in views of 30."""
    network = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    network |= {"intermediate_size": 16, "patch_size": 8, "image_size": 30}
    torch.manual_seed(0)
    config = replace(
        small_config(**scoring),
        encoder=EncoderConfig(backbone=network, levels=(1, 2), final=2, image_size=30),
        expert=ExpertConfig(width=16, hidden=8, grid_hw=(3, 3), levels=2),
        views=ViewsConfig(base_size=30, grids=((1, 1), (2, 2), (2, 1)), cap=60),
    )
    return with_random_weights(AnomalyModel(config))


@pytest.mark.parametrize("make", [small_model, rimmed_model])
@pytest.mark.parametrize("build", ["context", "folder_context"])
def test_map_score_verdict_and_regions_are_one_with_a_context_too(
    make: Callable[..., AnomalyModel], build: str, shelf: Path
) -> None:
    inspector = Inspector(make(), device="cpu")
    context = getattr(inspector, build)(sorted(shelf.glob("fine*")))
    seen = set()
    for finding in inspector.stream(shelf, context=context):
        assert finding.score is not None
        assert finding.significance_map is not None
        assert finding.score == float(finding.significance_map.max())
        assert finding.anomalous == (finding.score >= 0.5) == bool(finding.regions)
        seen.add(finding.anomalous)
    assert seen == {True, False} or make is rimmed_model


def test_rim_of_a_transformer_is_left_out_of_the_contexts_map(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(rimmed_model(), device="cpu")
    context = inspector.context(shelf)
    cells = []
    compare = Context.compare
    monkeypatch.setattr(Context, "compare", lambda self, image: cells.append(image.cells) or compare(self, image))
    assert inspector.inspect(shelf / "odd00.png", context).score_context is not None
    (own,) = cells
    assert own.patch == 8
    np.testing.assert_array_equal(own.shown_Nhw, own.geometry.content_share((3, 3), 8) >= 0.5)


def test_the_map_shows_where_the_context_sees_it(inspector: Inspector, folder_context: Context) -> None:
    marked = pixels(50)
    marked[32:56, 8:24] = np.random.default_rng(0).integers(0, 256, (24, 16, 3))
    finding = inspector.inspect(marked, folder_context)
    map_HW = finding.significance_map
    assert map_HW is not None
    assert map_HW.shape == (64, 64)
    assert 0 <= map_HW.min() <= map_HW.max() <= 1
    inside, outside = map_HW[36:52, 10:22].mean(), map_HW[:24, 36:].mean()
    assert inside > outside + 0.1
    y, x = np.nonzero(map_HW == map_HW.max())  # so clear that a plateau of ones surrounds it
    assert 28 <= y.mean() < 60
    assert 4 <= x.mean() < 28


@pytest.mark.parametrize(("references", "source"), [(1, "few"), (3, "few"), (4, "many"), (8, "many")])
def test_the_threshold_names_where_it_comes_from(
    inspector: Inspector, shelf: Path, references: int, source: str
) -> None:
    context = inspector.context(sorted(shelf.glob("fine*"))[:references])
    measured = f", drawn towards the leave-one-out figures of {references} references" if references > 1 else ""
    finding = inspector.inspect(shelf / "odd00.png", context)
    assert finding.threshold == inspector.threshold_with(context)
    assert (finding.threshold.value, finding.threshold.source) == (0.5, f"small, {source}{measured}")


def test_distance_is_told_as_a_multiple_of_the_usual_one(inspector: Inspector, shelf: Path) -> None:
    context = inspector.context(sorted(shelf.glob("fine*"))[:8])
    fine = [inspector.inspect(path, context).context.distance or 0 for path in sorted(shelf.glob("fine*"))[8:]]
    odd = [inspector.inspect(path, context).context.distance or 0 for path in sorted(shelf.glob("odd*"))]
    assert max(fine) < 3
    assert min(odd) > 5 * max(fine)


def test_an_image_of_something_else_is_told(inspector: Inspector, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = inspector.context(sorted(shelf.glob("fine*"))[:8])
    assert inspector.inspect(shelf / "fine12.png", context).context.note is None
    # Random weights see less difference between objects than learned ones.
    monkeypatch.setattr(context_module, "UNLIKE", 0.05)
    other = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert inspector.inspect(shelf / "fine12.png", context).context.note is None
    assert inspector.inspect(other, context).context.note == "it looks like none of the references"


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_nothing(
    inspector: Inspector, shelf: Path, folder_context: Context, batch_size: int
) -> None:
    context = inspector.folder_context(shelf, batch_size=batch_size)
    assert context.bank.digests == folder_context.bank.digests
    assert_near(context.bank.tokens, folder_context.bank.tokens)
    np.testing.assert_allclose(context.suspicion_R, folder_context.suspicion_R, atol=5e-3)
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
    assert_same(there.bank.own, back.bank.own)
    np.testing.assert_array_equal(there.suspicion_R, back.suspicion_R)
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
    assert own.context.distance == pytest.approx(0, abs=0.5)
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
    np.testing.assert_array_equal(among.suspicion_R, alone.suspicion_R)
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
        assert not finding.anomalous


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
            assert (found.kind, found.source, found.usual) == (made.kind, str(shelf), made.usual)
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


def test_context_of_another_scoring(inspector: Inspector, shelf: Path, folder_context: Context) -> None:
    other = inspector_of(folder=ModeConfig(own=0.2))
    with pytest.raises(ContextMismatch, match="another scoring of the model"):
        other.inspect(shelf / "fine05.png", folder_context)


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
    encoder = encoder_of(inspector)
    whole = encoder.forward

    def small_memory(views: torch.Tensor) -> object:
        if len(views) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(views)

    monkeypatch.setattr(encoder, "forward", small_memory)
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
