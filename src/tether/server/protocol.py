"""HTTP/1.1 on the wire: Uvicorn's protocol and request, with the limits that they lack.

Uvicorn waits for ever for a head or a body that does not come, and for a client that does not read
its answer. It does not limit the size of a head. Here a request has 30 s to arrive completely, and
input that is not HTTP gets an error in our usual form. A request to upgrade to another protocol is
ignored, as RFC 9110 allows; Uvicorn's parser would lose the body of such a request.

Uvicorn writes the head and the body of an answer separately, and matches two regular expressions
for each header. Here an answer of known length is one write.
"""

import asyncio
import logging
import re
from asyncio import TimerHandle
from collections.abc import Callable, Hashable
from secrets import token_hex
from time import thread_time
from types import SimpleNamespace
from typing import Any, cast

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from tether.domain.errors import Abandoned, Code
from tether.domain.keys import Key
from tether.server.connections import BodyTurns, Bounds, error_response
from tether.server.logging import is_new
from tether.server.status_codes import STATUS
from tether.storage.turns import LoopTurns, abandon

log = structlog.get_logger()

REQUEST_TIMEOUT_S = 30.0  # for a request to arrive completely
READER_TIMEOUT_S = 60.0  # for a client to read at least a part of its answer
STOP_TIMEOUT_S = 5.0  # in place of both while the server stops
LINGER_S = 0.5  # for a request that was on its way when the server began to stop
LAST_READ_S = 5.0  # for a client to read why its request was refused
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200  # or a few more if they arrive at once
SMALL_BYTES = 8 * 1024  # smaller incomplete requests do not count for the bounds
LARGE_BYTES = 128 * 1024  # counted for each other request; larger bodies have bounds of their own
WRITE_BUFFER_BYTES = 32 * 1024  # of a connection: with more in it, the next piece waits
MAX_WAITING = 16  # pipelined requests of a connection
SLICE_BYTES = 1024  # read at once, unless they are part of a body: some fifty short requests
REQUEST_BYTES = 3000  # memory of a waiting request, about
MAX_REFUSED = 64  # connections beyond the bound that get an answer; others are closed
MAX_FRAMING_BYTES = 8 * 1024 * 1024  # of a body's chunk sizes and trailers; not the body itself
PIECE_BYTES = 64 * 1024  # of a longer body, that are read at once, or sent at once

_UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")
_READS = ("GET", "HEAD")
_log = logging.getLogger("uvicorn.error")
_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")  # before an absolute path
# A header with one of these in its value could begin another header, or the body.
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection.

    A timer runs while a request arrives. Another one runs after the first answer. At its end it
    checks the time of the last answer, because starting it for each answer would cost more.
    """

    cycle: "RequestCycle"

    def __init__(
        self,
        *arguments: Any,
        bounds: Bounds,
        turns: LoopTurns,
        body_turns: BodyTurns,
        cached_key: Callable[[str], Key | None],
        **options: Any,
    ) -> None:
        """The requests of partners take `turns`. `cached_key` finds a key that was used lately."""
        super().__init__(*arguments, **options)
        self.bounds = bounds
        self._turns = turns
        self._body_turns = body_turns
        self._waits_to_read = False  # it is not its turn
        self._cached_key = cached_key
        self._timer: TimerHandle | None = None
        self._unread_timer: TimerHandle | None = None
        self._arriving = False  # a request has begun, and is not complete
        self._parse_error = "Invalid HTTP request received."  # the message
        self._in_body = False  # the head of the arriving request is complete
        self._began_in_data = False  # the arriving request began in the current data
        self._body_bytes = 0  # of its body, in the current data
        self._body_left = 0  # by the Content-Length
        self._unparsed = b""  # received while too many requests wait, or it waits to read on
        self._overhead_bytes = 0  # of the arriving request, in its head or around its body
        self._arrived_bytes = 0  # of the arriving request
        self._framing_bytes = 0  # around its body since the last chunk began
        self._stopping = False
        self._ignores_input = False  # after the last answer
        self._answering: RequestCycle | None = None  # the first request of the pipeline
        self._answered_at = 0.0  # by the loop's clock

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        # What requests use of the transport. Its `close` lets the client read the answer first.
        self.request_transport = SimpleNamespace(
            write=transport.write,
            abort=transport.abort,
            is_closing=transport.is_closing,
            close=self._close_gracefully,
        )
        beyond = len(self.connections) - self.bounds.connections
        if beyond > 0:
            self._refuse_connection(answer=beyond <= MAX_REFUSED)
        else:
            self._start_timer()

    def _refuse_connection(self, *, answer: bool) -> None:
        self.bounds.refused("connections")
        if answer:
            self._arriving = True  # probably
            self._refuse(Code.UNAVAILABLE, "Service Unavailable")
        else:
            self._ignores_input = True
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_unread_timer()
        self._unparsed, self._waits_to_read = b"", False
        for holder in (self, self.transport, self.flow):
            self.bounds.release(holder)
        self._unset_keepalive_if_required()
        if self._answering is not None:  # Uvicorn notifies only the last request of a pipeline
            self._answering.abandon()
        super().connection_lost(exc)
        # Breaks cycles of references. Otherwise the 10 kB of this connection would stay until the
        # garbage collector has searched everything, which is seldom.
        self.request_transport.close = self.transport.close
        self.pipeline.clear()
        self._arriving, self._answering = False, None
        self.cycle = None  # type: ignore[assignment]  # as before the first

    # What arrives ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parses the bytes in slices, unless too many requests wait. Long bodies take turns."""
        if self._waits_to_read:  # but the request has just resumed reading
            self._unparsed += data
            self.transport.pause_reading()
            return
        if self._unparsed:
            data, self._unparsed = self._unparsed + data, b""
        start, began = 0, thread_time() if len(data) > SLICE_BYTES else 0.0
        while start < len(data) and not self._ignores_input and not self.transport.is_closing():
            if len(self.pipeline) >= MAX_WAITING or (start >= PIECE_BYTES and self._body_arrives()):
                self._unparsed = data[start:]
                break
            end = start + max(SLICE_BYTES, self._body_left)
            self._receive(data[start:end])
            start = end
        if self.pipeline:
            self.flow.pause_reading()
            waiting = sum(REQUEST_BYTES + len(cycle.body) for cycle, _ in self.pipeline)
            self.bounds.hold(self, waiting + len(self._unparsed), self.transport.abort)
        if self._arriving and self._arrived_bytes > SMALL_BYTES:
            self.bounds.hold(self.flow, LARGE_BYTES, self._refuse_arriving, reason="arriving")
        if began and self._body_arrives() and not self.transport.is_closing():
            self._waits_to_read = True
            self.transport.pause_reading()
            partner = self._partner_of(self.cycle)
            self._body_turns.wait(partner, self._read_on, thread_time() - began)

    def _body_arrives(self) -> bool:
        return self._arriving and self._in_body

    def _read_on(self) -> None:
        """It is the turn of this body."""
        self._waits_to_read = False
        if self._unparsed:
            self.data_received(b"")
        if not (self._waits_to_read or self.flow.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def _refuse_arriving(self) -> None:
        """Refuses the incomplete request, so that others can go on arriving."""
        if self._in_body or self._is_idle():
            self._refuse(Code.UNAVAILABLE, "Service Unavailable")
            self.headers, self.url = [], b""
        else:  # the client would take this refusal for the answer to its previous request
            self.transport.abort()

    def _receive(self, data: bytes) -> None:
        self._body_bytes = 0
        self._arrived_bytes += len(data)
        self._feed(data)
        if self._arriving:
            self._count_overhead(len(data) - self._body_bytes)
        if self._timer is None and (self._arriving or self._is_idle()):
            self._start_timer()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(Code.REQUEST_MALFORMED, self._parse_error)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parses the request again without its Upgrade headers; `rest` follows its head."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(Code.REQUEST_MALFORMED, "Invalid HTTP request received.")
            return
        lines = [b"%s %s HTTP/1.1" % (method, self.url)]
        lines += [b"%s: %s" % line for line in self.headers if line[0] not in _UPGRADE_HEADERS]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([*lines, b"", rest]))

    def _count_overhead(self, count: int) -> None:
        if self._began_in_data:  # some of these few bytes may be of the request before
            self._began_in_data = False
            return
        self._overhead_bytes += count
        if not self._in_body and (
            self._overhead_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS
        ):
            self._refuse(Code.HEAD_TOO_LARGE, "Request Header Fields Too Large")
        elif self._in_body:
            self._framing_bytes += count
            # The parser copies an incomplete line with each slice: a long one took seconds.
            if self._framing_bytes > MAX_HEAD_BYTES or self._overhead_bytes > MAX_FRAMING_BYTES:
                self._close()

    def on_chunk_header(self) -> None:
        self._framing_bytes = 0

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._arriving, self._in_body, self._began_in_data = True, False, True
        self._overhead_bytes = self._arrived_bytes = self._framing_bytes = self._body_left = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:  # trailers are ignored: there may be millions
            return
        name, value = name.lower(), value.rstrip(b" \t")  # the parser keeps blanks
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"content-length":
            self._body_left = int(value) if value.isdigit() else 0
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        if parser.should_upgrade():
            return
        version = parser.get_http_version()
        hosts = [name for name, _ in self.headers].count(b"host")
        # With two, a proxy might use the one and we the other (RFC 9112, 3.2).
        if hosts > 1 or (not hosts and version >= "1.1"):
            self._parse_error = "A request must have one Host header, and not two."
            raise ValueError  # stops the parser
        self._in_body, self._overhead_bytes, self._framing_bytes = True, 0, 0
        # A client of HTTP/1.0 knows neither keep-alive nor chunks (RFC 9112, 6.1, 9.3).
        is_1_1 = version >= "1.1"
        keep_alive = is_1_1 and parser.should_keep_alive() and not self._stopping
        previous = self.cycle
        method = parser.get_method()
        self.cycle = RequestCycle(self, method, keep_alive=keep_alive, knows_chunks=is_1_1)
        if previous is None or previous.response_complete:
            self._begin(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _begin(self, cycle: "RequestCycle", app: Any) -> None:
        """Gives the request to the application when it is its turn."""
        self._answering = cycle
        self._turns.start(self._partner_of(cycle), cycle.run_asgi(app))

    def _partner_of(self, cycle: "RequestCycle") -> Hashable:
        """The partner, or one name for all unknown keys and one for requests without a key."""
        for name, value in cycle.scope["headers"]:
            if name == b"x-api-key":
                key = self._cached_key(value.decode("latin-1"))
                return key.partner if key else "unknown key"
        return "no key"

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._body_left -= len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._arriving = False
        self._stop_timer()
        if self._arrived_bytes > SMALL_BYTES:
            self.bounds.release(self.flow)
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # The end of a connection ----------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server stops. Requests that are arriving or on their way are still answered."""
        self._stopping = True
        if self._timer is not None and not self._ignores_input:
            self._stop_timer()
            self._start_timer()
        if self._unread_timer is not None:
            self._stop_unread_timer()
            self._watch_unread()
        if self._is_idle():
            self.loop.call_later(LINGER_S, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._watch_unread()
            return
        if self._waits_to_read or not self._unparsed:
            self.flow.resume_reading()
        if self.pipeline:
            self._begin(*cast(tuple[RequestCycle, Any], self.pipeline.pop()))
            if not self.pipeline:
                self.bounds.release(self)
            if self._unparsed:
                self.loop.call_soon(self.data_received, b"")
        else:
            self._answered_at = self.loop.time()
            if self.timeout_keep_alive_task is None:
                self._start_keep_alive(self.timeout_keep_alive)

    def _start_keep_alive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        remaining_s = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if self._arriving or not self._is_idle():
            return  # the next answer starts it again
        if remaining_s > 0:
            self._start_keep_alive(remaining_s)
        else:
            self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        unread = self.transport.get_write_buffer_size()
        self.bounds.hold(self.transport, unread, self.transport.abort)
        self._watch_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.bounds.release(self.transport)
        if not self.transport.is_closing():  # the client has read everything
            self._stop_unread_timer()

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self._close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        seconds = STOP_TIMEOUT_S if self._stopping else REQUEST_TIMEOUT_S
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        self._refuse(Code.REQUEST_TIMEOUT, "Request Timeout")

    def _refuse(self, code: Code, message: str) -> None:
        """Answers an incomplete request without the application, and closes the connection. An
        answer that has begun, and those to earlier requests, stay the only ones.
        """
        if self.transport.is_closing():
            return
        in_body = self._body_arrives()
        if in_body and self.pipeline:  # it is the last of them, and has not begun
            self.pipeline.popleft()
            previous = self.pipeline[0][0] if self.pipeline else self._answering
            self.cycle, in_body, self._in_body = cast(RequestCycle, previous), False, False
        if in_body:
            self.cycle.end_body()
        elif not self._is_idle():
            self.flow.pause_reading()
            self.cycle.keep_alive = False
            return
        if not (in_body and self.cycle.response_started):
            request_id = token_hex(8)
            client = self.client[0] if self.client else None
            if is_new("refused", code, client=client):
                what = {"status": STATUS[code], "reason": code, "message": message}
                log.info("refused", request_id=request_id, client=client, **what)
            self.transport.write(error_response(code, message, request_id))
        self._close_gracefully()

    def _close_gracefully(self) -> None:
        """Closes the connection when the client has had time to read its last answer.

        If it is closed while parts of the request arrive, the client may lose the answer.
        """
        if not self._arriving or self.pipeline:
            self._close()
        elif not self._ignores_input:
            self._ignores_input = True
            self._stop_timer()
            self.transport.write_eof()
            self._timer = self.loop.call_later(LAST_READ_S, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._watch_unread()

    def _watch_unread(self) -> None:
        """Closes the connection later if its client does not read its answer."""
        unread = self.transport.get_write_buffer_size()
        if unread and self._unread_timer is None:
            seconds = STOP_TIMEOUT_S if self._stopping else READER_TIMEOUT_S
            self._unread_timer = self.loop.call_later(seconds, self._check_unread, unread)

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _check_unread(self, unread: int) -> None:
        self._unread_timer = None
        still_unread = self.transport.get_write_buffer_size()
        if still_unread and still_unread >= unread:
            self.transport.abort()
        elif still_unread:
            self._watch_unread()


# A request and its answer -------------------------------------------------------------------------


class RequestCycle(RequestResponseCycle):
    """One request and its answer, as the ASGI application sees them."""

    task: "asyncio.Task[None] | None" = None

    def __init__(
        self, connection: Any, method: bytes, *, keep_alive: bool, knows_chunks: bool
    ) -> None:
        """`connection` is Uvicorn's, with our bounds and our transport."""
        super().__init__(
            scope=_scope_of(connection, method),
            transport=connection.request_transport,
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
        self._until_closed = False  # only the end of the connection ends the body
        self._head: bytes | None = None  # of an answer, until its body is known
        self.tasks = connection.tasks
        self._bounds = connection.bounds

    async def run_asgi(self, app: Any) -> None:
        self.task = asyncio.current_task()
        self.tasks.add(self.task)  # it removes itself: a callback costs more
        try:
            if self.flow.write_paused:  # answers must not pile up for a client that does not read
                await self.flow.drain()
            if self.disconnected and self.scope["method"] in _READS:  # before its turn
                self._bounds.refused("gone")
                return
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
            self.on_response = lambda: None  # breaks a cycle of connection and request
            self.tasks.discard(self.task)
            self.task = None  # breaks a cycle of the task and this request

    def end_body(self) -> None:
        """The rest of the body will not come, and nothing more is sent."""
        self.disconnected, self.waiting_for_100_continue = True, False
        self.body.clear()
        self.message_event.set()

    def abandon(self) -> None:
        """The client has disconnected. Reads end at their next portion. Writes go on."""
        self.end_body()
        if self.task is not None and self.scope["method"] in _READS and not self.response_started:
            abandon(self.task)

    async def send_500_response(self) -> None:
        self.response_started = True
        self.transport.write(
            error_response(Code.INTERNAL_ERROR, "Internal Server Error", token_hex(8))
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
        has_no_length = (
            length is None and status not in (204, 304) and self.scope["method"] != "HEAD"
        )
        self.chunked_encoding = has_no_length and self._knows_chunks
        self._until_closed = has_no_length and not self._knows_chunks
        self.expected_content_length = length or 0
        if self.chunked_encoding:
            head += b"transfer-encoding: chunked\r\n"
        self._head = head + b"\r\n"
        if has_no_length:  # the body may come much later
            self._write_head()

    def _write_head(self) -> None:
        if self._head is not None:
            self.transport.write(self._head)
            self._head = None

    def _finish(self, body: bytes) -> None:
        """Sends the head, which has waited for the body, and the body in one write."""
        assert self._head is not None
        if self.scope["method"] == "HEAD":
            body = b""
        else:
            self._check_length(body)
        self.transport.write(self._head + body)
        self._head = None
        self._complete()

    async def _send_pieces(self, body: bytes) -> None:
        """Sends a long body in pieces, without copying it, as it may go to many clients at once."""
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


def _scope_of(connection: Any, method: bytes) -> Any:
    """The ASGI scope of the request whose head has arrived. Its path is as it was sent: `a%2Fb` is
    one segment, not two.

    The version of HTTP is always 1.1. The parser also accepts 0.9 and 2.0, but Falcon fails on
    versions that it does not know.
    """
    # A target has no fragment (RFC 9112, 3.2), so "#" is part of the path.
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
