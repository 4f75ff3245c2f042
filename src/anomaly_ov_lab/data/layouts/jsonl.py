"""A `.jsonl` list: one object a line with `image` and optionally label, mask, category, defect, split, probability."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from anomaly_ov_lab.data.layouts.folder import Folder, Notes
from anomaly_ov_lab.data.layouts.good_bad import ANOMALOUS_NAMES, NORMAL_NAMES
from anomaly_ov_lab.data.layouts.kinds import BAD_LINE
from anomaly_ov_lab.data.layouts.lists import lines, without_repeats
from anomaly_ov_lab.data.samples import Sample

_WORDS = dict.fromkeys(NORMAL_NAMES, 0) | dict.fromkeys(ANOMALOUS_NAMES, 1)


def read(path: Path, notes: Notes) -> list[Sample]:
    """The samples of the list at ``path``; relative paths in it start at its folder, which they must not leave."""
    folder = Folder(path.parent, path.stem, path.parent, notes)
    samples = []
    for number, line in enumerate(lines(path), start=1):
        try:
            sample = _sample(json.loads(line), folder)
        except (ValueError, RecursionError) as error:
            notes.add(BAD_LINE, f"line {number}: {' '.join(str(error).split())}")
            continue
        if sample is not None:
            samples.append(sample)
    return without_repeats(samples, notes, path.parent)


def _sample(values: Any, folder: Folder) -> Sample | None:
    """A line's object as a sample, None if it has no such picture; ``ValueError`` says what is wrong with the line."""
    if not isinstance(values, dict) or not isinstance(values.get("image"), str) or not values["image"]:
        raise ValueError("needs an object with the text field 'image'")
    texts = {key: values.get(key) for key in ("mask", "category", "defect", "split")}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"'{key}' must be text or null")
    if texts["split"] not in (None, "train", "test"):
        raise ValueError("'split' must be train, test or null")
    label, probability = label_of(values.get("label")), _probability(values.get("probability"))
    image = folder.listed(values["image"])
    if image is None:
        return None
    return Sample(
        image=image,
        label=label,
        mask=folder.listed_mask(texts["mask"]) if texts["mask"] else None,
        category=texts["category"] or folder.category,
        defect=texts["defect"],
        split=values.get("split"),
        probability=probability,
    )


def label_of(value: Any) -> int | None:
    """0, 1 or None (unknown) from what a list says. Raises ``ValueError``."""
    if value is None:
        return None
    if isinstance(value, (bool, int)) and value in (0, 1):
        return int(value)
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise ValueError(f"a label must be 0, 1, true, false, null or a word such as normal, anomalous; got {value!r}")


def _probability(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1 or math.isnan(value):
        raise ValueError("'probability' must be a number from 0 to 1 or null")
    return float(value)
