"""Names, ids, times: text from people made fit to be kept and shown, ids that cannot be guessed, and the UTC time."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

MAX_NAME = 200
_DIGITS = re.compile(r"[0-9]+")
_LONGEST_NUMBER = 18


def clean(text: str, otherwise: str = "", most: int = MAX_NAME) -> str:
    """One line of ``text``: control, private and unpaired characters become spaces; ``otherwise`` if none is left."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * most])
    return " ".join(kept.split())[:most].strip() or otherwise


def clean_note(text: str, most: int) -> str:
    """As ``clean`` for several lines."""
    kept = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text[: 4 * most])
    return kept.strip()[:most]


def sort_name(name: str) -> str:
    """By which names sort as people expect: img2 before img10, capitals beside small letters."""
    return _DIGITS.sub(lambda found: found[0].lstrip("0").zfill(_LONGEST_NUMBER), name.casefold())


def new_id(kind: str) -> str:
    """``b_``, ``i_`` or ``c_`` and 64 random bits."""
    return f"{kind}_{secrets.token_hex(8)}"


def now() -> str:
    """UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
