"""Thin defects: scratch, crack, fibre, fold, broken pattern."""

from __future__ import annotations

import math

import numpy as np

from anomaly_ov_lab.data.synthetic.defects.job import Edit, Job, cover, darker, lift, shade, shift_tone
from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between, blur, chance, enlarge, log_between, relief
from anomaly_ov_lab.data.synthetic.palette import colour
from anomaly_ov_lab.data.synthetic.shapes import Point, ramp, strokes, wander

Line = tuple[list[Point], float]


def _length(job: Job, thickness: float) -> float:
    """Length of a line of ``thickness`` that covers the wanted area, within 5 to 80 % of the side."""
    return min(max(job.area * job.size**2 / max(thickness, 0.6), 0.05 * job.size), 0.8 * job.size)


def _thickness(job: Job) -> float:
    widest = max(1.2, min(8.0, 90 * math.sqrt(job.area))) * job.size / 256
    return log_between(job.rng, 0.6, max(0.7, widest))


def _centred(points: list[Point]) -> list[Point]:
    """The path moved so that its middle lies on the window's centre."""
    y0, x0 = points[len(points) // 2]
    return [(y - y0, x - x0) for y, x in points]


def scratch(job: Job) -> Edit:
    """One or a few nearly straight grooves: a dark or bright core, often with a lit flank."""
    rng, thickness = job.rng, _thickness(job)
    length = _length(job, thickness)
    area = job.window(length * 0.6 + 8)
    angle = between(rng, 0, 2 * math.pi)
    bundle = int(rng.integers(2, 6)) if chance(rng, 0.3) else 1
    lines: list[Line] = []
    for _ in range(bundle):
        shift = rng.normal(0, 2.5 * thickness + 1, 2) if bundle > 1 else np.zeros(2)
        path = _centred(wander(rng, (0, 0), angle + rng.normal(0, 0.05), length * between(rng, 0.5, 1), 5, 0.06))
        lines.append(([(y + float(shift[0]), x + float(shift[1])) for y, x in path], thickness))
    groove = _faded(job, strokes(area, lines, max(0.0, job.scene.edge_px - 0.8)))
    view = job.view(area)
    result = shift_tone(job, view, groove, min(1.0, job.strength * 1.3), 0.45)
    if chance(rng, 0.5):
        flank = relief(blur(groove, 0.7), job.scene.light_yx) * area.rim()
        result = result + (flank * np.float32(job.strength * between(rng, 0.3, 1.2)))[..., None]
    return job.put(area, result)


def _faded(job: Job, mask_hw: Array) -> Array:
    """Varies the pressure along a line so that it comes and goes."""
    if chance(job.rng, 0.35):
        return mask_hw
    cells = job.rng.uniform(0.1, 1.3, (6, 6)).astype(np.float32)
    return mask_hw * np.clip(enlarge(cells, *mask_hw.shape), 0, 1)


def crack(job: Job) -> Edit:
    """A jagged branching line, dark (sometimes bright), thinner towards its ends."""
    rng = job.rng
    thickness = min(_thickness(job), 4.0 * job.size / 256)
    length = min(_length(job, thickness), 0.7 * job.size)
    area = job.window(length * 0.75 + 8)
    lines = _branches(rng, length, thickness)
    mask = strokes(area, lines, max(0.0, job.scene.edge_px - 0.8) + (between(rng, 0.3, 1.2) if chance(rng, 0.3) else 0))
    view = job.view(area)
    result = shift_tone(job, view, mask, min(1.0, job.strength * 1.4), 0.9)
    if chance(rng, 0.3):
        halo = blur(mask, between(rng, 2, 6)) * area.rim(8)
        result = shift_tone(job, result, np.clip(halo, 0, 1), job.strength * 0.5, 0.7)
    return job.put(area, result)


def _branches(rng: Rng, length: float, thickness: float) -> list[Line]:
    step, turn = max(2.0, length / between(rng, 12, 40)), between(rng, 0.15, 0.6)
    main = _centred(_steered(rng, (0.0, 0.0), between(rng, 0, 2 * math.pi), length, step, turn))
    lines: list[Line] = [*_tapered(main, thickness)]
    for _ in range(int(rng.integers(0, 5))):
        root = main[int(rng.integers(len(main)))]
        twig = _steered(rng, root, between(rng, 0, 2 * math.pi), length * between(rng, 0.1, 0.45), step, turn)
        lines += _tapered(twig, thickness * between(rng, 0.4, 0.8))
    return lines


def _steered(rng: Rng, start: Point, angle: float, length: float, step: float, turn: float) -> list[Point]:
    """A jagged path that keeps its overall direction: headings are independent, not accumulated."""
    count = max(3, round(length / step))
    headings = angle + rng.normal(0, turn, count)
    ys = start[0] + np.concatenate([[0.0], np.cumsum(np.sin(headings) * step)])
    xs = start[1] + np.concatenate([[0.0], np.cumsum(np.cos(headings) * step)])
    return list(zip(ys.tolist(), xs.tolist(), strict=True))


def _tapered(points: list[Point], thickness: float) -> list[Line]:
    third, thin = max(1, len(points) // 3), max(0.34, thickness * 0.6)
    last = points[2 * third :] if len(points) - 2 * third > 1 else points[-2:]
    return [(points[: third + 1], thin), (points[third : 2 * third + 1], thickness), (last, thin)]


def fibre(job: Job) -> Edit:
    """A hair, thread or wire that lies on top, curled, with a faint shadow."""
    rng = job.rng
    thickness = min(_thickness(job), 5.0 * job.size / 256)
    length = _length(job, thickness)
    area = job.window(length * 0.6 + 8)
    path = _centred(wander(rng, (0, 0), between(rng, 0, 2 * math.pi), length, 3, between(rng, 0.1, 0.4)))
    mask = strokes(area, [(path, thickness)], max(0.0, job.scene.edge_px - 0.8))
    view = job.view(area)
    fall = between(rng, 0.5, 2.5) * thickness
    shadow = strokes(area, [([(y + fall, x + fall) for y, x in path], thickness)], 1.0)
    view = shade(view, shadow * (1 - mask), 0.4 * job.strength)
    thread = colour(rng, (0.02, 0.3)) if darker(job, view) else colour(rng, (0.7, 1.0))
    return job.put(area, cover(view, mask * np.float32(min(1.0, job.strength * 1.6)), thread), confined=False)


def fold(job: Job) -> Edit:
    """A crease or wrinkle: lit on one flank, shaded on the other."""
    rng = job.rng
    breadth = max(1.5, job.radius * between(rng, 0.15, 0.45))
    length = min(_length(job, breadth * 2), 0.75 * job.size)
    area = job.window(length * 0.6 + 4 * breadth)
    path = _centred(wander(rng, (0, 0), between(rng, 0, 2 * math.pi), length, 6, 0.12))
    ridge = blur(strokes(area, [(path, breadth)]), breadth * 0.6) * area.rim(breadth)
    slope = relief(ridge, job.scene.light_yx)
    slope = slope / np.float32(max(float(np.abs(slope).max()), 1e-6))
    sign = 1.0 if chance(rng, 0.5) else -1.0
    view = job.view(area)
    gain = slope * np.float32(sign * min(0.9, job.strength * 1.2))
    return job.put(area, view * (1 + gain)[..., None] + (np.clip(gain, 0, 1) * np.float32(0.15))[..., None])


def broken_pattern(job: Job) -> Edit:
    """A regular structure interrupted: a straight band along rows or columns goes dark, bright or blank."""
    rng = job.rng
    thin = log_between(rng, 1.2, max(1.5, job.radius * 0.8))
    long = min(max(job.area * job.size**2 / (2 * thin), 0.05 * job.size), 0.8 * job.size)
    half_y, half_x = (thin / 2, long / 2) if chance(rng, 0.5) else (long / 2, thin / 2)
    area = job.window(max(half_y, half_x) + 6)
    soft = job.scene.edge_px * between(rng, 0.9, 2.0)
    mask = ramp(half_y - np.abs(area.y_hw), soft) * ramp(half_x - np.abs(area.x_hw), soft) * area.rim()
    view = job.view(area)
    if chance(rng, 0.3):
        mean = view.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)
        return job.put(area, cover(view, mask * np.float32(min(1.0, job.strength * 2)), mean))
    if chance(rng, 0.4):
        fade = ramp(area.x_hw + area.y_hw, long) if chance(rng, 0.5) else ramp(-area.x_hw - area.y_hw, long)
        mask = mask * fade
    return job.put(area, (shade if darker(job, view, 0.8) else lift)(view, mask, min(1.0, job.strength * 1.2)))
