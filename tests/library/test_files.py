"""A file is replaced whole or left as it was; a lock belongs to one process, on Windows too."""

from __future__ import annotations

import os
import stat
import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace

import pytest

from anomaly_ov import files
from anomaly_ov.errors import UsageError
from anomaly_ov.files import flush_folder, lock, write_atomic


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"one")
    write_atomic(str(path), b"two, longer")
    assert path.read_bytes() == b"two, longer"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch, step, failure):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UsageError if isinstance(failure, OSError) else KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_flushes_before_the_rename(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    write_atomic(tmp_path / "a", b"x")
    assert steps == ["fsync", "replace"]


def test_missing_folder_names_the_path_and_the_reason(tmp_path):
    with pytest.raises(UsageError, match=r"missing/a\.png: No such file") as caught:
        write_atomic(tmp_path / "missing" / "a.png", b"x")
    assert caught.value.hint


def test_refuses_folders_and_devices(tmp_path):
    with pytest.raises(UsageError, match="folder or a device"):
        write_atomic(tmp_path, b"x")
    with pytest.raises(UsageError, match="folder or a device"):
        write_atomic(os.devnull, b"x")


def test_follows_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_lock_is_held_until_it_is_closed(tmp_path):
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    lock(first)
    with pytest.raises(OSError):  # noqa: PT011 - its number differs between systems
        lock(second)
    os.close(first)
    lock(second)
    os.close(second)


def test_on_windows_nothing_of_posix_is_imported(tmp_path, monkeypatch):
    locked = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    fake = SimpleNamespace(LK_NBLCK=2, locking=lambda *arguments: locked.append(arguments))
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    spec = spec_from_file_location("files_of_windows", files.__file__)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.flush_folder(tmp_path / "missing")
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    module.lock(handle)
    os.close(handle)
    assert locked == [(handle, 2, 1)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows opens no folders")
def test_a_folder_is_flushed_and_closed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    flush_folder(tmp_path)
    (handle,) = flushed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
