"""Pictures, findings and an engine without networks, for tests of the store and what stands on it."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_ov.errors import ImageError
from anomaly_ov.images.read import read
from anomaly_ov.images.sources import Source
from anomaly_ov.records import (
    ContextInfo,
    ErrorInfo,
    Finding,
    ImageInfo,
    MapInfo,
    ModelInfo,
    Region,
    Threshold,
)
from anomaly_ov_server.inference_worker import Inspected
from anomaly_ov_server.store.rows import ScoredBy, ThresholdUsed
from anomaly_ov_server.store.store import Store
from anomaly_ov_server.uploads import Upload

MODEL = ModelInfo("fake", "1", "cpu", "float32")
SCORED_BY = ScoredBy({"name": "fake", "revision": "1", "device": "cpu", "dtype": "float32"}, ThresholdUsed(0.5, "test"))


def png(shade: int, size: tuple[int, int] = (12, 8)) -> bytes:
    """A picture of one colour; every shade below 65536 gives other bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def files_below(folder: Path) -> set[str]:
    """Names of all files in ``folder``, at any depth."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def uploads(*shades: int, name: str = "part{}.png") -> list[Upload]:
    """One picture per shade, named after it."""
    return [Upload(name.format(shade), png(shade)) for shade in shades]


def score_of(data: bytes) -> float:
    """The score that the fake engine gives these bytes, 0..1."""
    return int(hashlib.sha256(data).hexdigest()[:6], 16) / 0xFFFFFF


def inspected(source: Source, score: float | None = None, kind: str = "none") -> Inspected:
    """A finding on ``source`` as the real engine would shape it."""
    assert isinstance(source.item, bytes)
    try:
        picture = read(source.item, page=source.page, name=source.id)
    except ImageError as error:
        info = ErrorInfo(type(error).__name__, error.message, error.hint)
        return Inspected(Finding(source.id, ImageInfo(source.id), MODEL, error=info), None)
    score = score_of(source.item) if score is None else score
    map_HW = np.full((picture.height, picture.width), score, np.float32)
    region = Region((0, 0, 2, 2), 4, score, score, {"size": [picture.height, picture.width], "counts": [0, 4]})
    finding = Finding(
        source.id,
        ImageInfo(source.id, picture.width, picture.height, picture.sha256),
        MODEL,
        score_raw=score,
        score=score,
        score_map=score,
        score_expert=score,
        threshold=Threshold(0.5, "test"),
        anomalous=score >= 0.5,
        level="moderately",
        map=MapInfo(None, (1, 1)),
        regions=(region,) if score >= 0.5 else (),
        context=ContextInfo(kind),  # type: ignore[arg-type]
        significance_map=map_HW,
    )
    return Inspected(finding, picture.pixels_HW3)


@dataclass
class FakeEngine:
    """Scores by digest. ``failing``: names that raise; ``calls``: names of each call; ``slow``: seconds per picture."""

    failing: dict[str, Exception] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    slow: float = 0.0

    def inspect_many(self, sources: Sequence[Source], *, context: Any = None) -> list[Inspected]:
        self.calls.append([source.id for source in sources])
        for source in sources:
            if source.id in self.failing:
                raise self.failing[source.id]
        time.sleep(self.slow * len(sources))
        kind = "none" if context is None else context.kind
        return [inspected(source, kind=kind) for source in sources]


class FakeInspector:
    """As much of an inspector as the runner asks for when there is no context."""

    info = MODEL
    threshold = Threshold(0.5, "test")

    def threshold_with(self, context: Any) -> Threshold:
        return self.threshold

    def auto_context(self, pictures: Any, **options: Any) -> tuple[None, str]:
        return None, "the fake has no contexts"


def score_all(store: Store, score: float | None = None, scored_by: ScoredBy = SCORED_BY) -> None:
    """Scores all that waits, three at a time."""
    while (work := store.take(3)) is not None:
        found = [inspected(store.task_source(task), score) for task in work.tasks]
        store.keep_findings(work, found, scored_by)
