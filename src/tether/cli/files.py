"""Writes files safely: complete or not at all, and never through a link of another user."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tether.domain.errors import SetupError

FOR_OWNER = 0o600
FOR_ALL = 0o644  # minus the umask; only the owner may write
_MOST_LINKS = 40


def create(path: Path) -> IO[str]:
    """Creates a file. Raises FileExistsError if the name is taken, also by a link."""
    return open(_created(path), "w", encoding="utf-8")


@contextmanager
def replacing(path: Path, mode: int = FOR_ALL) -> Iterator[Path]:
    """A new file in the same folder, which gets the name at the end; an error removes it."""
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.partial")
    try:
        os.close(_created(partial, mode))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def followed(path: Path) -> Path:
    """The target of a link that the user or root made. Raises SetupError for other links.

    Another user who may write in the folder could point a link at any file of ours.
    """
    target = path
    for _ in range(_MOST_LINKS):
        if not target.is_symlink():
            return target
        folder = target.parent.stat()
        mine = (os.geteuid(), 0)
        if folder.st_mode & stat.S_IWOTH or target.lstat().st_uid not in mine:
            raise SetupError(
                f"{path} is a link which somebody else may have put there: name another file."
            )
        target = target.parent / os.readlink(target)
    raise SetupError(f"{path} is a link that leads nowhere.")


def _created(path: Path, mode: int = FOR_ALL) -> int:
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, how, mode)
