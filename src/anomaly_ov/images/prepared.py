"""A picture made ready for the networks: read, cut into views, decoded pixels dropped; or the error that stopped it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import ImageError
from anomaly_ov.images.read import Limits, Picture, read
from anomaly_ov.images.sources import Source, page_digest
from anomaly_ov.images.views import Views, ViewsConfig, anyres, multi_image
from anomaly_ov.records import ErrorInfo, ImageInfo

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """``views`` and perhaps a ``preview_HW3`` at the map's size; both None where ``error`` says why."""

    id: str
    image: ImageInfo
    views: Views | None
    preview_HW3: Pixels | None
    error: ErrorInfo | None
    timing_ms: dict[str, float]
    digest: str = ""

    @property
    def count(self) -> int:
        """How many views."""
        return 0 if self.views is None else len(self.views)


def prepare(source: Source, config: ViewsConfig, limits: Limits, *, preview: bool = False) -> Prepared:
    """One picture of a run; a picture that cannot be read becomes a record of its error."""
    started = time.perf_counter()
    try:
        picture = source.read(limits)
    except ImageError as error:
        info = ErrorInfo(type(error).__name__, error.message, error.hint)
        image = ImageInfo(path=str(source.item) if isinstance(source.item, (str, os.PathLike)) else source.id)
        return Prepared(source.id, image, None, None, info, {"read": ms_since(started)})
    return _cut(source.id, picture, config, started, preview=preview, page=source.page)


def prepare_one(source: object, config: ViewsConfig, limits: Limits, *, whole: bool = False) -> Prepared:
    """A picture in whatever form ``read`` takes, or a ``Source``. ``whole``: in one view, as one of several shown
    together. Raises what ``read`` raises.
    """
    started = time.perf_counter()
    if isinstance(source, Source):
        return _cut(source.id, source.read(limits), config, started, page=source.page, whole=whole)
    picture = read(source, limits)  # type: ignore[arg-type]
    id_ = source if isinstance(source, str) else picture.path
    return _cut(id_, picture, config, started, whole=whole)


def _cut(
    id_: str,
    picture: Picture,
    config: ViewsConfig,
    started: float,
    *,
    preview: bool = False,
    page: int = 0,
    whole: bool = False,
) -> Prepared:
    timing = {"read": ms_since(started)}
    started = time.perf_counter()
    views = multi_image([picture.pixels_HW3], config)[0] if whole else anyres(picture.pixels_HW3, config)
    preview_HW3 = _shrink(picture.pixels_HW3, views.geometry.capped_wh) if preview else None
    timing["views"] = ms_since(started)
    image = ImageInfo(picture.path, picture.width, picture.height, picture.sha256)
    return Prepared(id_, image, views, preview_HW3, None, timing, page_digest(picture.sha256, page))


def _shrink(pixels_HW3: Pixels, wh: tuple[int, int]) -> Pixels:
    """The picture at ``wh``; the very array when it has that size."""
    if (pixels_HW3.shape[1], pixels_HW3.shape[0]) == tuple(wh):
        return pixels_HW3
    return np.asarray(Image.fromarray(pixels_HW3).resize(wh, Image.Resampling.BILINEAR, reducing_gap=2.0))


def ms_since(started: float) -> float:
    """Milliseconds since a reading of ``time.perf_counter``."""
    return (time.perf_counter() - started) * 1000
