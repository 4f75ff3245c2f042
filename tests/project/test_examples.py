"""The example pictures are those that their script makes."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_example_has_its_shot_and_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from render_examples import SHOTS

    pictures = {path.stem: path.stat().st_size for path in EXAMPLES.glob("*.jpg")}
    assert pictures.keys() == SHOTS.keys()
    assert max(pictures.values()) < 150_000
