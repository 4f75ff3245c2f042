from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import LeakageError
from anomaly_ov_lab.data.hashing import Fingerprint, fingerprint, near_pairs, nearest, perceptual_hash, sha256_file
from anomaly_ov_lab.data.leakage import LeakageWarning, check
from anomaly_ov_lab.data.samples import Sample


def _photo(seed: int, side: int = 96) -> Image.Image:
    """Smooth coloured noise: structure at low frequencies, as photos have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def _save(picture: Image.Image, path: Path, **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def test_exact_copies_raise_whatever_their_name(tmp_path: Path) -> None:
    train = [_save(_photo(i), tmp_path / f"train/{i}.png") for i in range(4)]
    copy = tmp_path / "test/renamed.png"
    copy.parent.mkdir()
    copy.write_bytes(train[2].read_bytes())
    report = check(train, [_save(_photo(9), tmp_path / "test/9.png"), copy])
    assert report.exact == ((train[2], copy),)
    assert report.near == ()  # an exact pair is not listed twice
    with pytest.raises(LeakageError, match=r"of 2 test pictures 1 are byte for byte among the 4"):
        report.raise_if_any()


def test_saved_again_is_near_and_only_warns(tmp_path: Path) -> None:
    train = [_save(_photo(i), tmp_path / f"train/{i}.png") for i in range(3)]
    again = _save(_photo(1).resize((48, 48)), tmp_path / "test/again.jpg", quality=50)
    report = check([Sample(path, 0) for path in train], [Sample(again, 0)])
    assert [(pair.train, pair.test) for pair in report.near] == [(train[1], again)]
    assert report.exact == ()
    assert not report.clean
    with pytest.warns(LeakageWarning, match="1 look like one of them"):
        report.raise_if_any()
    with pytest.raises(LeakageError):
        report.raise_if_any(near=True)


def test_different_pictures_are_clean(tmp_path: Path) -> None:
    train = [_save(_photo(i), tmp_path / f"train/{i}.png") for i in range(30)]
    test = [_save(_photo(100 + i), tmp_path / f"test/{i}.png") for i in range(30)]
    report = check(train, test)
    assert report.clean
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.raise_if_any(near=True)


def test_blank_and_broken_pictures_never_look_alike(tmp_path: Path) -> None:
    blank_a = _save(Image.new("RGB", (64, 64), (90, 90, 90)), tmp_path / "a.png")
    blank_b = _save(Image.new("RGB", (80, 64), (90, 91, 90)), tmp_path / "b.png")
    broken = tmp_path / "c.png"
    broken.write_bytes(b"no picture")
    report = check([blank_a], [blank_b, broken])
    assert report.clean
    assert report.unhashed == (blank_a, blank_b, broken)
    assert fingerprint(broken).error


def test_exact_only_decodes_nothing(tmp_path: Path) -> None:
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    a.write_bytes(b"same")
    b.write_bytes(b"same")
    report = check([a], [b], near=False)
    assert report.exact == ((a, b),)
    assert report.unhashed == ()


def test_a_missing_file_is_an_error_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        check([tmp_path / "absent.png"], [])


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_perceptual_hash_survives_jpeg_size_and_brightness_but_not_another_picture() -> None:
    def again(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=50)
        return Image.open(buffer)

    def distance(a: Image.Image, b: Image.Image) -> int:
        hash_a, hash_b = perceptual_hash(a), perceptual_hash(b)
        assert hash_a is not None
        assert hash_b is not None
        return (hash_a ^ hash_b).bit_count()

    for seed in range(8):
        photo = _photo(seed)
        assert distance(photo, again(photo)) <= 4
        assert distance(photo, photo.resize((200, 200))) <= 4
        assert distance(photo, photo.point(lambda v: int(v * 0.8))) <= 4
        assert distance(photo, _photo(seed + 50)) > 10


def test_near_pairs_agree_with_counting_bits_one_by_one() -> None:
    rng = np.random.default_rng(0)
    a = [int(v) for v in rng.integers(0, 2**64, 50, dtype=np.uint64)]
    b = [value ^ (1 << 63) ^ (1 << int(k)) for value, k in zip(a, rng.integers(0, 60, 50), strict=True)] + [a[3]]
    expected = {
        (i, j, (x ^ y).bit_count()) for i, x in enumerate(a) for j, y in enumerate(b) if (x ^ y).bit_count() <= 2
    }
    assert set(near_pairs(a, b, 2, block=7)) == expected
    assert len(expected) >= 51
    assert near_pairs([], b, 2) == near_pairs(a, [], 2) == []


@pytest.mark.parametrize("cells", [7, 2**24])
def test_nearest_agrees_with_looking_one_by_one(cells: int) -> None:
    rng = np.random.default_rng(1)
    codes = [int(v) for v in rng.integers(0, 2**64, 30, dtype=np.uint64)]
    codes += [code ^ (1 << int(bit)) for code, bit in zip(codes, rng.integers(0, 63, 30), strict=True)]
    # Every tenth has no hash; the last two are the same file.
    prints = [Fingerprint(Path(f"{i}"), f"{min(i, 58)}", None if i % 10 == 0 else code) for i, code in enumerate(codes)]
    expected = {}
    for i, a in enumerate(prints):
        others = [
            ((a.perceptual ^ b.perceptual).bit_count(), j)
            for j, b in enumerate(prints)
            if a.perceptual is not None and b.perceptual is not None and a.sha256 != b.sha256
        ]
        if others and min(others)[0] <= 2:
            expected[i] = min(others)
    found = nearest(prints, prints, 2, cells=cells)
    assert {i: (distance, j) for i, j, distance in found} == expected
    assert len(found) == len(expected) >= 40
    assert nearest([], prints, 2) == nearest(prints, [], 2) == []
