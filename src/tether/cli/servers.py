"""What a server says that may run on this machine, or near it."""

from http.client import HTTPConnection, HTTPException
from typing import NamedTuple


class Response(NamedTuple):
    """An answer; `is_ours` says whether a Tether server gave it."""

    status: int
    is_ours: bool
    body: str


def get(host: str, port: int, path: str, timeout_s: float, most_bytes: int = 0) -> Response | None:
    """What is answered there, with so much of the body; None if nobody does."""
    connection = HTTPConnection(reachable(host), port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        is_ours = answer.getheader("X-Request-Id") is not None
        return Response(answer.status, is_ours, answer.read(most_bytes).decode(errors="replace"))
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def is_healthy(host: str, port: int, timeout_s: float) -> bool:
    """Whether a Tether server answers there."""
    answer = get(host, port, "/health", timeout_s)
    return answer is not None and answer.status == 200 and answer.is_ours


def is_ready(host: str, port: int, timeout_s: float) -> bool:
    """Whether that server takes requests."""
    answer = get(host, port, "/ready", timeout_s)
    return answer is not None and answer.status == 200


def reachable(host: str) -> str:
    """Where a server that listens there is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - all addresses
