"""HTTP/1.1 on the wire: Uvicorn's protocol with the limits that it lacks.

Uvicorn waits for ever for a head or a body that does not come, and lets a head grow without end. A
request has 30 s to arrive whole; what is not HTTP is answered in the form of all our errors.
"""

from asyncio import TimerHandle
from secrets import token_hex
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tether.model import to_json

REQUEST_TIMEOUT_S = 30.0
MAX_HEAD_BYTES = 64 * 1024


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. A timer runs only while a request has begun to arrive and is not whole."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: TimerHandle | None = None
        self._arriving = False
        self._in_body = False
        self._head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._arriving and not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "Request Header Fields Too Large")
        if self._timer is None and (self._arriving or self._is_idle()):
            self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving, self._in_body, self._head_bytes = True, False, 0

    def on_headers_complete(self) -> None:
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._arriving = False
        self._stop_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(REQUEST_TIMEOUT_S, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._in_body and self.cycle.response_started:  # refused before its body came
            self.transport.close()
        else:
            self._refuse(408, "Request Timeout")

    def _refuse(self, status: int, message: str) -> None:
        """Answers outside the application, which has not seen a whole request, and hangs up."""
        if self.transport.is_closing():
            return
        body = to_json({"message": message})
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {token_hex(8)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()
