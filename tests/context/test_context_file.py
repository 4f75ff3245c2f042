"""Context files: nothing is lost or changed, damage and strangers are refused by name, contexts grow."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from anomaly_ov.context import build, context_file
from anomaly_ov.context.bank import reference
from anomaly_ov.context.context import Context
from anomaly_ov.context.context_file import extended, load_context, save_context
from anomaly_ov.context.tokens import Scales
from anomaly_ov.errors import ContextMismatch, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.models.config import ContextConfig
from context_fixtures import World, assert_same, random_units, sources, token_picture, unit

Array = npt.NDArray[Any]
Facts, Tensors = dict[str, Any], dict[str, Array]


def references(world: World, names: list[str], config: ContextConfig | None = None) -> Context:
    for name in names:
        world.picture(name)
    return world.builder(0.25, config).references(sources(names), "good")


def mixed_folder(world: World) -> Context:
    names = [f"{kind}-{i}" for kind in range(2) for i in range(12)]
    for name in names:
        world.picture(name, kind=int(name[0]))
    return world.builder().folder(sources(names), "folder")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_context(tmp_path / "part.ctx", references(World(), ["a", "b", "c"]))
    return tmp_path / "part.ctx"


def rewritten(path: Path, edit: Callable[[Facts, Tensors], None], *, checksum: bool = True) -> Path:
    """The file with its facts and tensors edited in place, under a checksum that is right."""
    with safe_open(str(path), framework="np") as file:
        facts = json.loads(file.metadata()["context"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(facts, tensors)
    facts.pop("sha256", None)
    if checksum:
        facts["sha256"] = context_file._checksum(facts, tensors)
    save_file(tensors, str(path), {"context": json.dumps(facts)})
    return path


@pytest.mark.parametrize("make", [lambda world: references(world, ["a", "b", "c"]), mixed_folder])
def test_what_is_loaded_scores_as_what_was_saved(make: Callable[[World], Context], tmp_path: Path) -> None:
    world = World()
    context = make(world)
    save_context(tmp_path / "part.ctx", context)
    loaded = load_context(tmp_path / "part.ctx", "test")
    for name in ("kind", "source", "revision", "config", "notes"):
        assert getattr(loaded, name) == getattr(context, name)
    for name in ("digests", "usual", "drop_twins"):
        assert getattr(loaded.bank, name) == getattr(context.bank, name)
    assert_same(loaded.bank.tokens, context.bank.tokens)
    assert loaded.bank.tokens.map(lambda tokens_RTD: tokens_RTD.dtype) == Scales(
        np.dtype(np.float32), np.dtype(np.float32)
    )
    for name in ("descriptor_RE", "kind_R", "expert_logit_R"):
        found, expected = getattr(loaded.bank, name), getattr(context.bank, name)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    for picture in (world.picture("new", odd=5), world.picture("other", kind=1)):
        before, after = context.compare(picture), loaded.compare(picture)
        assert before is not None
        assert after is not None
        assert np.array_equal(before.cells.whole, after.cells.whole)
        assert np.array_equal(before.cells.detail, after.cells.detail)
        assert (before.distance, before.usual, before.kind) == (after.distance, after.usual, after.kind)


def test_the_folder_of_two_kinds_has_two(tmp_path: Path) -> None:
    save_context(tmp_path / "part.ctx", mixed_folder(World()))
    assert len(load_context(tmp_path / "part.ctx").bank.usual) == 2


def test_the_same_context_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_context(tmp_path / "again.ctx", load_context(saved))
    assert (tmp_path / "again.ctx").read_bytes() == saved.read_bytes()


def test_tokens_take_half_precision(saved: Path) -> None:
    tokens = load_context(saved).bank.tokens
    assert saved.stat().st_size < 2 * (tokens.whole.size + tokens.detail.size) + 8192


def test_no_such_folder_to_save_to(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        save_context(tmp_path / "no" / "part.ctx", load_context(saved))


def test_another_models_context_is_refused(saved: Path) -> None:
    with pytest.raises(ContextMismatch, match=r"revision test, the one in use is 0123"):
        load_context(saved, "0123")


# ---- what is no context ---------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no context file") as error:
        load_context(tmp_path / "none.ctx")
    assert "context build" in error.value.hint


@pytest.mark.parametrize("name", [".", "zero\0.ctx"])
def test_what_cannot_be_opened(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        load_context(f"{tmp_path}/{name}")


def picture(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, "PNG")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def model_weights(path: Path) -> None:
    save_file({"weight": np.zeros((3, 3))}, str(path), {"format": "pt"})


@pytest.mark.parametrize("write", [picture, pickled, model_weights, Path.touch, lambda p: p.write_text('{"a": 1}')])
def test_files_of_another_kind(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "x.ctx")
    with pytest.raises(UnsafeCheckpoint, match=r"x\.ctx is no context file or a damaged one"):
        load_context(tmp_path / "x.ctx")


def test_every_truncation_is_seen(saved: Path) -> None:
    data = saved.read_bytes()
    for length in [*range(0, 64, 7), *range(64, len(data), len(data) // 50), len(data) - 1]:
        saved.write_bytes(data[:length])
        with pytest.raises(UnsafeCheckpoint):
            load_context(saved)
    saved.write_bytes(data + b"\0")
    with pytest.raises(UnsafeCheckpoint):
        load_context(saved)


def test_every_flipped_bit_is_seen(saved: Path) -> None:
    """Of the header all bytes are tried: what says 'format' may become another version, nothing passes for sound."""
    data = saved.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    spots = [*range(0, header, 5), *np.random.default_rng(0).integers(header, len(data), 200).tolist()]
    for spot in spots:
        saved.write_bytes(data[:spot] + bytes([data[spot] ^ 1 << spot % 7]) + data[spot + 1 :])
        with pytest.raises(WeightsError):
            load_context(saved)


def test_another_version_is_named(saved: Path) -> None:
    def newer(facts: Facts, _: Tensors) -> None:
        facts.clear()
        facts.update(format="anomaly-ov.context/3", shape="unknown to us")

    with pytest.raises(WeightsError, match=r"format 'anomaly-ov.context/3'.* reads 'anomaly-ov.context/2'") as error:
        load_context(rewritten(saved, newer))
    assert not isinstance(error.value, UnsafeCheckpoint)


def test_a_file_of_the_first_version_is_named_as_one_to_make_again(saved: Path) -> None:
    """It held the crops' tokens alone: nothing in it says what the base view shows."""

    def older(facts: Facts, tensors: Tensors) -> None:
        facts["format"] = "anomaly-ov.context/1"
        facts["config"] = {"top": 0.1}
        tensors["tokens_RTD"] = tensors.pop("detail_RTD")
        del tensors["whole_RTD"]

    with pytest.raises(WeightsError, match=r"format 'anomaly-ov.context/1'.* reads 'anomaly-ov.context/2'") as error:
        load_context(rewritten(saved, older))
    assert not isinstance(error.value, UnsafeCheckpoint)
    assert "make it again" in error.value.hint
    assert "context build" in error.value.hint


