"""The lamps around the table: what a mirror would show of them and how bright they make a surface."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage

from rendering.fields import Array, smoothstep

# Pixels and blurs of the maps of the sky, cells across the sky that shadows are worked out for, distance of lamps (mm).
SIDE = 384
BLURS = (0.0, 0.03, 0.06, 0.12, 0.25, 0.5)
CELLS = 14
SPREAD = 420.0


@dataclass(frozen=True)
class Lamp:
    """A rectangular soft box; angles in degrees, ``azimuth`` clockwise from the right, ``soft`` how far it fades."""

    azimuth: float
    elevation: float
    half_width: float
    half_height: float
    brightness: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    soft: float = 0.08

    def at(self, direction: Array) -> Array:
        """How much of its light comes from each direction, (3, ...)."""
        turn, rise = np.radians(self.azimuth), np.radians(self.elevation)
        centre = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
        right = np.array([-np.sin(turn), np.cos(turn), 0])
        up = np.cross(centre, right)
        facing, a, b = (np.tensordot(axis, direction, 1) for axis in (centre, right, up))
        a, b = (np.abs(value) / np.maximum(facing, 1e-3) for value in (a, b))
        width, height = (float(np.tan(np.radians(half))) for half in (self.half_width, self.half_height))
        inside = smoothstep(a, width + self.soft, width) * smoothstep(b, height + self.soft, height)
        lit = inside * (facing > 0) * self.brightness
        return np.stack([lit * part for part in self.colour]).astype(np.float32)


@dataclass(frozen=True)
class Studio:
    """All the light: lamps in a room whose walls are ``horizon`` bright and whose ceiling is ``zenith`` bright."""

    lamps: tuple[Lamp, ...]
    horizon: float
    zenith: float

    def turned(self, degrees: float) -> Studio:
        """The same with the lamps moved around the table."""
        return replace(self, lamps=tuple(replace(lamp, azimuth=lamp.azimuth + degrees) for lamp in self.lamps))

    @cached_property
    def maps(self) -> Array:
        """The upper hemisphere in stereographic projection, (blurs, SIDE, SIDE, 3)."""
        axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
        u, v = np.meshgrid(axis * 1.05, axis * 1.05)
        square = u * u + v * v
        direction = np.stack([2 * u, 2 * v, 1 - square]) / (1 + square)
        room = self.horizon + (self.zenith - self.horizon) * direction[2].clip(0, 1)
        total = np.broadcast_to(room, (3, *room.shape)) + sum(lamp.at(direction) for lamp in self.lamps)
        sharp = np.moveaxis(total, 0, -1).astype(np.float32)
        sigmas = [blur * SIDE / 2 for blur in BLURS]
        return np.stack([ndimage.gaussian_filter(sharp, (s, s, 0), mode="nearest") if s else sharp for s in sigmas])

    def seen(self, direction: Array, place: Array, rough: Array) -> Array:
        """What comes from ``direction`` (3, N) at ``place`` (2, N), blurred by ``rough``; (N, 3). The lamps are near,
        so what is mirrored changes over the part."""
        x, y = direction[0] + place[0] / SPREAD, direction[1] + place[1] / SPREAD
        z = np.maximum(direction[2], 0)
        scale = (SIDE / 2 / 1.05) / (z + np.sqrt(x * x + y * y + z * z))
        column = (x * scale + SIDE / 2).clip(0, SIDE - 1).astype(np.int32)
        row = (y * scale + SIDE / 2).clip(0, SIDE - 1).astype(np.int32)
        level = np.interp(rough, BLURS, np.arange(len(BLURS))).astype(np.float32)
        lower = np.minimum(level.astype(np.int32), len(BLURS) - 2)
        more = (level - lower)[:, None]
        return self.maps[lower, row, column] * (1 - more) + self.maps[lower + 1, row, column] * more

    @cached_property
    def rays(self) -> list[tuple[Array, Array]]:
        """The light in rays: direction (3,) and colour (3,), each of the same solid angle as projected on the table."""
        axis = (np.arange(CELLS * 8, dtype=np.float32) + 0.5) / (CELLS * 8) * 2 - 1
        x, y = np.meshgrid(axis, axis)
        z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
        direction = np.stack([x, y, z])
        light = self.seen(direction.reshape(3, -1), np.zeros((2, x.size), np.float32), np.zeros(x.size, np.float32))
        light = light.reshape(*x.shape, 3) * (z > 0.1)[..., None]
        rays, full = [], np.pi / 4 * CELLS**2
        for row in range(CELLS):
            for column in range(CELLS):
                cell = np.s_[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
                colour = light[cell].mean((0, 1)) / full
                weight = light[cell].mean(-1)
                if not weight.any():
                    continue
                centre = (direction[(slice(None), *cell)] * weight).sum((1, 2))
                rays.append(((centre / np.linalg.norm(centre)).astype(np.float32), colour.astype(np.float32)))
        return rays
