"""Pictures encoded once and kept on disk, so that many contexts can be made of them and compared with them.

What is kept of a picture: its tokens (a file each, about a megabyte), its descriptor, the maps and the score of the
expert alone. ``TokenStore.builder`` makes contexts from it, ``TokenStore.picture`` hands a picture back for
``Context.compare`` and ``Context.judge``: the same functions that an inspector calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
from anomaly_ov.models.score import fused_scores, logit

from anomaly_ov.context.build import Builder, Encoded
from anomaly_ov.context.tokens import PictureTokens, Scales, picture_tokens
from anomaly_ov.errors import ImageError
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.maps import map_score, significance_map
from anomaly_ov.images.read import Limits, Picture
from anomaly_ov.images.sources import Source, page_digest
from anomaly_ov.images.views import Views, anyres
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.runner import PictureOutput, Runner
from anomaly_ov.records import ModelInfo


@dataclass(frozen=True)
class Stored:
    """One picture as it comes back: ``expert_HW`` and ``score_expert`` are the expert's alone, both 0..1."""

    tokens: PictureTokens
    score_expert: float
    expert_HW: np.ndarray


@dataclass(frozen=True)
class _Entry:
    """What stays in memory of a picture: everything but its tokens, some kilobytes."""

    file: Path
    light: PictureTokens
    map_Nhw: np.ndarray
    score_expert: float


class TokenStore:
    """Encodes pictures with ``model`` into ``folder``. A picture is known by what its source reads (its path)."""

    def __init__(self, model: AnomalyModel, folder: Path, device: str = "auto", batch_size: int = 8) -> None:
        self._runner = Runner(model, device, "float32", None)
        self._config = model.config
        self._folder = folder
        self._batch_size = batch_size
        self._limits = Limits()
        self._files = count()
        self._entries: dict[str, _Entry | None] = {}

    @property
    def info(self) -> ModelInfo:
        """Which model, where, in what precision it encodes."""
        config = self._config
        return ModelInfo(config.name, config.revision, str(self._runner.device), "float32")

    @property
    def builder(self) -> Builder:
        """Makes contexts of stored pictures; those not stored yet are encoded first."""
        config = self._config
        return Builder(self.encode, config.context, config.revision, self._limits)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, sources: Iterable[Source], done: Callable[[], None] = lambda: None) -> None:
        """Encodes what is not stored yet; ``done`` is called after each picture."""
        missing = {str(source.item): source for source in sources if str(source.item) not in self._entries}
        upcoming = iter(missing.items())
        while batch := list(islice(upcoming, self._batch_size)):
            for key, entry in self._encoded(batch):
                self._entries[key] = entry
                done()

    def encode(self, sources: Sequence[Source]) -> Iterator[Encoded | None]:
        """As an inspector does for ``Builder``: in order, None for a picture that cannot be read."""
        self.add(sources)
        for source in sources:
            entry = self._entries[str(source.item)]
            yield None if entry is None else Encoded(self._tokens(entry), float(logit(entry.score_expert)))

    def readable(self, source: Source) -> bool:
        """Whether a picture that was added could be read."""
        return self._entries[str(source.item)] is not None

    def picture(self, source: Source) -> Stored | None:
        """A stored picture, None if it could not be read. Raises ``KeyError`` if it was never added."""
        entry = self._entries[str(source.item)]
        if entry is None:
            return None
        return Stored(self._tokens(entry), entry.score_expert, self._map(entry.map_Nhw, entry.light.geometry))

    def _encoded(self, batch: Sequence[tuple[str, Source]]) -> Iterator[tuple[str, _Entry | None]]:
        pictures = {key: self._read(source) for key, source in batch}
        views = {
            key: anyres(picture.pixels_HW3, self._config.views)
            for key, picture in pictures.items()
            if picture is not None
        }
        outputs = self._runner.forward([one.pixels_NHW3 for one in views.values()], features=True)
        found = dict(zip(views, outputs, strict=True))
        for key, source in batch:
            picture = pictures[key]
            if picture is None:
                yield key, None
            else:
                yield key, self._entry(views[key], found[key], page_digest(picture.sha256, source.page))

    def _read(self, source: Source) -> Picture | None:
        try:
            return source.read(self._limits)
        except ImageError:
            return None

    def _entry(self, views: Views, output: PictureOutput, digest: str) -> _Entry:
        assert output.features is not None
        levels, grid = output.features.level_arrays(), output.features.grid_hw
        tokens = picture_tokens(levels, grid, views.geometry, self._runner.token_maps, digest, self._runner.patch)
        file = self._folder / f"{next(self._files):06d}.npz"
        np.savez(file, whole=tokens.tokens.whole, detail=tokens.tokens.detail)
        calibration = self._config.calibration
        map_HW = self._map(output.map_Nhw, views.geometry)
        score = fused_scores(output.score_raw, map_score(map_HW, calibration.map_top), calibration)
        return _Entry(file, tokens.without_tokens(), output.map_Nhw.copy(), float(score))

    def _map(self, map_Nhw: np.ndarray, geometry: Geometry) -> np.ndarray:
        return significance_map(map_Nhw, geometry, patch=self._runner.patch)

    def _tokens(self, entry: _Entry) -> PictureTokens:
        with np.load(entry.file) as kept:
            tokens = Scales(kept["whole"], kept["detail"])
        return replace(entry.light, tokens=tokens)
