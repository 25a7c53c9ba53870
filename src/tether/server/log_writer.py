"""Writes lines in a thread, so that the event loop does not wait for their reader."""

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

MAX_WAITING_BYTES = 1024 * 1024
LAST_LINES_S = 1.0  # for waiting lines at the end of the process
# If several processes write to a pipe, a write of this many bytes stays in one piece.
_PORTION_BYTES = select.PIPE_BUF


class LineWriter:
    """Writes lines to a file whose disk may be full, or whose reader may stall or be gone.

    At most MAX_WAITING_BYTES wait for the thread. It drops and counts lines beyond this limit, and
    lines that cannot be written. `on_dropped` gets their number at once. `on_resumed` gets the
    number of all dropped lines when lines can be written again. Both are called in any thread.
    """

    def __init__(
        self, file_number: int, on_resumed: Callable[[int], None] = lambda lines: None
    ) -> None:
        self._file_number = file_number
        self._on_resumed = on_resumed
        self._waiting: deque[bytes] = deque()
        self._bytes = 0  # that wait or are being written
        self._dropped = 0  # since `on_resumed` was called
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.on_dropped: Callable[[int], None] = lambda lines: None

    def put(self, lines: Sequence[bytes]) -> None:
        """Adds lines to write. Each ends in a line feed."""
        dropped = 0
        with self._changed:
            for line in lines:
                if self._bytes + len(line) > MAX_WAITING_BYTES:
                    dropped += 1
                else:
                    self._waiting.append(line)
                    self._bytes += len(line)
            self._dropped += dropped
            if self._thread is None:
                self._begin()
            self._changed.notify_all()
        if dropped:
            self.on_dropped(dropped)

    def _begin(self) -> None:
        thread = threading.Thread(target=self._write_all, name="lines", daemon=True)
        with suppress(RuntimeError):  # no thread can be started: the next line tries again
            thread.start()
            self._thread = thread
            atexit.register(self.finish)

    def finish(self) -> None:
        """Waits until all lines are written, at most LAST_LINES_S."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, LAST_LINES_S)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                portion = self._portion()
            data = b"".join(portion)
            written = self._write(data)
            with self._changed:
                self._bytes -= len(data)
                if not written:
                    self._dropped += len(portion)
                resumed = self._dropped if written and not self._waiting else 0
                self._dropped -= resumed
                self._changed.notify_all()
            if not written:
                self.on_dropped(len(portion))
            if resumed:
                self._on_resumed(resumed)

    def _portion(self) -> list[bytes]:
        portion = [self._waiting.popleft()]
        size = len(portion[0])
        while self._waiting and size + len(self._waiting[0]) <= _PORTION_BYTES:
            portion.append(self._waiting.popleft())
            size += len(portion[-1])
        return portion

    def _write(self, data: bytes) -> bool:
        """Writes all of it, however long that takes. Returns False if it cannot be written."""
        try:
            while data:
                try:
                    data = data[os.write(self._file_number, data) :]
                except BlockingIOError:  # another process made the file non-blocking
                    poll = select.poll()
                    poll.register(self._file_number, select.POLLOUT)
                    poll.poll()
        except OSError:  # a full disk, a reader that is gone
            return False
        return True
