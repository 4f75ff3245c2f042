"""Expanding what a person names into an ordered list of pictures."""

from __future__ import annotations

import io
import os
import struct
import time
from itertools import pairwise
from pathlib import Path, PurePath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomaly_ov.errors import ImageTooLarge, UnreadableImage, UsageError
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source, expand, natural_key, page_count


def encoded(kind: str = "PNG", pages: int = 1, **options: object) -> bytes:
    file = io.BytesIO()
    images = [Image.new("L", (4, 3), 10 * index) for index in range(pages)]
    extra = {"save_all": True, "append_images": images[1:]} if pages > 1 else {}
    images[0].save(file, kind, **extra, **options)
    return file.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str, data: bytes | None = None) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encoded() if data is None else data)


def ids(*inputs: object, **options: object) -> list[str]:
    return [source.id for source in expand(inputs, **options)]  # type: ignore[arg-type]


# ---- files


def test_files_in_the_order_given_whatever_their_suffix(here: Path) -> None:
    put("b.png", "a.dat", "notes.txt")
    assert ids("b.png", Path("a.dat"), "notes.txt") == ["b.png", "a.dat", "notes.txt"]
    assert expand(["a.dat"])[0].read().width == 4
    assert expand(["b.png"])[0].read().path == "b.png"


def test_one_input_may_stand_for_itself(here: Path) -> None:
    put("b.png")
    array = np.zeros((2, 2), np.uint8)
    for single in ("b.png", Path("b.png"), array, Image.new("L", (2, 2)), encoded(), io.BytesIO(encoded())):
        assert len(expand(single)) == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_names_of_any_kind_are_paths(here: Path) -> None:
    """Of the standard library, or in an array."""
    wanted = [source.id for source in expand(["b.png", "a.png"])]
    assert [source.id for source in expand([PurePath("b.png"), PurePath("a.png")])] == wanted
    assert [source.id for source in expand(np.array(["b.png", "a.png"]))] == wanted
    assert [source.id for source in expand(PurePath("b.png"))] == wanted[:1]


def test_missing_and_damaged_files_fail_on_reading_only(here: Path) -> None:
    put("ok.png")
    put("broken.tif", data=encoded("TIFF")[:30])
    sources = expand(["gone.png", "broken.tif", "ok.png", "a\0b", ""])
    assert [source.id for source in sources] == ["gone.png", "broken.tif", "ok.png", "a\0b", ""]
    for index, words in ((0, r"gone\.png: no such file"), (1, r"broken\.tif"), (3, "null"), (4, "''")):
        with pytest.raises(UnreadableImage, match=words):
            sources[index].read()
    assert sources[2].read().width == 4


def test_a_file_is_kept_once_under_its_first_name(here: Path) -> None:
    put("d/a.png", "d/b.png")
    assert ids("d/b.png", "d", "./d/a.png", here / "d" / "a.png", "d/*.png", "d/../d/b.png") == ["d/b.png", "d/a.png"]
    assert ids("gone.png", "./gone.png") == ["gone.png"]


def test_what_cannot_be_a_picture_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="from a float"):
        expand([1.5])  # type: ignore[list-item]


def test_nothing_in_nothing_out() -> None:
    assert expand([]) == []


# ---- folders


def test_folder_in_natural_order_without_hidden_and_foreign_files(here: Path) -> None:
    put("d/img10.png", "d/img2.PNG", "d/img1.jpeg", "d/sub2/x.bmp", "d/sub10/x.webp", "d/IMG3.png")
    put("d/.hidden.png", "d/.git/x.png", "d/notes.txt", "d/.DS_Store", "d/noext")
    expected = ["d/img1.jpeg", "d/img2.PNG", "d/IMG3.png", "d/img10.png", "d/sub2/x.bmp", "d/sub10/x.webp"]
    assert ids("d") == expected
    assert ids("d/") == expected
    assert ids(Path("d")) == expected
    assert ids(here / "d") == [str(here / name) for name in expected]


