"""``report.md`` and ``report.html`` of one measured set, beside its rows and maps.

The page is one file: style, charts and thumbnails are inside, nothing is fetched. It shows at most ``MOST_SHOWN``
misses and as many false alarms, so its size hardly depends on the set's. A figure that is undefined is "-".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_ov.charts import Chart, histogram_chart
from anomaly_ov.errors import DataError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.messages import printable
from anomaly_ov.scoring.conformal import binomial_interval
from anomaly_ov_lab.evaluation import report
from anomaly_ov_lab.evaluation.detect import MOST_SHOWN, DetectionResult, ScoredSample
from anomaly_ov_lab.evaluation.figures import Figures
from anomaly_ov_lab.evaluation.page.curves import precision_recall_chart, roc_chart
from anomaly_ov_lab.evaluation.page.thumbnails import Thumbnail, thumbnail
from anomaly_ov_lab.evaluation.run_folder import RunFolder

MARKDOWN_NAME, PAGE_NAME = "report.md", "report.html"
MOST_CATEGORIES = 500


@dataclass(frozen=True)
class FigureTile:
    """A figure to quote: its name, its value, and its interval or other remark."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Shown:
    """One of the worst pictures. ``verdict``: what the threshold says of it; ``wrong``: whether that is wrong."""

    id: str
    defect: str
    score: str
    verdict: str
    wrong: bool
    thumbnail: Thumbnail


def write_report(folder: Path, result: DetectionResult) -> tuple[Path, Path]:
    """Writes both files into the run's folder and returns their paths. Raises ``UsageError`` if that cannot be done.

    ``result`` as from ``evaluate_detection(..., out=folder)``; pictures gone since leave a note in their place.
    """
    markdown, page = folder / MARKDOWN_NAME, folder / PAGE_NAME
    # A name on a disk need not be Unicode; what is not, is escaped.
    write_atomic(markdown, markdown_report(result).encode(errors="backslashreplace"))
    write_atomic(page, html_report(folder, result).encode(errors="backslashreplace"))
    return markdown, page


def markdown_report(result: DetectionResult) -> str:
    """A heading, the table, what it was measured with, and one line per note."""
    facts = [f"- {name}: {_one_line(value)}" for name, value in facts_of(result)]
    table = report.markdown([result], per_category=True)
    return "\n".join([f"# {_one_line(result.dataset)}", "", *facts, "", table])


def html_report(folder: Path, result: DetectionResult) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    several = len(result.categories) > 1
    labelled = [item for item in result.scored if item.sample.label is not None and item.row.score is not None]
    threshold = _threshold(result)
    with RunFolder(folder, result.model) as run:
        misses = _shown(_worst(labelled, 1), run, threshold)
        alarms = _shown(_worst(labelled, 0), run, threshold)
    return environment.get_template("template.html").render(
        title=result.dataset,
        facts=facts_of(result),
        tiles=_tiles(result),
        tiles_of="mean over categories; at the threshold: all pictures pooled" if several else "",
        charts=_charts(labelled, result.pooled, threshold),
        columns=report.columns([result]),
        rows=report.rows([result], per_category=several and len(result.categories) <= MOST_CATEGORIES),
        misses=misses,
        alarms=alarms,
        threshold=threshold,
        notes=result.notes,
        provenance=json.dumps(result.provenance, indent=2, ensure_ascii=False),
    )


def facts_of(result: DetectionResult) -> list[tuple[str, str]]:
    """What was measured on what, as (name, value) pairs."""
    model, counts, threshold = result.model, result.counts, _threshold(result)
    pictures = f"{counts['normal']} normal, {counts['anomalous']} anomalous"
    pictures += "".join(f", {counts[name]} {name}" for name in ("unreadable", "uncertain") if counts[name])
    where = (
        f"score >= {threshold:.6g} ({result.threshold_source})" if threshold is not None else "the detector has none"
    )
    return [
        ("set", f"{result.dataset} ({result.layout})"),
        ("pictures", pictures),
        ("model", f"{model.name}, revision {model.revision or 'unknown'}"),
        ("computed", f"{model.device}, {model.dtype}"),
        ("context", result.context_label or "none"),
        ("threshold", where),
        ("date", str(result.provenance.get("date", "unknown"))),
        ("commit", str(result.provenance.get("commit", "unknown"))),
    ]


