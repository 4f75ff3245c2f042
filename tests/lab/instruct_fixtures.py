"""Facts of pictures that need not be drawn: any kind anywhere, none to three defects."""

from __future__ import annotations

import numpy as np

from anomaly_ov.images.places import PLACES
from anomaly_ov_lab.data.synthetic import KINDS, DefectFact, Facts
from anomaly_ov_lab.instruct.knowledge import OBJECTS, SURFACES
from anomaly_ov_lab.instruct.seen import SEVERITIES, SIZES


def defect(kind: str = "scratch", place: str = "top", area: float = 0.01, contrast: float = 0.2) -> DefectFact:
    return DefectFact(kind, place, (0, 0, 4, 4), area, contrast, "small", "slight")


def facts(*defects: DefectFact, surface: str = "wood", thing: str | None = None) -> Facts:
    return Facts(0, surface, thing, ("brown", "grey"), defects)


def random_facts(seed: int, anomalous: bool | None = None) -> Facts:
    """Half of them normal unless ``anomalous`` is given."""
    rng = np.random.default_rng([seed, 77])

    def one(names: object) -> str:
        options = list(names)  # type: ignore[call-overload]
        return str(options[int(rng.integers(len(options)))])

    some = bool(rng.random() < 0.5) if anomalous is None else anomalous
    defects = tuple(
        DefectFact(one(KINDS), one(PLACES), (0, 0, 4, 4), float(rng.uniform(0.001, 0.2)), float(rng.uniform(0.05, 0.9)),
                   one(SIZES), one(SEVERITIES))
        for _ in range(int(rng.integers(1, 4)) if some else 0)
    )  # fmt: skip
    thing = one(OBJECTS) if rng.random() < 0.4 else None
    return Facts(seed, one(SURFACES), thing, ("grey", "brown")[: int(rng.integers(1, 3))], defects)
