"""Draws synthetic samples: ``generate`` (one to three defects) and ``normal`` (none), from a seed alone or on a photo.

Scene, defects and camera draw from separate streams of the seed, so ``normal(seed)`` is the clean twin of
``generate(seed)``, seen by the same camera (unless no defect showed and the scene was redrawn). The mask is measured,
not assumed: pixels that differ visibly between the two, after camera and noise, before compression. Equal arguments
give equal bytes with the same library versions; nothing global is read or written, so any number of threads and
processes may draw at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomaly_ov.errors import UsageError
from anomaly_ov_lab.data.synthetic.camera import Camera, Pixels, random_camera
from anomaly_ov_lab.data.synthetic.defects import DEFECTS, KINDS, Edit, Job
from anomaly_ov_lab.data.synthetic.extras import dressed
from anomaly_ov_lab.data.synthetic.facts import DefectFact, Facts, describe
from anomaly_ov_lab.data.synthetic.noise import Array, Rng, chance, log_between, stream
from anomaly_ov_lab.data.synthetic.objects import objects_on, plain_ground
from anomaly_ov_lab.data.synthetic.palette import main_colours
from anomaly_ov_lab.data.synthetic.scene import Scene, photo_scene
from anomaly_ov_lab.data.synthetic.surfaces import SURFACES

SCENE, DEFECT, CAMERA, DECOY = range(4)
MIN_SIZE, MAX_SIZE = 64, 1024
ATTEMPTS = 7
REDRAWS = 5  # scenes tried when a defect of the wanted kind does not show: a bend on a blank wall
VISIBLE = 5 / 255  # a smoothed difference below this does not show
RELATIVE = 0.25  # the mask leaves out what is fainter than this share of the defect's own peak
MIN_PIXELS = 8
MOST = 0.45  # a mask may cover at most this share of the picture

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SyntheticSample:
    """``image_HW3`` uint8 RGB, ``mask_HW`` true where a defect shows, ``facts`` measured from both."""

    image_HW3: Pixels
    mask_HW: Mask
    facts: Facts


@dataclass(frozen=True)
class Trace:
    """A sample with what it was made from: the clean twin, and where the edits are.

    ``touched_HW``: pixels that an edit changed before the camera; ``reach_HW``: those to which the camera's blur and
    the compression's blocks can carry it. Outside ``reach_HW`` picture and twin are equal to the byte.
    """

    sample: SyntheticSample
    twin_HW3: Pixels
    touched_HW: Mask
    reach_HW: Mask


def generate(
    seed: int, size: int = 256, photo_HW3: npt.NDArray[np.uint8] | None = None, kind: str | None = None
) -> SyntheticSample:
    """A picture with one to three visible defects (all of ``kind`` if given) and their never-empty mask.

    ``seed`` >= 0; ``size`` 64..1024 pixels a side; ``photo_HW3`` replaces the procedural scene. Raises ``UsageError``.
    """
    drawing = _draw(seed, size, photo_HW3, kind)
    return drawing.sample()


def normal(seed: int, size: int = 256, photo_HW3: npt.NDArray[np.uint8] | None = None) -> SyntheticSample:
    """A picture without defects (empty mask); half of them passed a defect of zero strength as a decoy."""
    scene, camera = _scene_and_camera(seed, size, photo_HW3)
    image = scene.image_HW3
    rng = stream(seed, DECOY)
    if chance(rng, 0.5):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        image = DEFECTS[kind](Job(scene, image, rng, 0.0, log_between(rng, 0.001, 0.15))).applied(image)
    pixels = _finish(camera, camera.expose(image))
    return SyntheticSample(pixels, np.zeros((size, size), np.bool_), _facts(seed, scene, pixels, ()))


def trace(seed: int, size: int = 256, photo_HW3: npt.NDArray[np.uint8] | None = None, kind: str | None = None) -> Trace:
    """``generate`` with its clean twin; same arguments, same sample."""
    drawing = _draw(seed, size, photo_HW3, kind)
    edit = Edit(slice(0, size), slice(0, size), drawing.image_HW3)
    camera, touched = drawing.camera, edit.touched(drawing.scene.image_HW3)
    turned, reach = (np.asarray(camera.turn(mask), np.bool_) for mask in (touched, camera.reach(touched)))
    return Trace(drawing.sample(), _finish(camera, drawing.clean_HW3), turned, reach)


@dataclass(frozen=True)
class _Drawing:
    """A defective picture before compression and turning, with its clean twin and each defect's mask."""

    seed: int
    scene: Scene
    camera: Camera
    image_HW3: Array
    exposed_HW3: Pixels
    clean_HW3: Pixels
    found: tuple[tuple[str, Mask], ...]

    def sample(self) -> SyntheticSample:
        facts, union = _measure(self.found, _difference(self.exposed_HW3, self.clean_HW3), self.camera)
        pixels = _finish(self.camera, self.exposed_HW3)
        return SyntheticSample(pixels, union, _facts(self.seed, self.scene, pixels, facts))


