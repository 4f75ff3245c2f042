"""What says what is normal: a folder, good pictures, or the picture itself, its other patches and mirror image."""

from __future__ import annotations

import os

SUFFIX = ".ctx"


def is_context_file(path: str | os.PathLike[str]) -> bool:
    """A file by its name; a folder may be called what it likes."""
    return str(path).lower().endswith(SUFFIX) and not os.path.isdir(path)
