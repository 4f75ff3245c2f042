"""The files of the store: pictures by the digest of their bytes, and what is made from them. Knows no database.

``pictures/ab/ab12...`` as they were sent; ``thumbnails/`` and ``previews/`` WebP, by the digest of the picture's page;
``maps/ITEM-CONTEXT.png``; ``contexts/ID.ctx``. A file is there whole or not at all. One process holds the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from anomaly_ov.errors import UsageError
from anomaly_ov.files import flush_folder, lock, write_atomic
from anomaly_ov_server.faults import Fault

PICTURES, THUMBNAILS, PREVIEWS, MAPS, CONTEXTS = "pictures", "thumbnails", "previews", "maps", "contexts"
LOCK = "lock"


class Folder:
    """The data folder, locked for this process until ``close``. ``keep_free``: bytes of disk that stay unused.

    Raises ``UsageError`` when it cannot be made or another process has it.
    """

    def __init__(self, root: Path, keep_free: int) -> None:
        self.root, self._keep_free = root, keep_free
        # Joined once: lists of a hundred thousand items ask for several paths of each.
        self._pictures, self._thumbnails, self._previews = root / PICTURES, root / THUMBNAILS, root / PREVIEWS
        self._maps, self._contexts = root / MAPS, root / CONTEXTS
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in (PICTURES, THUMBNAILS, PREVIEWS, MAPS, CONTEXTS):
                (root / name).mkdir(exist_ok=True)
            self._lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"cannot use data folder {root}: {reason}", hint="name another --data folder") from error
        try:
            lock(self._lock)
        except OSError as error:
            os.close(self._lock)
            raise UsageError(
                f"data folder {root} is in use by another process",
                hint="stop that one, or name another --data folder",
            ) from error

    def close(self) -> None:
        """Lets another process have the folder."""
        os.close(self._lock)

    def picture(self, sha256: str) -> Path:
        """The bytes as they were sent."""
        return self._pictures.joinpath(sha256[:2], sha256)

    def thumbnail(self, digest: str) -> Path:
        """WebP, at most 256 pixels."""
        return self._thumbnails / f"{digest}.webp"

    def preview(self, digest: str) -> Path:
        """WebP at the size of the picture's map."""
        return self._previews / f"{digest}.webp"

    def map(self, item: str, context: str) -> Path:
        """Grey PNG, 0..255 for 0..1."""
        return self._maps / f"{item}-{context}.png"

    def context(self, context: str) -> Path:
        """A context as ``context.context_file`` writes it."""
        return self._contexts / f"{context}.ctx"

    def keep_picture(self, data: bytes) -> str:
        """Puts ``data`` on disk, flushed, unless it is there; its SHA-256. Raises ``Fault`` 507 ``storage_full``."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.picture(sha256)
        if path.is_file() and path.stat().st_size == len(data):
            return sha256
        self.require_room(len(data))
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            flush_folder(path.parent.parent)
        self.write(path, data)
        flush_folder(path.parent)
        return sha256

    def write(self, path: Path, data: bytes) -> None:
        """``path`` whole or not at all. Raises ``Fault`` 507 ``storage_full`` when it cannot be written."""
        try:
            write_atomic(path, data)
        except UsageError as error:
            raise _full("the data folder cannot be written") from error

    def require_room(self, size: int) -> None:
        """Raises ``Fault`` 507 ``storage_full`` if ``size`` more bytes would leave less than ``keep_free``."""
        if shutil.disk_usage(self.root).free < size + self._keep_free:
            raise _full("the disk with the data folder is full")

    def sweep(self, sha256s: set[str], digests: set[str], maps: set[str], contexts: set[str]) -> int:
        """Removes every file that belongs to nothing of these, remains of interrupted writes too; how many.

        ``maps``: names as ``ITEM-CONTEXT``; ``contexts``: ids.
        """
        removed = 0
        for shard in (self.root / PICTURES).iterdir():
            if shard.is_dir():
                removed += _remove(shard, sha256s)
        for folder, known in ((THUMBNAILS, digests), (PREVIEWS, digests), (MAPS, maps), (CONTEXTS, contexts)):
            removed += _remove(self.root / folder, known)
        return removed


def discard(path: Path) -> None:
    """Removes a file that may be gone already."""
    with contextlib.suppress(OSError):
        path.unlink()


def _remove(folder: Path, known: set[str]) -> int:
    """Removes the files of ``folder`` whose names, without what stands behind the dot, are not ``known``."""
    removed = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.name.partition(".")[0] not in known:
                discard(Path(entry.path))
                removed += 1
    return removed


def _full(what: str) -> Fault:
    return Fault(507, "storage_full", what, hint="delete batches that are no longer needed, or make room on the disk")