def _draw(seed: int, size: int, photo_HW3: npt.NDArray[np.uint8] | None, kind: str | None) -> _Drawing:
    if kind is not None and kind not in DEFECTS:
        raise UsageError(f"unknown defect kind {kind!r}", hint=f"one of: {', '.join(KINDS)}")
    for redraw in range(REDRAWS):
        scene, camera = _scene_and_camera(seed, size, photo_HW3, redraw)
        image, clean = scene.image_HW3, camera.expose(scene.image_HW3)
        exposed = clean
        found: list[tuple[str, Mask]] = []
        for number in range(int(stream(seed, DEFECT).choice([1, 1, 1, 2, 2, 3]))):
            made = _one_defect((seed, DEFECT, redraw, number), scene, camera, image, exposed, kind)
            if made is not None:
                image, exposed, name, mask = made
                found.append((name, mask))
        if found:
            return _Drawing(seed, scene, camera, image, exposed, clean, tuple(found))
    raise UsageError(
        f"no visible defect of kind {kind!r} can be drawn on this photo (seed {seed})",
        hint="use another photo or seed, or leave the kind open",
    )


def _scene_and_camera(
    seed: int, size: int, photo_HW3: npt.NDArray[np.uint8] | None, redraw: int = 0
) -> tuple[Scene, Camera]:
    if seed < 0:
        raise UsageError(f"seed {seed} is negative", hint="use 0 or more")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UsageError(f"size {size} is out of range", hint=f"use {MIN_SIZE} to {MAX_SIZE} pixels")
    rng = stream(seed, SCENE, redraw) if redraw else stream(seed, SCENE)
    if photo_HW3 is None:
        scene = random_scene(rng, size)
    else:
        rgb = photo_HW3.ndim == 3 and photo_HW3.shape[2] == 3 and photo_HW3.dtype == np.uint8
        if not rgb or min(photo_HW3.shape[:2]) < 8:
            raise UsageError(
                f"photo has shape {photo_HW3.shape} and type {photo_HW3.dtype}",
                hint="pass uint8 RGB of shape (height, width, 3), at least 8 pixels a side",
            )
        scene = photo_scene(rng, photo_HW3, size)
    return scene, random_camera(stream(seed, CAMERA), size, turnable=photo_HW3 is None)


def _one_defect(
    path: tuple[int, ...], scene: Scene, camera: Camera, image_HW3: Array, before_HW3: Pixels, kind: str | None
) -> tuple[Array, Pixels, str, Mask] | None:
    """Adds a defect that shows, redrawn stronger after each failure; None if none of the attempts showed."""
    for attempt in range(ATTEMPTS):
        rng = stream(*path, attempt)
        name = kind or _choose_kind(rng, scene)
        strength = min(1.0, log_between(rng, 0.12, 1.0) * 1.5**attempt)
        area = max(log_between(rng, 0.0008, 0.16), 0.004 if attempt > 2 else 0.0)
        edit = DEFECTS[name](Job(scene, image_HW3, rng, strength, area))
        touched = edit.touched(image_HW3)
        if not touched.any():
            continue
        edited = edit.applied(image_HW3)
        margin = 3 + int(4 * camera.blur_px)
        box = _grown(edit.rows, margin, scene.size), _grown(edit.columns, margin, scene.size)
        seen = camera.expose(edited, *box)
        inner = visible(_difference(seen, before_HW3[box]))
        if MIN_PIXELS <= np.count_nonzero(inner) <= MOST * scene.size**2:
            after, mask = before_HW3.copy(), np.zeros((scene.size, scene.size), np.bool_)
            after[box], mask[box] = seen, inner
            return edited, after, name, mask
    return None


