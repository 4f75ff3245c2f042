"""The folder that ``inspect --out`` fills: ``findings.jsonl``, overlays and maps, written by threads, in order.

A picture's line is written only once its files are on disk, so a run that was stopped continues where it ended.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Collection, Iterable, Sequence
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
NAMES = "names.json"
WAITING = 4
MOST_BYTES = 200
"""Of a file's stem; file systems take 255 with its endings."""

THREADS = 2


def place_of(identity: str) -> str:
    """A picture's identity whatever way its path is spelt: ``./x``, ``x`` and its absolute path are one."""
    return os.path.abspath(identity)


def names_in(folder: Path, sources: Sequence[Source]) -> list[str]:
    """``unique_names`` in a folder that may hold files of earlier runs; which name is whose stands in ``NAMES`` there,
    so that a picture keeps its name and never gets another's.
    """
    file = folder / NAMES
    try:
        known = (
            {str(name): str(place) for name, place in json.loads(file.read_bytes()).items()} if file.exists() else {}
        )
    except (ValueError, AttributeError):
        raise UsageError(f"{file} is damaged", hint="use another --out folder, or leave out --resume") from None
    own = {place: name for name, place in known.items()}
    new = unique_names([one for one in sources if place_of(one.id) not in own], known)
    names = [own.get(place_of(one.id)) or new.pop(0) for one in sources]
    known |= {name: place_of(source.id) for name, source in zip(names, sources, strict=True)}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, utf8(json.dumps(known, ensure_ascii=False, indent=0)))
    return names


def unique_names(sources: Iterable[Source], taken: Iterable[str] = ()) -> list[str]:
    """One file stem per source, in order: the picture's own, with ``-2``, ``-3``... where it is ``taken`` or stems
    collide, shortened in the middle where a file system would refuse it with the endings that it gets here.
    """
    taken = {name.casefold() for name in taken}
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
    """One picture that an earlier run is done with; ``context``, ``threshold``, ``model``: as in its record, ``sha256``
    of the picture's bytes.
    """

    id: str
    context: dict[str, Any]
    sha256: str | None
    threshold: float | None
    model: dict[str, Any]


def finished(folder: Path) -> list[Finished]:
    """What an earlier run's ``findings.jsonl`` holds without error; all else and a torn last line are cut off."""
    found = [(line, done) for line, done in _lines(folder) if done is not None]
    if found:
        write_atomic(folder / FINDINGS, b"".join(line + b"\n" for line, _ in found))
    return [done for _, done in found]


def forget(folder: Path, outdated: Collection[str]) -> None:
    """Takes the records of the pictures with such ids out of ``findings.jsonl``: they are looked at again."""
    kept = [line for line, done in _lines(folder) if done is not None and done.id not in outdated]
    write_atomic(folder / FINDINGS, b"".join(line + b"\n" for line in kept))


def _lines(folder: Path) -> list[tuple[bytes, Finished | None]]:
    path = folder / FINDINGS
    if not path.is_file():
        return []
    try:
        return [(line, _finished(json.loads(line))) for line in path.read_bytes().split(b"\n")[:-1]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{path} does not hold findings", hint="use another --out folder, or leave out --resume"
        ) from None


def _finished(record: dict[str, Any]) -> Finished | None:
    """None where the picture could not be read. Records of earlier releases name no context: there was none."""
    context = {"kind": "none", "note": None, "source": None, "references": None} | record.get("context", {})
    if record["error"] is not None:
        return None
    threshold, image = record.get("threshold") or {}, record.get("image") or {}
    return Finished(str(record["id"]), context, image.get("sha256"), threshold.get("value"), record.get("model") or {})


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
