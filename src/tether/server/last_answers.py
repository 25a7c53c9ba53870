"""What is answered outside the application: each is the last answer of its connection."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tether.domain.errors import Code
from tether.domain.models import to_json

STATUS = {
    Code.REQUEST_MALFORMED: 400,
    Code.REQUEST_TIMEOUT: 408,
    Code.HEAD_TOO_LARGE: 431,
    Code.INTERNAL_ERROR: 500,
    Code.UNAVAILABLE: 503,
}


def whole_answer(code: Code, message: str, request_id: str) -> bytes:
    """The bytes of such an answer."""
    status, body = STATUS[code], to_json({"message": message})
    again = "retry-after: 1\r\n" if status == 503 else ""
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\ntether-error: {code}\r\n{again}connection: close\r\n\r\n"
    )
    return STATUS_LINE[status] + head.encode() + body
