"""Writes the README's table of what was measured from ``results/*.json``: ``python benchmarks/readme_tables.py``.

Nothing in that table is typed by hand; ``tests/test_readme.py`` fails when README and results disagree.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from anomaly_ov.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "results", ROOT / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SCORES = {"score": "score (fused)", "score_raw": "head", "score_map": "map"}


def tables() -> str:
    """The Markdown between the markers."""
    return "\n".join([*detection(read("detect-tiny")), "", *benchmarks()])


def detection(sets: list[dict[str, Any]] | None) -> list[str]:
    """Image and pixel figures of ``tiny``, percent, with 95 % bootstrap intervals."""
    if sets is None:
        return []
    head = ["set", "normal / anomalous", *(f"AUROC {name}" for name in SCORES.values()), "pixel AUROC", "PRO"]
    lines = [f"| {' | '.join(head)} |", f"|{'-|' * len(head)}"]
    for one in sets:
        main, pixels = one["main"], one["main"]["pixels"]
        cells = [one["dataset"], f"{main['normal']} / {main['anomalous']}"]
        cells += [with_interval(main["scores"][score]) for score in SCORES]
        cells += [percent(pixels["auroc"]), percent(pixels["pro"])] if pixels else ["-", "-"]
        lines.append(f"| {' | '.join(cells)} |")
    means = [sum(one["main"]["scores"][score]["auroc"] for one in sets) / len(sets) for score in SCORES]
    lines.append(f"| mean of {len(sets)} | | {' | '.join(f'**{percent(mean)}**' for mean in means)} | | |")
    first = sets[0]
    said = f"Model `{first['model']['name']}` revision `{first['model']['revision']}`, one training seed"
    said += ", zero-shot: none of these sets was trained or tuned on, "
    said += "though the synthetic generator draws scenes like solar cells, tiles and brain slices. "
    return [*lines, "", f"{said}Intervals: bootstrap, 95 %."]


def benchmarks() -> list[str]:
    """Speed, memory and fidelity, one line a figure."""
    lines = ["| what | measured | remark |", "|-|-|-|"]
    expert = read("expert-speed")
    if expert:
        ours, plain = (100 * expert["matrix_product_share"][which] for which in ("ours", "plain"))
        lines.append(
            f"| expert forward, {expert['views']} views, 1 thread | {expert['ratio']:.2f} x faster than a plain "
            f"arrangement | {ours:.0f} % of its time in matrix products (plain: {plain:.0f} %) |"
        )
    for name in ("inspect-speed", "cold-start", "cache", "memory"):
        found = read(name)
        for what, entry in (found["measured"] if found else {}).items():
            value = entry["value"]
            if what == "model":  # said once, above
                continue
            lines.append(f"| {what} | {f'{value:.3g}' if isinstance(value, float) else value} | {entry['remark']} |")
    return lines


def with_interval(figures: dict[str, Any]) -> str:
    """``71.2 [68.0, 74.1]``."""
    low, high = figures["interval"]
    return f"{percent(figures['auroc'])} [{percent(low)}, {percent(high)}]"


def percent(value: float | None) -> str:
    """One decimal, "-" where undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def read(name: str) -> Any:
    """``results/<name>.json``, None if it was not measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def filled(readme: str) -> str:
    """``readme`` with the present tables between its markers."""
    return re.sub(f"(?<={BEGIN}\n).*(?={END})", lambda _: tables() + "\n", readme, flags=re.DOTALL)


if __name__ == "__main__":
    write_atomic(README, filled(README.read_text(encoding="utf-8")).encode())
