"""``anomaly-ov baselines``: other methods that ``eval`` can measure, and their weights made ready."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anomaly_ov.cli.console import note

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Other methods to measure; convert their weights.")


@app.callback()
def baselines() -> None:
    """Other methods to measure; convert their weights."""


@app.command("list")
def list_methods() -> None:
    """List what 'eval detect --model' takes beside our own models."""
    from anomaly_ov_lab.baselines.load import METHODS

    for line in METHODS.values():
        print(line)


@app.command("convert-clip")
def convert_clip(
    weights: Annotated[Path, typer.Argument(help="open_clip's .pt or .safetensors file.")],
    out: Annotated[Path, typer.Option(help="The CLIP folder to write.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder with any CLIP's tokenizer files.")],
    architecture: Annotated[str, typer.Option(help="Its name in open_clip.")] = "ViT-B-16-plus-240",
) -> None:
    """Turn open_clip's weights into a CLIP folder for clip: and winclip:, every key and shape checked."""
    from anomaly_ov_lab.baselines.open_clip import convert_open_clip

    note(f"written to {convert_open_clip(weights, out, tokenizer, architecture)}")


@app.command("convert-prompts")
def convert_prompts(
    checkpoint: Annotated[Path, typer.Argument(help="A released AnomalyCLIP file, for example epoch_15.pth.")],
    clip: Annotated[Path, typer.Option(help="Folder of the CLIP they were learned with: ViT-L/14 at 336.")],
    out: Annotated[Path, typer.Option(help="The folder to write, for anomalyclip:.")],
    image_size: Annotated[int, typer.Option(help="Side of the square that pictures are resized to, in pixels.")] = 518,
    changed: Annotated[int, typer.Option(min=1, help="Last blocks with the changed attention.")] = 19,
    layers: Annotated[
        str | None, typer.Option(help="Blocks that make maps; default the last, the paper's: 6,12,18,24.")
    ] = None,
) -> None:
    """Check AnomalyCLIP's released prompts against their CLIP and make them a folder for anomalyclip:."""
    from anomaly_ov_lab.baselines.learned_prompts import convert_prompts as convert

    settings = {"image_size": image_size, "changed": changed}
    note(f"written to {convert(checkpoint, clip, out, layers=_numbers(layers), **settings)}")


def _numbers(layers: str | None) -> tuple[int, ...]:
    from anomaly_ov.errors import UsageError

    try:
        return () if layers is None else tuple(int(layer) for layer in layers.split(","))
    except ValueError:
        raise UsageError(f"--layers {layers} is no list of numbers", hint="for example --layers 6,12,18,24") from None