def test_a_hidden_folder_may_be_named_itself(here: Path) -> None:
    put(".cache/a.png")
    assert ids(".cache") == [".cache/a.png"]
    assert ids(".cache/*.png") == [".cache/a.png"]


def test_folder_without_pictures_is_named(here: Path) -> None:
    put("d/notes.txt", "d/.a.png")
    with pytest.raises(UsageError, match="no picture in folder d") as caught:
        expand(["d"])
    assert ".png" in caught.value.hint


def test_loops_of_links_end_and_real_names_win(here: Path) -> None:
    put("d/z/a.png", "d/b.png")
    for index in range(3):
        os.symlink("..", f"d/z/loop{index}")
    os.symlink("z", "d/a_link_to_z")
    os.symlink("self", "d/self")
    start = time.monotonic()
    assert ids("d") == ["d/b.png", "d/z/a.png"]
    assert set(ids("d/**/*.png")) == {"d/b.png", "d/z/a.png"}
    assert time.monotonic() - start < 2


def test_links_are_followed(here: Path) -> None:
    put("elsewhere/a.png", "d/own.png")
    os.symlink(here / "elsewhere", "d/link")
    os.symlink("own.png", "d/second name.png")
    os.symlink("nowhere.png", "d/broken.png")
    sources = expand(["d"])
    assert [source.id for source in sources] == ["d/broken.png", "d/link/a.png", "d/own.png", "d/second name.png"]
    with pytest.raises(UnreadableImage, match="no such file"):
        sources[0].read()


def test_folder_that_may_not_be_listed_shows_in_the_record(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("d/a.png", "d/locked/b.png")
    scandir = os.scandir

    def deny(folder: str) -> object:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    sources = expand(["d"])
    assert [source.id for source in sources] == ["d/a.png", "d/locked"]
    with pytest.raises(UnreadableImage, match="d/locked"):
        sources[1].read()


@pytest.mark.slow
def test_deep_folders_do_not_end_in_recursion(here: Path) -> None:
    folders = ["/".join(["d"] * depth) for depth in range(1, 1200)]
    for folder in folders:
        os.mkdir(folder)
    deepest = Path(folders[-1]) / "a.png"
    try:
        deepest.touch()
        assert ids("d") == [str(deepest)]
    finally:  # here, because the usual ways to remove a tree recurse
        deepest.unlink()
        for folder in reversed(folders):
            os.rmdir(folder)


def test_pipe_in_a_folder_is_listed_and_refused(here: Path) -> None:
    put("d/a.tif", data=encoded("TIFF"))
    os.mkfifo("d/pipe.tif")
    sources = expand(["d"])
    assert [source.id for source in sources] == ["d/a.tif", "d/pipe.tif"]
    with pytest.raises(UnreadableImage, match="not a regular file"):
        sources[1].read()


def test_natural_key() -> None:
    shuffled = "b/1.png a10.png a2.png A2.png a02.png 10.png 9.png a.png a/1.png a/x1y10 a/x1y9"
    ordered = "9.png 10.png a/1.png a/x1y9 a/x1y10 A2.png a02.png a2.png a10.png a.png b/1.png"
    assert sorted(shuffled.split(), key=natural_key) == ordered.split()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=12))
