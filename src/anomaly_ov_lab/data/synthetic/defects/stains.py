"""Defects of colour and tone: stain, contamination, colour shift, burn, corrosion, dark area, bright blob, rot."""

from __future__ import annotations

import math

import numpy as np

from anomaly_ov_lab.data.synthetic.defects.job import (
    Edit,
    Job,
    cover,
    darker,
    grained,
    lift,
    natural,
    shade,
    shift_tone,
)
from anomaly_ov_lab.data.synthetic.noise import Array, between, blur, chance, fractal_window, log_between, relief
from anomaly_ov_lab.data.synthetic.palette import colour, luminance, near
from anomaly_ov_lab.data.synthetic.shapes import blob, ramp, speckle


def stain(job: Job) -> Edit:
    """A dried liquid: multiplies the surface by a tint, often darker towards its border."""
    rng = job.rng
    area = job.window(job.radius * 2.4 + 3)
    mask = blob(rng, area, job.radius, job.softness(job.radius * 1.5), ragged=between(rng, 0.1, 0.7))
    if chance(rng, 0.4):
        ring = mask * np.clip(1.3 - blur(mask, max(1.0, job.radius * 0.2)), 0, 1)
        mask = np.clip(mask * between(rng, 0.2, 0.7) + ring, 0, 1)
    mask = natural(mask, rng, between(rng, 0, 0.4))
    view = job.view(area)
    if darker(job, view, 0.8):
        tone = colour(rng, (0.3, 0.9), (0.1, 0.9))
        tone = tone / np.float32(max(float(tone.max()), 1e-3))
        darkening = np.float32(job.strength) * (1 - tone * np.float32(between(rng, 0.0, 0.8)))
        return job.put(area, view * (1 - mask[..., None] * darkening))
    return job.put(area, cover(view, mask * np.float32(job.strength), colour(rng, (0.6, 1.0), (0, 0.6))))


def contamination(job: Job) -> Edit:
    """Foreign matter on top: crumbs, drops, paste or grit, with own colour, texture, shading and shadow."""
    rng = job.rng
    area = job.window(job.radius * 2.4 + 4)
    mask = blob(rng, area, job.radius, job.scene.edge_px * between(rng, 0.9, 2.5), ragged=between(rng, 0.1, 0.7))
    if chance(rng, 0.35):
        mask = speckle(rng, area, mask, between(rng, 0.1, 0.6), between(rng, 0.25, 1.5))
    view = job.view(area)
    base = colour(rng, (0.02, 0.4)) if darker(job, view) else colour(rng, (0.5, 1.0))
    matter = grained(job, area, base, between(rng, 0.02, 0.3), between(rng, 0.5, 1.75))
    body = relief(blur(mask, max(0.8, job.radius * 0.15)), job.scene.light_yx) * area.rim()
    matter = matter + (body * np.float32(between(rng, 0.0, 2.5)))[..., None]
    fall = blur(mask, max(1.0, job.radius * 0.2)) * area.rim(4) * (1 - mask)
    view = shade(view, fall, between(rng, 0, 0.6) * job.strength)
    return job.put(area, cover(view, mask * np.float32(min(1.0, job.strength * 1.5)), matter))


def colour_shift(job: Job) -> Edit:
    """The material keeps its texture and changes its colour: discoloured, unevenly dyed, bleached."""
    rng = job.rng
    area = job.window(job.radius * 2.4 + 3)
    mask = blob(rng, area, job.radius, job.softness(job.radius * 2), ragged=between(rng, 0, 0.5))
    view = job.view(area)
    gain = rng.normal(0, 1, 3).astype(np.float32)
    gain = gain / np.float32(np.abs(gain).max())
    if abs(float(gain.mean())) < 0.25:  # it must show on a grey camera too
        gain = gain + np.float32(0.35 if chance(rng, 0.5) else -0.35)
    scale = mask[..., None] * np.float32(job.strength) * gain
    return job.put(area, view * (1 + scale) + scale * np.float32(0.12))


def burn(job: Job) -> Edit:
    """Scorched: a nearly black core, brown around, fading outwards."""
    rng = job.rng
    area = job.window(job.radius * 2.8 + 3)
    wide = natural(blob(rng, area, job.radius * 1.2, job.radius * between(rng, 0.6, 1.6), 0.4, 1.3), rng, 0.25)
    core = np.clip(wide * 2.2 - 1.2, 0, 1)
    view = job.view(area)
    amount = np.float32(min(1.0, job.strength * 1.2))
    if float(luminance(view).mean()) < 0.15:  # on black ground the ash is what shows
        return job.put(area, lift(view, wide * wide, 0.6 * float(amount)))
    brown = np.asarray([0.35, 0.6, 0.85], np.float32)
    view = view * (1 - wide[..., None] * brown * amount * np.float32(0.8))
    return job.put(area, shade(view, core, 0.85 * float(amount)))


