"""The tables of ``results/detector.json``: one for the README, and all of them for ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from table_cells import heading, percent, row, with_interval, with_spread

JSON = dict[str, Any]
MEANS = (("elpv", "brainmri", "headct", "br35h"), ("elpv", "brainmri", "mtd", "tire"))
"""Sets over which means are shown where all of them were measured: those with published figures, and those that this
project has measured from its beginning."""

PUBLISHED = {
    "WinCLIP": {"elpv": 0.740, "brainmri": 0.926, "headct": 0.900, "br35h": 0.805},
    "AnomalyCLIP": {"elpv": 0.815, "brainmri": 0.903, "headct": 0.934, "br35h": 0.946},
    "Anomaly-OV": {"elpv": 0.830, "brainmri": 0.939, "headct": 0.976, "br35h": 0.955},
}
"""Image AUROC in Table 2 of the paper (Xu et al., CVPR 2025)."""

PROTOCOLS = {"alone": "zero-shot", "folder": "batch zero-shot", "published": "zero-shot"}
NAMES = {"mtd": "mtd (magnetic tiles)", "tire": "tire (MVTec 3D-AD)"}

WITHOUT = {"own_patches": "the image's own patches", "mirror": "its mirror image", "expert": "the expert"}


def detector(found: JSON | None) -> list[str]:
    """All tables and what is to be said of them; nothing where nothing was measured."""
    if found is None or not found["sets"]:
        return []
    sets = in_order(found["sets"])
    lines = [*aurocs(sets), "", *operating(sets)]
    for more in (pixels(sets), ablations(sets)):
        lines += ["", *more] if more else []
    return [*lines, "", said(found, sets)]


def summary(found: JSON | None) -> list[str]:
    """One table without intervals: AUROC of every way beside published figures, false alarms and misses below."""
    if found is None or not found["sets"]:
        return []
    sets = in_order(found["sets"])
    names = ["single image", "folder", *names_of(sets[0])[2:]]
    shots = [f"{count}-shot" for count in sets[0]["references"]]
    lines = heading(["image AUROC, %", *names, *PUBLISHED])
    protocols = [PROTOCOLS["alone"], PROTOCOLS["folder"], *shots, *[PROTOCOLS["published"]] * len(PUBLISHED)]
    lines.append(row(["*protocol*", *(f"*{one}*" for one in protocols)]))
    for one in sets:
        cells = [percent(figures and figures["auroc"]) for figures in ways_of(one)]
        cells += [percent(known.get(one["set"])) for known in PUBLISHED.values()]
        lines.append(row([NAMES.get(one["set"], one["set"]), *cells]))
    published = [one for one in sets if all(one["set"] in known for known in PUBLISHED.values())]
    for title, own in ((f"mean of the {len(published)} published", published), (f"mean of all {len(sets)}", sets)):
        if len(own) > 1:
            columns = zip(*map(ways_of, own), strict=True)
            cells = [percent(mean_of(one and one["auroc"] for one in way)) for way in columns]
            cells += [percent(mean_of(known.get(one["set"]) for one in own)) for known in PUBLISHED.values()]
            lines.append(row([f"**{title}**", *(f"**{cell}**" for cell in cells)]))
    for name, title in (("false_alarms", "false alarms"), ("misses", "misses")):
        columns = zip(*map(ways_of, sets), strict=True)
        cells = [percent(mean_of((one and one[name] for one in own), all_of_them=False)) for own in columns]
        lines.append(row([f"{title}, %, mean of {len(sets)}", *cells, *["-"] * len(PUBLISHED)]))
    model = found["model"]
    return [
        *lines,
        "",
        f"Model `{model['name']}`, revision `{model['revision']}`. False alarms and misses: at the "
        f"model's own threshold of {found['threshold']}. References: mean of {found['protocol']['draws']} draws. "
        "WinCLIP, AnomalyCLIP and Anomaly-OV: as published (Table 2 of the paper), with backbones of several hundred "
        f"million parameters, not reproduced here.{sample_of_br35h(sets)}",
    ]


def in_order(sets: Sequence[JSON]) -> list[JSON]:
    """Those of the means first."""
    order = [*dict.fromkeys(name for names in MEANS for name in names)]
    return sorted(sets, key=lambda one: order.index(one["set"]) if one["set"] in order else len(order))


def aurocs(sets: Sequence[JSON]) -> list[str]:
    """Sets down, ways across, published figures last; means below."""
    lines = heading(["set", "normal / anomalous", *names_of(sets[0]), *PUBLISHED])
    for one in sets:
        cells = [with_interval(one["alone"]), with_interval(one["folder"])]
        cells += [with_spread(drawn) for drawn in one["references"].values()]
        cells += [percent(known.get(one["set"])) for known in PUBLISHED.values()]
        lines.append(row([one["set"], f"{one['normal']} / {one['anomalous']}", *cells]))
    by_name = {one["set"]: one for one in sets}
    for names in MEANS:
        if all(name in by_name for name in names):
            own = [by_name[name] for name in names]
            cells = [percent(mean(one[way]["auroc"] for one in own)) for way in ("alone", "folder")]
            cells += [mean_of_draws([one["references"][count] for one in own]) for count in sets[0]["references"]]
            cells += [percent(mean_of(known.get(name) for name in names)) for known in PUBLISHED.values()]
            lines.append(row([f"mean of {', '.join(names)}", "", *(f"**{cell}**" for cell in cells)]))
    return lines


def operating(sets: Sequence[JSON]) -> list[str]:
    """False alarms and misses at the model's own threshold."""
    lines = table(sets, "false alarms / misses", lambda figures: pair(figures, "false_alarms", "misses"))
    if len(sets) > 1:
        columns = zip(*map(ways_of, sets), strict=True)
        means = [
            {
                name: mean_of((one and one[name] for one in own), all_of_them=False)
                for name in ("false_alarms", "misses")
            }
            for own in columns
        ]
        cells = [pair(figures, "false_alarms", "misses") for figures in means]
        lines.append(row([f"mean of {len(sets)}", *(f"**{cell}**" for cell in cells)]))
    return lines


