"""Folders for files in the making, which do not outlive their makers by much."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TRIES = 10


@contextmanager
def temporary_folder(beside: Path, prefix: str) -> Iterator[Path]:
    """A new folder in the folder `beside`, which is removed in the end. Raises OSError.

    So are those of the same prefix that were left there by processes which were killed. Whoever
    works in one holds a lock on it, of which the kernel lets go however the process ends; so those
    in which others work now stay.
    """
    _remove_left(beside, prefix)
    folder, lock = _make(beside, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(beside: Path, prefix: str) -> tuple[Path, int]:
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(dir=beside, prefix=prefix))
        with suppress(FileNotFoundError):  # somebody cleared up before it was locked
            lock = _open(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # likewise, at this moment
                os.close(lock)
                continue
            except OSError:
                pass  # a file system without such locks: there nobody clears up either
            if folder.exists():
                return folder, lock
            os.close(lock)
    raise OSError(f"{beside} is being cleared up")


def _remove_left(beside: Path, prefix: str) -> None:
    for folder in beside.glob(f"{prefix}*"):
        with suppress(OSError):  # not a folder, not ours, or gone by now
            lock = _open(folder)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
