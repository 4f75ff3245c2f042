"""Writes the tables of README.md and docs/benchmarks.md from ``results/*.json``.

Run: ``python benchmarks/readme_tables.py``. Nothing in these tables is typed by hand:
``tests/project/test_readme.py`` fails when a page and the results disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomaly_ov.files import write_atomic
from detector_tables import detector, summary
from table_cells import percent, with_interval, with_share

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
HEADING = ("| what | measured | remark |", "|-|-|-|")


def reasoning(found: dict[str, Any] | None) -> list[str]:
    """What the embedded language model says right, on held-out synthetic pictures and on real sets, and its costs."""
    if found is None:
        return []
    lines = ["| held-out synthetic | yes/no, balanced | kind | place | swapped pictures |", "|-|-|-|-|-|"]
    for split, readings in found["held_out"].items():
        wordings = {"held_out": "unseen wordings", "typed": "as people type", "train": "training's wordings"}[split]
        for name, one in readings.items():
            shares = [with_share(one[topic]) for topic in ("kind", "place")] + [with_share(one["swapped"]["all"])]
            balanced = percent(one["balanced_accuracy"])
            lines.append(f"| `{name}`, {wordings}, {one['pictures']} pictures | {balanced} | {' | '.join(shares)} |")
    lines += ["", "| real set | normal / anomalous | AUROC of P(yes) | of the expert's score |", "|-|-|-|-|"]
    for one in found["real"]:
        cells = [one["set"], f"{one['normal']} / {one['anomalous']}"]
        lines.append(f"| {' | '.join([*cells, with_interval(one['p_yes']), with_interval(one['expert'])])} |")
    second, read_in, together = found["second_question"], found["readings"], found["batch"]
    focus = read_in["focus"]
    lines += [
        "",
        f"Second question: {second['second_over_first']:.2f} of the first one's time to the first token "
        f"({second['second_over_first_without_looking']:.2f} without looking). `focus` against `full` on 1024 x 1024: "
        f"{focus['tokens_over_full']:.3f} of the tokens, {focus['prefill_over_full']:.2f} of the prefill time. "
        f"{together['questions']} questions in one batch: {together['equal_texts']} equal texts, "
        f"{together['times_faster']:.1f} x faster. Model `{found['model']['name']}` revision "
        f"`{found['model']['revision']}`, one training seed; shares in percent with 95 % Wilson intervals, AUROC with "
        "bootstrap intervals. Combinations of defect and surface in the held-out pictures never occurred in training.",
    ]
    return lines


PAPER = {
    "full": "94.0 / 91.1 / 97.6 / 93.9",
    "no-look-back": "92.8 / 90.5 / 96.6 / 93.5",
    "no-embeddings": "92.1 / 90.1 / 94.7 / 92.9",
    "no-q-former": "91.7 / 89.9 / 92.8 / 95.1",
    "no-in-the-wild": "88.5 / 88.9 / 91.2 / 93.4",
}
"""Image AUROC on MVTec AD / VisA / HeadCT / BrainMRI of the paper's ablation (Xu et al., CVPR 2025)."""


def ablation(found: dict[str, Any] | None) -> list[str]:
    """Variants of the expert, AUROC of map and head, beside the paper's own ablation."""
    if found is None:
        return []
    names = list(found["sets"])
    lines = [
        f"| variant | {' | '.join(f'{name}, map' for name in names)} | mean, map | mean, head | in the paper |",
        f"|{'-|' * (len(names) + 4)}",
    ]
    for variant in found["settings"]:
        rows = [found["sets"][name]["variants"][variant] for name in names]
        means = [sum(row[score]["auroc"] for row in rows) / len(rows) for score in ("map", "head")]
        cells = [stepped(row["map"]) for row in rows] + [percent(mean) for mean in means] + [PAPER.get(variant, "-")]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    steps, seeds = found["settings"]["full"]["loop"]["steps"], len(found["seeds"])
    lines += [
        "",
        f"AUROC in percent, mean of {seeds} seeds with 95 % bootstrap intervals over pictures; bold where the paired "
        f"interval of the step from `full` leaves out 0. Each expert learnt for {steps} steps from fresh weights on "
        "the frozen encoder of `tiny`: rows compare with each other, not with the shipped model. In the paper: MVTec "
        "AD / VisA / HeadCT / BrainMRI, image score of the head.",
    ]
    return lines


def stepped(figures: dict[str, Any]) -> str:
    """``71.2 [68.0, 74.1]``, bold where it differs from the full variant beyond its interval."""
    low, high = figures["difference_interval"]
    shown = with_interval(figures)
    return f"**{shown}**" if low > 0 or high < 0 else shown


def benchmarks() -> list[str]:
    """Speed, memory and fidelity, one line a figure."""
    lines = costs("inspect-speed", "cold-start", "cache", "memory")
    expert = read("expert-speed")
    if expert:
        lines = lines or [*HEADING]
        ours, plain = (100 * expert["matrix_product_share"][which] for which in ("ours", "plain"))
        lines.insert(
            len(HEADING),
            f"| expert forward, {expert['views']} views, 1 thread | {expert['ratio']:.2f} x faster than a plain "
            f"arrangement | {ours:.0f} % of its time in matrix products (plain: {plain:.0f} %) |",
        )
    return lines


def costs(*names: str) -> list[str]:
    """A table of these benchmarks' figures."""
    lines = measured(*names)
    return [*HEADING, *lines] if lines else []


def measured(*names: str) -> list[str]:
    """The rows of these benchmarks, where they have been run."""
    lines = []
    for name in names:
        found = read(name)
        for what, entry in (found["measured"] if found else {}).items():
            value = entry["value"]
            if what == "model":  # said once, above
                continue
            lines.append(f"| {what} | {f'{value:.3g}' if isinstance(value, float) else value} | {entry['remark']} |")
    return lines


def read(name: str) -> Any:
    """``results/<name>.json``, None if it was not measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def filled(page: str) -> str:
    """``page`` with the present tables between its markers; what was not measured leaves nothing between them."""
    for name, table in TABLES.items():
        page = _between(page, f"<!-- {name}:begin -->", f"<!-- {name}:end -->", "\n".join(table()))
    return page


def _between(text: str, begin: str, end: str, table: str) -> str:
    return re.sub(f"(?<={begin}\n).*(?={end})", lambda _: f"\n{table}\n\n" if table else "", text, flags=re.DOTALL)


TABLES: dict[str, Callable[[], list[str]]] = {
    "summary": lambda: summary(read("detector")),
    "detector": lambda: detector(read("detector")),
    "speed": benchmarks,
    "measuring": lambda: costs("pixel-metrics", "eval-overhead", "calibration"),
    "ablation": lambda: ablation(read("ablation-tiny")),
    "reasoning": lambda: reasoning(read("reasoning-tiny")),
    "serving": lambda: costs("serve-load", "serve-kill", "serve-page"),
}
PAGES = {"README.md": ["summary"], "docs/benchmarks.md": [name for name in TABLES if name != "summary"]}
"""Which table stands between the markers of which page."""


if __name__ == "__main__":
    for page in PAGES:
        write_atomic(ROOT / page, filled((ROOT / page).read_text(encoding="utf-8")).encode())