def pixels(sets: Sequence[JSON]) -> list[str]:
    """Of the sets with masks."""
    masked = [one for one in sets if one["alone"]["pixel_auroc"] is not None]
    return table(masked, "pixel AUROC / PRO", lambda figures: pair(figures, "pixel_auroc", "pro")) if masked else []


def ablations(sets: Sequence[JSON]) -> list[str]:
    """Mean AUROC over the sets with all evidence and without one kind of it, where that was measured of all."""
    left_out = [name for name in WITHOUT if all(name in one["without"] for one in sets)]
    if not left_out:
        return []
    lines = heading([f"mean AUROC of {len(sets)}", *names_of(sets[0])])
    for name in ("", *left_out):
        columns = zip(*(ways_of(one["without"][name] if name else one) for one in sets), strict=True)
        cells = [percent(mean_of(one and one["auroc"] for one in own)) for own in columns]
        lines.append(row([f"without {WITHOUT[name]}" if name else "all evidence", *cells]))
    return lines


def said(found: JSON, sets: Sequence[JSON]) -> str:
    """What the figures are of."""
    model, protocol = found["model"], found["protocol"]
    text = (
        f"In percent, of model `{model['name']}` revision `{model['revision']}`; no weight or threshold was fitted on "
        "these sets, but rules of the scoring were changed after figures of them had been seen (research log). AUROC "
        "of single images and folders: bootstrap intervals, 95 %; a folder's scores depend on its "
        f"other images. References: mean and standard deviation of {protocol['draws']} draws of good images, which are "
        "then not measured. False alarms: share of good images at or above the model's own threshold of "
        f"{found['threshold']}; misses: share of anomalous ones below it."
    )
    most = protocol["measured"]
    if most and any(most < one["normal"] + one["anomalous"] for one in sets):
        text += f" With references at most {most} random images of a set are measured, the same in all draws."
    text += (
        " Published: Table 2 of the paper (Xu et al., CVPR 2025), zero-shot, each image by itself, with backbones of "
        "several hundred million parameters; not reproduced here."
    )
    return text + sample_of_br35h(sets)


def sample_of_br35h(sets: Sequence[JSON]) -> str:
    """A remark, where that set was measured."""
    found = [one["normal"] + one["anomalous"] for one in sets if one["set"] == "br35h"]
    return f" Br35H here is a sample of {found[0]} images." if found else ""


def names_of(one: JSON) -> list[str]:
    """What the ways are called."""
    counts = [f"{count} reference{'s' * (count != '1')}" for count in one["references"]]
    return ["single image", "folder (transductive)", *counts]


def ways_of(one: JSON) -> list[JSON | None]:
    """The figures of each way, None where there were too few images."""
    return [one["alone"], one["folder"], *one["references"].values()]


def table(sets: Sequence[JSON], what: str, cell: Callable[[JSON | None], str]) -> list[str]:
    """Sets down, ways across."""
    return heading([what, *names_of(sets[0])]) + [row([one["set"], *map(cell, ways_of(one))]) for one in sets]


def pair(figures: JSON | None, first: str, second: str) -> str:
    """``12.0 / 31.5``."""
    shown = ["-", "-"] if figures is None else [percent(figures[first]), percent(figures[second])]
    return "-" if shown == ["-", "-"] else " / ".join(shown)


def mean_of(values: Iterable[float | None], *, all_of_them: bool = True) -> float | None:
    """None unless there is a value, or with ``all_of_them`` unless all are there."""
    every = list(values)
    known = [value for value in every if value is not None]
    return mean(known) if known and (len(known) == len(every) or not all_of_them) else None


def mean_of_draws(sets: Sequence[JSON | None]) -> str:
    """Mean over sets, and the standard deviation of that mean over draws."""
    own = [one for one in sets if one is not None]
    if len(own) < len(sets):
        return "-"
    means = [mean(values) for values in zip(*([draw["auroc"] for draw in one["draws"]] for one in own), strict=True)]
    return with_spread({"auroc": mean(means), "sd": stdev(means) if len(means) > 1 else None})