def test_the_scales_are_not_interchangeable(saved: Path) -> None:
    before = load_context(saved).bank.tokens
    assert before.whole.shape != before.detail.shape

    def swapped(_: Facts, tensors: Tensors) -> None:
        tensors["whole_RTD"], tensors["detail_RTD"] = tensors["detail_RTD"], tensors["whole_RTD"]

    with safe_open(str(saved), framework="np") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    swapped({}, tensors)
    save_file(tensors, str(saved.parent / "swapped.ctx"), metadata)
    with pytest.raises(UnsafeCheckpoint, match="checksum"):
        load_context(saved.parent / "swapped.ctx")
    after = load_context(rewritten(saved, swapped)).bank.tokens  # under a checksum of its own
    assert_same(after, Scales(before.detail, before.whole))


def with_tensor(name: str, change: Callable[[Array], Array]) -> Callable[[Facts, Tensors], None]:
    def edit(_: Facts, tensors: Tensors) -> None:
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    return edit


USUAL = {"distance": 0.2, "expert_logit": 0.0, "count": 3, "distance_spread": 0.1, "expert_spread": 0.1}


def with_fact(name: str, value: Any) -> Callable[[Facts, Tensors], None]:
    return lambda facts, _: facts.update({name: value})


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (with_tensor("whole_RTD", lambda t: t.astype(np.float32)), "whole_RTD is 'F32'"),
        (with_tensor("detail_RTD", lambda t: t.astype(np.float32)), "detail_RTD is 'F32'"),
        (with_tensor("whole_RTD", lambda t: t[:2]), "for 3 references"),
        (with_tensor("detail_RTD", lambda t: t[:2]), "for 3 references"),
        (with_tensor("whole_RTD", lambda t: t[:, :0]), "whole_RTD is 'F16'"),
        (with_tensor("detail_RTD", lambda t: t[:, :0]), "detail_RTD is 'F16'"),
        (with_tensor("whole_RTD", lambda t: t[0]), "whole_RTD is 'F16'"),
        (with_tensor("detail_RTD", lambda t: t[0]), "detail_RTD is 'F16'"),
        (with_tensor("whole_RTD", lambda t: t[..., :-1]), "wide"),
        (with_tensor("detail_RTD", lambda t: t[..., :-1]), "wide"),
        (with_tensor("whole_RTD", lambda t: t * np.float16(np.nan)), "not finite"),
        (with_tensor("detail_RTD", lambda t: t * np.float16(np.nan)), "not finite"),
        (with_tensor("expert_logit_R", lambda t: t + np.float32(np.inf)), "not finite"),
        (lambda _, tensors: tensors.pop("descriptor_RE"), "instead of"),
        (lambda _, tensors: tensors.pop("whole_RTD"), "instead of"),
        (lambda _, tensors: tensors.pop("detail_RTD"), "instead of"),
        (lambda _, tensors: tensors.update(tokens_RTD=tensors.pop("detail_RTD")), "instead of"),
        (lambda _, tensors: tensors.update(more=np.zeros(1)), "instead of"),
        (with_fact("digests", ["0" * 64, "0" * 64, "1" * 64]), "each once"),
        (with_fact("digests", ["../x", "0" * 64, "1" * 64]), "64 hex digits"),
        (with_fact("digests", []), "at least one"),
        (with_fact("kinds", [0, 0]), "one per digest"),
        (with_fact("kinds", [0, 0, 1]), "one per kind"),
        (with_fact("kinds", [0, 0, -1]), "one per kind"),
        (with_fact("kind", "none"), "'kind'"),
        (with_fact("usual", [{"distance": -1.0, "expert_logit": 0.0, "count": 3}]), "must be >= 0"),
        (with_fact("usual", [USUAL | {"distance_spread": -0.1}]), "must be >= 0"),
        (with_fact("usual", [USUAL | {"expert_spread": -0.1}]), "must be >= 0"),
        (with_fact("usual", [USUAL | {"distance_spread": 1e200}]), "at most"),
        (with_fact("usual", [USUAL | {"expert_logit": -1e308}]), "at most"),
        (with_fact("usual", [USUAL | {"count": 10**400}]), "at most"),
        (with_fact("usual", [USUAL | {"count": 4}]), "at most"),
        (with_fact("usual", [USUAL | {"spread": 0.1}]), "spread"),
        (with_tensor("whole_RTD", lambda t: np.tile(t[:, :1], (1, 2049, 1))), "more than the 2048"),
        (with_fact("config", {"half": 0.0}), "must be > 0"),
        (with_fact("config", {"usual_spread": 0.0}), "must be > 0"),
        (with_fact("config", {"expert_usual_spread": -1.0}), "must be > 0"),
        (with_fact("config", {"whole_top": 0.0}), "must lie in"),
        (with_fact("config", {"detail_top": 1.5}), "must lie in"),
        (with_fact("config", {"top": 0.1}), "top"),
        (with_fact("config", {"unheard_of": 1}), "unheard_of"),
        (with_fact("command", "rm"), "command"),
        (lambda facts, _: facts.pop("notes"), "'notes'"),
    ],
)
def test_hostile_content_under_a_right_checksum(
    edit: Callable[[Facts, Tensors], None], reason: str, saved: Path
) -> None:
    with pytest.raises(UnsafeCheckpoint, match=reason):
        load_context(rewritten(saved, edit))


