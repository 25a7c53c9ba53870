"""What deleted rows leave behind in a SQLite file: free pages, and copies of their text.

SQLite overwrites deleted rows. But when it has moved rows within a page before, old copies of them
stay in the gaps of the page. We find the copies by their bytes, and overwrite them in the file. The
gaps mean nothing to SQLite. No other connection may write the page meanwhile. So we lock the file
against commits, after all commits were copied from the log into the file. At the end a commit of
our own makes all connections read the pages again.
"""

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from struct import unpack_from
from time import sleep

import apsw

from tether.storage.sqlite.file import BUSY_TIMEOUT_MS, HEADER_BYTES, connect, page_bytes_in

INCREMENTAL = 2  # of PRAGMA auto_vacuum
# Free pages are returned when more than a tenth of the file is free, until a twentieth is left for
# new rows. Otherwise the file would shrink and grow all the time.
MAX_FREE, LEFT_FREE = 0.1, 0.05
MIN_FREE_PAGES = 2_000
PAGES_RETURNED_AT_ONCE = 100  # other writes wait meanwhile
PAUSE_S = 0.01

RETRY_PAUSE_S = 0.04
REWRITE_TRIES = 12
ERASE_TRIES = 400
ERASE_WAIT_MS = 40  # the longest time that other connections wait for us
PAGES_ERASED_AT_ONCE = 200
READ_BYTES = 1 << 20
_HEAD_BYTES = {2: 12, 5: 12, 10: 8, 13: 8}  # of a page, by its kind; other kinds have no rows


# Free pages ---------------------------------------------------------------------------------------


def return_pages(max_free: float, writer: apsw.Connection, _: Sequence[object]) -> bool:
    """Returns some free pages to the system if more than this share of the file is free. Returns
    whether it did.
    """
    pages, free = writer.pragma("page_count"), writer.pragma("freelist_count")
    is_much = free > max(max_free * pages, MIN_FREE_PAGES)
    if writer.pragma("auto_vacuum") != INCREMENTAL or not is_much:
        return False
    writer.execute(f"PRAGMA incremental_vacuum({PAGES_RETURNED_AT_ONCE})").fetchall()
    return True


async def shrink(return_some: Callable[[float], Awaitable[bool]]) -> bool:
    """Returns free pages until few are left. Returns whether there were many.

    `return_some` is `return_pages` in the writer thread.
    """
    max_free, shrunk = MAX_FREE, False
    while await return_some(max_free):
        max_free, shrunk = LEFT_FREE, True
        await asyncio.sleep(PAUSE_S)
    return shrunk


def copy_log(path: Path) -> None:
    """Copies commits from the log into the file, as far as no other connection has to wait."""
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def rewrite(path: Path) -> None:
    """Writes the file again without anything that was deleted, and empties the log. Raises
    BusyError if other connections use the file for too long.
    """
    _retry(path, _vacuum, REWRITE_TRIES, BUSY_TIMEOUT_MS)
    _retry(path, _empty_log, REWRITE_TRIES, BUSY_TIMEOUT_MS)


def _vacuum(connection: apsw.Connection) -> None:
    connection.pragma("temp_store", "FILE")  # the new file may be larger than the memory
    connection.pragma("auto_vacuum", "INCREMENTAL")  # old files were made without it
    connection.execute("VACUUM").fetchall()


def _empty_log(connection: apsw.Connection) -> None:
    connection.execute(
        "PRAGMA wal_checkpoint(PASSIVE)"
    ).fetchall()  # others do not wait for this part
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _retry(path: Path, run: Callable[[apsw.Connection], None], tries: int, wait_ms: int) -> None:
    """Calls `run` with a new connection until no other connection is in its way. Raises BusyError
    after so many tries. Each waits for `wait_ms` at most.
    """
    for tries_left in reversed(range(tries)):
        connection = connect(path)
        connection.set_busy_timeout(wait_ms)
        try:
            run(connection)
            return
        except apsw.BusyError:
            if not tries_left:
                raise
        finally:
            connection.close()
        sleep(RETRY_PAUSE_S)  # others can work meanwhile


# Copies of deleted text ---------------------------------------------------------------------------


