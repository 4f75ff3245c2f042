"""A service without networks: an inspector that answers at once, or when it is told to, and a client for it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from anomaly_ov.errors import ImageError
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source
from anomaly_ov.records import ErrorInfo, Finding, ImageInfo, ModelInfo, Threshold
from anomaly_ov_server.app import create_app
from anomaly_ov_server.settings import ServeSettings

BASE = "http://127.0.0.1:8765"


class FakeInspector:
    """Scores every picture 0.25. ``passes``: ids seen together. While ``gate`` is clear, passes wait in it."""

    speaks = False
    threshold = Threshold(0.5, "test")
    info = ModelInfo("fake", "r1", "cpu", "float32")
    scoring = "fake"

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.passes: list[list[str]] = []
        self.settings: list[tuple[Any, bool, bool]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self._failing = set(failing)

    def threshold_with(self, context: Any) -> Threshold:
        return self.threshold

    def auto_context(self, pictures: Any, **options: Any) -> tuple[None, str]:
        return None, "the fake has no contexts"

    def stream_with_previews(
        self, sources: Sequence[Source], batch_size: int, context: Any = None, *, previews: bool, talk: bool
    ) -> Iterator[tuple[Finding, Any]]:
        names = [source.id for source in sources]
        self.passes.append(names)
        self.settings.append((context, previews, talk))
        self.entered.release()
        assert self.gate.wait(20), "nobody opened the gate"
        for source in sources:
            if source.id in self._failing:
                raise RuntimeError(f"secret of {source.id}")
            yield self._finding(source), np.zeros((2, 2, 3), np.uint8) if previews else None

    def _finding(self, source: Source) -> Finding:
        try:
            picture = source.read(Limits())
        except ImageError as error:
            info = ErrorInfo(type(error).__name__, error.message, error.hint)
            return Finding(source.id, ImageInfo(source.id), self.info, error=info)
        return Finding(
            source.id,
            ImageInfo(picture.path, picture.width, picture.height, picture.sha256),
            self.info,
            score=0.25,
            threshold=self.threshold,
            anomalous=False,
            significance_map=np.full((4, 6), 0.5, np.float32),
        )


def png(width: int = 6, height: int = 4, seed: int = 0) -> bytes:
    """A small picture's file."""
    pixels_HW3 = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "PNG")
    return buffer.getvalue()


def client_of(folder: Path, inspector: Any = None, **settings: Any) -> TestClient:
    """To be entered; ``settings``: fields of ``ServeSettings``."""
    app = create_app(inspector or FakeInspector(), ServeSettings(data=folder / "data", **settings))
    return TestClient(app, base_url=BASE)
