"""Renders the example pictures: ``python examples/render_examples.py --out examples``, a minute or two on two cores.

Nothing in them comes from elsewhere: the parts are formulas and seeded noise. Needs NumPy, SciPy and Pillow. A good
part and a defective one of its kind are two shots: another part, with camera and lamps moved a little.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rendering import blister, connector, flange
from rendering.shot import Shot

QUALITY = 90

SHOTS = {
    "blister_good": Shot(blister.blister, blister.SETTING, 11, (0.1, -0.1), 0.4, 0.0),
    "blister_missing": Shot(partial(blister.blister, missing=(2, 0)), blister.SETTING, 12, (-0.1, 0.1), -0.3, 1.0),
    "blister_burnt": Shot(partial(blister.blister, burnt=(1, 1)), blister.SETTING, 13, (0.2, 0.1), 0.2, -1.0),
    "flange_good": Shot(flange.flange, flange.SETTING, 21, (0.3, 0.2), -0.5, 0.0),
    "flange_scratched": Shot(partial(flange.flange, scratched=True), flange.SETTING, 22, (-0.3, -0.2), 0.5, 1.0),
    "connector_good": Shot(connector.connector, connector.SETTING, 31, (0.05, -0.4), 0.3, 0.0),
    "connector_bent": Shot(partial(connector.connector, bent=True), connector.SETTING, 32, (-0.05, -0.45), -0.3, 1.0),
    "connector_rusty": Shot(partial(connector.connector, rusty=(1, 1)), connector.SETTING, 33, (0.05, -0.5), 0.4, -1.0),
}


def write(name: str, folder: Path) -> str:
    """Takes the picture ``name`` and writes it into ``folder``; returns its path and size."""
    path = folder / f"{name}.jpg"
    SHOTS[name].taken().save(path, quality=QUALITY, optimize=True)
    return f"{path}: {path.stat().st_size / 1000:.0f} kB"


def write_all(names: Iterable[str], folder: Path, processes: int) -> None:
    """Takes several pictures at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        for line in pool.map(partial(write, folder=folder), names):
            print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(SHOTS)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder that the pictures go to")
    parser.add_argument("--processes", type=int, default=2, help="pictures at a time")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(SHOTS)):
        parser.error(f"no such picture: {', '.join(unknown)}")
    write_all(given.names or SHOTS, given.out, given.processes)
