"""Defects of form: dent, hole, pitting, deformation, chipped edge."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from anomaly_ov_lab.data.synthetic.defects.job import Edit, Job, cover, grained, lift, natural, shade
from anomaly_ov_lab.data.synthetic.noise import Array, between, blur, chance, enlarge, relief
from anomaly_ov_lab.data.synthetic.palette import colour, near
from anomaly_ov_lab.data.synthetic.shapes import blob, polygon, ramp


def dent(job: Job) -> Edit:
    """The surface pressed in or bulged out: relit by the scene's light, colour and texture kept."""
    rng = job.rng
    area = job.window(job.radius * 2.4)
    bowl = blob(rng, area, job.radius * 1.2, job.radius * between(rng, 0.7, 1.8), ragged=between(rng, 0, 0.2))
    slope = relief(bowl, job.scene.light_yx)
    slope = slope / np.float32(max(float(np.abs(slope).max()), 1e-6))
    sign = np.float32(1 if chance(rng, 0.7) else -1)
    gain = slope * sign * np.float32(min(0.95, job.strength * 1.3))
    view = job.view(area) * (1 + gain)[..., None]
    view = view + (np.clip(gain, 0, 1) * np.float32(between(rng, 0, 0.35)))[..., None]
    if chance(rng, 0.3):
        view = shade(view, bowl, 0.4 * job.strength)
    return job.put(area, view)


def hole(job: Job) -> Edit:
    """A pit or puncture: dark inside, an inner shadow, sometimes a bright or raised rim."""
    rng = job.rng
    area = job.window(job.radius * 2.4 + 3)
    mask = blob(rng, area, job.radius, job.softness(job.radius), ragged=between(rng, 0, 0.5))
    view = job.view(area)
    alpha = mask * np.float32(min(1.0, job.strength * 1.5))
    mean = view.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)
    if float(mean.mean()) < 0.14:
        depth = grained(job, area, near(rng, mean + np.float32(between(rng, 0.15, 0.6)), 0.05), 0.1)
    else:
        depth = grained(job, area, mean * np.float32(between(rng, 0.0, 0.35)), between(rng, 0.05, 0.3))
    result = cover(view, alpha, depth)
    rim = relief(blur(mask, 1.0), job.scene.light_yx) * area.rim()
    if chance(rng, 0.6):
        result = result + (rim * np.float32(job.strength * between(rng, -0.2, 1.0)))[..., None]
    return job.put(area, result)


def pitting(job: Job) -> Edit:
    """A cluster of small dark pits with lit rims: worn races, porous castings, specks."""
    rng = job.rng
    area = job.window(job.radius * 2.6 + 4)
    count = int(rng.integers(2, 18))
    pits = np.zeros(area.shape, np.float32)
    spread = job.radius * between(rng, 0.5, 1.0)
    each = max(0.9, job.radius / math.sqrt(count) * between(rng, 0.5, 1.2))
    for _ in range(count):
        dy, dx = rng.normal(0, spread, 2).tolist()
        size = each * between(rng, 0.4, 1.4)
        far = np.sqrt((area.y_hw - np.float32(dy)) ** 2 + ((area.x_hw - np.float32(dx)) * between(rng, 0.6, 1.6)) ** 2)
        pits = np.maximum(pits, ramp(np.float32(size) - far, job.scene.edge_px * 1.3))
    pits = natural(pits * area.rim(), rng, 0.3)
    view = job.view(area)
    bright = float(view.mean()) < 0.14 or chance(rng, 0.2)
    result = (lift if bright else shade)(view, pits, min(1.0, job.strength * 1.4))
    lit = relief(blur(pits, 0.8), job.scene.light_yx) * area.rim()
    return job.put(area, result + (lit * np.float32(job.strength * between(rng, 0, 1.0)))[..., None])


def deformation(job: Job) -> Edit:
    """The picture itself bent: bulge, pinch, twist or shift with a smooth falloff, and the light that this catches."""
    rng = job.rng
    reach = job.radius * 2.2
    area = job.window(reach + 2)
    far = np.sqrt(area.y_hw**2 + area.x_hw**2) / np.float32(reach)
    fall = np.clip(1 - far * far, 0, 1) ** 2 * area.rim(4)
    push = np.float32(min(1.0, job.strength * 1.6) * job.radius * between(rng, 0.35, 0.75))
    style = int(rng.integers(4))
    if style == 0:  # bulge or pinch
        sign = np.float32(1 if chance(rng, 0.5) else -1)
        dy, dx = (sign * fall * push * axis / np.float32(reach) * 1.6 for axis in (area.y_hw, area.x_hw))
    elif style == 1:  # twist
        turn = fall * push / np.float32(reach) * 2.2
        dy, dx = area.x_hw * turn, -area.y_hw * turn
    elif style == 2:  # shift
        angle = between(rng, 0, 2 * math.pi)
        dy, dx = fall * push * np.float32(math.sin(angle)), fall * push * np.float32(math.cos(angle))
    else:  # crumple
        dy, dx = (enlarge(rng.normal(0, 0.7, (5, 5)).astype(np.float32), *area.shape) * fall * push for _ in range(2))
    view = warped(job.view(area), dy, dx)
    if chance(rng, 0.4):
        slope = relief(fall, job.scene.light_yx)
        slope = slope / np.float32(max(float(np.abs(slope).max()), 1e-6)) * np.float32(0.5 * job.strength)
        view = view * (1 + slope)[..., None] + np.clip(slope, 0, 1)[..., None] * np.float32(0.2)
    return job.put(area, view, confined=False)


def warped(view_hw3: Array, dy_hw: Array, dx_hw: Array) -> Array:
    """Bilinear resampling at displaced positions (clamped at the window's border)."""
    height, width = view_hw3.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None] + dy_hw
    columns = np.arange(width, dtype=np.float32)[None, :] + dx_hw
    where = np.stack([rows, columns])
    return np.stack([ndimage.map_coordinates(view_hw3[..., c], where, order=1, mode="nearest") for c in range(3)], -1)


def chipped_edge(job: Job) -> Edit:
    """A chip: an angular flake broken off, with fresh material below and a sharp lit border."""
    rng = job.rng
    area = job.window(job.radius * 2.2 + 3)
    count = int(rng.integers(4, 10))
    angles = np.sort(rng.uniform(0, 2 * math.pi, count))
    radii = job.radius * rng.uniform(0.5, 1.6, count)
    corners = [(float(r * math.sin(a)), float(r * math.cos(a))) for a, r in zip(angles, radii, strict=True)]
    mask = polygon(area, corners, max(0.0, job.scene.edge_px - 0.8))
    view = job.view(area)
    mean = view.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)
    fresh = near(rng, np.clip(mean * np.float32(between(rng, 0.3, 1.9)), 0.03, 0.97), 0.05)
    if chance(rng, 0.3):
        fresh = colour(rng, (0.02, 0.25))
    alpha = mask * np.float32(min(1.0, job.strength * 1.5))
    result = cover(view, alpha, grained(job, area, fresh, between(rng, 0.03, 0.3), between(rng, 0.5, 1.5)))
    lit = relief(blur(mask, 0.6), job.scene.light_yx) * area.rim()
    return job.put(area, result + (lit * np.float32(job.strength * between(rng, 0, 0.8)))[..., None])
