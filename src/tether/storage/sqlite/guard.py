"""Notices when the SQLite file is not any more what the server opened.

A file that is deleted, moved or replaced still takes every write: into what no name leads to, so
that it is gone with the process. The same goes for the log beside it (`-wal`), in which what was
committed last stands alone. SQLite looks at none of this. So we look before and after each commit,
which is acknowledged only then, and each second.
"""

import os
from pathlib import Path
from struct import unpack

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_TRIES = 3  # another process may be at it between two looks


class _Lost(Exception):
    """What is wrong; `for_good` if it cannot be put right under a running server."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


class FileTrouble(OSError):
    """The file is not what was opened, so nothing can be said to be in it."""


class FileGuard:
    """Compares a file and those beside it with what they were when it was made.

    It is made when a connection to the file is open, and closed when none is any more: to close a
    descriptor of the file before would undo the locks that SQLite has on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.path.abspath(path)
        self._file = os.open(self._path, os.O_RDONLY)
        self._known = {self._path: _identity(os.fstat(self._file))}
        real = os.path.realpath(path)  # SQLite names the files beside it so
        self._log, self._index = f"{real}-wal", f"{real}-shm"
        for beside in filter(os.path.exists, (self._log, self._index)):
            self._known[beside] = _identity(os.stat(beside))
        self._logged = self._log in self._known
        self._index_file: int | None = None
        if self._index in self._known:
            self._index_file = os.open(self._index, os.O_RDONLY)
        self._bytes = os.fstat(self._file).st_size
        self._changes = 0
        self._lost: str | None = None

    def trouble(self) -> str | None:
        """What is wrong, if anything is."""
        if self._lost is not None:
            return self._lost
        for left in reversed(range(_TRIES)):
            try:
                self._look()
                return None
            except _Lost as lost:
                if not left:
                    if lost.for_good:
                        self._lost = str(lost)
                    return str(lost)
            except OSError as error:
                if not left:
                    return f"{self._path} cannot be looked at: {error.strerror}"
        return None

    @property
    def has_file(self) -> bool:
        """Whether the file itself is where and what it was, whatever is beside it."""
        try:
            self._look_at_file()
        except (_Lost, OSError):
            return False
        return self._lost is None

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._file)
        if self._index_file is not None:
            os.close(self._index_file)

    def _look(self) -> None:
        self._look_at_file()
        if self._index_file is not None and self._logged:
            size = self._size_of(self._log)
            self._size_of(self._index)
            self._look_at_log(size, self._index_file)

    def _size_of(self, path: str) -> int:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise _Lost(f"{path} is gone") from None
        if _identity(found) != self._known[path]:
            raise _Lost(f"{path} is another file now")
        return found.st_size

    def _look_at_file(self) -> None:
        size = self._size_of(self._path)
        header = os.pread(self._file, _HEADER_BYTES, 0)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            raise _Lost(f"{self._path} was truncated or overwritten", for_good=True)
        (changes,) = unpack(">I", header[24:28])
        has_log = header[18:20] == b"\2\2"
        if has_log != self._logged or changes < self._changes:
            raise _Lost(f"{self._path} was overwritten with another database", for_good=True)
        # It gets shorter only when it was vacuumed, and says so then.
        if size < self._bytes and size != _bytes_in(header):
            raise _Lost(f"{self._path} was truncated")
        self._bytes, self._changes = size, changes

    def _look_at_log(self, size: int, index_file: int) -> None:
        index = os.pread(index_file, 24, 0)
        if len(index) < 24:
            raise _Lost(f"{self._index} was truncated", for_good=True)
        page, frames = unpack("=H", index[14:16])[0], unpack("=I", index[16:20])[0]
        page_bytes = (page & 0xFE00) + ((page & 1) << 16)
        if frames and size < _LOG_HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + page_bytes):
            raise _Lost(f"{self._log} was truncated", for_good=True)


def is_shortened(path: Path) -> bool:
    """Whether the file has fewer bytes than it says. It must be closed, and have no log."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[24:28] != header[92:96]:
        return False  # empty, or written by a program that does not say
    return path.stat().st_size < _bytes_in(header)


def _bytes_in(header: bytes) -> int:
    page, count = unpack(">H", header[16:18])[0], unpack(">I", header[28:32])[0]
    return int((65_536 if page == 1 else page) * count)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