def test_a_checksum_is_required(saved: Path) -> None:
    with pytest.raises(UnsafeCheckpoint, match="checksum"):
        load_context(rewritten(saved, lambda facts, tensors: None, checksum=False))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', '{"a": 1e999}', "[1]", "null", "{", '"context"'])
def test_hostile_metadata(text: str, tmp_path: Path) -> None:
    save_file({"a": np.zeros(1)}, str(tmp_path / "x.ctx"), {"context": text})
    with pytest.raises(UnsafeCheckpoint, match="says nothing of a context"):
        load_context(tmp_path / "x.ctx")


def test_limits_hold_before_anything_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large.ctx"
    with large.open("wb") as file:
        file.truncate(context_file.MAX_BYTES + 1)  # a hole: takes no room on the disk
    with pytest.raises(UnsafeCheckpoint, match="more than the"):
        load_context(large)
    header = context_file.MAX_HEADER_BYTES + 1
    (tmp_path / "header.ctx").write_bytes(header.to_bytes(8, "little") + b" " * header)
    with pytest.raises(UnsafeCheckpoint, match="header of"):
        load_context(tmp_path / "header.ctx")


# ---- growing --------------------------------------------------------------------------------------------------------


def test_a_smaller_draw_is_the_beginning_of_a_larger_one() -> None:
    generator = np.random.default_rng(0)
    many = Scales(random_units(generator, 900, 16), random_units(generator, 800, 16))
    large = token_picture("large", many, unit(generator.normal(size=16)))
    drawn = reference(large, 0.0, Scales(512, 256)).tokens
    fewer = reference(large, 0.0, Scales(128, 64)).tokens
    assert_same(Scales(drawn.whole[:128], drawn.detail[:64]), fewer)
    assert len({tuple(token) for token in drawn.whole.tolist()}) == 512
    assert len({tuple(token) for token in drawn.detail.tolist()}) == 256


