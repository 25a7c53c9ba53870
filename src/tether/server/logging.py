"""The log on standard error: a JSON object in each line, or coloured text on a terminal."""

import asyncio
import atexit
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple, TextIO, cast

import msgspec
import structlog

log = structlog.get_logger()

FIRST = 20  # lines of the same kind that are written in a period
PERIOD_S = 1.0
MAX_KINDS = 200  # that are counted apart in a period
MAX_WAITING_BYTES = 1024 * 1024  # of lines that a thread has to write
GATHERED_S = 0.02  # of lines about requests, before the thread gets them
LAST_LINES_S = 1.0  # for waiting lines at the end of the process
# If several processes write to a pipe, a write of this many bytes stays in one piece.
_PORTION_BYTES = select.PIPE_BUF


class Answered(msgspec.Struct):
    """The line about an answered request, which took `ms` milliseconds."""

    request_id: str
    partner: str | None
    key: str | None
    client: str | None
    method: str
    route: str
    status: int
    ms: float
    reason: str | msgspec.UnsetType = msgspec.UNSET
    """Why it was refused."""
    items: int | msgspec.UnsetType = msgspec.UNSET
    """The number of items in a bulk."""
    stored: int | msgspec.UnsetType = msgspec.UNSET
    refused: Mapping[str, int] | msgspec.UnsetType = msgspec.UNSET
    """The number of refused items by reason."""
    # Like structlog's lines.
    event: str = "request"
    level: str = "info"
    timestamp: datetime | None = None


def configure(*, level: str, as_json: bool) -> None:
    """Sets up logging for this process; `level` is a name such as `info`."""
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[*common, *(_json() if as_json else _text())],
        logger_factory=(
            structlog.BytesLoggerFactory(cast(BinaryIO, _standard_error))
            if as_json
            else structlog.WriteLoggerFactory(cast(TextIO, _standard_error))
        ),
        cache_logger_on_first_use=True,
    )
    _standard_error.takes_answers = as_json and number <= logging.INFO
    _standard_error.is_json = as_json
    _standard_error.samples = number > logging.DEBUG
    # The HTTP server and other libraries use the standard logging: warnings are passed on.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_Forward()], force=True)
    if as_json:  # unexpected errors are lines of JSON, too
        logging.captureWarnings(True)
        sys.excepthook = lambda kind, error, trace: log.critical("failed", exc_info=error)
        threading.excepthook = lambda failed: log.critical("failed", exc_info=failed.exc_value)
        sys.unraisablehook = lambda failed: log.error("failed", exc_info=failed.exc_value)


def answered(line: Answered) -> None:
    """Logs that a request was answered.

    Each request has such a line. structlog would take five times as long to make JSON of it.
    """
    if line.reason is not msgspec.UNSET and not is_new(
        line.event,
        line.reason,
        partner=line.partner,
        key=line.key,
        client=line.client if line.key is None else None,
        method=line.method,
        route=line.route,
        status=line.status,
    ):
        return
    if _standard_error.takes_answers:
        line.timestamp = datetime.now(UTC)
        _standard_error.add(line)
    else:
        fields = msgspec.to_builtins(line)
        del fields["event"], fields["level"], fields["timestamp"]
        log.info(line.event, **fields)


def tell(text: str, *, err: bool = False) -> None:
    """Prints the text on standard output or standard error, and does not wait for the reader."""
    lines = _error_lines if err else _output_lines
    lines.put([text.encode(errors="backslashreplace") + b"\n"])


def announce(event: str, text: str, **fields: object) -> None:
    """Prints the text on standard output. If the log is JSON, prints a line of JSON, in which the
    text is the `message`.
    """
    if _standard_error.is_json:
        now = datetime.now(UTC)
        line = {"message": text, "event": event, "level": "info", "timestamp": now, **fields}
        text = _encoder.encode(line).decode()
    tell(text)


def finish() -> None:
    """Waits until all lines are written, so that later output comes after them."""
    _error_lines.finish()


def write_gathered() -> None:
    """Writes the lines of the last requests. Call it before the event loop ends."""
    _standard_error.write_gathered()


