"""Defects of arrangement: missing part, misplaced part, print error, foreign patch, blur."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from anomaly_ov_lab.data.synthetic.defects.job import Edit, Job, cover, grained, shade
from anomaly_ov_lab.data.synthetic.defects.relief import warped
from anomaly_ov_lab.data.synthetic.noise import Array, between, blur, blur_colour, chance, log_between, relief
from anomaly_ov_lab.data.synthetic.palette import colour, near
from anomaly_ov_lab.data.synthetic.scene import Part, paste
from anomaly_ov_lab.data.synthetic.shapes import Window, blob, ramp, strokes, wander, window


def _pick(job: Job) -> Part | None:
    """A part well inside the picture, or None where the scene has none."""
    size = job.size
    inside = [p for p in job.scene.parts if p.top >= 0 and p.left >= 0
              and p.top + p.alpha_hw.shape[0] <= size and p.left + p.alpha_hw.shape[1] <= size]  # fmt: skip
    return inside[int(job.rng.integers(len(inside)))] if inside else None


def _frame(job: Job, part: Part, margin: float) -> Window:
    height, width = part.alpha_hw.shape
    centre = part.top + height / 2, part.left + width / 2
    return window(job.size, centre, max(height, width) / 2 + margin)


def _outline(area: Window, part: Part) -> Array:
    """The part's opacity in the window."""
    canvas = np.zeros(area.shape, np.float32)
    top, left = part.top - area.rows.start, part.left - area.columns.start
    height, width = part.alpha_hw.shape
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(area.shape[0], top + height), min(area.shape[1], left + width)
    canvas[y0:y1, x0:x1] = part.alpha_hw[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def missing_part(job: Job) -> Edit:
    """A part, or a piece of one, is gone and the plate shows; without parts, structure is wiped out.

    Only from a regular arrangement does a whole part go: among loose ones nobody could tell.
    """
    part = _pick(job) if chance(job.rng, 0.85) else None
    if part is None:
        return _wiped(job)
    area = _frame(job, part, 2)
    alpha = _outline(area, part)
    if not job.scene.regular or chance(job.rng, 0.3):  # a piece only: cut by a line
        angle, far = between(job.rng, 0, 2 * math.pi), part.alpha_hw.shape[0] * between(job.rng, -0.25, 0.2)
        side = area.y_hw * np.float32(math.sin(angle)) + area.x_hw * np.float32(math.cos(angle))
        alpha = alpha * ramp(side - np.float32(far), job.scene.edge_px)
    plate = job.scene.plate_HW3[area.rows, area.columns]
    alpha = np.clip(alpha * 1.05, 0, 1) * np.float32(min(1.0, job.strength * 3))
    return job.put(area, cover(job.view(area), alpha, plate), confined=False)


def _wiped(job: Job) -> Edit:
    """A region replaced by plain material of the surrounding colour or by what lies behind."""
    rng = job.rng
    area = job.window(job.radius * 2.2 + 3)
    mask = blob(rng, area, job.radius, job.softness(job.radius * 0.5), ragged=between(rng, 0, 0.4))
    view = job.view(area)
    outside = (1 - mask)[..., None] + np.float32(1e-3)
    mean = ((view * outside).sum(axis=(0, 1), dtype=np.float64) / outside.sum(dtype=np.float64)).astype(np.float32)
    base = near(rng, mean, 0.04 + 0.1 * job.strength) if chance(rng, 0.6) else colour(rng, (0.02, 0.5))
    filling = grained(job, area, base, between(rng, 0.01, 0.06))
    if chance(rng, 0.4):
        mask_edge = relief(blur(mask, 1.0), job.scene.light_yx) * area.rim()
        filling = filling + (mask_edge * np.float32(between(rng, 0, 0.6)))[..., None]
    return job.put(area, cover(view, mask * np.float32(min(1.0, job.strength * 2.0)), filling))


def misplaced_part(job: Job) -> Edit:
    """A part of a regular arrangement moved or turned; elsewhere a piece of the picture turned in place or slid."""
    part = _pick(job) if job.scene.regular and chance(job.rng, 0.85) else None
    if part is None:
        return _turned_piece(job)
    rng, strength = job.rng, min(1.0, job.strength * 1.5)
    angle = float(rng.choice([-1, 1])) * between(rng, 0.25, 1.0) * math.pi * strength if chance(rng, 0.6) else 0.0
    away = between(rng, 0.15, 0.7) * part.alpha_hw.shape[0] * strength
    heading = between(rng, 0, 2 * math.pi)
    moved = Part(part.top + round(away * math.sin(heading)), part.left + round(away * math.cos(heading)),
                 *_rotated(part, angle))  # fmt: skip
    height = part.alpha_hw.shape[0]
    area = _frame(job, part, abs(away) + height / 2)
    plate = job.scene.plate_HW3[area.rows, area.columns]
    view = cover(job.view(area), np.clip(_outline(area, part) * 1.05, 0, 1), plate)
    if strength == 0:
        view = job.view(area).copy()
    paste(view, Part(moved.top - area.rows.start, moved.left - area.columns.start, moved.alpha_hw, moved.colour_hw3),
          1.0 if strength > 0 else 0.0)  # fmt: skip
    return job.put(area, view, confined=False)


def _rotated(part: Part, angle: float) -> tuple[Array, Array]:
    if angle == 0.0:
        return part.alpha_hw, part.colour_hw3
    stack = np.concatenate([part.alpha_hw[..., None], part.colour_hw3], axis=-1)
    turned = ndimage.rotate(stack, math.degrees(angle), axes=(0, 1), reshape=False, order=1, mode="nearest")
    height, width = part.alpha_hw.shape
    y, x = np.arange(height)[:, None] - (height - 1) / 2, np.arange(width)[None, :] - (width - 1) / 2
    disc = np.clip(min(height, width) / 2 - np.sqrt(y * y + x * x) + 0.5, 0, 1).astype(np.float32)
    alpha = turned[..., 0] * (disc if part.alpha_hw[0, 0] > 0.5 else np.float32(1))
    return alpha.astype(np.float32), turned[..., 1:].astype(np.float32)


def _turned_piece(job: Job) -> Edit:
    """A disc of the picture turned about its centre or slid, with a narrow seam."""
    rng = job.rng
    area = job.window(job.radius * 1.9 + 3)
    mask = blob(rng, area, job.radius, job.scene.edge_px * between(rng, 0.9, 3.0), ragged=between(rng, 0, 0.3))
    strength = np.float32(min(1.0, job.strength * 1.5))
    if chance(rng, 0.5):
        angle = strength * np.float32(between(rng, 0.4, math.pi))
        cos, sin = np.cos(angle), np.sin(angle)
        dy = area.y_hw * cos + area.x_hw * sin - area.y_hw
        dx = area.x_hw * cos - area.y_hw * sin - area.x_hw
    else:
        shift = rng.normal(0, 1, 2) * job.radius * 0.6
        dy, dx = (np.full(area.shape, float(s) * strength, np.float32) for s in shift)
    view = job.view(area)
    result = cover(view, mask * np.float32(strength > 0), warped(view, dy, dx))
    if chance(rng, 0.4):  # its rim catches the light
        rim = relief(blur(mask, 0.8), job.scene.light_yx) * area.rim()
        result = result + (rim * strength * np.float32(between(rng, 0.2, 0.8)))[..., None]
    return job.put(area, result)


def print_error(job: Job) -> Edit:
    """Bad printing: a smear, a ghost image, faded or surplus ink."""
    rng = job.rng
    area = job.window(job.radius * 2.0 + 4)
    mask = blob(rng, area, job.radius * 1.15, job.softness(job.radius), ragged=between(rng, 0, 0.4))
    view, amount = job.view(area), np.float32(min(1.0, job.strength * 1.5))
    style = int(rng.integers(4))
    if style == 0:  # ghost: printed twice, a few pixels off
        far = between(rng, 2, 8) * job.size / 256
        heading = between(rng, 0, 2 * math.pi)
        dy, dx = (np.full(area.shape, far * f(heading), np.float32) for f in (math.sin, math.cos))
        return job.put(area, cover(view, mask * amount, np.minimum(view, warped(view, dy, dx))))
    if style == 1:  # smeared along one direction
        run = max(3, int(log_between(rng, 4, 24) * job.size / 256))
        smeared = ndimage.uniform_filter1d(view, run, axis=int(rng.integers(2)), mode="nearest")
        return job.put(area, cover(view, mask * amount, smeared))
    if style == 2:  # faded towards the mean
        mean = view.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)
        return job.put(area, cover(view, mask * amount * np.float32(0.9), near(rng, mean, 0.08 * job.strength)))
    lines = [(wander(rng, (between(rng, -1, 1) * job.radius, between(rng, -1, 1) * job.radius), between(rng, 0, 6.28),
                     job.radius * between(rng, 0.4, 1.2), 3, 0.3), max(0.8, job.radius * between(rng, 0.06, 0.25)))
             for _ in range(int(rng.integers(1, 5)))]  # fmt: skip
    ink = colour(rng, (0.02, 0.3)) if float(view.mean()) > 0.45 else colour(rng, (0.7, 0.98))
    return job.put(area, cover(view, strokes(area, lines, job.scene.edge_px * 0.4) * amount, ink))