def test_natural_key_orders_any_names_the_same_way_round(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


# ---- patterns


def test_patterns(here: Path) -> None:
    put("d/a1.png", "d/a10.png", "d/a2.png", "d/b.jpg", "d/s/a3.png", "d/s/t/c.png", "d/x.dat", "d/x.txt", "d/.h.png")
    assert ids("d/a*.png") == ["d/a1.png", "d/a2.png", "d/a10.png"]
    assert ids("d/a?.png") == ["d/a1.png", "d/a2.png"]
    assert ids("d/a[12].png") == ["d/a1.png", "d/a2.png"]
    assert ids("*/b.*") == ["d/b.jpg"]
    assert ids("d/**/*.png") == ["d/a1.png", "d/a2.png", "d/a10.png", "d/s/a3.png", "d/s/t/c.png"]
    assert ids("**/c.png") == ["d/s/t/c.png"]
    assert ids("d/*.dat") == ["d/x.dat"]
    assert ids("d/.h*") == ["d/.h.png"]
    assert ids(str(here / "d" / "b*")) == [str(here / "d" / "b.jpg")]
    everything = ["d/a1.png", "d/a2.png", "d/a10.png", "d/b.jpg", "d/s/a3.png", "d/s/t/c.png"]
    assert ids("d/*") == everything
    assert ids("d/**") == everything
    assert ids(Path("d/*")) == everything


def test_pattern_that_matches_nothing_is_named(here: Path) -> None:
    put("d/.h.png", "d/x.txt")
    for pattern in ("d/*.png", "d/*", "nowhere/*.png", "d/x.txt/*"):
        with pytest.raises(UsageError, match=r"nothing matches .*\*"):
            expand([pattern])


def test_impossible_pattern(here: Path) -> None:
    with pytest.raises(UsageError, match="d/"):
        expand(["d/**x/["])


def test_names_with_pattern_signs_are_files_first(here: Path) -> None:
    put("img[1].png", "img1.png")
    assert ids("img[1].png") == ["img[1].png"]
    Path("img[1].png").unlink()
    assert ids("img[1].png") == ["img1.png"]


# ---- standard input


def test_picture_on_standard_input() -> None:
    data = encoded("JPEG")
    (source,) = expand(["-"], stdin=io.BytesIO(data))
    picture = source.read()
    assert (source.id, picture.path, picture.width) == ("-", "-", 4)


def test_paths_on_standard_input(here: Path) -> None:
    put("a.png", "with space.png", "d/x.png", "st*r.png", "stir.png")
    text = "\ufeffa.png\r\n\n  \nwith space.png\nd\nst*r.png\ngone.png\na.png".encode()
    assert ids("-", stdin=io.BytesIO(text)) == ["a.png", "with space.png", "d/x.png", "st*r.png", "gone.png"]


def test_standard_input_is_used_once_and_taken_from_sys(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.png\n")))
    assert ids("-", "-") == ["a.png"]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="no standard input"):
        expand(["-"])


def test_bad_standard_input() -> None:
    with pytest.raises(UsageError, match="empty"):
        expand(["-"], stdin=io.BytesIO(b""))
    (source,) = expand(["-"], stdin=io.BytesIO(b"\x00\x01binary\xff"))
    with pytest.raises(UnreadableImage, match="cannot read -"):
        source.read()
    (source,) = expand(["-"], stdin=io.BytesIO(encoded() * 20), limits=Limits(max_bytes=100))
    with pytest.raises(ImageTooLarge, match="100 bytes"):
        source.read(Limits(max_bytes=100))
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(UsageError, match="cannot read standard input"):
        expand(["-"], stdin=closed)


# ---- memory


def test_arrays_and_images_are_numbered(here: Path) -> None:
    put("a.png")
    array, image = np.zeros((2, 5), np.uint8), Image.new("RGB", (6, 2))
    sources = expand([array, "a.png", image, array, io.BytesIO(encoded()), encoded()])
    assert [s.id for s in sources] == ["array-0", "a.png", "array-1", "array-2", "array-3", "array-4"]
    assert [s.read().width for s in sources] == [5, 4, 6, 5, 4, 4]
    assert sources[0].read().path == "array-0"


def test_ids_stay_unique(here: Path) -> None:
    put("array-0", "t.tif#page=2")
    put("t.tif", data=encoded("TIFF", 2))
    names = ids(np.zeros((2, 2)), "array-0", "t.tif#page=2", "t.tif")
    assert names == ["array-0", "array-0~2", "t.tif#page=2", "t.tif#page=1", "t.tif#page=2~2"]


# ---- pages


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}])
def test_one_source_per_page(here: Path, options: dict[str, object]) -> None:
    put("d/scan.tiff", data=encoded("TIFF", 3, **options))
    put("d/one.TIF", data=encoded("TIFF", **options))
    sources = expand(["d"])
    assert [s.id for s in sources] == ["d/one.TIF", *(f"d/scan.tiff#page={n}" for n in (1, 2, 3))]
    assert [s.page for s in sources] == [0, 0, 1, 2]
    pictures = [s.read() for s in sources]
    assert [p.pixels_HW3[0, 0, 0] for p in pictures] == [0, 0, 10, 20]
    assert [p.page for p in pictures] == [None, 0, 1, 2]
    assert {p.path for p in pictures[1:]} == {"d/scan.tiff"}


