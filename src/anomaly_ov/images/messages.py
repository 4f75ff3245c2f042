"""What lines for people have in common; of errors about an input: one line that names it and says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from anomaly_ov.errors import UnreadableImage

MOST_NAMED = 6
MOST_LETTERS = 160


def printable(name: str) -> str:
    """``name`` fit for a one-line message: odd characters escaped, an empty name quoted."""
    return name if name.isprintable() and name.strip() else ascii(name)


def counted(count: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``; for nouns that take an s."""
    return f"{count} {noun}{'s' * (count != 1)}"


def some(names: Sequence[str]) -> str:
    """The first few names, none of them endless, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(name[:MOST_LETTERS] for name in names[:MOST_NAMED]) + more


def unreadable(label: str, cause: str, hint: str) -> NoReturn:
    """Raises ``UnreadableImage`` about the input called ``label``."""
    raise UnreadableImage(f"cannot read {printable(label)}: {cause}", hint=hint)


def one_line(error: BaseException) -> str:
    """What ``error`` says, without line breaks; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
