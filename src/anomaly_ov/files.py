"""Writing a file whole or not at all, and holding one for this process alone, on every system."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from anomaly_ov.errors import UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def utf8(text: str) -> bytes:
    """UTF-8. The bytes of a file name that is no text in its system's encoding become the escape ``\\udcXX``, which
    JSON reads back as the very same name.
    """
    return text.encode("utf-8", "backslashreplace")


def write_atomic(path: str | Path, data: bytes) -> None:
    """Replaces ``path`` by ``data``; see ``replacing``."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write what shall replace ``path``: readers see the old one or the new one, whenever the machine dies.

    It is a temporary file in the same folder, flushed to disk, then renamed; on any failure it is removed and ``path``
    is as before. A link is followed. Raises UsageError when the folder is missing, is not writable or is full, or when
    ``path`` is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UsageError(f"cannot write {path}: it is a folder or a device", hint="name a file")
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}",
            hint="the folder must exist, be writable and have room",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def lock(handle: int) -> None:
    """Holds the open file ``handle`` for this process until it is closed. Raises OSError when another one holds it."""
    if sys.platform == "win32":
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def flush_folder(folder: Path) -> None:
    """Makes a rename within ``folder`` last through a power cut. Windows opens no folders and needs no such call."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
