"""What notes on a data set call things, and which of them are faults of the set rather than remarks on it."""

from __future__ import annotations

NO_MASK = "anomalous picture without a mask"
MASK_MISSING = "listed mask is missing"
MASK_BROKEN = "mask does not decode, taken as missing"
MASK_EMPTY = "mask is empty"
MASK_SHAPE = "mask has another shape than its picture"
PICTURE_MISSING = "listed picture is missing, left out"
OUTSIDE = "leads outside the data set's folder, left out"
BAD_PATH = "unusable path in the list, left out"
BAD_LINE = "unreadable line of the list, left out"
BAD_ENTRY = "unusable entry of the list, left out"
TWICE = "listed twice"

MASK_PIECES = "mask in several files, joined only by 'anomaly-ov data convert'"
OUTLINES = "outlines, drawn as masks only by 'anomaly-ov data convert'"
NOT_A_PICTURE = "not a picture by its name, left out"
OTHERS = "other splits or resolutions, left alone"
UNLABELLED = "folder of pictures without labels, left out"

FAULTS = frozenset(
    {
        NO_MASK,
        MASK_MISSING,
        MASK_BROKEN,
        MASK_EMPTY,
        MASK_SHAPE,
        PICTURE_MISSING,
        OUTSIDE,
        BAD_PATH,
        BAD_LINE,
        BAD_ENTRY,
        TWICE,
    }
)
"""Kinds that ``data.check`` counts as problems."""