def when_dropped(count: Callable[[int], None]) -> None:
    """`count` gets the number of lines that could not be written, in any thread."""
    _error_lines.on_dropped = count


class LineKind(NamedTuple):
    """What lines of the same kind have in common: the event, its reason and other fields."""

    event: str
    reason: object
    finer: tuple[tuple[str, object], ...] = ()


class Sampler:
    """Selects the first lines of each kind in a period, and counts the others. So the log stays
    readable while many similar requests are refused.

    At the end of the period `on_repeated` gets the number of other lines of each kind. If there are
    too many kinds, the kinds with the same reason are counted together.
    """

    def __init__(self, on_repeated: Callable[[LineKind, int], None]) -> None:
        self._on_repeated = on_repeated
        self._lines: dict[LineKind, int] = {}

    def is_new(self, event: str, reason: object, **finer: object) -> bool:
        """Whether to write the line. It is called in the event loop."""
        kind = LineKind(event, reason, tuple(finer.items()))
        if not self._lines:
            asyncio.get_running_loop().call_later(PERIOD_S, self._end)
        elif kind not in self._lines and len(self._lines) >= MAX_KINDS:
            kind = LineKind(event, reason)
        lines = self._lines[kind] = self._lines.get(kind, 0) + 1
        return lines <= FIRST

    def _end(self) -> None:
        counted, self._lines = self._lines, {}
        for kind, lines in counted.items():
            if lines > FIRST:
                self._on_repeated(kind, lines - FIRST)


def is_new(event: str, reason: object, **finer: object) -> bool:
    """Whether to write a line about a refusal: no if there were many similar lines just now.

    A later line says how many were left out. At the level `debug` all lines are written.
    """
    return not _standard_error.samples or _sampler.is_new(event, reason, **finer)


def _log_repeated(kind: LineKind, lines: int) -> None:
    about = {name: value for name, value in kind.finer if value is not None}
    log.info("repeated", of=kind.event, lines=lines, reason=kind.reason, **about)


def _json() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(
            serializer=lambda event, **_: msgspec.json.encode(event, enc_hook=repr)
        ),
    ]


def _text() -> list[structlog.typing.Processor]:
    # The renderer's own traces show the variables of every frame, and so could show keys.
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


# Writing ------------------------------------------------------------------------------------------


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


class _StandardError:
    """Standard error. A thread writes the lines.

    The lines of GATHERED_S go to the thread together; other lines than those about requests do not
    wait. Under load this saves most of the time that logging takes: to wake a thread is slow.
    """

    def __init__(self) -> None:
        self._lines: list[Answered | bytes] = []
        self.takes_answers = False  # configure() sets these three
        self.is_json = False
        self.samples = True

    def write(self, text: str | bytes) -> int:
        line = text.encode(errors="backslashreplace") if isinstance(text, str) else text
        self.add(line)
        return len(text)

    def add(self, line: Answered | bytes) -> None:
        """Adds a line to write."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # in another thread, or the loop does not run
            self._put([line])
        else:
            self._lines.append(line)
            if isinstance(line, bytes):
                loop.call_soon(self.write_gathered)
            elif len(self._lines) == 1:
                loop.call_later(GATHERED_S, self.write_gathered)

    def write_gathered(self) -> None:
        """Gives the lines that were gathered to the thread."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._put(lines)

    def _put(self, lines: list[Answered | bytes]) -> None:
        _error_lines.put(
            [line if isinstance(line, bytes) else _encoder.encode(line) + b"\n" for line in lines]
        )

    def flush(self) -> None:
        """Does nothing: the thread writes the lines."""


_encoder = msgspec.json.Encoder()
_error_lines = LineWriter(
    2,
    on_resumed=lambda lines: log.warning("log lines dropped", lines=lines),
)
_output_lines = LineWriter(1)
_sampler = Sampler(_log_repeated)
_standard_error = _StandardError()


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # What differs, such as an address in memory, would make each line an event of its own.
        event, text = str(record.msg).partition("\n")[0], record.getMessage()
        message = {} if text == event else {"message": text}
        structlog.get_logger(record.name).log(
            record.levelno, event, exc_info=record.exc_info, **message
        )
