"""The public namespace, held word by word: a name added or dropped is a decision, not an accident."""

from __future__ import annotations

import anomaly_ov


def test_public_names() -> None:
    assert sorted(anomaly_ov.__all__) == ["AnomalyOVError", "Finding", "Inspector", "Region", "__version__", "load"]
    for name in anomaly_ov.__all__:
        assert getattr(anomaly_ov, name) is not None
    assert dir(anomaly_ov) == sorted(anomaly_ov.__all__)
    assert not hasattr(anomaly_ov, "no_such_name")
