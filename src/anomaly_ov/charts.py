"""Charts as SVG paths: axes with round ticks, and the histogram of scores.

Colours and text come from the template of the page that shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BINS = 40
WIDTH, HEIGHT = 360, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 16, 44


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where, in pixels, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """``path``: the SVG path. ``kind``: the CSS class that colours it."""

    path: str
    kind: str


@dataclass(frozen=True)
class Chart:
    """``marks``: points in pixels; ``upright``: x of a vertical line with its ``upright_text``, None without one."""

    title: str
    note: str
    x_name: str
    y_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    marks: tuple[tuple[float, float], ...] = ()
    upright: float | None = None
    upright_text: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Histogram:
    """``edges``: of B bins, (B + 1,); ``normal`` and ``anomalous``: share of each label in each bin, (B,)."""

    edges: Floats
    normal: Floats
    anomalous: Floats


def histogram_chart(labels: Sequence[int], scores: Sequence[float], threshold: float | None) -> Chart:
    """Scores by label, each label's bars adding up to all of its pictures, with the threshold."""
    found = histogram(labels, scores)
    highest = float(max(found.normal.max(), found.anomalous.max()))
    axes = Axes((float(found.edges[0]), float(found.edges[-1])), (0.0, highest * 1.08), width=2 * WIDTH)
    bars = ((0, "normal", found.normal), (1, "anomalous", found.anomalous))
    lines = tuple(Line(axes.steps(found.edges, shares), kind) for label, kind, shares in bars if label in labels)
    inside = threshold is not None and found.edges[0] <= threshold <= found.edges[-1]
    return Chart(
        "Scores",
        f"{len(found.normal)} bins; each label's bars add up to 100 %",
        "score",
        "share of that label's pictures",
        axes.x_ticks(),
        axes.y_ticks("percent"),
        lines,
        upright=axes.place(threshold, 0)[0] if inside and threshold is not None else None,
        upright_text=f"threshold {threshold:.3f}" if threshold is not None else "",
        width=2 * WIDTH,
        right=2 * WIDTH - RIGHT,
    )


def histogram(labels: Sequence[int], scores: Sequence[float], bins: int = BINS) -> Histogram:
    """Over 0..1, or wider where scores leave it."""
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    edges = np.linspace(min(0.0, float(s.min())), max(1.0, float(s.max())), bins + 1)
    shares = [np.histogram(s[y == label], edges)[0] / max(1, int((y == label).sum())) for label in (0, 1)]
    return Histogram(edges, shares[0], shares[1])


@dataclass(frozen=True)
class Axes:
    """From values to pixels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: int = WIDTH

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a value."""
        across = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        up = (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        left, bottom = LEFT + across * (self.width - RIGHT - LEFT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)
        return round(left, 1), round(bottom, 1)

    def path(self, points_K2: Floats) -> str:
        """A line through points."""
        return "M" + "L".join(f"{x} {y}" for x, y in (self.place(*point) for point in points_K2.tolist()))

    def steps(self, edges: Floats, heights: Floats) -> str:
        """The outline of bars."""
        corners = np.column_stack([np.repeat(edges, 2)[1:-1], np.repeat(heights, 2)])
        closed = np.concatenate([[[edges[0], 0.0]], corners, [[edges[-1], 0.0]]])
        return self.path(closed) + "Z"

    def x_ticks(self) -> tuple[Tick, ...]:
        """Ticks of the horizontal axis."""
        return tuple(Tick(self.place(value, self.y_range[0])[0], f"{value:g}") for value in _round(*self.x_range))

    def y_ticks(self, unit: str = "") -> tuple[Tick, ...]:
        """Ticks of the vertical axis; ``unit``: "percent" for shares."""
        values = _round(*self.y_range)
        texts = (f"{100 * value:g} %" if unit == "percent" else f"{value:g}" for value in values)
        return tuple(
            Tick(self.place(self.x_range[0], value)[1], text) for value, text in zip(values, texts, strict=True)
        )


def _round(low: float, high: float) -> Iterable[float]:
    """About five round values within the range."""
    rough = (high - low) / 5
    size = 10 ** np.floor(np.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(round(k * step, 12)) + 0.0 for k in np.arange(first, last + 1)]  # + 0.0: never -0
