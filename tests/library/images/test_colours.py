"""The map's palette: even in lightness, and readable with any kind of colour vision."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.images.colours import encoded, from_oklab, linear, palette, to_oklab

# Full colour blindness in linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.
BLINDNESS = {
    "none": np.eye(3),
    "red (protanopia)": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "green (deuteranopia)": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "blue (tritanopia)": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(blindness: str) -> np.ndarray:
    return to_oklab(encoded(linear(palette()) @ np.transpose(BLINDNESS[blindness])))


def test_lightness_rises_evenly():
    lightness = to_oklab(palette())[:, 0]
    steps = np.diff(lightness)
    assert (steps > 0).all()
    assert lightness[-1] - lightness[0] > 0.6
    # Steps equal to within the rounding of 8-bit colours.
    assert abs(lightness - np.linspace(lightness[0], lightness[-1], 256)).max() < 0.01


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_order_and_levels_survive_colour_blindness(blindness):
    lab = seen(blindness)
    # Ten steps of the map stay in order of lightness, each of them visible (0.02 is a just noticeable step).
    assert (np.diff(lab[::25, 0]) > 0.02).all()
    marks = lab[[0, 76, 128, 178, 255]]
    distances = np.linalg.norm(marks[:, None] - marks[None], axis=-1)[np.triu_indices(5, 1)]
    assert distances.min() > 0.1


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_high_values_are_never_mistaken_for_the_grey_picture(blindness):
    """A course from blue to yellow passes grey once for red- and green-blind eyes; that lies below 0.6."""
    chroma = np.linalg.norm(seen(blindness)[:, 1:], axis=1)
    assert chroma[154:].min() > 0.03
    if blindness == "none":
        assert chroma.min() > 0.09


def test_conversion_there_and_back():
    corners = np.array(np.meshgrid([0, 128, 255], [0, 128, 255], [0, 128, 255])).reshape(3, -1).T.astype(np.uint8)
    assert np.abs(from_oklab(to_oklab(corners)).astype(int) - corners).max() <= 1
    assert to_oklab(np.array([[255, 255, 255]], np.uint8))[0] == pytest.approx([1, 0, 0], abs=1e-3)


def test_table_is_whole_and_read_only():
    assert palette().shape == (256, 3)
    assert palette().dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        palette()[0] = 0
