"""Fingerprints of picture files: SHA-256 of the bytes, and a 64-bit perceptual hash of what the picture shows.

The perceptual hash is the usual DCT hash (pHash): grey, 32 x 32, two-dimensional DCT, the 8 x 8 lowest frequencies
without their first entry compared with their median. It survives re-encoding, resizing and mild changes of brightness,
but not cropping, turning or mirroring. A picture with almost no structure at 32 x 32 has no perceptual hash: its bits
would be noise, and any two blank pictures would look alike.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

MAX_PIXELS = 200_000_000
MIN_STRUCTURE = 1.0
"""Least root mean square of the low-frequency part, in grey levels of 255, for a hash to mean anything."""

_SIDE, _LOW = 32, 8


@dataclass(frozen=True)
class Fingerprint:
    """``perceptual`` is None for a blank picture and for one that did not decode (then ``error`` says why)."""

    path: Path
    sha256: str
    perceptual: int | None = None
    error: str | None = None


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def perceptual_hash(picture: Image.Image) -> int | None:
    """The picture's 64-bit DCT hash, or None if it shows next to nothing (see the module's text)."""
    picture.draft("L", (4 * _SIDE, 4 * _SIDE))  # a JPEG decodes at a fraction of its size, many times faster
    grey = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    spectrum = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:_LOW, :_LOW].ravel()
    if np.sqrt(np.square(spectrum[1:]).sum()) / _SIDE < MIN_STRUCTURE:
        return None
    bits = spectrum > np.median(spectrum[1:])
    bits[0] = False  # the mean brightness says nothing about what is shown
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def fingerprint(path: Path, perceptual: bool = True) -> Fingerprint:
    """Both hashes of one file; ``OSError`` if it cannot be read, ``error`` set if it does not decode."""
    sha256 = sha256_file(path)
    if not perceptual:
        return Fingerprint(path, sha256)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    return Fingerprint(path, sha256, error=f"more than {MAX_PIXELS} pixels")
                return Fingerprint(path, sha256, perceptual_hash(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Fingerprint(path, sha256, error=" ".join(str(error).split()) or type(error).__name__)


def fingerprints(
    paths: Iterable[Path], perceptual: bool = True, workers: int = 4, done: Callable[[], None] | None = None
) -> list[Fingerprint]:
    """``fingerprint`` of every path, in order, on ``workers`` threads (hashing and decoding release the lock).

    ``done`` is called once for each.
    """
    found = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for print_ in pool.map(lambda path: fingerprint(path, perceptual), paths):
            found.append(print_)
            if done is not None:
                done()
    return found


def near_pairs(
    hashes_a: Sequence[int], hashes_b: Sequence[int], max_distance: int, block: int = 1024
) -> list[tuple[int, int, int]]:
    """All (index in a, index in b, distance) whose hashes differ in at most ``max_distance`` of 64 bits.

    Compares all against all, ``block`` rows at a time: some 10^8 pairs a second and memory of ``block`` x len(b)
    x 9 bytes, whatever the data; buckets by parts of the hash would be quicker only until many pictures look alike.
    """
    a = np.asarray(hashes_a, dtype=np.uint64)
    b: npt.NDArray[np.uint64] = np.asarray(hashes_b, dtype=np.uint64)
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(a), block):
        distances = np.bitwise_count(a[start : start + block, None] ^ b[None, :])
        rows, columns = np.nonzero(distances <= max_distance)
        found.extend(
            (start + int(r), int(c), int(d)) for r, c, d in zip(rows, columns, distances[rows, columns], strict=True)
        )
    return found


def nearest(
    prints_a: Sequence[Fingerprint], prints_b: Sequence[Fingerprint], max_distance: int, cells: int = 2**24
) -> list[tuple[int, int, int]]:
    """(index in a, index in b, distance) of each picture of a and the one of b that looks most like it.

    Only those within ``max_distance`` of 64 bits; the very same bytes do not count, so a may be b. However many
    pictures look alike, there is one result for each of a; memory is bounded by ``cells`` comparisons at a time.
    """
    known_a, known_b = _known(prints_a), _known(prints_b)
    if not known_a or not known_b:
        return []
    codes_a, codes_b = _codes(prints_a, known_a), _codes(prints_b, known_b)
    same: dict[str, list[int]] = defaultdict(list)
    for column, index in enumerate(known_b):
        same[prints_b[index].sha256].append(column)
    found = []
    block = max(1, cells // len(known_b))
    for start in range(0, len(known_a), block):
        indices = known_a[start : start + block]
        distances = np.bitwise_count(codes_a[start : start + block, None] ^ codes_b[None, :])
        for row, index in enumerate(indices):
            distances[row, same.get(prints_a[index].sha256, [])] = 255
        best = distances.argmin(axis=1)
        least = distances[np.arange(len(indices)), best]
        found += [
            (indices[row], known_b[int(best[row])], int(least[row])) for row in np.flatnonzero(least <= max_distance)
        ]
    return found


def _known(prints: Sequence[Fingerprint]) -> list[int]:
    return [index for index, print_ in enumerate(prints) if print_.perceptual is not None]


def _codes(prints: Sequence[Fingerprint], known: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array([prints[index].perceptual for index in known], dtype=np.uint64)
