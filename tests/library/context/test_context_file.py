"""Context files: nothing is lost or changed, damage and strangers are refused by name, contexts grow."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
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
from anomaly_ov.errors import ContextMismatch, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.scoring.cells import Scales
from context_fixtures import World, assert_same, of_one_view, own_of, random_units, sources, token_picture, unit

Array = npt.NDArray[Any]
Facts, Tensors = dict[str, Any], dict[str, Array]


def references(world: World, names: list[str], config: ScoringConfig | None = None) -> Context:
    for name in names:
        world.picture(name)
    return world.builder(config).references(sources(names), "good")


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


def of_images_without_crops(world: World) -> Context:
    for name in "abc":
        world.made[name] = of_one_view(world.picture(name))
    return world.builder().references(sources("abc"), "good")


def of_images_with_and_without_crops(world: World) -> Context:
    world.made["a"] = of_one_view(world.picture("a"))
    world.picture("b")
    return world.builder().references(sources("ab"), "good")


def of_one(world: World) -> Context:
    return references(world, ["a"])


@pytest.mark.parametrize(
    "make",
    [
        lambda world: references(world, ["a", "b", "c"]),
        mixed_folder,
        of_one,
        of_images_without_crops,
        of_images_with_and_without_crops,
    ],
    ids=["three", "folder of two kinds", "one", "no crops", "some with crops"],
)
def test_what_is_loaded_scores_as_what_was_saved(make: Callable[[World], Context], tmp_path: Path) -> None:
    world = World()
    context = make(world)
    save_context(tmp_path / "part.ctx", context)
    loaded = load_context(tmp_path / "part.ctx", "test")
    for name in ("kind", "source", "revision", "config", "notes"):
        assert getattr(loaded, name) == getattr(context, name)
    for name in ("digests", "drop_twins"):
        assert getattr(loaded.bank, name) == getattr(context.bank, name)
    assert_same(loaded.bank.tokens, context.bank.tokens)
    assert_same(loaded.bank.own, context.bank.own)
    assert loaded.usual == context.usual
    assert loaded.suspicion_R.dtype == context.suspicion_R.dtype
    np.testing.assert_array_equal(loaded.suspicion_R, context.suspicion_R)
    assert loaded.bank.tokens.map(lambda tokens_RTD: tokens_RTD.dtype) == Scales(
        np.dtype(np.float32), np.dtype(np.float32)
    )
    for name in ("descriptor_RE", "kind_R"):
        found, expected = getattr(loaded.bank, name), getattr(context.bank, name)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    save_context(tmp_path / "again.ctx", loaded)
    assert (tmp_path / "again.ctx").read_bytes() == (tmp_path / "part.ctx").read_bytes()
    new = world.picture("new", odd=5)
    for picture in (new, world.picture("other", kind=1), of_one_view(new)):
        before, after = context.compare(picture), loaded.compare(picture)
        assert before is not None
        assert after is not None
        assert_same(before.references.distance, after.references.distance)
        assert_same(before.references.counterpart, after.references.counterpart)
        assert (before.usual, before.kind, before.unlike) == (after.usual, after.kind, after.unlike)
        assert before.references.count == after.references.count


def test_the_folder_of_two_kinds_has_two(tmp_path: Path) -> None:
    save_context(tmp_path / "part.ctx", mixed_folder(World()))
    assert load_context(tmp_path / "part.ctx").bank.kinds == 2


def test_the_same_context_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_context(tmp_path / "again.ctx", load_context(saved))
    assert (tmp_path / "again.ctx").read_bytes() == saved.read_bytes()


def test_tokens_take_half_precision(saved: Path) -> None:
    bank = load_context(saved).bank
    values = sum(one.size for part in (bank.tokens, bank.own) for one in (part.whole, part.detail))
    assert saved.stat().st_size < 2 * values + 8192


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


@pytest.mark.slow
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
        facts.update(format="anomaly-ov.context/4", shape="unknown to us")

    with pytest.raises(WeightsError, match=r"format 'anomaly-ov.context/4'.* reads 'anomaly-ov.context/3'") as error:
        load_context(rewritten(saved, newer))
    assert not isinstance(error.value, UnsafeCheckpoint)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_earlier_version_is_named_as_one_to_make_again(saved: Path, version: int) -> None:
    """Nothing in it says what its pictures show of themselves."""

    def older(facts: Facts, tensors: Tensors) -> None:
        facts["format"] = f"anomaly-ov.context/{version}"
        facts["config"] = {"whole_top": 0.1}
        del tensors["whole_own_RT"]

    with pytest.raises(WeightsError, match=rf"format 'anomaly-ov.context/{version}'.* reads 'anomaly-ov") as error:
        load_context(rewritten(saved, older))
    assert not isinstance(error.value, UnsafeCheckpoint)
    assert "make it again" in error.value.hint
    assert "context build" in error.value.hint


def test_the_scales_are_not_interchangeable(saved: Path) -> None:
    before = load_context(saved).bank.tokens
    assert before.whole.shape != before.detail.shape

    def swapped(_: Facts, tensors: Tensors) -> None:
        for name in ("RTD", "own_RT"):
            whole, detail = f"whole_{name}", f"detail_{name}"
            tensors[whole], tensors[detail] = tensors[detail], tensors[whole]

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


def tiled(tensors: Tensors, count: int) -> None:
    tensors["whole_RTD"] = np.ascontiguousarray(np.tile(tensors["whole_RTD"][:, :1], (1, count, 1)))
    tensors["whole_own_RT"] = np.ascontiguousarray(np.tile(tensors["whole_own_RT"][:, :1], (1, count)))


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
        (with_tensor("detail_RTD", lambda t: t[:, :0]), "not as many"),
        (with_tensor("whole_own_RT", lambda t: t[:, :-1]), "not as many"),
        (with_tensor("detail_own_RT", lambda t: t[:, :-1]), "not as many"),
        (with_tensor("whole_own_RT", lambda t: t.astype(np.float32)), "whole_own_RT is 'F32'"),
        (with_tensor("detail_own_RT", lambda t: t[0]), "detail_own_RT is 'F16'"),
        (with_tensor("descriptor_RE", lambda t: t[:2]), "descriptor_RE is 'F16'"),
        (with_tensor("suspicion_R", lambda t: t[:2]), "suspicion_R is 'F32'"),
        (with_tensor("suspicion_R", lambda t: t.astype(np.float64)), "suspicion_R is 'F64'"),
        (with_tensor("whole_RTD", lambda t: t[0]), "whole_RTD is 'F16'"),
        (with_tensor("detail_RTD", lambda t: t[0]), "detail_RTD is 'F16'"),
        (with_tensor("whole_RTD", lambda t: t[..., :-1]), "wide"),
        (with_tensor("detail_RTD", lambda t: t[..., :-1]), "wide"),
        (with_tensor("whole_RTD", lambda t: t * np.float16(np.nan)), "not finite"),
        (with_tensor("detail_RTD", lambda t: t * np.float16(np.nan)), "not finite"),
        (with_tensor("whole_own_RT", lambda t: t * np.float16(np.nan)), "not finite"),
        (with_tensor("detail_own_RT", lambda t: t + np.float16(101)), "larger than 100"),
        (with_tensor("descriptor_RE", lambda t: t * np.float16(np.inf)), "not finite"),
        (with_tensor("suspicion_R", lambda t: t + np.float32(np.inf)), "not finite"),
        (with_tensor("suspicion_R", lambda t: t - np.float32(1e30)), "larger than 100"),
        (lambda _, tensors: tensors.pop("suspicion_R"), "instead of"),
        (lambda _, tensors: tensors.pop("whole_own_RT"), "instead of"),
        (lambda _, tensors: tensors.pop("descriptor_RE"), "instead of"),
        (lambda _, tensors: tensors.pop("whole_RTD"), "instead of"),
        (lambda _, tensors: tensors.pop("detail_RTD"), "instead of"),
        (lambda _, tensors: tensors.update(tokens_RTD=tensors.pop("detail_RTD")), "instead of"),
        (lambda _, tensors: tensors.update(more=np.zeros(1)), "instead of"),
        (with_fact("digests", ["0" * 64, "0" * 64, "1" * 64]), "each once"),
        (with_fact("digests", ["../x", "0" * 64, "1" * 64]), "64 hex digits"),
        (with_fact("digests", []), "at least one"),
        (with_fact("kinds", [0, 0]), "one per digest"),
        (with_fact("kinds", [0, 0, 2]), "none left out"),
        (with_fact("kinds", [0, 0, -1]), "none left out"),
        (with_fact("kinds", [0, 0, 10**9]), "none left out"),
        (with_fact("kinds", [0, 0, 10**400]), "none left out"),
        (with_fact("kind", "none"), "'kind'"),
        (with_fact("usual", [{"value": -1.0, "spread": 0.0, "count": 3}]), "usual"),
        (lambda facts, tensors: tiled(tensors, 2049), "more than the 2048"),
        (with_fact("config", {"slope": 0.0}), "must be > 0"),
        (with_fact("config", {"references": {"usual_spread": 0.0}}), "must be > 0"),
        (with_fact("config", {"few": {"spread": -1.0}}), "must be > 0"),
        (with_fact("config", {"top": 0.0}), "must lie in"),
        (with_fact("config", {"folder": {"matched": 1.5}}), "at most 1"),
        (with_fact("config", {"alone": {"unheard_of": 1}}), "unheard_of"),
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
    found, fewer = reference(large, Scales(512, 256)), reference(large, Scales(128, 64))
    drawn = found.tokens
    assert_same(Scales(drawn.whole[:128], drawn.detail[:64]), fewer.tokens)
    assert_same(Scales(found.own.whole[:128], found.own.detail[:64]), fewer.own)
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
    assert_same(found.bank.own, whole.bank.own)
    assert found.bank.kind_R.tolist() == whole.bank.kind_R.tolist()
    assert found.bank.drop_twins is False
    assert f"{second} pictures were added to {first}" in found.notes


def test_extended_keeps_all_that_larger_pictures_have() -> None:
    """However few cells the pictures had that were there first."""
    world, generator = World(), np.random.default_rng(0)
    many = Scales(random_units(generator, 900, 32), random_units(generator, 700, 32))
    large = token_picture("large", many, unit(generator.normal(size=32)))
    small = references(world, ["small"])
    world.made["large"] = large
    new = world.builder().references(sources(["large"]), "good")
    whole = world.builder().references(sources(["small", "large"]), "good")
    for found in (extended(small, new), extended(new, small)):
        assert found.bank.digests == whole.bank.digests
        for one in (found, whole):
            assert one.bank.tokens.map(lambda tokens_RTD: tuple(tokens_RTD.shape)) == Scales((2, 900, 32), (2, 700, 32))
        assert_same(found.bank.tokens, whole.bank.tokens)
        picture = world.picture("query", odd=4)
        before, after = whole.compare(picture), found.compare(picture)
        assert before is not None
        assert after is not None
        for scale in ("whole", "detail"):
            one, other = (getattr(found.references.distance, scale) for found in (before, after))
            np.testing.assert_allclose(other, one, atol=1e-6)


def test_extended_of_pictures_of_many_sizes_is_as_if_all_had_been_there_from_the_start() -> None:
    world, generator = World(), np.random.default_rng(0)
    names = [f"{cells} cells" for cells in (100, 7, 300, 64, 31, 150)]
    for name in names:
        size = int(name.split()[0])
        tokens = Scales(random_units(generator, size, 32), random_units(generator, 1 + 200 // size, 32))
        world.made[name] = token_picture(name, tokens, unit(generator.normal(size=32)))

    def of(some: list[str]) -> Context:
        return world.builder().references(sources(some), "good")

    whole = of(names).bank
    for first in range(1, len(names)):
        found = extended(of(names[:first]), of(names[first - 1 :])).bank
        assert found.digests == whole.digests
        assert_same(found.tokens, whole.tokens)
        assert_same(found.own, whole.own)


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
    world, config = World(), ScoringConfig(few=ModeConfig(own=0.2))
    found = extended(references(world, ["a", "b"]), references(world, ["c"], config))
    assert found.config == config


@pytest.mark.parametrize(("first", "second"), [(3, 4), (1, 2), (5, 1)])
def test_what_is_usual_stays_as_it_was_measured_in_each_part(first: int, second: int) -> None:
    """Of a picture that was alone nothing was measured, and it does not count."""
    world = World()
    old = references(world, [f"old {i}" for i in range(first)])
    new = references(world, [f"new {i}" for i in range(second)])
    found = extended(old, new)
    measured = {}
    for part in (old, new):
        measured |= dict(zip(part.bank.digests, part.suspicion_R.tolist(), strict=True))
    np.testing.assert_array_equal(found.suspicion_R, [np.float32(measured[one]) for one in found.bank.digests])
    assert found.usual[0].count == sum(count for count in (first, second) if count > 1)


def test_extended_of_pictures_without_crops_is_as_if_all_had_been_there_from_the_start() -> None:
    """Among pictures with crops they stand by their base view; that is not taken for crops of their own."""
    world, generator = World(), np.random.default_rng(0)
    names = [f"p{i}" for i in range(60)]
    for i, name in enumerate(names):
        size = Scales(100, 150 if i % 2 else 0)
        tokens = size.map(lambda cells: random_units(generator, cells, 32))
        made = token_picture(name, tokens, unit(generator.normal(size=32)))
        world.made[name] = replace(made, own=own_of(tokens))

    def of(some: list[str]) -> Context:
        return world.builder().references(sources(some), "good")

    whole = of(names).bank
    for first in (1, 3, 50):
        found = extended(of(names[:first]), of(names[first:])).bank
        assert_same(found.tokens, whole.tokens)
        assert_same(found.own, whole.own)


def test_sources_are_named_once_and_not_for_ever() -> None:
    world = World()
    context = references(world, ["p0"])
    for day in (1, 1, 2, 3, 4, 5, 6, 1):
        new = references(world, [f"p{day}"])
        context = extended(context, replace(new, source=f"day{day}" * 10))
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
        extended(references(world, ["a"]), replace(other, revision="other"))