def erase_copies(path: Path, file: int, text: str) -> None:
    """Overwrites all copies of a deleted text in the file and empties the log. Raises BusyError if
    others read the log for too long.

    `file` is the open file. It must stay open as long as SQLite uses the file. If it is closed, the
    kernel releases the locks of SQLite.
    """
    wanted = text.encode()
    _retry(path, _check_log_copied, ERASE_TRIES, ERASE_WAIT_MS)
    page_bytes = page_bytes_in(os.pread(file, HEADER_BYTES, 0))
    pages = sorted(_pages_with(file, page_bytes, wanted))
    for start in range(0, len(pages), PAGES_ERASED_AT_ONCE):
        portion = pages[start : start + PAGES_ERASED_AT_ONCE]
        erase = partial(_erase_in_pages, path, file, wanted, portion)
        _retry(path, erase, ERASE_TRIES, ERASE_WAIT_MS)
    _retry(path, _empty_log, ERASE_TRIES, ERASE_WAIT_MS)


def _check_log_copied(connection: apsw.Connection) -> None:
    """Copies all commits from the log into the file. Raises BusyError if a reader prevents it."""
    frames, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    if copied < frames:
        raise apsw.BusyError("somebody reads what the file had before")


def _pages_with(file: int, page_bytes: int, wanted: bytes) -> Iterator[int]:
    """The numbers of the pages that have these bytes, which may begin in one page and end in the
    next.
    """
    overlap = len(wanted) - 1  # bytes of the last block that are searched again with the next one
    buffer = bytearray(overlap + READ_BYTES)
    find = _finder(buffer, wanted)
    offset = last = 0
    while count := os.preadv(file, [memoryview(buffer)[overlap:]], offset):
        begin, end = offset - overlap, overlap + count
        found = find(0 if offset else overlap, end)
        while found >= 0:
            for byte in (begin + found, begin + found + overlap):
                page = byte // page_bytes + 1
                if page != last:
                    yield page
                last = page
            # Skip the rest of this page. It may have a short text very often.
            next_page = last * page_bytes - begin - overlap
            found = find(max(found + 1, next_page), end)
        buffer[:overlap] = buffer[count:end]
        offset += count


def _finder(buffer: bytearray, wanted: bytes) -> Callable[[int, int], int]:
    """A function that finds the bytes between two positions of the buffer, or returns -1.

    It uses the C library, which lets other threads run. Python's own search stops all of them.
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


def _erase_in_pages(
    path: Path, file: int, wanted: bytes, pages: list[int], connection: apsw.Connection
) -> None:
    connection.execute("BEGIN IMMEDIATE")  # from now on no other connection commits
    try:
        with closing(connect(path)) as other:
            other.set_busy_timeout(ERASE_WAIT_MS)
            _check_log_copied(other)
        header = os.pread(file, HEADER_BYTES, 0)
        page_bytes = page_bytes_in(header)
        usable, has_maps = page_bytes - header[20], unpack_from(">I", header, 52)[0] > 0
        free = _free_pages(file, page_bytes, unpack_from(">I", header, 32)[0])
        changed = False
        for page in pages:
            if has_maps and (page - 2) % (usable // 5 + 1) == 0:
                continue  # SQLite's own map of pages
            place = (page - 1) * page_bytes
            content = os.pread(file, page_bytes, place)
            for begin, end in _gaps(content, usable, 100 * (page == 1), free.get(page)):
                if wanted in content[begin:end]:
                    os.pwrite(file, bytes(end - begin), place + begin)
                    changed = True
        if changed:
            os.fsync(file)
            connection.pragma("user_version", connection.pragma("user_version"))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _free_pages(file: int, page_bytes: int, first: int) -> dict[int, int]:
    """The free pages, each with the position from which on its bytes mean nothing."""
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
    """The parts of a page whose bytes mean nothing, each from one position to another."""
    if free is not None:
        return [(free, usable)]
    length = _HEAD_BYTES.get(page[start]) if len(page) > start else None
    if length is None:
        return []
    following, cells, content = unpack_from(">HHH", page, start + 1)
    content = content or 65_536
    gaps = [(start + length + 2 * cells, content)]
    while following:
        after, size = unpack_from(">HH", page, following)
        if size < 4 or following + size > usable or (after and after < following + size):
            return []  # not a page with rows
        gaps.append((following + 4, following + size))
        following = after
    return gaps if gaps[0][0] <= content <= usable else []
