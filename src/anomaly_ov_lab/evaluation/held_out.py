"""The held-out questions: synthetic pictures of combinations that no training saw, and what is right about answers.

Half of the pictures show a defect whose kind never stood on that surface or object in training
(``instruct.seen``), half are normal. Three questions each: is there a defect (yes or no), of what kind, and where;
the last two of the anomalous only. An answer is right if it reads (``instruct.reading``) as the reference answer does.

The swapped-picture test puts one question to two pictures whose facts differ: the answer must change with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anomaly_ov.records import Answer
from anomaly_ov_lab.data.synthetic import Facts, SyntheticSample, generate, normal
from anomaly_ov_lab.evaluation.metrics import auroc
from anomaly_ov_lab.instruct import reading
from anomaly_ov_lab.instruct.answers import Turn
from anomaly_ov_lab.instruct.conversation import ask
from anomaly_ov_lab.instruct.questions import Split
from anomaly_ov_lab.instruct.seen import is_combination_held_out

Topic = Literal["detect", "kind", "place"]
TOPICS: tuple[Topic, ...] = ("detect", "kind", "place")
SEED_STRIDE = 10_000_000
INTERVAL_Z = 1.96


@dataclass(frozen=True)
class HeldOutQuestion:
    """One question about the picture with index ``picture``, with the answer that would be right."""

    picture: int
    topic: Topic
    turn: Turn


@dataclass(frozen=True)
class HeldOutSet:
    """``samples``: the pictures; ``questions``: in the order of the pictures."""

    samples: tuple[SyntheticSample, ...]
    questions: tuple[HeldOutQuestion, ...]

    def anomalous(self, picture: int) -> bool:
        """Whether a picture shows a defect."""
        return bool(self.samples[picture].facts.defects)


def held_out_set(count: int = 500, seed: int = 0, split: Split = "held_out", size: int = 256) -> HeldOutSet:
    """``count`` pictures, a function of the arguments; ``split``: the wordings, see ``instruct.questions``."""
    samples: list[SyntheticSample] = []
    at = SEED_STRIDE * (seed + 1)
    while len(samples) < count // 2:
        made = generate(at, size)
        at += 1
        if is_main_held_out(made.facts):
            samples.append(made)
    samples += [normal(at + k, size) for k in range(count - len(samples))]
    rng = np.random.default_rng((seed, 1))
    questions = []
    for index, sample in enumerate(samples):
        for topic in TOPICS if sample.facts.defects else TOPICS[:1]:
            questions.append(HeldOutQuestion(index, topic, ask(sample.facts, topic, rng, "word", split)))
    return HeldOutSet(tuple(samples), tuple(questions))


def is_main_held_out(facts: Facts) -> bool:
    """Whether the most visible defect is of a held-out combination."""
    if not facts.defects:
        return False
    main = max(facts.defects, key=lambda defect: defect.contrast * defect.area_fraction)
    return is_combination_held_out(main.kind, facts.surface, facts.object)


def scored(held_out: HeldOutSet, answers: Sequence[Answer]) -> dict[str, Any]:
    """Shares of right answers with 95 % Wilson intervals; ``answers[i]`` is to ``held_out.questions[i]``."""
    right: dict[Topic, list[bool]] = {topic: [] for topic in TOPICS}
    by_label: dict[bool, list[bool]] = {True: [], False: []}
    p_yes: list[tuple[bool, float]] = []
    for question, answer in zip(held_out.questions, answers, strict=True):
        good = said(question.topic, answer.text) == said(question.topic, question.turn.answer)
        right[question.topic].append(good)
        if question.topic == "detect":
            anomalous = held_out.anomalous(question.picture)
            by_label[anomalous].append(good)
            if answer.p_yes is not None:
                p_yes.append((anomalous, answer.p_yes))
    sensitivity, specificity = (share(by_label[label]) for label in (True, False))
    return {
        "pictures": len(held_out.samples),
        "balanced_accuracy": (sensitivity["share"] + specificity["share"]) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "auroc_p_yes": auroc([label for label, _ in p_yes], [p for _, p in p_yes]),
        "kind": share(right["kind"]),
        "place": share(right["place"]),
        "swapped": swapped(held_out, answers),
    }


def swapped(held_out: HeldOutSet, answers: Sequence[Answer], seed: int = 0) -> dict[str, Any]:
    """The share of pairs whose answers change as the facts do, by topic and over all.

    ``detect`` pairs a normal with an anomalous picture: "no" for the one, "yes" for the other. ``kind`` and ``place``
    pair two anomalous pictures that differ in it: the answers must differ, and one of them at least be right.
    """
    rng = np.random.default_rng((seed, 2))
    found: dict[str, list[bool]] = {}
    for topic in TOPICS:
        asked = [
            (said(topic, question.turn.answer), said(topic, answer.text))
            for question, answer in zip(held_out.questions, answers, strict=True)
            if question.topic == topic
        ]
        order = rng.permutation(len(asked))
        if topic == "detect":
            no, yes = ([asked[int(i)] for i in order if asked[int(i)][0] is truth] for truth in (False, True))
            pairs = list(zip(no, yes, strict=False))
            found[topic] = [one[0] == one[1] and other[0] == other[1] for one, other in pairs]
        else:
            pairs = [(asked[int(a)], asked[int(b)]) for a, b in zip(order[::2], order[1::2], strict=False)]
            found[topic] = [
                one[1] != other[1] and (one[0] == one[1] or other[0] == other[1])
                for one, other in pairs
                if one[0] != other[0]
            ]
    return {topic: share(good) for topic, good in found.items()} | {
        "all": share([good for goods in found.values() for good in goods])
    }


def said(topic: Topic, text: str) -> Any:
    """What an answer says about a topic, comparable: a truth value, a set of kinds, or a place."""
    if topic == "detect":
        return reading.yes_no(text)
    return frozenset(reading.kinds(text)) if topic == "kind" else reading.place(text)


def share(good: Sequence[bool]) -> dict[str, Any]:
    """Share of true values with their number and the 95 % Wilson interval."""
    n = len(good)
    if not n:
        return {"share": None, "n": 0, "interval": None}
    p, z = sum(good) / n, INTERVAL_Z
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return {"share": p, "n": n, "interval": [max(0.0, centre - half), min(1.0, centre + half)]}
