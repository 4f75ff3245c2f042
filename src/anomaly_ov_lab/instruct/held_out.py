"""Which combinations of a kind and what it is on are kept from training, to measure what carries over."""

from __future__ import annotations

import hashlib

from anomaly_ov_lab.data.synthetic import Facts

SHARE = 0.12
_SALT = "held-out combinations, 1"


def is_held_out(facts: Facts) -> bool:
    """Whether any defect of the picture is of a held-out combination; never for a normal picture."""
    return any(is_combination_held_out(defect.kind, facts.surface, facts.object) for defect in facts.defects)


def is_combination_held_out(kind: str, surface: str, thing: str | None) -> bool:
    """Whether ``kind`` on ``thing``, or on ``surface`` where there is no object, is held out: 12 % by hash.

    A photo names nothing, so nothing on it is held out.
    """
    if thing is None and surface == "photo":
        return False
    digest = hashlib.sha256(f"{_SALT}|{kind}|{thing or surface}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < SHARE * 2**64
