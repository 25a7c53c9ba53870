"""The stream of events and states: its cursor, and its messages in the bytes of an answer.

It has no I/O: the two clients read the bytes and wait.
"""

import re
from collections.abc import Iterator, Mapping

from tether.client.errors import (
    EpochChanged,
    RateLimited,
    TetherError,
    Unavailable,
    UnexpectedAnswer,
)
from tether.client.exchange import (
    RETRY_STATUSES,
    WARN_AFTER_FAILURES,
    Answer,
    NoAnswer,
    Request,
    RetryPolicy,
    error_of,
    log,
    read,
    unexpected_answer,
    with_query,
)
from tether.client.models import Event, Withdrawal
from tether.client.receiving import DecompressionError, Decompressor
from tether.domain.views import VehicleState

SILENCE_S = 40.0  # more than two heartbeats of the server
MAX_BLOCK_BYTES = 64 * 1024  # ours have some hundred bytes
_END_OF_LINE = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a \r at the end may be half of \r\n

Message = Event | Withdrawal | VehicleState
_KINDS: dict[str, type[Message]] = {
    "event": Event, "withdrawal": Withdrawal, "state": VehicleState,
}  # fmt: skip


class Interrupted(Exception):
    """The answer was interrupted, or there was no answer."""

    def __init__(self, no_answer: NoAnswer) -> None:
        self.no_answer = no_answer


class Subscription:
    """The request of a stream, and the cursor after its last message."""

    def __init__(
        self,
        cursor: str | None,
        policy: RetryPolicy,
        *,
        start_again: bool = False,
        **filters: str | None,
    ) -> None:
        self._begin = cursor
        self._start_again = start_again
        self._filters = filters
        self._policy = policy
        self._failures = 0
        self._request = Request("GET", "/stream")
        self._parser = _EventStreamParser()
        self._decompressor = Decompressor({})
        self.cursor: str | None = None

    @property
    def in_outage(self) -> bool:
        """Whether the stream is interrupted, and no message has come since."""
        return self._failures > 0

    def request(self) -> Request:
        """The request to connect, or to connect again."""
        begin = self._begin if self.cursor is None else None
        headers = {"Accept": "text/event-stream"}
        if self.cursor is not None:
            headers["Last-Event-ID"] = self.cursor
        self._request = Request(
            "GET", with_query("/stream", cursor=begin, **self._filters), headers=headers
        )
        self._parser = _EventStreamParser()
        return self._request

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises UnexpectedAnswer if the answer is not a stream of this API."""
        self._decompressor = Decompressor(headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            raise self._unexpected(f"it is of the type {kind or 'none'}")

    def received(self, data: bytes) -> Iterator[Message | None]:
        """The messages in these bytes. None is a new cursor without a message."""
        try:
            for piece in self._decompressor.feed(data):
                yield from self._messages(piece)
        except DecompressionError as error:
            raise self._unexpected(str(error)) from None

    def _messages(self, data: bytes) -> Iterator[Message | None]:
        for name, last_id, text in self._parser.feed(data):
            message = self._message(name, text) if text else None
            if last_id is not None:
                self.cursor = last_id
            self._failures = 0
            if message is not None or not text:
                yield message
        if self._parser.is_too_long():
            raise self._unexpected("a line or a message has no end")

    def refused(self, answer: Answer) -> float:
        """The seconds to wait after this answer. Raises its error if waiting would not help."""
        error = error_of(answer, self._request)
        if isinstance(error, EpochChanged) and self._start_again:
            log.warning("The database was restored: reading the stream from the start again")
            self._begin, self.cursor = "start", None
            return 0
        if answer.status not in RETRY_STATUSES:
            raise error
        return self._pause(error)

    def interrupted(self, no_answer: NoAnswer) -> float:
        """The seconds to wait before connecting again. Raises Unavailable if it would not help."""
        error = error_of(no_answer, self._request)
        if no_answer.final:
            raise error
        return self._pause(error)

    def ended(self) -> float:
        """The seconds to wait after the server has ended the stream."""
        return self.interrupted(NoAnswer("The server ended the stream."))

    def _pause(self, error: TetherError) -> float:
        assert isinstance(error, RateLimited | Unavailable)
        self._failures += 1
        seconds = self._policy.backoff(self._failures, error.retry_after)
        write = log.warning if self._failures == WARN_AFTER_FAILURES else log.info
        write("The stream is interrupted: %s; again in %.2f s", error, seconds)
        return seconds

    def _message(self, name: str, text: bytes) -> Message | None:
        kind = _KINDS.get(name)
        if kind is None:  # of a later version
            return None
        return read(kind, Answer(200, {}, text), self._request)

    def _unexpected(self, why: str) -> UnexpectedAnswer:
        return unexpected_answer(Answer(200, {}, b""), self._request, why)


class _EventStreamParser:
    """Parses Server-Sent Events by the rules of the HTML standard."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._id: str | None = None
        self._data: list[bytes] = []
        self._fields = self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[str, str | None, bytes]]:
        """The name, newest id and data of each complete block."""
        *lines, self._rest = _END_OF_LINE.split(self._rest + data)
        for line in lines:
            if line:
                self._take(line)
            elif self._fields:
                yield self._name, self._id, b"\n".join(self._data)
                self._name, self._data, self._fields, self._size = "", [], 0, 0

    def is_too_long(self) -> bool:
        """Whether a line or a block is too long for this API."""
        return len(self._rest) + self._size > MAX_BLOCK_BYTES

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value.decode(errors="replace")
        elif name == b"data":
            self._data.append(value)
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        else:  # a comment, or a field for browsers
            return
        self._fields += 1
        self._size += len(line)
