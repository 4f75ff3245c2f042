"""The lines below an overlay, of the inspection's folder and of the service alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anomaly_ov.images.messages import counted
from anomaly_ov.images.score_lines import score_lines
from anomaly_ov.records import ContextInfo, Finding, ImageInfo, ModelInfo, Threshold

MODEL = ModelInfo("small", "r1", "cpu", "float32")


def test_a_score_alone() -> None:
    finding = Finding("a", ImageInfo("a"), MODEL, score=0.25, threshold=Threshold(0.5, "test"), anomalous=False)
    assert score_lines(finding.to_json()) == ["score 0.250, threshold 0.500: not anomalous"]


def test_a_score_with_a_context() -> None:
    finding = Finding(
        "a",
        ImageInfo("a"),
        MODEL,
        score=0.75,
        threshold=Threshold(0.5, "test"),
        anomalous=True,
        level="highly",
        score_expert=0.5,
        score_context=1.0,
        context=ContextInfo("references", distance=3.21, references=4),
    )
    assert score_lines(finding.to_json()) == [
        "score 0.750, threshold 0.500: anomalous; highly suspicious",
        "expert alone 0.500, context 1.000: 3.2 times the usual distance from 4 references",
    ]
    alone = replace(finding, context=replace(finding.context, references=1))
    assert score_lines(alone.to_json())[1].endswith("usual distance from 1 reference")


@pytest.mark.parametrize(("count", "text"), [(0, "0 pictures"), (1, "1 picture"), (2, "2 pictures")])
def test_counted(count: int, text: str) -> None:
    assert counted(count, "picture") == text
