"""Helpers of the tests of the HTTP API."""

import json
import re
import select
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tether.domain.errors import Code
from tether.http.handlers.public import openapi_text
from tether.server.status_codes import STATUS

# For rules that are checked before the database is used: one engine is enough.
ON_ONE_ENGINE = pytest.mark.parametrize("server", ["sqlite"], indirect=True)

CHARGER = {"chargePowers": [11, 22]}
VEHICLE = {"chargeCapacity": 74.8, "chargePowers": [11]}
CONNECTED = {
    "type": "VEHICLE_CONNECTED",
    "chargerId": "C1",
    "vehicleId": "V1",
    "timestamp": "2023-05-11T22:06:40.738Z",
}
ID_RULE = (
    "It must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ * + @ : - and neither . nor .. alone."
)


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, read by the loader in C, because the other one takes a second."""
    document: dict[str, Any] = yaml.load(openapi_text(), yaml.CSafeLoader)
    return document


def create_charger(client: httpx.Client, charger_id: str = "C1") -> None:
    """Creates a charger."""
    assert client.put(f"/chargers/{charger_id}", json=CHARGER).status_code == 201


def create_vehicle(client: httpx.Client, vehicle_id: str = "V1") -> None:
    """Creates a vehicle."""
    assert client.put(f"/vehicles/{vehicle_id}", json=VEHICLE).status_code == 201


def create_both(client: httpx.Client) -> None:
    """Creates charger C1 and vehicle V1."""
    create_charger(client)
    create_vehicle(client)


def create_event(client: httpx.Client, **members: object) -> str:
    """Posts a VEHICLE_CONNECTED of V1 at C1 with these additional members; returns its id."""
    answer = client.post("/events", json={**CONNECTED, **members})
    assert answer.status_code == 201, answer.text
    event_id: str = answer.json()["id"]
    return event_id


def ndjson(items: list[Any]) -> bytes:
    """One object a line."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def message(answer: httpx.Response) -> str:
    """The message of an error, which must be the only member; the code must be in the list."""
    assert answer.headers["content-type"] == "application/json"
    assert STATUS[error(answer).code] == answer.status_code
    body = answer.json()
    assert list(body) == ["message"]
    text: str = body["message"]
    return text


def refused_parameter(answer: httpx.Response) -> str:
    """The name in `Parameter {name} is invalid. …`, the message that a 400 must have."""
    assert answer.status_code == 400, answer.text
    text = message(answer)
    name, _, hint = text.removeprefix("Parameter {").partition("} is invalid. ")
    assert text.startswith("Parameter {"), text
    assert hint.endswith("."), text
    assert error(answer).parameter == name
    return name


class Error(NamedTuple):
    """The content of a `Tether-Error`."""

    code: Code
    parameter: str | None


def error(answer: httpx.Response) -> Error:
    """The `Tether-Error` of an answer, which must be a structured field (RFC 9651)."""
    field = answer.headers["tether-error"]
    match = re.fullmatch(r'([a-z-]+)(?:; parameter="((?:[ !#-\[\]-~]|\\["\\])*)")?', field)
    assert match, field
    parameter = match[2] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
    return Error(Code(match[1]), parameter)


class Raw(NamedTuple):
    """An answer as it came over the wire; `head` has the names in lower case."""

    status: int
    head: dict[str, str]
    body: bytes


class Wire:
    """A connection on which a test writes its own bytes."""

    def __init__(self, url: str, key: str = "", timeout: float = 20) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._socket = socket.create_connection((address.hostname, address.port), timeout=timeout)
        self._file = self._socket.makefile("rb")
        self.key = key

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Writes these bytes."""
        self._socket.sendall(data)

    def finish(self) -> None:
        """Says that nothing more will be written."""
        self._socket.shutdown(socket.SHUT_WR)

    def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> bytes:
        """The bytes of a request with the key; header names have `_` for `-`."""
        lines = [f"{method} {target} HTTP/1.1", "host: test", f"x-api-key: {self.key}"]
        if body is not None and "transfer_encoding" not in headers:
            lines.append(f"content-length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")

    def answer(self, method: str = "GET") -> Raw:
        """Reads the next answer."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        head = {}
        while (header := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            head[name.lower()] = value.strip()
        status = int(line.split()[1])
        length = 0 if method == "HEAD" or status in (100, 304) else int(head["content-length"])
        return Raw(status, head, self._file.read(length))

    def until(self, end: bytes) -> bytes:
        """Reads from an endless answer up to and including these bytes."""
        read = b""
        while not read.endswith(end):
            one = self._file.read(1)
            assert one, read
            read += one
        return read

    def has_answer(self, seconds: float) -> bool:
        """Whether something to read arrives within this time."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def is_closed(self) -> bool:
        """Whether the server closes the connection without another byte."""
        return self.rest() == b""

    def rest(self) -> bytes:
        """What is still sent until the server closes the connection."""
        try:
            return self._file.read()
        except ConnectionResetError:
            return b""


def without_volatile(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without those that differ between requests."""
    volatile = ("date", "x-request-id", "ratelimit")
    return {name: value for name, value in headers.items() if name.lower() not in volatile}
