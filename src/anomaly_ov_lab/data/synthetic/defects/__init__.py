"""Kinds of defects by name. Written by hand: a new kind is a function in its family's file and one line here."""

from __future__ import annotations

from anomaly_ov_lab.data.synthetic.defects.job import Defect, Edit, Job
from anomaly_ov_lab.data.synthetic.defects.lines import broken_pattern, crack, fibre, fold, scratch
from anomaly_ov_lab.data.synthetic.defects.parts import (
    blur_spot,
    foreign_patch,
    misplaced_part,
    missing_part,
    print_error,
)
from anomaly_ov_lab.data.synthetic.defects.relief import chipped_edge, deformation, dent, hole, pitting
from anomaly_ov_lab.data.synthetic.defects.stains import (
    bright_blob,
    burn,
    colour_shift,
    contamination,
    corrosion,
    dark_area,
    rot,
    stain,
)

DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "crack": crack,
    "dent": dent,
    "hole": hole,
    "stain": stain,
    "contamination": contamination,
    "missing_part": missing_part,
    "misplaced_part": misplaced_part,
    "colour_shift": colour_shift,
    "blur": blur_spot,
    "burn": burn,
    "corrosion": corrosion,
    "print_error": print_error,
    "deformation": deformation,
    "fibre": fibre,
    "fold": fold,
    "broken_pattern": broken_pattern,
    "pitting": pitting,
    "chipped_edge": chipped_edge,
    "dark_area": dark_area,
    "bright_blob": bright_blob,
    "rot": rot,
    "foreign_patch": foreign_patch,
}
KINDS: tuple[str, ...] = tuple(DEFECTS)

__all__ = ["DEFECTS", "KINDS", "Defect", "Edit", "Job"]
