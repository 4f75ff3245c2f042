"""What a folder, or a few good pictures, say is normal: tokens compared with those of other pictures."""

from __future__ import annotations

import os

SUFFIX = ".ctx"


def is_context_file(path: str | os.PathLike[str]) -> bool:
    """A file by its name; a folder may be called what it likes."""
    return str(path).lower().endswith(SUFFIX) and not os.path.isdir(path)
