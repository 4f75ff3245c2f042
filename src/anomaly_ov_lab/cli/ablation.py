"""``anomaly-ov eval ablation``: train the variants of a recipe, measure them in one pass, tell them apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from anomaly_ov.cli.console import note, stdout_console
from anomaly_ov.errors import UsageError
from anomaly_ov_lab.cli.train import Values


def ablation(
    recipe: Annotated[Path, typer.Option("--recipe", help="YAML recipe: a base and what its variants change.")],
    data: Annotated[Path, typer.Option("--data", help="Folder that the recipe's training folders are relative to.")],
    test: Annotated[list[Path], typer.Option("--test", help="Folder of a labelled set to measure on; repeatable.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for experts and scores; the same call goes on from it.")],
    start: Annotated[str, typer.Option("--start", help="Model whose encoder all variants share.")] = "tiny",
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder of cached features, shared between runs.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps, instead of the recipe's.")] = None,
    values: Values = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    summary: Annotated[Path | None, typer.Option("--summary", help="Write the figures into this JSON file.")] = None,
) -> None:
    """Train every variant with every seed on one frozen encoder and measure them on sets they never saw."""
    from anomaly_ov.files import write_atomic
    from anomaly_ov.models.device import resolve_device
    from anomaly_ov.models.hub import resolve
    from anomaly_ov.models.model import AnomalyModel
    from anomaly_ov.provenance import provenance
    from anomaly_ov_lab.data.layouts import discover
    from anomaly_ov_lab.evaluation.many_experts import measure, require_both_labels, score_all
    from anomaly_ov_lab.training.ablation import BASE, planned, protocol_of, read_ablation_recipe, settings, train
    from anomaly_ov_lab.training.recipe import settings_of

    if summary is not None and not summary.parent.is_dir():
        raise UsageError(f"no folder {summary.parent} for --summary", hint="make it first")
    plan = read_ablation_recipe(recipe, {"base.loop.steps": steps} | settings_of(values or ()))
    where = str(resolve_device(device))
    sets = [discover(path) for path in test]
    if len({one.name for one in sets}) < len(sets):
        names = ", ".join(one.name for one in sets)
        raise UsageError(f"two sets of one name: {names}", hint="rename one of the folders")
    for one in sets:  # said now rather than when all is trained
        require_both_labels(one)
    folder = resolve(start)
    map_top = AnomalyModel.from_pretrained(folder).config.scoring.top
    protocols = {name: protocol_of(plan, name) for name in (one.name for one in sets)}
    tested = {
        protocol: [path for path, one in zip(test, sets, strict=True) if protocols[one.name] == protocol]
        for protocol in protocols.values()
    }
    runs = list(planned(plan, list(protocols)))
    models = train(runs, data, folder, out, cache or out / "features", tested, where)
    measured: dict[str, Any] = {}
    for one in sets:
        own = [run for run in runs if run.protocol == protocols[one.name]]
        loaded = {f"{run.variant}/{run.seed}": AnomalyModel.from_pretrained(models[run]) for run in own}
        scores = score_all(loaded, one, out / f"scores-{one.name}.json", map_top, where)
        by_variant = {name: [f"{name}/{seed}" for seed in plan.seeds] for name in plan.names}
        measured[one.name] = {
            "pictures": len(scores.labels),
            "anomalous": int(scores.labels.sum()),
            "unreadable": scores.unreadable,
            "trained_on": list(own[0].recipe.sets),
            "variants": measure(scores, by_variant, BASE),
        }
    table(measured, list(plan.names), len(plan.seeds))
    if summary is not None:
        record = {
            "ablation": plan.name,
            "start": start,
            "seeds": list(plan.seeds),
            "map_top": map_top,
            "settings": settings(plan),
            "sets": measured,
            "provenance": provenance(plan.seeds[0]),
        }
        write_atomic(summary, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        note(f"figures of {len(sets)} sets in {summary}")


def table(measured: dict[str, Any], variants: list[str], seeds: int) -> None:
    """Variants down, sets across: image AUROC of head and map in %, and how far each lies from the full one."""
    from rich.table import Table

    shown = Table(title=f"image AUROC, %: mean of {seeds} seeds (step from full)")
    shown.add_column("variant")
    for name in measured:
        for score in ("head", "map"):
            shown.add_column(f"{name} {score}", justify="right")
    for variant in variants:
        cells = [
            f"{100 * figures['auroc']:.1f} ({100 * figures['difference']:+.1f})"
            for one in measured.values()
            for figures in (one["variants"][variant][score] for score in ("head", "map"))
        ]
        shown.add_row(variant, *cells)
    stdout_console().print(shown)
