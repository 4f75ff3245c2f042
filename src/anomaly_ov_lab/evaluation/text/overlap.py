"""ROUGE-L: how much of two texts is one common sequence of words, as F-measure, by the package rouge-score.

Words are lower-case runs of letters and digits, without stemming. A text without any such word scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from anomaly_ov_lab.evaluation.text.extras import optional

PACKAGE = "rouge-score"


def require() -> None:
    """Raises ``MissingExtra`` without the package."""
    optional("rouge_score.rouge_scorer", PACKAGE)


def rouge_l(references: Sequence[str], answers: Sequence[str]) -> list[float]:
    """ROUGE-L of each answer against its reference, 0..1. Raises ``MissingExtra``."""
    scorer = optional("rouge_score.rouge_scorer", PACKAGE).RougeScorer(["rougeL"], use_stemmer=False)
    return [
        float(scorer.score(reference, answer)["rougeL"].fmeasure)
        for reference, answer in zip(references, answers, strict=True)
    ]
