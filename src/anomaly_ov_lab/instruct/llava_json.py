"""Conversations in LLaVA's JSON layout: read one by one, each bad one named and skipped; written whole or not at all.

A sample is ``{"id", "image": "a.png" | ["a.png", ...], "conversations": [{"from": "human", "value": "<image>\\n..."},
{"from": "gpt", "value": "..."}]}``; ``image`` is absent for text alone. A file is a JSON array, or one sample a line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from anomaly_ov.errors import DataError
from anomaly_ov.files import utf8, write_atomic
from anomaly_ov_lab.instruct.answers import Turn

HUMAN, GPT = "human", "gpt"
MARKER = "<image>"
MAX_SAMPLE_BYTES = 8 * 2**20
_CHUNK = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]+")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Record:
    """``turns``: (role, text), "human" and "gpt" in alternation, image markers left in the text; none if no images."""

    id: str
    images: tuple[Path, ...]
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Skipped:
    """A sample that cannot be used. ``index`` counts samples from 0; ``reason`` is "what: detail" or "what"."""

    id: str
    index: int
    reason: str


def record(id: str, images: Iterable[Path], turns: Iterable[Turn]) -> Record:
    """Turns as a record, one marker per image before the first question."""
    paths = tuple(images)
    said = [part for turn in turns for part in ((HUMAN, turn.question), (GPT, turn.answer))]
    said[0] = (HUMAN, f"{MARKER}\n" * len(paths) + said[0][1])
    return Record(id, paths, tuple(said))


def read(path: str | Path, images: str | Path) -> Iterator[Record | Skipped]:
    """The samples of a ``.json`` array or of JSON lines, in order, with one sample in memory at a time.

    ``images`` is the folder that image paths are relative to; a path that leaves it, also through a link, is refused.
    Raises ``DataError`` if the file is absent, or is an array that is broken or holds a sample above 8 MiB (behind
    which no further sample could be found; a broken or overlong *line* is only skipped).
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed by the with below; opened here so that its error is ours
    except OSError as error:
        raise DataError(
            f"cannot read conversations {path}: {error.strerror}", hint="give a .json or .jsonl file"
        ) from None
    root = Path(images).resolve()
    with file:
        is_array = _first_byte(file) == b"["
        for index, sample in enumerate(_array(file, path) if is_array else _lines(file)):
            yield Skipped("", index, sample) if isinstance(sample, str) else _checked(sample, index, root)


def write(records: Iterable[Record], path: str | Path, images: str | Path) -> None:
    """Writes ``records`` as JSON lines if ``path`` ends in ``.jsonl``, else as an array; paths relative to ``images``.

    Atomic. Raises ``DataError`` for an image outside the folder ``images``.
    """
    root = Path(images).resolve()
    samples = [json.dumps(_sample(record, root), ensure_ascii=False) for record in records]
    if Path(path).suffix == ".jsonl":
        text = "".join(f"{sample}\n" for sample in samples)
    else:
        text = "[\n" + ",\n".join(samples) + "\n]\n"
    write_atomic(path, utf8(text))


def _sample(record: Record, root: Path) -> dict[str, Any]:
    names = []
    for image in record.images:
        if not image.resolve().is_relative_to(root):
            raise DataError(f"image {image} of {record.id} is outside {root}", hint="name a folder above all images")
        names.append(image.resolve().relative_to(root).as_posix())
    turns = [{"from": role, "value": text} for role, text in record.turns]
    shown = {} if not names else {"image": names[0] if len(names) == 1 else names}
    return {"id": record.id, **shown, "conversations": turns}


def _first_byte(file: BinaryIO) -> bytes:
    """The first byte that is neither white space nor a byte order mark; the file stands before it afterwards."""
    start = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
    file.seek(start)
    while (byte := file.read(1)).isspace():
        start += 1
    file.seek(start)
    return byte


def _lines(file: BinaryIO) -> Iterator[Any]:
    """The values of the lines that are not blank; a string tells why a line could not be read."""
    while line := file.readline(MAX_SAMPLE_BYTES + 1):
        if len(line) > MAX_SAMPLE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield f"line too long: more than {MAX_SAMPLE_BYTES} bytes"
        elif line.strip():
            yield _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else "not an object"


def _array(file: BinaryIO, path: str | Path) -> Iterator[Any]:
    """The elements of an array, as many bytes read as the next one needs; a string says why one is no sample."""
    text = _Window(file, path)
    text.take("[")
    if text.peek() != "]":
        yield text.element(0)
        index = 1
        while text.peek() == ",":
            text.take(",")
            yield text.element(index)
            index += 1
    text.take("]")
    if text.peek():
        raise DataError(f"{path} goes on behind its JSON array", hint="one array only; several samples as .jsonl")


