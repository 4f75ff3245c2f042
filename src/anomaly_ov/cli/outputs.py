"""The folder that ``inspect --out`` fills: ``findings.jsonl``, overlays and maps, written by threads, in order.

A picture's line is written only once its files are on disk, so a run that was stopped continues where it ended.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.files import utf8, write_atomic
from anomaly_ov.images.overlay import overlay, save_png
from anomaly_ov.images.score_lines import score_lines
from anomaly_ov.images.sources import Source
from anomaly_ov.records import Finding
from anomaly_ov.scoring.anomaly_map import to_image_pixels
from anomaly_ov.scoring.regions import regions

FINDINGS = "findings.jsonl"
WAITING = 4
MOST_BYTES = 200
"""Of a file's stem; file systems take 255 with its endings."""

THREADS = 2


def unique_names(sources: Iterable[Source]) -> list[str]:
    """One file stem per source, in order: the picture's own, with ``-2``, ``-3``... where stems collide, shortened in
    the middle where a file system would refuse it with the endings that it gets here.
    """
    taken: set[str] = set()
    names = []
    for source in sources:
        stem = PurePath(source.id).stem or "picture"
        stem = "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in stem) + (
            f".page{source.page + 1}" if source.page else ""
        )
        stem = _shortened(stem)
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _shortened(stem: str) -> str:
    """At most ``MOST_BYTES`` in UTF-8; what is left out of the middle stands as a digest of the whole."""
    if len(stem.encode()) <= MOST_BYTES:
        return stem
    half = (MOST_BYTES - 10) // 2
    head, tail = stem.encode()[:half].decode(errors="ignore"), stem.encode()[-half:].decode(errors="ignore")
    return f"{head}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}-{tail}"


class Finished(NamedTuple):
    """One picture that an earlier run is done with; ``context``: as in its record."""

    id: str
    context: dict[str, Any]


def finished(folder: Path) -> list[Finished]:
    """What an earlier run's ``findings.jsonl`` holds without error; all else and a torn last line are cut off."""
    path = folder / FINDINGS
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        found = [(line, _finished(json.loads(line))) for line in lines]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{path} does not hold findings", hint="use another --out folder, or leave out --resume"
        ) from None
    write_atomic(path, b"".join(line + b"\n" for line, done in found if done is not None))
    return [done for _, done in found if done is not None]


def _finished(record: dict[str, Any]) -> Finished | None:
    """None where the picture could not be read. Records of earlier releases name no context: there was none."""
    context = {"kind": "none", "note": None, "source": None, "references": None} | record.get("context", {})
    return Finished(str(record["id"]), context) if record["error"] is None else None


class Outputs:
    """Writes what belongs to each finding. Use in ``with``: leaving it waits for the files under way."""

    def __init__(self, folder: Path, *, overlay: bool, map_format: str, append: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._overlay, self._map_format = folder, overlay, map_format
        self._log = (folder / FINDINGS).open("ab" if append else "wb")
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="anomaly-ov-write")
        self._pending: deque[tuple[Future[None], Finding]] = deque()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write_lines(down_to=0)
        finally:
            self._threads.shutdown(wait=True)
            self._log.close()

    def add(self, name: str, finding: Finding, preview_HW3: npt.NDArray[np.uint8] | None) -> Finding:
        """Starts writing the files of one finding; returns it with the path of its map, without the array."""
        map_path = self.folder / f"{name}.map.{self._map_format}"
        light = replace(finding, significance_map=None)
        if finding.map is not None and self._map_format != "none":
            light = replace(light, map=replace(finding.map, path=str(map_path)))
        future = self._threads.submit(self._write_files, name, map_path, finding, preview_HW3)
        self._pending.append((future, light))
        self._write_lines(down_to=WAITING)
        return light

    def _write_lines(self, down_to: int) -> None:
        while self._pending and (len(self._pending) > down_to or self._pending[0][0].done()):
            future, finding = self._pending.popleft()
            future.result()
            try:
                self._log.write(utf8(json.dumps(finding.to_json(), ensure_ascii=False, allow_nan=False) + "\n"))
                self._log.flush()
            except OSError as error:
                raise UsageError(
                    f"cannot write {self.folder / FINDINGS}: {error.strerror}",
                    hint="make room there; the same command with --resume continues",
                ) from error

    def _write_files(
        self,
        name: str,
        map_path: Path,
        finding: Finding,
        preview_HW3: npt.NDArray[np.uint8] | None,
    ) -> None:
        map_HW = finding.significance_map
        if map_HW is None or preview_HW3 is None:
            return
        if self._map_format == "npy":
            write_atomic(map_path, _npy(map_HW))
        elif self._map_format == "png":
            save_png(_map_picture(map_HW, finding), map_path)
        if self._overlay:
            sheet = _sheet(finding, map_HW, preview_HW3)
            save_png(sheet, self.folder / f"{name}.overlay.png")


def _npy(map_HW: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, map_HW, allow_pickle=False)
    return buffer.getvalue()


def _map_picture(map_HW: npt.NDArray[np.float32], finding: Finding) -> Image.Image:
    """Grey, 0..255 for 0..1, at the picture's own size."""
    assert finding.image.width is not None
    assert finding.image.height is not None
    full_HW = to_image_pixels(map_HW, (finding.image.width, finding.image.height))
    return Image.fromarray((full_HW * 255).round().astype(np.uint8))


def _sheet(finding: Finding, map_HW: npt.NDArray[np.float32], preview_HW3: npt.NDArray[np.uint8]) -> Image.Image:
    """The overlay, drawn on the picture at the map's size, with the regions found at that size."""
    caption = [PurePath(finding.id).name, *score_lines(finding.to_json())]
    height, width = map_HW.shape
    assert finding.threshold is not None
    shown = regions(map_HW, finding.threshold.value, (width, height))
    return overlay(preview_HW3, map_HW, shown, finding.threshold.value, caption)
