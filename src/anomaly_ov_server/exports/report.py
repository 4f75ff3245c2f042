"""The report: one HTML file that opens offline, with the pictures, what was found in them and what was decided.

Style, script and pictures are inside; nothing is fetched, and the page's own policy forbids it. Names, notes and
answers are data: the template escapes them, and only the one script whose digest the policy names may run. All
pictures are there as thumbnails; the ``MOST_LARGE`` most suspicious are larger, and the map lies over those that are
anomalous or among the ``MOST_LAYERS`` most suspicious, so that a thousand pictures stay below 20 MB.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from anomaly_ov.charts import Chart, histogram_chart
from anomaly_ov.images.colours import palette
from anomaly_ov.images.messages import counted, printable
from anomaly_ov_server.exports.about import About, Result, State, result_of, state_of
from anomaly_ov_server.exports.rejudged import stored_map
from anomaly_ov_server.exports.small_pictures import LARGE, SMALL, map_layer, small_picture
from anomaly_ov_server.reviewed import Decision, Reviewed

FOLDER = Path(__file__).parent
MOST_LARGE, MOST_LAYERS, MOST_REGIONS = 24, 100, 12


@dataclass(frozen=True)
class Brief:
    """What sorting, counting and the histogram need of one row."""

    index: int
    state: State
    result: Result
    score: float | None
    anomalous: bool | None
    decided: str | None

    @property
    def overruled(self) -> bool:
        """Whether a person decided other than the threshold."""
        wanted = {"anomalous": True, "normal": False}.get(self.decided or "")
        return self.anomalous is not None and wanted is not None and wanted != self.anomalous


@dataclass(frozen=True)
class Tile:
    """A count to see at once; ``kind``: the class that colours it."""

    name: str
    value: int
    remark: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Filter:
    """A button that shows some of the pictures: those of the class ``key``."""

    key: str
    text: str
    count: int


@dataclass(frozen=True)
class Card:
    """One picture. ``kinds``: the classes that filters go by. ``picture``, ``layer``: data URLs.

    ``problem``: why it has no score; ``answer``: what a language model said of it. Both empty where there is none.
    """

    number: int
    name: str
    brief: Brief
    kinds: str
    threshold: float
    level: str
    problem: str
    answer: str
    decision: Decision | None
    picture: str | None
    layer: str | None
    wh: tuple[int, int]
    regions: list[dict[str, Any]]
    more_regions: int


def report(rows: Sequence[Reviewed], about: About) -> Iterator[bytes]:
    """The file, piece by piece; highest score first, then what has none."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    briefs = sorted((_brief(index, row) for index, row in enumerate(rows)), key=_order)
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = _inside("report.js")
    pieces = environment.get_template("report.html").generate(
        title=printable(about.name),
        about=about,
        facts=_facts(about),
        tiles=_tiles(briefs),
        filters=_filters(briefs),
        chart=_chart(briefs, about),
        colours=_colours(),
        style=_inside("report.css"),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        cards=(_card(rows[brief.index], brief, place) for place, brief in enumerate(briefs)),
    )
    return (piece.encode(errors="backslashreplace") for piece in pieces)


