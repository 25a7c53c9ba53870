"""Asks a server, usually on this machine, for its health."""

from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple


class Response(NamedTuple):
    """A response. `is_ours`: a Tether server sent it."""

    status: int
    is_ours: bool
    body: str


def get(host: str, port: int, path: str, timeout_s: float, max_bytes: int = 0) -> Response | None:
    """The response with at most `max_bytes` of its body; None if the server does not respond."""
    try:
        with closing(HTTPConnection(connect_host(host), port, timeout=timeout_s)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            is_ours = answer.getheader("X-Request-Id") is not None
            return Response(answer.status, is_ours, answer.read(max_bytes).decode(errors="replace"))
    except (OSError, HTTPException, UnicodeError):  # also for a host that is no name, such as ..
        return None


def is_healthy(host: str, port: int, timeout_s: float) -> bool:
    """Whether a Tether server answers at this address."""
    answer = get(host, port, "/health", timeout_s)
    return answer is not None and answer.status == 200 and answer.is_ours


def is_ready(host: str, port: int, timeout_s: float) -> bool:
    """Whether that server is ready for requests."""
    answer = get(host, port, "/ready", timeout_s)
    return answer is not None and answer.status == 200


def connect_host(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - all addresses