def _threshold(result: DetectionResult) -> float | None:
    return next((item.row.threshold for item in result.scored if item.row.threshold is not None), None)


def _tiles(result: DetectionResult) -> list[FigureTile]:
    main, point, pixels = result.main.scores["score"], result.pooled.at_threshold, result.main.pixels
    interval = main.interval
    tiles = [
        FigureTile(
            "AUROC", _percent(main.auroc), _range(interval.low, interval.high) if interval else "one label only"
        ),
        FigureTile("average precision", _percent(main.average_precision)),
        FigureTile(
            "F1-max", _percent(main.f1_max), f"at {main.f1_threshold:.3f}" if main.f1_threshold is not None else ""
        ),
    ]
    if point is not None:
        found, lost = point.true_positives, point.false_negatives
        right, alarms = point.true_negatives, point.false_positives
        tiles.append(FigureTile("false alarms", _percent(point.false_alarms), _of(alarms, right + alarms)))
        tiles.append(FigureTile("misses", _percent(point.misses), _of(lost, found + lost)))
        tiles.append(FigureTile("balanced accuracy", _percent(point.balanced_accuracy)))
    if pixels is not None:
        tiles.append(FigureTile("pixel AUROC", _percent(pixels.auroc), f"AP {_percent(pixels.average_precision)}"))
        tiles.append(FigureTile("PRO", _percent(pixels.pro), f"to {_percent(pixels.max_fpr)} false alarms"))
    return tiles


def _of(hits: int, of: int) -> str:
    return f"{_range(*binomial_interval(hits, of))}, {hits} of {of}" if of else "no such pictures"


def _charts(labelled: Sequence[ScoredSample], pooled: Figures, threshold: float | None) -> list[Chart]:
    """Of one label only the histogram; of none nothing."""
    labels = [item.sample.label for item in labelled if item.sample.label is not None]
    scores = [item.row.score for item in labelled if item.row.score is not None]
    if not labels:
        return []
    charts = [histogram_chart(labels, scores, threshold)]
    if len(set(labels)) == 2:
        figures, point = pooled.scores["score"], pooled.at_threshold
        charts.append(roc_chart(labels, scores, figures.auroc, point))
        charts.append(precision_recall_chart(labels, scores, figures.average_precision, point))
    return charts


def _worst(labelled: Sequence[ScoredSample], label: int) -> list[ScoredSample]:
    own = [item for item in labelled if item.sample.label == label]
    return sorted(own, key=lambda item: (item.row.score or 0.0) * (1 if label else -1))[:MOST_SHOWN]


def _shown(items: Sequence[ScoredSample], run: RunFolder, threshold: float | None) -> list[Shown]:
    return [_shown_one(item, run, threshold) for item in items]


def _shown_one(item: ScoredSample, run: RunFolder, threshold: float | None) -> Shown:
    row, sample = item.row, item.sample
    flagged = row.score is not None and threshold is not None and row.score >= threshold
    verdict = "" if threshold is None else "flagged" if flagged else "not flagged"
    return Shown(
        id=printable(row.id),
        defect=printable(sample.defect) if sample.defect else "",
        score=f"{row.score:.3f}",
        verdict=verdict,
        wrong=threshold is not None and flagged != bool(sample.label),
        thumbnail=thumbnail(sample.image, row.sha256, _map(item, run), sample.mask if sample.label else None),
    )


def _map(item: ScoredSample, run: RunFolder) -> Any:
    """The stored map; None where there is none or it cannot be read any more."""
    if item.row.map is None:
        return None
    try:
        return run.read_map(item.row.map)
    except DataError:
        return None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