@pytest.mark.parametrize(("first", "second"), [(1, 3), (20, 40), (60, 5)])
def test_extended_is_as_if_all_had_been_there_from_the_start(first: int, second: int) -> None:
    world = World()
    names = [f"p{i}" for i in range(first + second)]
    whole = references(world, names)
    old, new = references(world, names[:first]), references(world, names[max(0, first - 2) :])  # two are in both
    found = extended(old, new)
    assert found.bank.digests == whole.bank.digests
    assert_same(found.bank.tokens, whole.bank.tokens)
    assert np.array_equal(found.bank.descriptor_RE, whole.bank.descriptor_RE)
    assert np.array_equal(found.bank.expert_logit_R, whole.bank.expert_logit_R)
    assert found.bank.usual == whole.bank.usual
    assert found.bank.drop_twins is False
    assert f"{second} pictures were added to {first}" in found.notes


def test_extended_keeps_all_that_larger_pictures_have() -> None:
    """However few cells the pictures had that were there first."""
    world, generator = World(), np.random.default_rng(0)
    many = Scales(random_units(generator, 900, 32), random_units(generator, 700, 32))
    large = token_picture("large", many, unit(generator.normal(size=32)))
    small = references(world, ["small"])
    world.made["large"] = large
    new = world.builder(0.25).references(sources(["large"]), "good")
    whole = world.builder(0.25).references(sources(["small", "large"]), "good")
    for found in (extended(small, new), extended(new, small)):
        assert found.bank.digests == whole.bank.digests
        for one in (found, whole):
            assert one.bank.tokens.map(lambda tokens_RTD: tuple(tokens_RTD.shape)) == Scales((2, 900, 32), (2, 700, 32))
        assert_same(found.bank.tokens, whole.bank.tokens)
        picture = world.picture("query", odd=4)
        before, after = whole.compare(picture), found.compare(picture)
        assert before is not None
        assert after is not None
        np.testing.assert_allclose(after.cells.whole, before.cells.whole, atol=1e-6)
        np.testing.assert_allclose(after.cells.detail, before.cells.detail, atol=1e-6)


