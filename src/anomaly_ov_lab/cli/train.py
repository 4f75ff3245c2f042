"""``anomaly-ov train``: the expert, its calibration, its fusion with a context, and stage 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from anomaly_ov.cli.console import note

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train the expert, or what talks.")

Recipe = Annotated[Path, typer.Option("--recipe", help="A recipe, for example recipes/expert-tiny.yaml.")]
Data = Annotated[Path, typer.Option("--data", help="The folder that the recipe's folders are relative to.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of this run; a killed run resumes from it.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Instead of the recipe's number of steps.")]
Start = Annotated[str, typer.Option("--start", help="Name or folder of the model whose encoder is used.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Folder of cached features, shared between runs.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's seed.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads, instead of the recipe's number.")]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Another value for any field of the recipe (loop.batch=8); repeatable."
    ),
]
Test = Annotated[
    list[Path] | None, typer.Option("--test", help="Folder to be tested on; checked for leakage before training.")
]


@app.command()
def expert(
    recipe: Recipe,
    data: Data,
    start: Start,
    out: Out,
    leave_out: Annotated[list[str] | None, typer.Option("--leave-out", help="Name of a set not to train on.")] = None,
    test: Test = None,
    cache: Cache = None,
    card: Annotated[Path | None, typer.Option("--card", help="Text of the model card, Markdown.")] = None,
    device: Device = "cpu",
    steps: Steps = None,
    seed: Seed = None,
    threads: Threads = None,
    values: Values = None,
) -> None:
    """Stage 1: train the look-twice expert on labelled sets and synthetic defects."""
    from anomaly_ov.models.hub import resolve
    from anomaly_ov_lab.training.recipe import ExpertRecipe, read_recipe
    from anomaly_ov_lab.training.runs import train_expert

    plan = read_recipe(ExpertRecipe, recipe, _overrides(values, steps=steps, seed=seed, threads=threads))
    with _on(device) as where:
        folder = train_expert(
            plan,
            data,
            resolve(start),
            out,
            leave_out=leave_out or (),
            test=test or (),
            cache=cache,
            card="" if card is None else card.read_text(encoding="utf-8"),
            device=where,
        )
    note(f"model written to {folder}")


@app.command()
def scoring(
    recipe: Recipe,
    data: Data,
    model: Annotated[str, typer.Option("--model", help="Name or folder of the model to fit.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the fitted model and its figures.")],
    folds: Annotated[
        Path | None, typer.Option("--folds", help="What 'train leave-one-out' wrote to --out; default: no expert.")
    ] = None,
    images: Annotated[int, typer.Option("--images", min=8, help="Most images of a label in a category.")] = 30,
    categories: Annotated[int, typer.Option("--categories", min=1, help="Most categories of a set.")] = 4,
    seed: Seed = None,
) -> None:
    """Fit how evidence becomes score and verdict, leave-one-set-out, and write the model that judges so."""
    from anomaly_ov.cli.console import Bar
    from anomaly_ov.models.engines.opening import open_engine
    from anomaly_ov.models.hub import resolve
    from anomaly_ov_lab.training.leave_one_out import require_fold
    from anomaly_ov_lab.training.recipe import ExpertRecipe, read_recipe
    from anomaly_ov_lab.training.runs import labelled_sets
    from anomaly_ov_lab.training.scoring_fit import ScoringPlan, fit_scoring, with_scoring

    sets = labelled_sets([data / folder for folder in read_recipe(ExpertRecipe, recipe).sets])
    experts = {} if folds is None else {one.name: open_engine(require_fold(folds, one.name), "torch") for one in sets}
    with Bar(None, "looking") as bar:

        def named(name: str) -> Callable[[int, int], None]:
            return lambda done, total: bar.at(done, total)

        plan = ScoringPlan(images, categories, seed or 0)
        config = fit_scoring(sets, open_engine(resolve(model)), experts, out, plan, named)
    note(f"model written to {with_scoring(resolve(model), config, out / 'model')}, figures to {out / 'scoring.json'}")


@app.command("leave-one-out")
def leave_one_out(
    recipe: Recipe,
    data: Data,
    start: Start,
    out: Out,
    cache: Annotated[Path, typer.Option("--cache", help="Folder of cached features, shared between runs.")],
    device: Device = "cpu",
    steps: Steps = None,
    seed: Seed = None,
    threads: Threads = None,
    values: Values = None,
) -> None:
    """Train, for every training set, an expert that never saw it; 'train scoring' judges with them."""
    from anomaly_ov.models.hub import resolve
    from anomaly_ov_lab.training.leave_one_out import leave_one_set_out
    from anomaly_ov_lab.training.recipe import ExpertRecipe, read_recipe

    plan = read_recipe(ExpertRecipe, recipe, _overrides(values, steps=steps, seed=seed, threads=threads))
    with _on(device) as where:
        leave_one_set_out(plan, data, resolve(start), out, cache, where)
    note(f"one model a set written to {out}")


@app.command()
def stage2(
    recipe: Recipe,
    data: Data,
    start: Annotated[
        str, typer.Option("--start", help="Name or folder of the model that is to talk; its detector stays as it is.")
    ],
    out: Out,
    test: Test = None,
    device: Device = "cpu",
    steps: Steps = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Samples of a pass, instead of the recipe's.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option("--accumulate", min=1, help="Passes of a step, instead of the recipe's.")
    ] = None,
    parallel: Annotated[
        str | None, typer.Option("--parallel", help="none, ddp or fsdp (the last two under torchrun).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that make samples, instead of the recipe's.")
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    values: Values = None,
) -> None:
    """Stage 2: tune the language side to answer questions about what the detector finds."""
    from anomaly_ov.models.hub import resolve
    from anomaly_ov_lab.training.parallel import is_first_process
    from anomaly_ov_lab.training.recipe import Stage2Recipe, read_recipe
    from anomaly_ov_lab.training.stage2_run import train_stage2

    given = {"steps": steps, "batch": batch, "accumulate": accumulate, "parallel": parallel, "workers": workers}
    overrides = {"most_steps": steps} | _overrides(values, **given, seed=seed, threads=threads)
    plan = read_recipe(Stage2Recipe, recipe, overrides)
    with _on(device) as where:
        folder = train_stage2(plan, data, resolve(start), out, where, test or ())
    if is_first_process():
        note(f"model written to {folder}")


def _overrides(values: list[str] | None, **loop: Any) -> dict[str, Any]:
    """The recipe's fields that options replace; ``loop``: those of its loop."""
    from anomaly_ov_lab.training.recipe import settings_of

    return {f"loop.{name}": value for name, value in loop.items()} | settings_of(values or ())


@contextmanager
def _on(device: str) -> Iterator[str]:
    """The device's torch name; an absent device, or too little memory on it, is a ``DeviceError``."""
    from anomaly_ov.errors import DeviceError
    from anomaly_ov.models.device import is_out_of_memory, resolve_device

    where = str(resolve_device(device))
    try:
        yield where
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(f"out of memory on {where}", hint="lower loop.batch in the recipe") from None