@cache
def _inside(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _brief(index: int, row: Reviewed) -> Brief:
    record = row.record or {}
    decided = None if row.decision is None else row.decision.verdict
    return Brief(index, state_of(row), result_of(row), record.get("score"), record.get("anomalous"), decided)


def _order(brief: Brief) -> tuple[bool, float, int]:
    return brief.score is None, -(brief.score or 0.0), brief.index


def _facts(about: About) -> list[tuple[str, str]]:
    model, threshold, context = about.model, about.threshold, about.context
    said = str(context.get("kind", "none"))
    count = context.get("references")
    if said == "references":
        said = f"compared with {count} pictures known to be good"
    elif said == "folder":
        said = "pictures compared among themselves" + (f" ({count})" if count else "")
    if context.get("source") and context.get("kind") != "none":
        said += f": {printable(str(context['source']))}"
    return [
        ("Batch", f"{about.batch_id}, created {_moment(about.created)}"),
        ("Exported", _moment(about.exported_at)),
        ("Model", f"{model.name}, revision {model.revision or 'unknown'} ({model.device}, {model.dtype})"),
        ("Threshold", f"score >= {threshold.value:.3f} counts as anomalous ({threshold.source})"),
        ("Regions", "where the map reaches the threshold"),
        ("Context", said),
    ]


def _moment(text: str) -> str:
    """2026-11-22T08:00:00+00:00 as a person writes it."""
    return text[:16].replace("T", " ") + " UTC"


def _tiles(briefs: list[Brief]) -> list[Tile]:
    results, states = Counter(one.result for one in briefs), Counter(one.state for one in briefs)
    decided = Counter(one.decided for one in briefs if one.decided)
    overruled = sum(one.overruled for one in briefs)
    tiles = [
        Tile("pictures", len(briefs), f"{states['done']} scored"),
        Tile("anomalous", results["anomalous"], f"{decided['anomalous']} decided by a person", "anomalous"),
        Tile("normal", results["normal"], f"{decided['normal']} decided by a person", "normal"),
        Tile("unsure", results["unsure"], "decided by a person", "unsure"),
        Tile("undecided", sum(one.decided is None for one in briefs), "no person has looked"),
    ]
    if overruled:
        tiles.append(Tile("overruled", overruled, "decision against the threshold"))
    if states["failed"] or states["pending"]:
        missing = [f"{states[state]} {text}" for state, text in _MISSING.items() if states[state]]
        tiles.append(Tile("not scored", states["failed"] + states["pending"], ", ".join(missing)))
    return tiles


_MISSING: dict[State, str] = {"failed": "unreadable", "pending": "still pending"}


def _kinds(brief: Brief) -> set[str]:
    """What filters go by."""
    kinds: set[str] = {brief.result}
    if brief.decided is None:
        kinds.add("undecided")
    if brief.overruled:
        kinds.add("overruled")
    if brief.state != "done":
        kinds.add("unscored")
    return kinds


def _filters(briefs: list[Brief]) -> list[Filter]:
    counts = Counter(kind for brief in briefs for kind in _kinds(brief))
    always = [Filter(key, key.capitalize(), counts[key]) for key in ("anomalous", "normal", "unsure", "undecided")]
    rare = [Filter(key, text, counts[key]) for key, text in (("overruled", "Overruled"), ("unscored", "Not scored"))]
    return [Filter("all", "All", len(briefs)), *always, *(one for one in rare if one.count)]


def _chart(briefs: list[Brief], about: About) -> Chart | None:
    scores = [brief.score for brief in briefs if brief.score is not None]
    if not scores:
        return None
    # Of one label: what is drawn are all pictures, whatever they are.
    chart = histogram_chart([0] * len(scores), scores, about.threshold.value)
    return replace(chart, note=f"share of {counted(len(scores), 'scored picture')}")


def _colours() -> list[str]:
    """The palette in nine steps."""
    return ["#{:02x}{:02x}{:02x}".format(*palette()[step]) for step in (0, 32, 64, 96, 128, 160, 192, 224, 255)]


def _card(row: Reviewed, brief: Brief, place: int) -> Card:
    record = row.record or {}
    image, regions = record.get("image") or {}, record.get("regions") or []
    large = place < MOST_LARGE and row.preview is not None
    map_HW = stored_map(row.map_path) if brief.result == "anomalous" or place < MOST_LAYERS else None
    return Card(
        number=row.position + 1,
        name=printable(row.name),
        brief=brief,
        kinds=" ".join(sorted(_kinds(brief))),
        threshold=(record.get("threshold") or {}).get("value", 0.0),
        level=f"{record['level']} suspicious" if record.get("level") else "",
        problem=(record.get("error") or {}).get("message", ""),
        answer=(record.get("answer") or {}).get("text", ""),
        decision=row.decision,
        picture=small_picture(row.preview, LARGE) if large else small_picture(row.thumbnail, SMALL),
        layer=None if map_HW is None else map_layer(map_HW),
        wh=(image.get("width") or 4, image.get("height") or 3),
        regions=regions[:MOST_REGIONS],
        more_regions=max(0, len(regions) - MOST_REGIONS),
    )
