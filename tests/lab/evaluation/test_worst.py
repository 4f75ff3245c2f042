from __future__ import annotations

import numpy as np

from anomaly_ov_lab.evaluation.detect import WorstSoFar


def test_the_worst_at_the_end_were_told_when_they_came() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 300).tolist(), rng.random(300).round(2).tolist()
    worst = WorstSoFar(4)
    told = [worst.add(label, score) for label, score in zip(labels, scores, strict=True)]
    for label, order in ((0, -1), (1, 1)):
        own = sorted((order * scores[i], i) for i in range(300) if labels[i] == label)
        clear = [i for value, i in own[:4] if value < own[4][0]]
        assert clear
        assert all(told[i] for i in clear)
    assert sum(told) < 80


def test_without_label_or_score_nothing_is_worst() -> None:
    worst = WorstSoFar()
    assert not worst.add(None, 0.9)
    assert not worst.add(0, None)
