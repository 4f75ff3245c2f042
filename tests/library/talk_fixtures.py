"""A few conversations in LLaVA's JSON layout with their pictures, and a small model folder that talks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_ov.reasoning.folder import save_language
from model_fixtures import small_reasoner

ANSWERS = (
    "No.",
    "Yes, a scratch.",
    "Yes, there is a scratch where it is, and where is it? There.",
    "Is there? No, no.",
)


def talk_data(folder: Path, count: int = 14, line: bool = True) -> Path:
    """``talk.jsonl`` (or ``.json``) and ``images/`` in ``folder``: pictures of many sizes, one multi-image sample, one
    of text alone, and five that cannot be used, of which one only fails to decode."""
    rng = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    samples: list[dict[str, Any]] = []
    for k in range(count):
        size = int(rng.integers(20, 90)), int(rng.integers(20, 90)), 3
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"images/{k}.png")
        samples.append(sample(f"s{k}", f"{k}.png", ANSWERS[k % 4]))
    samples[2] = sample("views", ["0.png", "1.png", "2.png"], "No.")
    samples[3] = sample("text", None, "Yes, a scratch.")
    samples += [
        sample("absent", "none.png", "No."),
        sample("few", "0.png", "No.", markers=0),
        {"id": "mute", "image": "0.png"},
        sample("broken", "broken.png", "No."),
        sample("empty", "0.png", " "),
    ]
    (folder / "images/broken.png").write_bytes((folder / "images/0.png").read_bytes()[:60])
    lines = [json.dumps(one) for one in samples]
    if line:
        (folder / "talk.jsonl").write_text("\n".join(lines) + "\n")
    else:
        (folder / "talk.json").write_text("[" + ",\n".join(lines) + "]")
    return folder


def sample(id: str, image: Any, answer: str, markers: int | None = None) -> dict[str, Any]:
    """One question and one answer."""
    count = (len(image) if isinstance(image, list) else int(image is not None)) if markers is None else markers
    turns = [{"from": "human", "value": "<image>\n" * count + "Is there a defect?"}, {"from": "gpt", "value": answer}]
    return {"id": id, "conversations": turns} | ({} if image is None else {"image": image})


def small_talker(folder: Path, **config: Any) -> Path:
    """A model folder with a language side."""
    reasoner = small_reasoner(**config)
    detector = reasoner.model.model.detector
    assert detector is not None
    detector.save_pretrained(folder)
    save_language(reasoner.model, reasoner.tokenizer, folder)
    return folder


def recipe_of(**changes: Any) -> dict[str, Any]:
    """A short run over ``talk.jsonl``."""
    loop = {
        "steps": 4,
        "batch": 4,
        "learning_rate": 0.01,
        "warmup_steps": 1,
        "workers": 0,
        "threads": 1,
        "log_every": 1,
    }
    values: dict[str, Any] = {
        "name": "told",
        "talk": {"json": 1.0, "synthetic": 0.0, "max_length": 512},
        "conversations": ["talk.jsonl"],
        "images": "images",
    }
    return values | changes | {"loop": loop | changes.get("loop", {})}
