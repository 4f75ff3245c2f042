"""What a score means, in the lines that stand below an overlay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomaly_ov.images.messages import counted


def score_lines(record: Mapping[str, Any]) -> list[str]:
    """Score, threshold and verdict, and what each part says where there is a context; of a picture with a score.

    ``record``: a finding's JSON form (``records.Finding.to_json``).
    """
    verdict = "anomalous" if record["anomalous"] else "not anomalous"
    suspicion = f"; {record['level']} suspicious" if record["level"] else ""
    threshold = record["threshold"]["value"]
    lines = [f"score {record['score']:.3f}, threshold {threshold:.3f}: {verdict}{suspicion}"]
    if record["score_expert"] is not None and record["score_context"] is not None:
        context = record["context"]
        distance = "" if context["distance"] is None else f": {context['distance']:.1f} times the usual distance"
        lines.append(
            f"expert alone {record['score_expert']:.3f}, context {record['score_context']:.3f}{distance} "
            f"from {counted(context['references'], 'reference')}"
        )
    return lines