def foreign_patch(job: Job) -> Edit:
    """Material from elsewhere in the picture, turned and re-toned, grown into the surface with a soft or sharp seam."""
    rng = job.rng
    area = job.window(job.radius * 2.2 + 3)
    mask = blob(rng, area, job.radius, job.softness(job.radius), ragged=between(rng, 0.1, 0.6))
    height, width = area.shape
    top, left = (int(rng.integers(0, job.size - extent + 1)) for extent in (height, width))
    source = job.image_HW3[top : top + height, left : left + width]
    source = source[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
    tone = 1 + float(rng.choice([-1, 1])) * between(rng, 0.1, 1.2) * job.strength
    matter = np.clip(source * np.float32(max(0.05, tone)), 0, 1)
    if chance(rng, 0.4):
        matter = cover(matter, np.full(area.shape, between(rng, 0, 0.5), np.float32), colour(rng, (0.1, 0.9)))
    return job.put(area, cover(job.view(area), mask * np.float32(min(1.0, job.strength * 2)), matter))


def blur_spot(job: Job) -> Edit:
    """Detail lost: a smeared or misted region. A slight veil keeps it visible on flat ground."""
    rng = job.rng
    reach = max(job.radius, 5.0)
    area = job.window(reach * 2.2 + 3)
    mask = blob(rng, area, reach, job.softness(reach), ragged=between(rng, 0, 0.4))
    view = job.view(area)
    sigma = log_between(rng, 1.2, 5.0) * job.size / 256
    if chance(rng, 0.4):
        soft = ndimage.uniform_filter1d(view, max(3, int(sigma * 4)), axis=int(rng.integers(2)), mode="nearest")
    else:
        soft = blur_colour(view, sigma)
    amount = np.float32(min(1.0, job.strength * 2.5))
    result = cover(view, mask * amount, soft)
    veil = mask * np.float32(max(0.0, job.strength - 0.25) * 0.5)
    bright = float(view.mean()) < 0.6
    return job.put(area, cover(result, veil, np.full(3, 0.95, np.float32)) if bright else shade(result, veil, 0.9))
