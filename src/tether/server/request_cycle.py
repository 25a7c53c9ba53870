"""One request and its answer: Uvicorn's, for the usual case made cheaper.

Uvicorn writes the head and the body of an answer separately, which the kernel sends separately, and
tries two regular expressions on each header. Here an answer whose length is known is one write.
"""

import asyncio
import logging
import re
from asyncio import Transport
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from secrets import token_hex
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from tether.domain.errors import Abandoned, Code
from tether.domain.models import to_json
from tether.storage.turns import LoopTurns, abandon

# Of what is answered outside the application.
STATUS = {
    Code.REQUEST_MALFORMED: 400,
    Code.REQUEST_TIMEOUT: 408,
    Code.HEAD_TOO_LARGE: 431,
    Code.INTERNAL_ERROR: 500,
    Code.UNAVAILABLE: 503,
}
PIECE_BYTES = 64 * 1024  # of a body that is longer: the next one goes when the client took it

_READS = ("GET", "HEAD")
_log = logging.getLogger("uvicorn.error")
_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")  # before an absolute path
# With these in a header, somebody could begin another one, or the body.
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})


def has_one_host(headers: Sequence[tuple[bytes, bytes]], version: str) -> bool:
    """Whether the request names its host, and only one: who forwards it by one of two, and who
    serves it by the other, serves the wrong one (RFC 9112, 3.2).
    """
    hosts = [name for name, _ in headers].count(b"host")
    return hosts == 1 or (not hosts and version < "1.1")


def _scope_of(connection: Any, method: bytes) -> Any:
    """The request whose head has arrived, as ASGI describes it, but with the path as it was sent:
    `a%2Fb` is one segment, not two.

    Whatever version of HTTP it claims (0.9 and 2.0 get through the parser), it came as 1.1: Falcon
    would fail on a version that it does not know.
    """
    # A target has no fragment (RFC 9112, 3.2): "#" stays, as ids that differ behind it differ.
    url = connection.url
    target = url if url.startswith(b"/") else _AUTHORITY.sub(b"", url)
    raw_path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": connection.asgi_version, "spec_version": "2.3"},
        "http_version": "1.1",
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "root_path": connection.root_path,
        "method": method.decode("ascii"),
        "path": raw_path.decode("ascii"),
        "raw_path": raw_path,
        "query_string": query,
        "headers": connection.headers,
    }