class _Window:
    """The part of a UTF-8 file that is being parsed: ``text`` from ``at`` on is still to come."""

    def __init__(self, file: BinaryIO, path: str | Path) -> None:
        self.file, self.path = file, path
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.ended = "", 0, False

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._grow()

    def take(self, expected: str) -> None:
        """Steps over ``expected``."""
        found = self.peek()
        if found != expected:
            what = f"{found!r} stands where {expected!r} should" if found else "it ends too early"
            raise DataError(f"{self.path} is no whole JSON array: {what}", hint="repair it, or get it again")
        self.at += 1

    def element(self, index: int) -> Any:
        """The next value, or a string if it is no object."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except RecursionError:
                raise self._broken(index, "it is nested too deeply") from None
            except ValueError as error:
                if self.ended or len(self.text) - self.at > MAX_SAMPLE_BYTES:
                    why = str(error) if self.ended else f"broken, or larger than {MAX_SAMPLE_BYTES} bytes"
                    raise self._broken(index, why) from None
                self._grow()
                continue
            if end < len(self.text) or self.ended:  # else a number might go on
                self.at = end
                return value if isinstance(value, dict) else "not an object"
            self._grow()

    def _grow(self) -> None:
        """Reads as much again as is waiting (so that retries cost no more than the text twice), 64 KiB at least."""
        chunk = self.file.read(max(_CHUNK, len(self.text) - self.at))
        self.ended = not chunk
        try:
            self.text = self.text[self.at :] + self.decoder.decode(chunk, final=self.ended)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not UTF-8: {error.reason}", hint="convert the file to UTF-8") from None
        self.at = 0

    def _broken(self, index: int, why: str) -> DataError:
        hint = "repair it, or write one sample a line (.jsonl): then only bad lines are skipped"
        return DataError(f"sample {index} of {self.path} cannot be read: {why}", hint=hint)


def _checked(sample: dict[str, Any], index: int, root: Path) -> Record | Skipped:
    name = sample.get("id")
    # Many published files name no samples; the place in the file serves as well.
    id = str(name) if isinstance(name, (str, int)) and str(name) and _is_unicode(str(name)) else f"#{index}"
    try:
        images = tuple(_image(value, root) for value in _image_names(sample))
        turns = _turns(sample)
        _check_markers(turns, len(images))
    except _Bad as bad:
        return Skipped(id, index, str(bad))
    return Record(id, images, turns)


class _Bad(Exception):
    """What is wrong with one sample: "what" or "what: detail"."""


def _image_names(sample: dict[str, Any]) -> list[Any]:
    value = sample.get("image")
    return value if isinstance(value, list) else [] if value is None else [value]


def _image(name: Any, root: Path) -> Path:
    if not isinstance(name, str) or not name or "\0" in name or not _is_unicode(name):
        raise _Bad(f"image is not a path: {name!r:.80}")
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise _Bad(f"image outside the folder: {name:.200}")
        if not path.is_file():
            raise _Bad(f"image missing: {name:.200}")
    except (OSError, RuntimeError) as error:  # a name too long, links in a circle
        raise _Bad(f"image is not a path: {error}") from None
    return path


def _turns(sample: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    said = sample.get("conversations")
    if not isinstance(said, list) or not said:
        raise _Bad("no conversations")
    turns = []
    # What the model says before the first question is dropped, as in the released code.
    opening = sum(1 for _ in takewhile(lambda turn: isinstance(turn, dict) and turn.get("from") == GPT, said))
    for number, turn in enumerate(said[opening:]):
        role, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(text, str):
            raise _Bad(f"turn without from or value: turn {number}")
        if role != (HUMAN, GPT)[number % 2]:
            raise _Bad(f"roles out of order: turn {number} is from {role:.40}")
        if not _is_unicode(text):
            raise _Bad(f"text holds half a surrogate pair: turn {number}")
        if not text.replace(MARKER, "").strip():
            raise _Bad(f"empty {'answer' if number % 2 else 'question'}: turn {number}")
        turns.append((role, text))
    if not turns:
        raise _Bad("no question")
    if len(turns) % 2:
        raise _Bad("no answer to the last question")
    return tuple(turns)


def _is_unicode(text: str) -> bool:
    """Whether the text can be encoded: JSON may spell half a surrogate pair, which no tokenizer or file takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_markers(turns: tuple[tuple[str, str], ...], images: int) -> None:
    if any(MARKER in text for role, text in turns if role == GPT):
        raise _Bad("image marker in an answer")
    markers = sum(text.count(MARKER) for _, text in turns)
    if markers != images:
        raise _Bad(f"markers do not match images: {markers} markers, {images} images")
