"""Files of questions as ``QuestionSet``: the released VisA-D&R lists, MMAD's, our own JSON lines, any labelled set.

``test_data.json``   list of {image, anomaly}; the class is the second component of the path (released code, commit
                     d85bec0, scripts/eval/calc_accuracy.py). One detection question each, in every phrasing.
``visa_dr.json``     list of {image, questions, answers}: turns of one conversation. Which turns are low-level is not
                     published; the first ``low_level`` are taken as such. The released script skips pcb2 and pcb4
                     (too many pictures of circuit boards); so is done here, and noted.
``mmad.json``        {image: {conversation: [{Question, Options, Answer, type}]}}; each question stands alone. The
                     category is data set and class, the first two components of the path.
JSON lines           one object a line: image; label (as in data lists) and/or questions: [{question, answer, kind:
                     low | complex}] (turns of one conversation) or [{question, options, answer, type}]; category.
a folder             any labelled set that ``data.layouts`` reads: detection questions.

A list may come from anyone: sizes are bounded, what does not fit is a ``DataError`` with its entry, and no picture is
taken from outside the pictures' folder.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from anomaly_ov.errors import DataError, UsageError
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.data.layouts.jsonl import label_of
from anomaly_ov_lab.data.layouts.lists import json_of, lines
from anomaly_ov_lab.evaluation.selection import measured
from anomaly_ov_lab.evaluation.text.questions import (
    OPEN,
    ImageQuestions,
    Kind,
    Question,
    QuestionSet,
    choice,
    detection,
    phrasings,
)

SKIPPED_CLASSES = ("pcb2", "pcb4")
MAX_OPTIONS = 26


@dataclass(frozen=True)
class _List:
    """A list while it is read: where pictures lie, how the detection question is worded, ids given so far."""

    path: Path
    root: Path
    detect: tuple[str, ...]
    low_level: int
    given: Counter[str]

    def id_of(self, image: str) -> str:
        """The picture's path, numbered from its second conversation on."""
        self.given[image] += 1
        return image if self.given[image] == 1 else f"{image}~{self.given[image]}"

    def image(self, name: str) -> Path:
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ValueError(f"picture {name!r} lies outside {self.root}")
        return path


def load_questions(
    path: str | Path,
    *,
    detect: Sequence[str] | None = None,
    images: str | Path | None = None,
    low_level: int = 1,
) -> QuestionSet:
    """The questions in ``path``. ``detect``: wordings of the detection question, default the released one.

    ``images``: the folder that pictures' paths start from; default the list's own folder or, if the first picture is
    only found there, the one above. ``low_level``: how many first turns of a released conversation are low-level.
    Raises ``DataError`` for a list that is none of the known, ``UsageError`` for a folder of pictures that is none.
    """
    path = Path(path)
    if images is not None and not Path(images).is_dir():
        raise UsageError(f"{images} is no folder of pictures", hint="give the folder that the list's paths start from")
    texts = phrasings(1) if detect is None else tuple(detect)
    if path.is_dir():
        return _of_folder(path, texts)
    if not path.is_file():
        raise DataError(f"no questions at {path}", hint="give a .json or .jsonl list, or the folder of a labelled set")
    entries, layout, read = _entries(path)
    names = [str(entry.get("image", "")) for entry in entries if isinstance(entry, dict)]
    source = _List(path, _root(path, images, names), texts, low_level, Counter())
    conversations, skipped = [], 0
    for number, entry in enumerate(entries, start=1):
        try:
            made = read(entry, source)
        except ValueError as error:
            raise DataError(f"{path}, entry {number}: {error}", hint="see 'anomaly-ov eval reason --help'") from None
        skipped += not made
        conversations += made
    return _named(path, layout, conversations, texts, skipped)


def _named(
    path: Path, layout: str, conversations: list[ImageQuestions], texts: tuple[str, ...], skipped: int
) -> QuestionSet:
    if not conversations:
        raise DataError(f"{path} holds no question", hint="is it the right list?")
    notes = []
    if skipped:
        why = f"of {' and '.join(SKIPPED_CLASSES)}, as released" if layout == "visa_dr" else "without label or question"
        notes.append(f"entries left out: {skipped} ({why})")
    found = QuestionSet(path.stem, layout, tuple(conversations), texts, tuple(notes))
    return found if found.has("detect") else QuestionSet(found.name, layout, found.conversations, (), found.notes)


_Read = Callable[[Any, _List], list[ImageQuestions]]


def _entries(path: Path) -> tuple[list[Any], str, _Read]:
    """The entries of a list, what it is, and how one is read."""
    if path.suffix.lower() == ".jsonl":
        return [_parsed(line, path, number) for number, line in enumerate(lines(path), 1)], "jsonl", _own
    content = json_of(path)
    if isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values()):
        return [{"image": image} | value for image, value in content.items()], "mmad", _mmad
    if isinstance(content, list) and content and all(isinstance(entry, dict) for entry in content):
        if all("questions" in entry for entry in content):
            return content, "visa_dr", _visa_dr
        if all("anomaly" in entry for entry in content):
            return content, "test_data", _test_data
    raise DataError(
        f"{path} is no list of questions that is known here",
        hint="known: test_data.json and visa_dr.json of VisA-D&R, mmad.json, .jsonl",
    )


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}, line {number} is no JSON: {why}", hint="is the file cut short?") from None


def _root(path: Path, images: str | Path | None, names: Sequence[str]) -> Path:
    """Released lists name pictures from the folder above their own: VisA/test_data.json says VisA/candle/..."""
    if images is not None:
        return Path(images)
    first = next(iter(names), "")
    own, above = path.parent, path.resolve().parent.parent
    return above if first and not (own / first).is_file() and (above / first).is_file() else own