def _choose_kind(rng: Rng, scene: Scene) -> str:
    if scene.prefers and chance(rng, 0.5):
        return scene.prefers[int(rng.integers(len(scene.prefers)))]
    return KINDS[int(rng.integers(len(KINDS)))]


def _difference(after_HW3: Pixels, before_HW3: Pixels) -> Array:
    """Largest channel difference, 0..1."""
    change = np.maximum(after_HW3, before_HW3) - np.minimum(after_HW3, before_HW3)
    most = np.maximum(np.maximum(change[..., 0], change[..., 1]), change[..., 2])
    difference: Array = most.astype(np.float32) * np.float32(1 / 255)
    return difference


def visible(difference_HW: Array) -> Mask:
    """Where a change shows: the difference averaged over 3 x 3 pixels, above both an absolute and a relative bar."""
    mean = ndimage.uniform_filter(difference_HW, 3, mode="nearest")
    strongest = max(1, MIN_PIXELS // 2)
    peak = float(np.partition(mean.ravel(), -strongest)[-strongest])
    if peak < 1.6 * VISIBLE:
        return np.zeros(difference_HW.shape, np.bool_)
    strong = mean > max(VISIBLE, RELATIVE * peak)
    grown = ndimage.maximum_filter(strong.astype(np.uint8), 5, mode="constant")
    closed: Mask = ndimage.minimum_filter(grown, 5, mode="constant", cval=1) > 0
    return closed


def _grown(part: slice, margin: int, size: int) -> slice:
    return slice(max(0, part.start - margin), min(size, part.stop + margin))


def _measure(
    found: tuple[tuple[str, Mask], ...], difference_HW: Array, camera: Camera
) -> tuple[tuple[DefectFact, ...], Mask]:
    """Facts and the union mask in the final picture's orientation; a later defect takes the pixels it covers."""
    turned = np.asarray(camera.turn(difference_HW), np.float32)
    union = np.zeros(difference_HW.shape, np.bool_)
    facts: list[DefectFact] = []
    for name, mask in reversed(found):
        own = np.asarray(camera.turn(mask), np.bool_) & ~union
        if np.count_nonzero(own) >= MIN_PIXELS:
            facts.append(describe(name, own, turned))
            union |= own
    return tuple(reversed(facts)), union


def _finish(camera: Camera, exposed_HW3: Pixels) -> Pixels:
    return np.asarray(camera.turn(camera.compress(exposed_HW3)), np.uint8)


def _facts(seed: int, scene: Scene, pixels_HW3: Pixels, defects: tuple[DefectFact, ...]) -> Facts:
    return Facts(seed, scene.surface, scene.object, main_colours(pixels_HW3), defects)


GROUNDS = ("painted", "paper", "rubber", "fabric", "brushed_metal", "wood", "concrete", "circuit_board", "stone")
OFTEN = ("solar_cell", "tissue", "cast_metal", "rubber", "circuit_board")  # drawn twice as often: they vary most
NAMES = (*SURFACES, *OFTEN)


def random_scene(rng: Rng, size: int) -> Scene:
    """One in three shows objects, on a plain backdrop or on a surface; the others a surface alone."""
    if not chance(rng, 0.33):
        scene = SURFACES[NAMES[int(rng.integers(len(NAMES)))]](rng, size)
        return dressed(rng, scene) if scene.object is None and not scene.parts and chance(rng, 0.4) else scene
    if chance(rng, 0.55):
        return objects_on(rng, plain_ground(rng, size))
    return objects_on(rng, SURFACES[GROUNDS[int(rng.integers(len(GROUNDS)))]](rng, size))
