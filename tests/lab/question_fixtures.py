"""Small sets of questions with pictures, and an answerer that says what it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_ov.records import Answer, ErrorInfo, ModelInfo
from anomaly_ov_lab.evaluation.text.answerers import ImageToAsk, Reply

MODEL = ModelInfo("told", "1", "cpu", "float32")


class Told:
    """Answers by a function of (picture's path, question, turn); counts what it was asked."""

    def __init__(self, say: Callable[[Path, str, int], Any], info: ModelInfo = MODEL, settings: str = "plain") -> None:
        self._say, self.info, self.settings = say, info, settings
        self.asked: list[tuple[str, str]] = []

    def stream(self, asked: Sequence[ImageToAsk]) -> Iterator[list[Reply]]:
        for one in asked:
            replies = []
            for turn, text in enumerate(one.questions):
                self.asked.append((one.image.name, text))
                replies.append(reply(one.image, self._say(one.image, text, turn)))
            yield replies


def reply(image: Path, said: Any) -> Reply:
    """A text, a (text, p_yes) pair, or an error; a picture that is not there is one."""
    if not image.is_file():
        return ErrorInfo("UnreadableImage", f"cannot read {image.name}")
    if isinstance(said, (Answer, ErrorInfo)):
        return said
    text, p_yes = said if isinstance(said, tuple) else (said, None)
    return Answer(text, p_yes, "stop", 10, 2, {"total": 1.0})


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(path)


def released_detection(folder: Path, per_label: int = 2) -> Path:
    """``VisA/test_data.json`` as released, two classes; pictures lie from the folder above."""
    entries: list[dict[str, Any]] = []
    for seed, name in enumerate(("candle", "capsules")):
        for label in (0, 1):
            for k in range(per_label):
                image = f"VisA/{name}/Data/Images/{'Anomaly' if label else 'Normal'}/{k:03d}.png"
                picture(folder / image, seed=10 * seed + 2 * k + label)
                entries.append({"image": image, "anomaly": bool(label), "mask": "unused"})
    path = folder / "VisA" / "test_data.json"
    path.write_text(json.dumps(entries))
    return path


def own_list(folder: Path) -> Path:
    """``asked.jsonl``: a normal and an anomalous picture of each of two classes, with every kind of question."""
    lines = []
    for seed, name in enumerate(("lid", "cap")):
        for label in (0, 1):
            image = f"pictures/{name}{label}.png"
            picture(folder / image, seed=2 * seed + label)
            asked = [
                {"question": "What is to be seen?", "answer": "A scratch on the lid", "kind": "low"},
                {"question": "What may be the cause?", "answer": "A fall to the floor", "kind": "complex"},
            ]
            options = {"A": "Yes.", "B": "No."}
            choice = {
                "question": "Is it damaged?",
                "options": options,
                "answer": "BA"[label],
                "type": "Anomaly Detection",
            }
            line = {"image": image, "category": name, "label": label, "questions": [choice, *(asked if label else [])]}
            lines.append(json.dumps(line))
    path = folder / "asked.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