def corrosion(job: Job) -> Edit:
    """Rust or verdigris: rough grains of oxide that eat into the surface in patches."""
    rng = job.rng
    area = job.window(job.radius * 2.6 + 3)
    envelope = blob(rng, area, job.radius * 1.15, job.radius * between(rng, 0.2, 1.2), between(rng, 0.3, 0.7))
    grains = speckle(rng, area, envelope, between(rng, 0.35, 0.9), between(rng, 0.75, 1.5))
    hues = ((0.55, 0.27, 0.1), (0.36, 0.18, 0.1), (0.75, 0.45, 0.2), (0.3, 0.5, 0.42), (0.85, 0.85, 0.8))
    base = near(rng, np.asarray(hues[int(rng.integers(len(hues)))], np.float32), 0.06)
    view = job.view(area)
    if float(luminance(view).mean()) < 0.2:
        base = base * np.float32(0.6) + np.float32(0.3)
    oxide = grained(job, area, base, between(rng, 0.1, 0.4), 0.75)
    rough = relief(fractal_window(rng, *area.shape, slope=1.25), job.scene.light_yx)
    oxide = oxide * (1 + rough * np.float32(between(rng, 0, 0.8)))[..., None]
    return job.put(area, cover(view, grains * np.float32(min(1.0, job.strength * 1.4)), oxide))


def dark_area(job: Job) -> Edit:
    """A dead region: darker as a whole, straight-sided or cloudy, its texture still there."""
    return _tone_area(job, dark=True)


def bright_blob(job: Job) -> Edit:
    """A lump brighter than its surroundings: tumour, overexposed spot, bare metal; even, mottled or ring-shaped."""
    return _tone_area(job, dark=False)


def _tone_area(job: Job, dark: bool) -> Edit:
    rng = job.rng
    area = job.window(job.radius * 2.4 + 3)
    mask: Array
    if chance(rng, 0.3 if dark else 0.1):
        ratio, soft = log_between(rng, 0.3, 3.0), job.softness(job.radius * 0.7)
        half_y, half_x = job.radius * 0.88 * math.sqrt(ratio), job.radius * 0.88 / math.sqrt(ratio)
        tilt = between(rng, -0.6, 0.6) if chance(rng, 0.5) else 0.0
        y, x = area.y_hw + area.x_hw * np.float32(tilt), area.x_hw
        mask = ramp(half_y - np.abs(y), soft) * ramp(half_x - np.abs(x), soft) * area.rim()
    else:
        mask = blob(rng, area, job.radius, job.softness(job.radius * 2), ragged=between(rng, 0.05, 0.5))
    if chance(rng, 0.25):
        mask = mask * (1 - np.clip(blur(mask, max(1.0, job.radius * 0.25)) * 1.6 - 0.8, 0, 1) * between(rng, 0.3, 1.0))
    mask = natural(mask, rng, between(rng, 0, 0.25))
    view = job.view(area)
    level = float(luminance(view).mean())
    dark = False if level < 0.12 else True if level > 0.88 else dark
    if dark:
        return job.put(area, shade(view, mask, min(1.0, job.strength * 1.1)))
    if chance(rng, 0.4):  # lies over the texture
        tone = view.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)
        tone = tone + (1 - tone) * np.float32(min(1.0, job.strength * 1.2))
        matter = grained(job, area, tone, 0.05, 1.25)
        return job.put(area, cover(view, mask * np.float32(min(1.0, 2 * job.strength)), matter))
    return job.put(area, lift(view, mask, min(1.0, job.strength * 1.1)))


def rot(job: Job) -> Edit:
    """Decay: a soft brown field with darker blotches, sometimes with pale mould."""
    rng = job.rng
    area = job.window(job.radius * 2.6 + 3)
    field = blob(rng, area, job.radius * 1.1, job.radius * between(rng, 0.15, 1.0), between(rng, 0.1, 0.5))
    blotch = speckle(rng, area, field, between(rng, 0.15, 0.6), between(rng, 1.0, 2.0))
    view = job.view(area)
    amount = min(1.0, job.strength * 1.2)
    brown = near(rng, np.asarray([0.4, 0.6, 0.8], np.float32), 0.08)
    view = view * (1 - natural(field, rng, 0.3)[..., None] * brown * np.float32(amount * 0.75))
    if chance(rng, 0.3) or float(luminance(view).mean()) < 0.12:
        return job.put(area, lift(view, blotch, 0.7 * amount))
    return job.put(area, shift_tone(job, view, blotch, amount * between(rng, 0.3, 0.9), 1.0))
