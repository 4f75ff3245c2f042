"""Contexts from pictures: contamination, copies, order, mixtures, and requests that cannot be met."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anomaly_ov.context import build as module
from anomaly_ov.context import choose
from anomaly_ov.context import kinds as kinds_module
from anomaly_ov.context.bank import NEAR, Reference, tokens_each
from anomaly_ov.context.build import ALIKE, FEWEST_FOR_AUTO, MOST_REFERENCES, alikeness, digest_of, suspicion_of
from anomaly_ov.context.context import Context
from anomaly_ov.errors import UsageError
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source, expand
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.scoring.cells import Scales
from anomaly_ov.scoring.score import Usual, judge
from context_fixtures import (
    World,
    assert_same,
    digest,
    encoded,
    held,
    marked,
    random_units,
    sources,
    token_picture,
    unit,
)


def score(context: Context, world: World, name: str) -> float:
    """As an inspection finds it."""
    picture = encoded(world.made[name])
    compared = context.compare(picture.tokens)
    assert compared is not None
    evidence = module.evidence_of(picture, compared.references, context.config)
    return judge(evidence, picture.tokens.cells, context.mode(compared.kind), context.config, compared.usual).score


def names_of(world: World, count: int, share: float, kind: int = 0, odd: int = 8, prefix: str = "") -> list[str]:
    """Pictures of one kind, the first ``share`` of them anomalous: ``bad 0``, ``good 7``, ..."""
    anomalous = round(share * count)
    names = [f"{prefix}{'bad' if i < anomalous else 'good'} {i}" for i in range(count)]
    for name in names:
        world.picture(name, odd=odd if "bad" in name else 0, kind=kind)
    return names


def ranking(context: Context, world: World, names: Iterable[str]) -> float:
    names = list(names)
    return roc_auc_score([int("bad" in name) for name in names], [score(context, world, name) for name in names])


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_folder_ranks_anomalous_pictures_above_however_many(share: float, seed: int) -> None:
    world = World(seed)
    names = names_of(world, 60, share)
    context = world.builder().folder(sources(names), "folder")
    assert (context.kind, context.source, context.revision) == ("folder", "folder", "test")
    assert ranking(context, world, names) > 0.98


def test_small_folder_with_forty_percent() -> None:
    world = World()
    names = names_of(world, 5, 0.4)
    assert ranking(world.builder().folder(sources(names), "folder"), world, names) == 1


def test_a_defect_that_comes_in_many_pictures_is_still_one() -> None:
    """Three in ten pictures show the same defect: the others do not, and they decide."""
    world = World()
    names = names_of(world, 40, 0.3, odd=0)
    for name in names:
        if "bad" in name:
            world.made[name] = marked(world.made[name], range(10, 16), seed=5)
    assert ranking(world.builder().folder(sources(names), "folder"), world, names) == 1


def test_near_copies_of_anomalous_pictures_do_not_excuse_them() -> None:
    world = World()
    names = names_of(world, 40, 0.1)
    generator = np.random.default_rng(0)
    for name in [name for name in names if "bad" in name]:
        own = world.made[name]
        near = own.tokens.map(lambda one_PD: unit(one_PD + 0.005 * generator.normal(size=one_PD.shape)))
        world.made[f"{name} again"] = token_picture(f"{name} again", near, own.descriptor_E)
        names.append(f"{name} again")
    assert ranking(world.builder().folder(sources(names), "folder"), world, names) > 0.98


def test_order_of_a_folder_changes_nothing() -> None:
    world = World()
    names = names_of(world, 40, 0.3)
    first = world.builder().folder(sources(names), "folder")
    random.Random(1).shuffle(names)
    second = world.builder().folder(sources(names), "folder")
    assert first.bank.digests == second.bank.digests
    assert_same(first.bank.tokens, second.bank.tokens)
    assert_same(first.bank.own, second.bank.own)
    np.testing.assert_array_equal(first.suspicion_R, second.suspicion_R)
    assert first.notes == second.notes


def test_mixed_folder_is_split_and_says_so() -> None:
    world = World()
    mixed = names_of(world, 40, 0.2, kind=0, prefix="first ") + names_of(world, 24, 0.2, kind=1, prefix="second ")
    context = world.builder().folder(sources(mixed), "folder")
    assert context.bank.kinds == len(context.usual) == 2
    assert any("2 kinds" in note for note in context.notes)
    for name in mixed:
        compared = context.compare(world.made[name])
        assert compared is not None
        assert compared.kind == int(name.startswith("second"))
    for prefix in ("first", "second"):
        assert ranking(context, world, [name for name in mixed if name.startswith(prefix)]) > 0.98


@pytest.mark.parametrize("odd", [3, 8])
@pytest.mark.parametrize("share", [1 / 3, 0.4])
def test_a_defect_that_changes_the_look_of_the_whole_is_no_kind_of_its_own(odd: int, share: float) -> None:
    """A third of the folder: its pictures look alike as a whole, as those of another object would."""
    world = World()
    names = names_of(world, 42, share, odd=odd)
    look = np.random.default_rng(7).normal(size=32)
    for i, name in enumerate(name for name in names if "bad" in name):
        changed = unit(look + 0.05 * np.random.default_rng(i).normal(size=32))
        world.made[name] = replace(world.made[name], descriptor_E=changed)
    context = world.builder().folder(sources(names), "folder")
    assert context.bank.kinds == 1
    assert not any("kinds" in note for note in context.notes)
    assert ranking(context, world, names) > 0.98


def test_a_rare_kind_that_varies_more_is_told_apart_and_searched_on_its_own() -> None:
    """One in ten pictures shows another object, no two of which are as near as those of the first kind."""
    world = World(noise=0.05)
    first = names_of(world, 90, 0.2, kind=0, prefix="first ")
    world.noise = 0.16
    second = names_of(world, 10, 0.2, kind=1, prefix="second ", odd=16)
    context = world.builder().folder(sources([*first, *second]), "folder")
    assert [len(context.bank.members(kind)) for kind in (0, 1)] == [90, 10]
    assert any("2 kinds of picture (90%, 10%)" in note for note in context.notes)
    for names in (first, second):
        assert ranking(context, world, names) > 0.98


@pytest.mark.parametrize("scale", ["whole", "detail"])
def test_a_defect_that_one_scale_sees_is_found_in_a_folder_and_among_good_ones(scale: str) -> None:
    world = World()
    names = names_of(world, 30, 0.2, odd=0)
    for i, name in enumerate(names):
        if "bad" in name:
            world.made[name] = marked(world.made[name], range(8 * (i % 6), 8 * (i % 6) + 8), [scale], seed=i)
    assert ranking(world.builder().folder(sources(names), "folder"), world, names) == 1
    for count in (1, 4):
        good = [name for name in names if "good" in name]
        context = world.builder().references(sources(good[:count]), "shelf")
        assert ranking(context, world, [*good[count:], *(name for name in names if "bad" in name)]) == 1


def test_large_folder_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "drawn", partial(choose.drawn, count=20))
    world = World()
    names = names_of(world, 60, 0.2)
    seen: list[int] = []
    builder = world.builder()
    encode = builder.encode
    object.__setattr__(builder, "encode", lambda given: seen.append(len(given)) or encode(given))
    context = builder.folder(sources(names), "folder")
    assert seen == [20]
    assert len(context.bank) == 20
    assert "20 of 60 pictures serve as references" in context.notes
    assert ranking(context, world, names) > 0.95


def test_unreadable_pictures_are_left_out() -> None:
    world = World()
    names = names_of(world, 20, 0.2)
    alone = world.builder().folder(sources(names), "folder")
    among = world.builder().folder(sources([*names, "broken 1", "broken 2"]), "folder")
    assert alone.bank.digests == among.bank.digests


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b"], ["a", "b", "broken", "gone"]])
def test_folder_of_too_few(names: list[str]) -> None:
    world = World()
    for name in ("a", "b"):
        world.picture(name)
    with pytest.raises(UsageError, match="at least 3") as raised:
        world.builder().folder(sources(names), "shelf")
    assert "shelf" in raised.value.message
    assert f"{len(names)} pictures" in raised.value.message
    assert "--references none" in raised.value.hint


def test_folder_of_three() -> None:
    world = World()
    for name, odd in (("a", 0), ("b", 0), ("c", 12)):
        world.picture(name, odd=odd)
    context = world.builder().folder(sources("abc"), "folder")
    assert score(context, world, "c") > max(score(context, world, "a"), score(context, world, "b"))


def test_folder_of_equal_looks_gives_finite_low_scores() -> None:
    world = World(noise=0.0)
    names = names_of(world, 12, 0)
    context = world.builder().folder(sources(names), "folder")
    values = [score(context, world, name) for name in names]
    assert np.isfinite(values).all()
    assert max(values) < 0.2


def test_references_of_one_picture() -> None:
    world = World()
    for name, odd in (("good", 0), ("fine", 0), ("bad", 10)):
        world.picture(name, odd=odd)
    context = world.builder().references(sources(["good"]), "shelf")
    assert (context.kind, len(context.bank)) == ("references", 1)
    assert np.isnan(context.suspicion_R).all()
    assert context.usual == (Usual(),), "one image says nothing of what is usual; the training sets do"
    assert score(context, world, "good") < score(context, world, "fine") < score(context, world, "bad")


@pytest.mark.parametrize("names", [[], ["broken"], ["broken", "gone"]])
def test_no_readable_reference(names: list[str]) -> None:
    with pytest.raises(UsageError, match="no readable picture in shelf") as raised:
        World().builder().references(sources(names), "shelf")
    assert raised.value.hint


def test_copies_and_unreadable_references_are_counted() -> None:
    world = World()
    for name in "abc":
        world.picture(name)
    given = sources(["a", "b", "c", "broken"])
    context = world.builder().references(given, "shelf")
    assert len(context.bank) == 3
    assert context.notes == ("3 of 4 pictures serve (unreadable: 1)",)
    context = world.builder().references(sources(["a", "b", "b", "a", "broken", "gone"]), "shelf")
    assert context.notes == ("2 of 6 pictures serve (copies: 2, unreadable: 2)",)
    assert not world.builder().references(given[:3], "shelf").notes


def large_world(names: Iterable[str], cells: int = 140) -> World:
    """Pictures of more cells than references may keep; of these only the tokens count."""
    world = World()
    for name in names:
        own = np.random.default_rng(int(digest(name)[:8], 16))
        tokens = Scales(random_units(own, cells, 8), random_units(own, cells + 50, 8))
        world.made[name] = token_picture(name, tokens, unit(own.normal(size=8)))
    return world


@pytest.mark.parametrize("count", [1, 24, NEAR - 1, NEAR, NEAR + 20])
def test_broken_files_among_references_change_no_score(count: int) -> None:
    names = [f"p{i}" for i in range(count)]
    world = large_world(names)
    alone = world.builder().references(sources(names), "shelf")
    kept, most = alone.bank.tokens.map(lambda tokens_RTD: tokens_RTD.shape[1]), tokens_each(count)
    assert kept == Scales(min(140, most.whole), min(190, most.detail))
    for broken in (1, 30):
        among = world.builder().references(sources([*(f"broken {i}" for i in range(broken)), *names]), "shelf")
        assert among.bank.digests == alone.bank.digests
        assert_same(among.bank.tokens, alone.bank.tokens)
        np.testing.assert_array_equal(among.suspicion_R, alone.suspicion_R)
        assert not among.bank.drop_twins


def test_no_more_is_held_than_references_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"p{i}" for i in range(60)]
    seen: list[Scales[int]] = []
    cut = module.cut

    def watched(one: Reference, tokens: Scales[int]) -> Reference:
        found = cut(one, tokens)
        seen.append(found.tokens.map(lambda tokens_TD: held(tokens_TD) // (4 * 8)))
        return found

    monkeypatch.setattr(module, "cut", watched)
    large_world(names).builder().references(sources(names), "shelf")
    assert set(seen[-59:]) == {tokens_each(60)}


def test_references_in_any_order_and_at_most_so_many() -> None:
    world = World()
    names = names_of(world, MOST_REFERENCES + 30, 0)
    first = world.builder().references(sources(names), "shelf")
    second = world.builder().references(sources(names[::-1]), "shelf")
    assert len(first.bank) == MOST_REFERENCES
    assert first.notes == (f"{MOST_REFERENCES} of {len(names)} pictures serve (beyond the limit of 256: 30)",)
    assert first.bank.digests == second.bank.digests
    assert_same(first.bank.tokens, second.bank.tokens)


def test_references_do_not_purify() -> None:
    """What a person says is good is taken at their word."""
    world = World()
    names = names_of(world, 20, 0.2)
    context = world.builder().references(sources(names), "shelf")
    assert len(context.bank) == 20


# ---- what is usual among them ---------------------------------------------------------------------------------------

APART = ScoringConfig(
    few=ModeConfig(own=0.7, matched=0.5, expert=0.2),
    references=ModeConfig(own=0.3, matched=1.0, expert=0.1),
    folder=ModeConfig(own=0.9, matched=0.2),
)
"""Modes that tell from a suspicion which of them it was found with."""


@pytest.mark.parametrize("count", [2, 3, 6, 12])
def test_suspicion_of_a_reference_is_what_the_others_make_of_it(count: int) -> None:
    world = World()
    names = [f"r{i}" for i in range(count)]
    for i, name in enumerate(names):
        world.picture(name, odd=i)
    context = world.builder(APART).references(sources(names), "shelf")
    mode = APART.few if count < 4 else APART.references
    assert context.mode(0) == mode
    for name in names:
        others = world.builder(APART).references(sources([one for one in names if one != name]), "shelf")
        compared = others.compare(world.made[name])
        assert compared is not None
        expected = suspicion_of(encoded(world.made[name]), compared.references, mode, APART)
        found = context.suspicion_R[context.bank.digests.index(world.made[name].digest)]
        assert found == pytest.approx(expected, abs=1e-5)
    assert context.suspicion_R.dtype == np.float32
    assert context.usual[0].count == count
    assert context.usual[0].value == pytest.approx(float(context.suspicion_R.mean()), abs=1e-5)


def test_suspicion_of_a_folders_picture_is_what_its_inspection_finds() -> None:
    world = World()
    names = names_of(world, 14, 0.2)
    context = world.builder(APART).folder(sources(names), "folder")
    for name in names:
        compared = context.compare(world.made[name])
        assert compared is not None
        expected = suspicion_of(encoded(world.made[name]), compared.references, APART.folder, APART)
        found = context.suspicion_R[context.bank.digests.index(world.made[name].digest)]
        assert found == pytest.approx(expected, abs=1e-5)
    assert context.usual[0].value == pytest.approx(float(np.median(context.suspicion_R)), abs=1e-5)


def test_so_many_references_are_measured_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED", 5)
    world = World()
    names = names_of(world, 12, 0)
    for context in (
        world.builder().references(sources(names), "shelf"),
        world.builder().folder(sources(names), "folder"),
    ):
        measured = ~np.isnan(context.suspicion_R)
        assert measured.sum() == context.usual[0].count == 5
        # Those with the smallest digests: a sample that no order can change.
        assert {context.bank.digests[r] for r in np.flatnonzero(measured)} == set(sorted(context.bank.digests)[:5])


def test_each_kind_has_its_own_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    names = names_of(world, 20, 0, kind=0, prefix="first ") + names_of(world, 12, 0, kind=1, prefix="second ")
    for name in names[20:]:
        world.picture(name, kind=1, noise=0.3)
    context = world.builder().references(sources(names), "shelf")
    assert [one.count for one in context.usual] == [20, 12]
    assert context.usual[1].value > context.usual[0].value + 0.5
    # Alone in its kind, a reference has nobody to be compared with.
    monkeypatch.setattr(kinds_module, "UNLIKE", 0.4)  # tokens of so few numbers are never quite unlike
    lone = [*names[:3], "third"]
    world.picture("third", kind=2)
    context = world.builder().references(sources(lone), "shelf")
    assert context.bank.kinds == 2
    assert [one.count for one in context.usual] == [3, 0]
    assert np.isnan(context.suspicion_R[context.bank.digests.index(digest("third"))])


TOLD = ScoringConfig(folder=ModeConfig(usual=-2.0, usual_spread=0.3))
"""Much as it is fitted to such pictures."""


def test_auto_takes_pictures_that_are_alike() -> None:
    world = World()
    names = names_of(world, 30, 0.2)
    context, reason = world.builder(TOLD).auto(sources(names), "folder")
    assert context is not None
    assert context.kind == "folder"
    assert "alike" in reason
    assert f"{alikeness(context):+.2f}" in reason
    assert alikeness(context) <= ALIKE


def test_auto_refuses_pictures_that_are_not() -> None:
    world = World(noise=3.0)
    names = names_of(world, 30, 0)
    context, reason = world.builder(TOLD).auto(sources(names), "folder")
    assert context is None
    assert "too unlike" in reason
    assert "limit" in reason


@pytest.mark.parametrize("readable", [0, 1, FEWEST_FOR_AUTO - 1])
def test_auto_refuses_few_pictures(readable: int) -> None:
    world = World()
    names = names_of(world, readable, 0)
    for given in (names, [*names, *(f"broken {i}" for i in range(10))]):
        context, reason = world.builder().auto(sources(given), "folder")
        assert context is None
        assert f"it takes {FEWEST_FOR_AUTO} readable, distinct pictures" in reason


def test_digest_is_of_bytes_and_page(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    first.write_bytes(b"one")
    copy.write_bytes(b"one")
    other.write_bytes(b"two")
    limits = Limits()

    def of(path: Path, page: int = 0) -> str:
        return digest_of(Source(str(path), path.name, page), limits)

    assert of(first) == of(copy) != of(other)
    assert of(first, 1) == of(copy, 1) != of(first)
    assert of(first, 1) != of(first, 2)
    assert len(of(first)) == len(of(first, 1)) == 64


def test_a_file_is_read_once_for_all_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "pages.tif", tmp_path / "other.tif"
    path.write_bytes(b"five pages")
    other.write_bytes(b"one page")
    given = [*(Source(str(path), f"pages {page}", page) for page in range(5)), Source(str(other), "other")]
    given.append(Source(str(other), "other 3", 3))
    expected = [digest_of(source, Limits()) for source in given]
    read: list[str] = []
    monkeypatch.setattr(module, "digest_of", lambda source, limits: read.append(source.id) or digest_of(source, limits))
    assert World().builder()._digests(given) == expected
    assert read == ["pages 0", "other"]
    # In another order the pages come before what they could be told by; the digests are the same.
    assert World().builder()._digests(given[::-1]) == expected[::-1]


@pytest.mark.parametrize("item", ["/nowhere/a.png", "zero\0character.png", "/"])
def test_digest_of_what_cannot_be_opened_is_that_of_its_name(item: str) -> None:
    limits = Limits()
    first, again, other = (digest_of(Source(item, name), limits) for name in ("a", "a", "not Unicode: \udcff"))
    assert first == again != other


def test_a_file_beyond_the_limit_is_not_read_through(tmp_path: Path) -> None:
    large, same = tmp_path / "a.png", tmp_path / "b.png"
    large.write_bytes(bytes(100))
    same.write_bytes(bytes(100))
    one, other = (Source(str(path), path.name) for path in (large, same))
    assert digest_of(one, Limits(max_bytes=100)) == digest_of(other, Limits(max_bytes=100))
    assert digest_of(one, Limits(max_bytes=99)) != digest_of(other, Limits(max_bytes=99))


def test_digest_of_what_is_in_memory_is_that_of_its_picture() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    same, other = expand([pixels, pixels.copy(), 255 - pixels])[1:]
    limits = Limits()
    assert digest_of(same, limits) == same.read().sha256
    assert digest_of(same, limits) != digest_of(other, limits)
    assert len(digest_of(Source(b"no picture", "array-0"), limits)) == 64
