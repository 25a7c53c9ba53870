"""HTTP/1.1 on the wire: Uvicorn's protocol with the limits that it lacks.

Uvicorn waits for ever for a head or a body that does not come and for a client that does not take
its answer, and lets a head grow without end. Here a request has 30 s to arrive whole; what is not
HTTP is answered in the form of all our errors; a wish to speak another protocol is passed over, as
RFC 9110 allows, while Uvicorn's parser would lose the body of such a request.
"""

from asyncio import TimerHandle, Transport
from secrets import token_hex
from typing import Any, cast

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tether.domain.errors import Code
from tether.server.connection_bounds import Bounds
from tether.server.logging import is_new
from tether.server.request_cycle import (
    STATUS,
    RequestCycle,
    RequestScheduler,
    TransportOfExchange,
    has_one_host,
    whole_answer,
)

log = structlog.get_logger()

REQUEST_TIMEOUT_S = 30.0  # for a request to arrive whole
READER_TIMEOUT_S = 60.0  # for a client to take at least something of what it was sent
STOP_TIMEOUT_S = 5.0  # for either of them when the server is told to stop
LINGER_S = 0.5  # for a request that was on its way when the server was told to stop
FAREWELL_S = 5.0  # for a client to stop sending and read why it was refused
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200  # or a few more, of those that arrive at once
SMALL_BYTES = 8 * 1024  # of a request that is not whole: so much is not worth counting
LARGE_BYTES = 128 * 1024  # as so much the others count: more is kept elsewhere, and bounded there
WRITE_BUFFER_BYTES = 32 * 1024  # of a connection: with more in it the next piece has to wait
MOST_WAITING = 16  # requests of a connection that wait for the answer to the one before them
SLICE_BYTES = 1024  # so much is read at once, unless it is of a body: some fifty short requests
REQUEST_BYTES = 3000  # about what a request that waits takes
MOST_REFUSED = 64  # connections beyond the bound that are told so: the others are just closed
MAX_FRAMING_BYTES = 8 * 1024 * 1024  # of a body's chunk sizes and trailers; not the body itself

_UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection.

    One timer runs while a request has begun to arrive and is not whole, another from the first
    answer on: that one is not set anew for each answer, but looks at the time of the last when it
    is over, since timers cost more than looking at the clock.
    """

    cycle: RequestCycle

    def __init__(
        self, *arguments: Any, bounds: Bounds, scheduler: RequestScheduler, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.bounds = bounds
        self._scheduler = scheduler
        self._timer: TimerHandle | None = None
        self._reader_timer: TimerHandle | None = None
        self._arriving = False  # a request has begun and is not whole
        self._wrong = "Invalid HTTP request received."  # if it is
        self._in_body = False  # … and its head is whole
        self._began_now = False  # … and began in the bytes at hand
        self._bytes_of_body = 0  # among the bytes at hand
        self._body_left = 0  # as the head announced it
        self._unparsed = b""  # came, while enough requests wait already
        self._bytes_beside = 0  # of the request that arrives: in its head or around its body
        self._bytes_arrived = 0  # of it altogether
        self._bytes_framing = 0  # beside its body since the last chunk began
        self._stopping = False
        self._deaf = False  # the last answer is sent; what still comes is not looked at
        self._answering: RequestCycle | None = None  # of several in a pipeline, the first
        self._answered_at = 0.0  # by the loop's clock

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.transport_of_exchanges = cast(Transport, TransportOfExchange(transport, self._hang_up))
        beyond = len(self.connections) - self.bounds.connections
        if beyond > 0:
            self._turn_away(told=beyond <= MOST_REFUSED)
        else:
            self._start_timer()

    def _turn_away(self, *, told: bool) -> None:
        self.bounds.refused("connections")
        if told:
            self._arriving = True  # as far as one can know
            self._refuse(Code.UNAVAILABLE, "Service Unavailable")
        else:
            self._deaf = True
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_reader_timer()
        self._unparsed = b""
        for holding in (self, self.transport, self.flow):
            self.bounds.release(holding)
        self._unset_keepalive_if_required()
        if self._answering is not None:  # Uvicorn tells only the last of a pipeline
            self._answering.abandon()
        super().connection_lost(exc)
        # Forgets who knows this connection: else its 10 kB would stay until the collector of cycles
        # has looked at everything there is, which it does seldom.
        self.transport_of_exchanges.close = self.transport.close  # type: ignore[method-assign]
        self.pipeline.clear()
        self._arriving, self._answering = False, None
        self.cycle = None  # type: ignore[assignment]  # as before the first

    # What arrives ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Reads the bytes, in slices, as long as not too many requests wait."""
        if self._unparsed:
            data, self._unparsed = self._unparsed + data, b""
        start = 0
        while start < len(data) and not self._deaf and not self.transport.is_closing():
            if len(self.pipeline) >= MOST_WAITING:
                self._unparsed = data[start:]
                break
            end = start + max(SLICE_BYTES, self._body_left)
            self._receive(data[start:end])
            start = end
        if self.pipeline:
            self.flow.pause_reading()
            waiting = sum(REQUEST_BYTES + len(cycle.body) for cycle, _ in self.pipeline)
            self.bounds.hold(self, waiting + len(self._unparsed), self.transport.abort)
        if self._arriving and self._bytes_arrived > SMALL_BYTES:
            self.bounds.hold(self.flow, LARGE_BYTES, self._make_room, reason="arriving")

    def _make_room(self) -> None:
        """Refuses the request that is not whole, for others which go on arriving."""
        if self._in_body:
            self._refuse(Code.UNAVAILABLE, "Service Unavailable")
            self.cycle.disconnected = True
            self.cycle.body.clear()
            self.cycle.message_event.set()
        elif self._is_idle():
            self._refuse(Code.UNAVAILABLE, "Service Unavailable")
            self.headers, self.url = [], b""
        else:  # the answer to the one before would be taken for its own
            self.transport.abort()

    def _receive(self, data: bytes) -> None:
        self._bytes_of_body = 0
        self._bytes_arrived += len(data)
        self._feed(data)
        if self._arriving:
            self._count(len(data) - self._bytes_of_body)
        if self._timer is None and (self._arriving or self._is_idle()):
            self._start_timer()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay_with_http(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(Code.REQUEST_MALFORMED, self._wrong)

    def _stay_with_http(self, rest: bytes) -> None:
        """Reads the same request again without its wish to upgrade; `rest` follows its head."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(Code.REQUEST_MALFORMED, "Invalid HTTP request received.")
            return
        lines = [b"%s %s HTTP/1.1" % (method, self.url)]
        lines += [b"%s: %s" % line for line in self.headers if line[0] not in _UPGRADE_HEADERS]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([*lines, b"", rest]))

    def _count(self, beside: int) -> None:
        if self._began_now:  # how much of these bytes is its own is not known; they are not many
            self._began_now = False
            return
        self._bytes_beside += beside
        if not self._in_body and (
            self._bytes_beside > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS
        ):
            self._refuse(Code.HEAD_TOO_LARGE, "Request Header Fields Too Large")
        elif self._in_body:
            self._bytes_framing += beside
            # The parser copies what it has of a line with each slice: a long one took seconds.
            if self._bytes_framing > MAX_HEAD_BYTES or self._bytes_beside > MAX_FRAMING_BYTES:
                self._close()

    def on_chunk_header(self) -> None:
        self._bytes_framing = 0

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._arriving, self._in_body, self._began_now = True, False, True
        self._bytes_beside = self._bytes_arrived = self._bytes_framing = self._body_left = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:  # a trailer is of no use to us, and there may be millions
            return
        name, value = name.lower(), value.rstrip(b" \t")  # which the parser leaves there
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
        if not has_one_host(self.headers, version):
            self._wrong = "A request must have one Host header, and not two."
            raise ValueError  # which ends the parser's work
        self._in_body, self._bytes_beside, self._bytes_framing = True, 0, 0
        current = version >= "1.1"  # an older client knows neither of the two (RFC 9112, 6.1, 9.3)
        keep_alive = current and parser.should_keep_alive() and not self._stopping
        before = self.cycle
        method = parser.get_method()
        self.cycle = RequestCycle(self, method, keep_alive=keep_alive, knows_chunks=current)
        if before is None or before.response_complete:
            self._begin(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _begin(self, cycle: RequestCycle, app: Any) -> None:
        self._answering = cycle
        self._scheduler.begin(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._bytes_of_body += len(body)
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
        if self._bytes_arrived > SMALL_BYTES:
            self.bounds.release(self.flow)
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # The end of a connection ----------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server stops: what arrives is still answered, also what was on its way."""
        self._stopping = True
        if self._timer is not None:
            self._stop_timer()
            self._start_timer()
        if self._reader_timer is not None:
            self._stop_reader_timer()
            self._watch_reader()
        if self._is_idle():
            self.loop.call_later(LINGER_S, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._watch_reader()
            return
        if not self._unparsed:
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
                self._wait_for_another(self.timeout_keep_alive)

    def _wait_for_another(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if self._arriving or not self._is_idle():
            return  # the next answer starts it again
        if left > 0:
            self._wait_for_another(left)
        else:
            self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        unread = self.transport.get_write_buffer_size()
        self.bounds.hold(self.transport, unread, self.transport.abort)
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.bounds.release(self.transport)
        if not self.transport.is_closing():  # it took what there was: the next time counts anew
            self._stop_reader_timer()

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self._close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        seconds = STOP_TIMEOUT_S if self._stopping else REQUEST_TIMEOUT_S
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._in_body and self.cycle.response_started:  # refused before its body came
            self._close()
        else:
            self._refuse(Code.REQUEST_TIMEOUT, "Request Timeout")

    def _refuse(self, code: Code, message: str) -> None:
        """Answers outside the application, which has not seen a whole request, and hangs up."""
        if self.transport.is_closing():
            return
        if not self._is_idle() and not (self._arriving and self._in_body):
            # An earlier request is being answered, and its answer must not be taken for this one.
            self.flow.pause_reading()
            self.cycle.keep_alive = False
            return
        if not self.pipeline:
            request_id = token_hex(8)
            client = self.client[0] if self.client else None
            if is_new("refused", code, client=client):
                what = {"status": STATUS[code], "reason": code, "message": message}
                log.info("refused", request_id=request_id, client=client, **what)
            self.transport.write(whole_answer(code, message, request_id))
        self._hang_up()

    def _hang_up(self) -> None:
        """Closes the connection so that the client gets to read its last answer.

        To close it while something of the request is on its way would destroy the answer, too.
        """
        if not self._arriving or self.pipeline:
            self._close()
        elif not self._deaf:
            self._deaf = True
            self._stop_timer()
            self.transport.write_eof()
            self.loop.call_later(FAREWELL_S, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._watch_reader()

    def _watch_reader(self) -> None:
        """Else whoever never reads keeps the connection, and what it was sent, for ever."""
        unread = self.transport.get_write_buffer_size()
        if unread and self._reader_timer is None:
            seconds = STOP_TIMEOUT_S if self._stopping else READER_TIMEOUT_S
            self._reader_timer = self.loop.call_later(seconds, self._check_reader, unread)

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _check_reader(self, unread: int) -> None:
        self._reader_timer = None
        left = self.transport.get_write_buffer_size()
        if left and left >= unread:
            self.transport.abort()
        elif left:
            self._watch_reader()