def test_extended_of_pictures_of_many_sizes_is_as_if_all_had_been_there_from_the_start() -> None:
    world, generator = World(), np.random.default_rng(0)
    names = [f"{cells} cells" for cells in (100, 7, 300, 64, 31, 150)]
    for name in names:
        size = int(name.split()[0])
        tokens = Scales(random_units(generator, size, 32), random_units(generator, 1 + 200 // size, 32))
        world.made[name] = token_picture(name, tokens, unit(generator.normal(size=32)))

    def of(some: list[str]) -> Context:
        return world.builder(0.25).references(sources(some), "good")

    whole = of(names).bank
    for first in range(1, len(names)):
        found = extended(of(names[:first]), of(names[first - 1 :])).bank
        assert found.digests == whole.digests
        assert_same(found.tokens, whole.tokens)
        assert found.usual == whole.usual


def test_extended_keeps_no_more_references_than_build(monkeypatch: pytest.MonkeyPatch) -> None:
    assert context_file.MOST_REFERENCES == build.MOST_REFERENCES
    for module in (build, context_file):
        monkeypatch.setattr(module, "MOST_REFERENCES", 60)
    world = World()
    names = [f"p{i}" for i in range(85)]
    whole = references(world, names)
    found = extended(references(world, names[:40]), references(world, names[40:]))
    assert len(found.bank) == 60
    assert found.bank.digests == whole.bank.digests
    assert_same(found.bank.tokens, whole.bank.tokens)
    assert any("60 of these 85 serve" in text for text in found.notes)


def test_extended_takes_the_newer_configuration() -> None:
    world, config = World(), ContextConfig(whole_top=1.0, detail_top=0.5)
    found = extended(references(world, ["a", "b"]), references(world, ["c"], config))
    assert found.config == config
    assert found.bank.usual == references(world, ["a", "b", "c"], config).bank.usual


def test_sources_are_named_once_and_not_for_ever() -> None:
    world = World()
    context = references(world, ["p0"])
    for day in (1, 1, 2, 3, 4, 5, 6, 1):
        new = references(world, [f"p{day}"])
        context = extended(context, Context(new.bank, "references", f"day{day}" * 10, "test", new.config))
    assert context.source == f"good + {'day1' * 10} + {'day2' * 10} + {'day3' * 10} + {'day4' * 10} + more"


def test_a_folders_context_is_never_extended() -> None:
    world = World()
    good, folder = references(world, ["a"]), mixed_folder(world)
    for old, new in ((folder, good), (good, folder)):
        with pytest.raises(UsageError, match="of folder is a folder's own"):
            extended(old, new)


def test_contexts_of_two_models_are_not_joined() -> None:
    world = World()
    other = references(world, ["b"])
    with pytest.raises(ContextMismatch, match="other"):
        extended(references(world, ["a"]), Context(other.bank, "references", "good", "other", other.config))