def test_pages_of_a_tiff_without_a_known_suffix_and_twice(here: Path) -> None:
    put("scan", data=encoded("TIFF", 2))
    assert ids("scan", "./scan") == ["scan#page=1", "scan#page=2"]


def test_too_many_pages_end_in_one_error(here: Path) -> None:
    put("scan.tif", data=encoded("TIFF", 5))
    limits = Limits(max_pages=3)
    sources = expand(["scan.tif"], limits)
    assert [s.page for s in sources] == [0, 1, 2, 3]
    assert sources[2].read(limits).page == 2
    with pytest.raises(ImageTooLarge, match=r"scan\.tif holds more than 3 pages"):
        sources[3].read(limits)


def chain(offsets: list[int], size: int = 64) -> bytes:
    """A TIFF whose directories, all empty, lie at ``offsets``, each pointing to the next of the list."""
    data = bytearray(struct.pack("<2sHI", b"II", 42, offsets[0]).ljust(size, b"\0"))
    for at, following in pairwise(offsets):
        data[at : at + 6] = struct.pack("<HI", 0, following)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        (chain([8, 0]), 1),
        (chain([8, 16, 24, 0]), 3),
        (chain([8, 16, 8]), 2),  # a loop
        (chain([8, 8]), 1),
        (chain([8, 2**32 - 1]), 2),  # past the end: reading the second page shows the damage
        (chain([2**32 - 1]), 1),
        (struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**64 - 1), 1),
        (struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + b"\xff" * 64, 1),
        (struct.pack(">2sHI", b"MM", 42, 8) + struct.pack(">HIHI", 0, 14, 0, 0), 2),
        (b"II*\x00", 1),
        (b"", 1),
        (b"no TIFF at all, but long enough", 1),
    ],
)
def test_page_count_of_odd_chains(tmp_path: Path, data: bytes, pages: int) -> None:
    path = tmp_path / "odd.tif"
    path.write_bytes(data)
    assert page_count(path, 1000) == pages


def test_page_count_stops_at_its_limit_and_reads_little(tmp_path: Path) -> None:
    path = tmp_path / "long.tif"
    path.write_bytes(chain([*range(8, 8 + 6 * 50_000, 6), 0], size=400_000))
    assert page_count(path, 10) == 10
    assert page_count(path, 60_000) == 50_000
    with path.open("r+b") as file:
        file.truncate(2**36)  # sparse; only directories may be read
    start = time.monotonic()
    assert page_count(path, 1000) == 1000
    assert time.monotonic() - start < 1


def test_files_of_other_formats_are_not_opened(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png", "b.jpg")
    monkeypatch.setattr("anomaly_ov.images.sources.open_regular", lambda _: pytest.fail("opened"))
    assert ids("a.png", "b.jpg") == ["a.png", "b.jpg"]


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=80), order=st.sampled_from([b"II*\x00\x08\x00\x00\x00", b"MM\x00+\x00\x08\x00\x00", b""])
)
def test_page_count_of_noise(tmp_path_factory: pytest.TempPathFactory, data: bytes, order: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.tif"
    path.write_bytes(order + data)
    assert 1 <= page_count(path, 5) <= 5
    for source in expand([path], Limits(max_pages=3)):
        assert isinstance(source, Source)
