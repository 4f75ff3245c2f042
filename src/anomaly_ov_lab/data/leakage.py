"""Do training and test pictures overlap? Exactly, by the SHA-256 of the bytes; nearly, by a perceptual hash.

An exact pair is proof and raises; a near pair is a reason to look and warns. The bound on the near distance was chosen
by measurement on eleven sets (11,194 pictures): of 53.8 million pairs of pictures from two unrelated sets 2 lie within
4 bits (91 within 10), and of pictures saved again at half the size or JPEG quality 50 at least nine in ten lie within
4 bits of the original in ten of the sets (within 8 on near-blank 128 x 128 paper). Within one set of aligned parts,
though, distinct parts look alike: seven in ten magnetic tiles have another tile within 4 bits. So between two splits of
one product, near pairs are to be expected, and mean what their number says: the split is by picture, not by part.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anomaly_ov.errors import LeakageError
from anomaly_ov_lab.data.hashing import Fingerprint, fingerprints, near_pairs
from anomaly_ov_lab.data.samples import Sample

NEAR_DISTANCE = 4
_SHOWN = 3


class LeakageWarning(UserWarning):
    """Training and test pictures look alike; whether they are the same is for a person to judge."""


@dataclass(frozen=True)
class NearPair:
    """A training and a test picture whose perceptual hashes differ in ``distance`` of 64 bits."""

    train: Path
    test: Path
    distance: int


@dataclass(frozen=True)
class LeakageReport:
    """``exact``: (train, test) paths with identical bytes; ``near``: look-alikes that are not exact; nearest first.

    ``unhashed``: pictures without a perceptual hash (blank, or not decodable), which only the exact check covers.
    """

    train: int
    test: int
    exact: tuple[tuple[Path, Path], ...]
    near: tuple[NearPair, ...]
    unhashed: tuple[Path, ...]

    @property
    def clean(self) -> bool:
        """Neither an exact nor a near pair."""
        return not self.exact and not self.near

    def summary(self) -> str:
        """One line with the numbers and the first pairs."""
        pairs = [*self.exact, *((pair.train, pair.test) for pair in self.near)][:_SHOWN]
        shown = "".join(f"; {train} ~ {test}" for train, test in pairs)
        exact_tests, near_tests = len({test for _, test in self.exact}), len({pair.test for pair in self.near})
        return (
            f"of {self.test} test pictures {exact_tests} are byte for byte among the {self.train} training pictures, "
            f"{near_tests} look like one of them{shown}"
        )

    def raise_if_any(self, near: bool = False) -> None:
        """Raises ``LeakageError`` on exact pairs (with ``near`` on near ones too); otherwise near pairs only warn."""
        if self.exact or (near and self.near):
            raise LeakageError(
                f"training and test data overlap: {self.summary()}",
                hint="take these files out of the training data, or choose another test set",
            )
        if self.near:
            warnings.warn(f"possible overlap: {self.summary()}", LeakageWarning, stacklevel=2)


def check(
    train: Iterable[Path | Sample],
    test: Iterable[Path | Sample],
    max_distance: int = NEAR_DISTANCE,
    near: bool = True,
    workers: int = 4,
) -> LeakageReport:
    """Compares every training with every test picture. ``near=False`` reads bytes only and decodes nothing.

    A pair that is exact is not listed again as near. Raises ``OSError`` if a file cannot be read.
    """
    train_prints = fingerprints(_paths(train), near, workers)
    test_prints = fingerprints(_paths(test), near, workers)
    exact = _exact(train_prints, test_prints)
    unhashed = [print_.path for print_ in (*train_prints, *test_prints) if near and print_.perceptual is None]
    return LeakageReport(
        train=len(train_prints),
        test=len(test_prints),
        exact=tuple(exact),
        near=tuple(_near(train_prints, test_prints, max_distance)) if near else (),
        unhashed=tuple(unhashed),
    )


def _paths(items: Iterable[Path | Sample]) -> list[Path]:
    return list(dict.fromkeys(item.image if isinstance(item, Sample) else Path(item) for item in items))


def _exact(train: list[Fingerprint], test: list[Fingerprint]) -> list[tuple[Path, Path]]:
    by_bytes: dict[str, list[Path]] = defaultdict(list)
    for print_ in train:
        by_bytes[print_.sha256].append(print_.path)
    return [(path, print_.path) for print_ in test for path in by_bytes.get(print_.sha256, ())]


def _near(train: list[Fingerprint], test: list[Fingerprint], max_distance: int) -> list[NearPair]:
    known_train = [(print_, print_.perceptual) for print_ in train if print_.perceptual is not None]
    known_test = [(print_, print_.perceptual) for print_ in test if print_.perceptual is not None]
    indices = near_pairs([code for _, code in known_train], [code for _, code in known_test], max_distance)
    found = [
        NearPair(known_train[a][0].path, known_test[b][0].path, distance)
        for a, b, distance in indices
        if known_train[a][0].sha256 != known_test[b][0].sha256
    ]
    return sorted(found, key=lambda pair: pair.distance)
