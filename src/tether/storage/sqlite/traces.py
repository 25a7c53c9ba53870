"""Removes what is left of deleted text in a SQLite file, while others use it.

What is deleted is overwritten, but a page that was rearranged before keeps copies of its former
content between its directory and its rows. They are found by their bytes, and overwritten in the
file. That is safe while nobody else writes the page: so nobody may commit meanwhile, and all that
is committed is in the file by then, so that nobody has anything to copy there. Those bytes mean
nothing to SQLite; in the end a commit tells all connections to read the pages anew.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from struct import unpack_from
from time import sleep
from typing import NamedTuple

import apsw

from tether.storage.sqlite.file import connect

PAGES_AT_ONCE = 200  # while nobody else commits
READ_BYTES = 1 << 20
WAIT_MS = 40  # that others may have to wait for us at once
TRIES = 400
_TREES = {2: 12, 5: 12, 10: 8, 13: 8}  # the kinds of pages with rows, and the length of their heads


class _Found(NamedTuple):
    """What is looked for in which pages of the file, which is open as `file`."""

    path: Path
    file: int
    page_bytes: int
    wanted: bytes
    pages: list[int]


def erase_traces(path: Path, file: int, text: str) -> None:
    """Overwrites the text wherever it is left in the file, which is open as `file`, and empties the
    log. `file` must stay open as long as SQLite has the file: to close it would undo the locks.

    Raises BusyError if others read what is in the log for too long.
    """
    wanted = text.encode()
    _patiently(path, _copy_log)
    head = os.pread(file, 100, 0)
    (size,) = unpack_from(">H", head, 16)
    page_bytes = 65_536 if size == 1 else size
    pages = sorted(_pages_with(file, page_bytes, wanted))
    for start in range(0, len(pages), PAGES_AT_ONCE):
        some = pages[start : start + PAGES_AT_ONCE]
        found = _Found(path, file, page_bytes, wanted, some)
        _patiently(path, partial(_clean, found))
    _patiently(path, _empty_log)


def _patiently(path: Path, run: Callable[[apsw.Connection], None]) -> None:
    """Runs it until it meets nobody who is in its way."""
    for left in reversed(range(TRIES)):
        connection = connect(path)
        connection.set_busy_timeout(WAIT_MS)
        try:
            run(connection)
            return
        except apsw.BusyError:
            if not left:
                raise
        finally:
            connection.close()
        sleep(WAIT_MS / 1000)  # the others have their turn


def _copy_log(connection: apsw.Connection) -> None:
    """Has all that is committed in the file."""
    frames, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    if copied < frames:
        raise apsw.BusyError("somebody reads what the file had before")


def _empty_log(connection: apsw.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # for which nobody waits
    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if busy:
        raise apsw.BusyError("somebody reads what is in the log")


def _pages_with(file: int, page_bytes: int, wanted: bytes) -> Iterator[int]:
    """The numbers of the pages that have these bytes, which may lie across two pages."""
    kept = len(wanted) - 1  # of the part before, in front of the next one
    buffer = bytearray(kept + READ_BYTES)
    find = _finder(buffer, wanted)
    offset = last = 0
    while count := os.preadv(file, [memoryview(buffer)[kept:]], offset):
        begins, end = offset - kept, kept + count
        place = find(0 if offset else kept, end)
        while place >= 0:
            for byte in (begins + place, begins + place + kept):
                page = byte // page_bytes + 1
                if page != last:
                    yield page
                last = page
            # The rest of this page tells nothing new, and of a short text may have very many.
            beyond = last * page_bytes - begins - kept
            place = find(max(place + 1, beyond), end)
        buffer[:kept] = buffer[count:end]
        offset += count


def _finder(buffer: bytearray, wanted: bytes) -> Callable[[int, int], int]:
    """Finds it from one place to another in the buffer; -1 if it is not there.

    With the C library, as then others can compute meanwhile: Python's own search stops them all.
    """
    try:
        memmem = ctypes.CDLL(None).memmem
    except (OSError, AttributeError):
        return lambda start, end: buffer.find(wanted, start, end)
    memmem.restype = ctypes.c_void_p
    memmem.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t
    begin = ctypes.addressof(ctypes.c_char.from_buffer(buffer))

    def find(start: int, end: int) -> int:
        if start >= end:
            return -1
        found = memmem(begin + start, end - start, wanted, len(wanted))
        return -1 if found is None else int(found) - begin

    return find


def _clean(found: _Found, connection: apsw.Connection) -> None:
    path, file, page_bytes, wanted, pages = found
    connection.execute("BEGIN IMMEDIATE")  # from now on nobody else commits
    try:
        other = connect(path)
        try:
            other.set_busy_timeout(WAIT_MS)
            _copy_log(other)
        finally:
            other.close()
        head = os.pread(file, 100, 0)
        usable, maps = page_bytes - head[20], unpack_from(">I", head, 52)[0] > 0
        free = _free(file, page_bytes, unpack_from(">I", head, 32)[0])
        changed = False
        for page in pages:
            if maps and (page - 2) % (usable // 5 + 1) == 0:
                continue  # SQLite's own map of pages
            place = (page - 1) * page_bytes
            content = os.pread(file, page_bytes, place)
            for begin, end in _gaps(content, usable, 100 * (page == 1), free.get(page)):
                if wanted in content[begin:end]:
                    os.pwrite(file, bytes(end - begin), place + begin)
                    changed = True
        if changed:
            os.fsync(file)
            ((version,),) = connection.execute("PRAGMA user_version").fetchall()
            connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _free(file: int, page_bytes: int, first: int) -> dict[int, int]:
    """The pages that are not used, each with where in it that begins which means nothing."""
    free: dict[int, int] = {}
    while first and first not in free:
        head = os.pread(file, page_bytes, (first - 1) * page_bytes)
        following, count = unpack_from(">II", head)
        count = min(count, page_bytes // 4 - 2)
        free[first] = 8 + 4 * count
        free.update(dict.fromkeys(unpack_from(f">{count}I", head, 8), 0))
        first = following
    return free


def _gaps(page: bytes, usable: int, start: int, free: int | None) -> list[tuple[int, int]]:
    """Where a page has bytes that mean nothing."""
    if free is not None:
        return [(free, usable)]
    length = _TREES.get(page[start]) if len(page) > start else None
    if length is None:
        return []
    following, cells, content = unpack_from(">HHH", page, start + 1)
    content = content or 65_536
    gaps = [(start + length + 2 * cells, content)]
    while following:
        after, size = unpack_from(">HH", page, following)
        if size < 4 or following + size > usable or (after and after < following + size):
            return []  # this is no such page
        gaps.append((following + 4, following + size))
        following = after
    return gaps if gaps[0][0] <= content <= usable else []
