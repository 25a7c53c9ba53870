"""Files that commands write: whole or not there, and never through a link that was planted."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tether.domain.errors import SetupError

FOR_OWNER = 0o600
FOR_ALL = 0o644  # less what the umask takes away; nobody else writes, not even without a umask
_MOST_LINKS = 40


def create(path: Path) -> IO[str]:
    """Makes a new file. Raises FileExistsError if anything has that name, a link for example."""
    return open(_created(path), "w", encoding="utf-8")


@contextmanager
def replacing(path: Path, mode: int = FOR_ALL) -> Iterator[Path]:
    """A new file beside this one, which takes its name in the end, or is gone if that fails."""
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
    """Where a link leads, if only its owner can have put it there. Raises SetupError.

    In a folder where others may write, they may have: what we write would go where they want it.
    """
    place = path
    for _ in range(_MOST_LINKS):
        if not place.is_symlink():
            return place
        folder = place.parent.stat()
        mine = (os.geteuid(), 0)
        if folder.st_mode & stat.S_IWOTH or place.lstat().st_uid not in mine:
            raise SetupError(
                f"{path} is a link which somebody else may have put there: name another file."
            )
        place = place.parent / os.readlink(place)
    raise SetupError(f"{path} is a link that leads nowhere.")


def _created(path: Path, mode: int = FOR_ALL) -> int:
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, how, mode)
