"""What the language side of a model can do, and what it costs: ``python benchmarks/reasoning.py [SET...]``.

1. Held-out questions (``evaluation.held_out``) in each reading: yes or no, kind, place, swapped pictures.
2. P(Yes) on real labelled sets (folders given as arguments) against the expert's own score on the same pictures.
3. Second question: time to the first token, as a share of the first question's, with and without looking.
4. Readings: tokens and prefill time for a 1024 x 1024 picture, as shares of ``full``.
5. Batch: 16 questions in one batch against one by one: equal texts, and how many times faster.

Times are ratios within this run, medians of rounds. Writes ``results/reasoning-<model>.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

from anomaly_ov.files import write_atomic
from anomaly_ov.images.views import ViewsConfig, anyres_geometry
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.provenance import provenance
from anomaly_ov.reasoning.chat import Chat, answer_each
from anomaly_ov.reasoning.config import READINGS
from anomaly_ov.reasoning.layout import layout
from anomaly_ov.records import Answer, Finding
from anomaly_ov_lab.data.layouts import discover_all
from anomaly_ov_lab.data.samples import DataSet
from anomaly_ov_lab.evaluation.held_out import HeldOutSet, held_out_set, scored
from anomaly_ov_lab.evaluation.metrics import auroc, bootstrap_interval, paired_bootstrap
from anomaly_ov_lab.instruct.questions import Split
from common import RESULTS

DETECT = "Are there any defects for the object in the image? Please reply with 'Yes' or 'No'."
SHORT = 24  # tokens; the answers to one-word questions are far shorter
REFERENCE_GRID, REFERENCE_PROMPT = (27, 27), 6


def findings_of(inspector: Inspector, pictures: Iterable[Any], batch: int) -> Iterable[Finding]:
    """Findings that can be asked."""
    return (f for f, _ in inspector.stream_with_previews(pictures, batch, previews=False, talk=True))


def held_out(inspector: Inspector, count: int, seed: int, batch: int) -> dict[str, Any]:
    """Section 1: by wordings, then by reading."""
    found: dict[str, Any] = {}
    wordings: tuple[tuple[Split, tuple[str, ...]], ...] = (
        ("held_out", READINGS),
        ("typed", ("focus",)),
        ("train", ("focus",)),
    )
    for split, readings in wordings:
        questions = held_out_set(count, seed, split)
        evidence = [
            finding.talk.evidence
            for finding in track(
                findings_of(inspector, [sample.image_HW3 for sample in questions.samples], batch),
                f"looking ({split})", count, console=Console(stderr=True),
            )
        ]  # fmt: skip
        for reading in readings:
            answers = _answers(inspector, questions, evidence, reading, batch)
            found.setdefault(split, {})[reading] = scored(questions, answers)
    return found


def _answers(
    inspector: Inspector, questions: HeldOutSet, evidence: Sequence[Any], reading: str, batch: int
) -> list[Answer]:
    asked = questions.questions
    answers: list[Answer] = []
    for start in track(range(0, len(asked), batch), f"asking ({reading})", console=Console(stderr=True)):
        part = asked[start : start + batch]
        about = [evidence[question.picture] for question in part]
        texts = [question.turn.question for question in part]
        answers += answer_each(inspector.reasoner, about, texts, reading=reading, max_tokens=SHORT)
    return answers


def real(inspector: Inspector, one: DataSet, batch: int) -> dict[str, Any]:
    """Section 2, one set: AUROC of P(Yes) and of the expert's score."""
    samples = one.labelled().samples
    labels, expert, p_yes, waiting = [], [], [], []
    for sample, finding in zip(
        track(samples, one.name, console=Console(stderr=True)),
        findings_of(inspector, [sample.image for sample in samples], batch),
        strict=True,
    ):
        if finding.error is None:
            labels.append(sample.label)
            expert.append(finding.score)
            waiting.append(finding.talk.evidence)
        if len(waiting) == batch or sample is samples[-1]:
            answers = answer_each(inspector.reasoner, waiting, [DETECT] * len(waiting), max_tokens=1)
            p_yes += [answer.p_yes if answer.p_yes is not None else 0.5 for answer in answers]
            waiting = []
    difference = paired_bootstrap(labels, p_yes, expert)
    return {
        "set": one.name,
        "normal": labels.count(0),
        "anomalous": labels.count(1),
        "p_yes": {"auroc": auroc(labels, p_yes), "interval": bootstrap_interval(labels, p_yes)},
        "expert": {"auroc": auroc(labels, expert), "interval": bootstrap_interval(labels, expert)},
        "p_yes_over_expert": difference,
    }


