"""The contact sheet."""

from __future__ import annotations

import numpy as np

from anomaly_ov_lab.data.synthetic.sheet import OUTLINE, contact_sheet


def test_sheet_has_a_row_per_kind_and_outlines() -> None:
    sheet = np.asarray(contact_sheet(seed=1, columns=2, size=64, kinds=("hole", "crack"), normal_rows=1))
    assert sheet.shape == (3 * 66, 2 * 66, 3)
    outlined = (sheet == OUTLINE).all(axis=2)
    assert outlined[:132].any()
    assert not outlined[132:].any()
