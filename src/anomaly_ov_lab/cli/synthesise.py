"""``anomaly-ov synthesise``: seeded pictures with known defects, their masks and the facts about them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomaly_ov.cli.console import Bar, note

if TYPE_CHECKING:
    from numpy.typing import NDArray

app = typer.Typer(add_completion=False)
FACTS = "facts.jsonl"


@app.command()
def synthesise(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many pictures.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of each picture in pixels.")] = 512,
    kind: Annotated[str | None, typer.Option(help="Only this kind of defect.")] = None,
    normal: Annotated[float, typer.Option(min=0, max=1, help="Share of pictures without a defect.")] = 0.25,
    masks: Annotated[bool, typer.Option(help="Also write each picture's mask.")] = True,
) -> None:
    """Write made-up pictures with defects: NAME.png, masks/NAME.png and facts.jsonl, one line per picture."""
    from anomaly_ov.files import write_atomic
    from anomaly_ov_lab.data.synthetic import generate
    from anomaly_ov_lab.data.synthetic import normal as generate_normal

    (out / "masks" if masks else out).mkdir(parents=True, exist_ok=True)
    lines = []
    with Bar(count, "synthesising") as bar:
        for index in range(count):
            # Spreads the normal ones evenly over the run: floor((i + 1) * share) steps up once per normal picture.
            is_normal = int((index + 1) * normal) > int(index * normal)
            sample = generate_normal(seed + index, size) if is_normal else generate(seed + index, size, kind=kind)
            kinds = sorted({defect.kind for defect in sample.facts.defects}) or ["normal"]
            name = f"{seed + index:05d}-{'-'.join(kinds)}.png"
            write_atomic(out / name, _png(sample.image_HW3))
            if masks:
                write_atomic(out / "masks" / name, _png(sample.mask_HW.astype("uint8") * 255))
            mask = f"masks/{name}" if masks else None
            label = int(bool(sample.facts.defects))  # so that the file is also a list for 'eval'
            lines.append(json.dumps({"image": name, "mask": mask, "label": label, **sample.facts.to_json()}))
            bar.advance()
    write_atomic(out / FACTS, ("\n".join(lines) + "\n").encode())
    note(f"{count} pictures written to {out}; facts in {out / FACTS}")


def _png(pixels: NDArray[Any]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