def second_question(inspector: Inspector, rounds: int) -> dict[str, Any]:
    """Section 3, on a 1024 x 768 picture: milliseconds to the first token."""
    picture_HW3 = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), np.uint8)
    inspector.chat(picture_HW3).ask(DETECT, max_tokens=1)
    rows = []
    for _ in range(rounds):
        started = time.perf_counter()
        chat = inspector.chat(picture_HW3)
        looked = (time.perf_counter() - started) * 1000
        first = chat.ask(DETECT, remember=False, max_tokens=2).timing_ms["first_text"]
        second = chat.ask("Where is it?", remember=False, max_tokens=2).timing_ms["first_text"]
        rows.append((looked + first, first, second))
    whole, first, second = (median(column) for column in zip(*rows, strict=True))
    return {
        "first_with_looking_ms": whole,
        "first_ms": first,
        "second_ms": second,
        "second_over_first": median(row[2] / row[0] for row in rows),
        "second_over_first_without_looking": median(row[2] / row[1] for row in rows),
        "target": "second over first <= 0.3",
    }


def readings(inspector: Inspector, rounds: int) -> dict[str, Any]:
    """Section 4: tokens and prefill of a 1024 x 1024 picture, shares of ``full``."""
    picture_HW3 = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    evidence = inspector.inspect(picture_HW3).talk.evidence
    reasoner = inspector.reasoner
    times: dict[str, list[float]] = {reading: [] for reading in READINGS}
    for _ in range(rounds + 1):
        for reading in READINGS:
            chat = Chat(reasoner, evidence, reading)
            times[reading].append(chat.ask(DETECT, max_tokens=1).timing_ms["first_text"])
    geometry = anyres_geometry((1024, 1024), ViewsConfig())
    whole = len(layout(geometry, REFERENCE_GRID, REFERENCE_PROMPT))
    found: dict[str, Any] = {"target": "focus: tokens <= 0.12, time <= 0.2 of full"}
    for reading in READINGS:
        tokens = reasoner.processor.places(evidence[0].geometry, reading)
        ratios = [own / full for own, full in zip(times[reading][1:], times["full"][1:], strict=True)]
        found[reading] = {
            "tokens": tokens,
            "tokens_over_full": tokens / reasoner.processor.places(evidence[0].geometry, "full"),
            "prefill_ms": median(times[reading][1:]),
            "prefill_over_full": median(ratios),
            "tokens_over_full_at_the_released_shape": len(
                layout(geometry, REFERENCE_GRID, REFERENCE_PROMPT, reading, crop_budget=96)
            )
            / whole,
        }
    return found


def batch_of(inspector: Inspector, held: HeldOutSet, rounds: int, size: int = 16) -> dict[str, Any]:
    """Section 5."""
    questions = [f"{question.turn.question}" for question in held.questions[:size]]
    pictures = [held.samples[question.picture].image_HW3 for question in held.questions[:size]]
    evidence = [inspector.inspect(picture).talk.evidence for picture in pictures]
    reasoner, ratios = inspector.reasoner, []
    for _ in range(rounds):
        started = time.perf_counter()
        alone = [answer_each(reasoner, [e], [q], max_tokens=SHORT)[0] for e, q in zip(evidence, questions, strict=True)]
        middle = time.perf_counter()
        together = answer_each(reasoner, evidence, questions, max_tokens=SHORT)
        ratios.append((middle - started) / (time.perf_counter() - middle))
    equal = sum(a.text == b.text for a, b in zip(alone, together, strict=True))
    return {"questions": size, "equal_texts": equal, "times_faster": median(ratios), "target": "all equal"}


def main(
    sets: Annotated[list[Path] | None, typer.Argument(help="Folders of labelled sets.")] = None,
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    count: Annotated[int, typer.Option(min=8, help="Held-out pictures.")] = 500,
    seed: int = 0,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
    write: bool = True,
) -> None:
    """Measures, prints, writes."""
    if threads:
        torch.set_num_threads(threads)
    inspector = load(model)
    path = RESULTS / f"reasoning-{inspector.info.name}.json" if write else None
    found: dict[str, Any] = {"benchmark": "reasoning", "model": vars(inspector.info) | {"threads": threads}}
    found["provenance"] = provenance(seed)
    found["second_question"] = second_question(inspector, rounds)
    found["readings"] = readings(inspector, rounds)
    found["batch"] = batch_of(inspector, held_out_set(32, seed + 1), rounds)
    found["held_out"] = held_out(inspector, count, seed, batch)
    found["real"] = []
    keep(found, path)
    for one in (one for folder in sets or [] for one in discover_all(folder)):
        found["real"].append(real(inspector, one, batch))
        keep(found, path)
    print(json.dumps(found, indent=2, default=asdict))


def keep(found: dict[str, Any], path: Path | None) -> None:
    """Writes what is measured so far: an hour's work must not hang on the last step."""
    if path is not None:
        write_atomic(path, (json.dumps(found, indent=2, default=asdict) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