class RequestCycle(RequestResponseCycle):
    """One request and its answer, as the ASGI application sees them."""

    task: "asyncio.Task[None] | None" = None

    def __init__(
        self, connection: Any, method: bytes, *, keep_alive: bool, knows_chunks: bool
    ) -> None:
        """`connection` is Uvicorn's, with our bounds and our transport."""
        super().__init__(
            scope=_scope_of(connection, method),
            transport=connection.transport_of_exchanges,
            flow=connection.flow,
            logger=_log,
            access_logger=_log,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )
        self._knows_chunks = knows_chunks
        self._until_closed = False  # the body does, as nothing else can say where it ends
        self._head: bytes | None = None  # of an answer, until its body is known
        self.tasks = connection.tasks
        self._bounds = connection.bounds

    async def run_asgi(self, app: Any) -> None:
        try:
            if self.flow.write_paused:  # else whoever does not read could have answers pile up
                await self.flow.drain()
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("The application returned without a whole answer.")
        except Abandoned:  # in the middle of an answer
            self.transport.close()
        except BaseException as error:
            self.logger.error("Exception in ASGI application", exc_info=error)
            if self.response_started:
                self.transport.close()
            else:
                await self.send_500_response()
        finally:
            self.on_response = _nothing  # else connection and request would keep each other
            self.tasks.discard(self.task)
            self.task = None  # else its work, which knows whose it is, and this keep each other

    def abandon(self) -> None:
        """The client is gone: what is only read for it ends at its next portion. Writes go on."""
        self.disconnected = True
        self.message_event.set()
        if self.task is not None and self.scope["method"] in _READS and not self.response_started:
            abandon(self.task)

    async def send_500_response(self) -> None:
        self.response_started = True
        self.transport.write(
            whole_answer(Code.INTERNAL_ERROR, "Internal Server Error", token_hex(8))
        )
        self.keep_alive = False
        self._complete()

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started and message["type"] == "http.response.start":
            self._start(message["status"], [*self.default_headers, *message.get("headers", ())])
        elif self._head is not None and not message.get("more_body", False):
            body = message.get("body", b"")
            if len(body) > PIECE_BYTES and self.scope["method"] != "HEAD":
                await self._send_pieces(body)
            else:
                self._finish(body)
        else:  # a body in parts
            self._write_head()
            if self._until_closed:
                self.expected_content_length = len(message.get("body", b""))
            await super().send(message)

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        parts, length, says_close = [STATUS_LINE[status]], None, False
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, says_close = False, True
        head = b"".join(parts)
        if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(headers) + 1):
            raise RuntimeError("A header has a control character.")
        self.response_started = True
        self.waiting_for_100_continue = False
        if not self.keep_alive and not says_close:
            head += b"connection: close\r\n"
        endless = length is None and status not in (204, 304) and self.scope["method"] != "HEAD"
        self.chunked_encoding = endless and self._knows_chunks
        self._until_closed = endless and not self._knows_chunks
        self.expected_content_length = length or 0
        if self.chunked_encoding:
            head += b"transfer-encoding: chunked\r\n"
        self._head = head + b"\r\n"
        if endless:  # the body may be long in coming
            self._write_head()

    def _write_head(self) -> None:
        if self._head is not None:
            self.transport.write(self._head)
            self._head = None

    def _finish(self, body: bytes) -> None:
        """Sends an answer whose head waited for this, its whole body."""
        assert self._head is not None
        if self.scope["method"] == "HEAD":
            body = b""
        else:
            self._check_length(body)
        self.transport.write(self._head + body)
        self._head = None
        self._complete()

    async def _send_pieces(self, body: bytes) -> None:
        """The same for a long body, which is not copied: it may be sent to many at once."""
        self._check_length(body)
        self._write_head()
        view = memoryview(body)
        for start in range(0, len(view), PIECE_BYTES):
            if self.flow.write_paused and not self.disconnected:
                self._bounds.hold(self, len(body), self.transport.abort, id(body))
                try:
                    await self.flow.drain()
                finally:
                    self._bounds.release(self)
            if self.disconnected:
                return
            self.transport.write(view[start : start + PIECE_BYTES])
        self._complete()

    def _check_length(self, body: bytes) -> None:
        if len(body) != self.expected_content_length:
            raise RuntimeError("The body is not as long as its Content-Length says.")

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _nothing() -> None:
    pass


def whole_answer(code: Code, message: str, request_id: str) -> bytes:
    """An answer that is given outside the application, and is the last one of its connection."""
    status, body = STATUS[code], to_json({"message": message})
    again = "retry-after: 1\r\n" if status == 503 else ""
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\ntether-error: {code}\r\n{again}connection: close\r\n\r\n"
    )
    return STATUS_LINE[status] + head.encode() + body


class TransportOfExchange:
    """What Uvicorn's request uses of the transport; to close it means to hang up decently."""

    __slots__ = ("abort", "close", "is_closing", "write")

    def __init__(self, transport: Transport, hang_up: Callable[[], None]) -> None:
        self.write = transport.write
        self.abort = transport.abort
        self.is_closing = transport.is_closing
        self.close = hang_up


class RequestScheduler:
    """Lets requests begin, and go on, by partner in turn."""

    def __init__(self, turns: LoopTurns, partner_of: Callable[[str], int | None]) -> None:
        """`partner_of` tells whose key it is, if that is known without asking anybody."""
        self._turns = turns
        self._partner_of = partner_of
        self._loop = asyncio.get_running_loop()

    def begin(self, cycle: RequestCycle, app: Any) -> None:
        """Lets the application have the request, as soon as it is its turn."""
        work = self._turns.share(cycle.run_asgi(app), partial(self._who_sent, cycle))
        cycle.task = self._loop.create_task(work)
        cycle.tasks.add(cycle.task)  # and it takes itself out: a callback costs more

    def _who_sent(self, cycle: RequestCycle) -> Hashable:
        """The partner, or one for all with strange keys, and another for all without a key."""
        for name, value in cycle.scope["headers"]:
            if name == b"x-api-key":
                return self._partner_of(value.decode("latin-1")) or "strange key"
        return "no key"
