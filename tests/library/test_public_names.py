"""The public namespace, held word by word: a name added or dropped is a decision, not an accident."""

from __future__ import annotations

import anomaly_ov


def test_public_names() -> None:
    expected = ["AnomalyOVError", "Context", "Finding", "Inspector", "Region"]
    assert sorted(anomaly_ov.__all__) == [
        *expected,
        "__version__",
        "load",
        "load_context",
        "save_context",
    ]
    for name in anomaly_ov.__all__:
        assert getattr(anomaly_ov, name) is not None
    assert dir(anomaly_ov) == sorted(anomaly_ov.__all__)
    assert not hasattr(anomaly_ov, "no_such_name")
