"""``anomaly-ov train encoder`` and ``anomaly-ov train expert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anomaly_ov.cli.console import note

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train an encoder by distillation, or the expert.")

Recipe = Annotated[Path, typer.Option("--recipe", help="A recipe, for example recipes/expert-tiny.yaml.")]
Data = Annotated[Path, typer.Option("--data", help="The folder that the recipe's folders are relative to.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of this run; a killed run resumes from it.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Instead of the recipe's number of steps.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Instead of the recipe's seed.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default all.")]


@app.command()
def encoder(
    recipe: Recipe,
    data: Data,
    teacher: Annotated[Path, typer.Option("--teacher", help="The teacher's safetensors file.")],
    out: Out,
    device: Device = "cpu",
    steps: Steps = None,
    seed: Seed = None,
    threads: Threads = None,
) -> None:
    """Distil a compact encoder from a teacher over random crops of unlabelled pictures."""
    from anomaly_ov.training.recipe import read_encoder_recipe
    from anomaly_ov.training.runs import train_encoder

    plan = read_encoder_recipe(recipe, {"steps": steps, "seed": seed, "threads": threads})
    note(f"model written to {train_encoder(plan, data, teacher, out, device)}")


@app.command()
def expert(
    recipe: Recipe,
    data: Data,
    start: Annotated[str, typer.Option("--start", help="Name or folder of the model whose encoder is used.")],
    out: Out,
    leave_out: Annotated[list[str] | None, typer.Option("--leave-out", help="Name of a set not to train on.")] = None,
    test: Annotated[
        list[Path] | None, typer.Option("--test", help="Folder to be tested on; checked for leakage before training.")
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of cached features, shared between runs.")] = None,
    device: Device = "cpu",
    steps: Steps = None,
    seed: Seed = None,
    threads: Threads = None,
) -> None:
    """Stage 1: train the look-twice expert on labelled sets and synthetic defects."""
    from anomaly_ov.models.hub import resolve
    from anomaly_ov.training.recipe import read_expert_recipe
    from anomaly_ov.training.runs import train_expert

    plan = read_expert_recipe(recipe, {"steps": steps, "seed": seed, "threads": threads})
    folder = train_expert(
        plan, data, resolve(start), out, leave_out=leave_out or (), test=test or (), cache=cache, device=device
    )
    note(f"model written to {folder}")