# --- one entry of each list -----------------------------------------------------------------------------------------


def _test_data(entry: Any, source: _List) -> list[ImageQuestions]:
    name = _text(entry, "image")
    label = label_of(entry.get("anomaly"))
    if label is None:
        raise ValueError("'anomaly' must be true or false")
    return [_conversation(source, name, _second(name), label, ())]


def _visa_dr(entry: Any, source: _List) -> list[ImageQuestions]:
    name = _text(entry, "image")
    if any(skipped in name for skipped in SKIPPED_CLASSES):
        return []
    asked, answers = entry.get("questions"), entry.get("answers")
    if not _texts(asked):
        raise ValueError("'questions' must be a list of texts")
    if not _texts(answers) or len(answers) != len(asked):
        keys = ", ".join(map(str, entry))
        raise ValueError(f"'answers' must be one text per question; the entry has {keys}")
    levels: list[Kind] = ["low" if k < source.low_level else "complex" for k in range(len(asked))]
    turns = [(kind, *pair) for kind, *pair in zip(levels, asked, answers, strict=True)]
    return [_open(source, name, _second(name), cast("list[tuple[Kind, str, str]]", turns))]


def _mmad(entry: Any, source: _List) -> list[ImageQuestions]:
    name = _text(entry, "image")
    asked = entry.get("conversation")
    if not isinstance(asked, list) or not asked:
        raise ValueError(f"{name} has no 'conversation'")
    id_ = source.id_of(name)
    questions = tuple(
        _choice(f"{id_}#{k}", one, ("Question", "Options", "Answer", "type")) for k, one in enumerate(asked)
    )
    return [ImageQuestions(id_, source.image(name), "/".join(Path(name).parts[:2]), questions)]


def _own(entry: Any, source: _List) -> list[ImageQuestions]:
    if not isinstance(entry, dict):
        raise ValueError("needs an object with the text field 'image'")
    name, category = _text(entry, "image"), entry.get("category")
    if category is not None and not isinstance(category, str):
        raise ValueError("'category' must be text or null")
    category = category or (Path(name).parts[0] if len(Path(name).parts) > 1 else source.path.stem)
    label, asked = label_of(entry.get("label")), entry.get("questions", [])
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise ValueError("'questions' must be a list of objects")
    made = []
    choices = [one for one in asked if "options" in one]
    if label is not None or choices:
        made.append(_conversation(source, name, category, label, choices))
    turns = [_turn(one) for one in asked if "options" not in one]
    if turns:
        made.append(_open(source, name, category, turns))
    return made


def _turn(one: dict[str, Any]) -> tuple[Kind, str, str]:
    kind = one.get("kind", "low")
    if kind not in OPEN:
        raise ValueError(f"'kind' must be one of {', '.join(OPEN)}, not {kind!r}")
    return cast(Kind, kind), _text(one, "question"), _text(one, "answer")


def _conversation(
    source: _List, name: str, category: str, label: int | None, choices: Sequence[dict[str, Any]]
) -> ImageQuestions:
    """Questions that stand alone: the detection question of a labelled picture, and choices."""
    id_ = source.id_of(name)
    questions = () if label is None else detection(id_, label, source.detect)
    lettered = [_choice(f"{id_}#{k}", one, ("question", "options", "answer", "type")) for k, one in enumerate(choices)]
    return ImageQuestions(id_, source.image(name), category, (*questions, *lettered))


def _open(source: _List, name: str, category: str, turns: Sequence[tuple[Kind, str, str]]) -> ImageQuestions:
    id_ = source.id_of(name)
    questions = tuple(Question(f"{id_}#{k}", kind, asked, answer) for k, (kind, asked, answer) in enumerate(turns))
    return ImageQuestions(id_, source.image(name), category, questions, remember=True)


def _choice(id_: str, one: Any, keys: tuple[str, str, str, str]) -> Question:
    """``keys``: what question, options, answer and type are called."""
    if not isinstance(one, dict):
        raise ValueError("a question must be an object")
    options = one.get(keys[1])
    if not isinstance(options, dict) or not 2 <= len(options) <= MAX_OPTIONS:
        raise ValueError(f"'{keys[1]}' must be an object of 2 to {MAX_OPTIONS} lettered texts")
    for letter, text in options.items():
        if not (len(letter) == 1 and "A" <= letter <= "Z") or not isinstance(text, str):
            raise ValueError(f"'{keys[1]}' must map capital letters to texts")
    right = _text(one, keys[2]).strip()
    if right not in options:
        raise ValueError(f"the right answer {right!r} is none of the options {', '.join(options)}")
    topic = one.get(keys[3])
    return choice(id_, _text(one, keys[0]), list(options.items()), right, topic if isinstance(topic, str) else "")


def _of_folder(path: Path, texts: tuple[str, ...]) -> QuestionSet:
    dataset = measured(discover(path), include_train=False).labelled()
    made = [
        ImageQuestions(id_, sample.image, sample.category, detection(id_, sample.label, texts))
        for sample in dataset
        if sample.label is not None and (id_ := dataset.id_of(sample))
    ]
    return QuestionSet(dataset.name, dataset.layout, tuple(made), texts, dataset.notes)


def _second(name: str) -> str:
    """The class of a released picture."""
    parts = [part for part in name.split("/") if part]
    if len(parts) < 3:
        raise ValueError(f"{name!r} names no class: that is the second part of set/class/picture")
    return parts[1]


def _text(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{key}' must be a text that is not empty")
    return value


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one.strip() for one in value)
