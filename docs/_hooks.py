"""Hooks of the documentation's build: what MkDocs cannot read by itself."""

from __future__ import annotations

import re
from typing import Any

import anomaly_ov

PUBLIC = "<!-- public names -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts every public name where a page asks for them, and makes ``bash no-run`` plain ``bash``.

    The names are loaded lazily, so no reader of the source can find where they stand.
    """
    if PUBLIC in markdown:
        markdown = markdown.replace(PUBLIC, "\n\n".join(f"::: {where}" for where in public_names()))
    return re.sub(r"^```(\w+) no-run$", r"```\1", markdown, flags=re.MULTILINE)


def public_names() -> list[str]:
    """Full names, classes and functions in the order in which a reader meets them: ``load`` first."""
    names = [name for name in anomaly_ov.__all__ if not name.startswith("_")]
    names.sort(key=lambda name: (name != "load", not name[0].isupper(), name))
    things = [getattr(anomaly_ov, name) for name in names]
    return [f"{thing.__module__}.{thing.__qualname__}" for thing in things]
