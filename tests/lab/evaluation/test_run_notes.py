"""What is said beside the figures, and that a file's name cannot write to the terminal or break a line."""

from __future__ import annotations

import pytest

from anomaly_ov.records import ModelInfo
from anomaly_ov_lab.evaluation.figures import Figures
from anomaly_ov_lab.evaluation.metrics import bootstrap_interval
from anomaly_ov_lab.evaluation.run_folder import Row
from anomaly_ov_lab.evaluation.run_notes import FEW, named, notes_of, nothing_scored

INFO = ModelInfo("m", "r", "cpu", "float32")
EVIL = "bad/\x1b[31mred\nline.png"


def failed(id_: str, error: str = "UnreadableImage: broken") -> Row:
    return Row(id_, None, INFO, error=error)


def test_names_stay_on_their_line() -> None:
    rows = [failed(EVIL), failed("b.png", f"EndpointError: {EVIL}")]
    notes = [*notes_of(rows, [Figures(EVIL, 1, 0, {})], [EVIL], 2), named("kind", [EVIL]), str(nothing_scored(rows))]
    assert len(notes) == 7
    assert all(note.isprintable() for note in notes)
    assert "left out of pixel metrics: 2" in notes[-3]


def test_nothing_scored_is_laid_at_the_right_door() -> None:
    broken, silent = failed("a.png"), failed("b.png", "EndpointError: cannot reach it")
    assert nothing_scored([broken, broken]).exit_code == 2
    assert nothing_scored([broken, silent]).exit_code == 6
    assert nothing_scored([broken, silent]).message.endswith("EndpointError: cannot reach it")


@pytest.mark.parametrize(("normal", "anomalous", "said"), [(FEW - 1, 50, True), (FEW, 50, False), (0, 50, False)])
def test_few_pictures_of_a_label_are_told(normal: int, anomalous: int, said: bool) -> None:
    notes = list(notes_of([], [Figures("nut", normal, anomalous, {})], [], 0))
    assert (f"fewer than {FEW} pictures of a label, intervals too narrow: 1 (nut)" in notes) is said


def test_why_few_pictures_are_told() -> None:
    """One normal picture, drawn again and again, is always itself: the interval knows nothing of other normals."""
    interval = bootstrap_interval([0, 1, 1, 1], [0.9, 0.1, 0.2, 0.3])
    assert interval == (0, 0)
