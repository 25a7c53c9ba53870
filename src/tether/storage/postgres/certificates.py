"""When the certificates of a connection to PostgreSQL end: the server's, and ours."""

import re
import socket
import ssl
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from tether.storage.database import Certificate

PATIENCE_S = 3.0
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")  # the protocol's number
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0


def certificates(url: str) -> Iterator[Certificate]:
    """The certificates of the server, if it uses TLS, and in the files that the URL names."""
    parts: dict[str, Any] = conninfo_to_dict(url)
    for option in ("sslcert", "sslrootcert"):
        path = Path(str(parts.get(option) or ""))
        if path.is_file():
            for text in _PEM.findall(path.read_bytes()):
                yield Certificate(path.name, _end_ms(b64decode(text)))
    host, port = str(parts.get("host") or "localhost"), str(parts.get("port") or "5432")
    for name, number in zip(host.split(","), (port.split(",") * 99), strict=False):
        shown = _server_certificate(name, int(number))
        if shown is not None:
            yield Certificate(f"{name}:{number}", _end_ms(shown))


def _server_certificate(host: str, port: int) -> bytes | None:
    """The server's certificate, unverified; None if it cannot be reached or has no TLS."""
    if host.startswith("/"):  # the folder of a local socket
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), PATIENCE_S) as plain:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                return None
            with context.wrap_socket(plain, server_hostname=host) as secure:
                return secure.getpeercert(binary_form=True)
    except OSError:
        return None


def _end_ms(der: bytes) -> int:
    """The `notAfter` of a certificate (RFC 5280, 4.1): the second time in its validity."""
    _, certificate = _read(der)
    _, signed = _read(certificate)
    fields = list(_all(signed))
    if fields[0][0] == _VERSION:
        del fields[0]
    validity = fields[3][1]  # after serial number, algorithm and issuer
    kind, text = list(_all(validity))[1]
    assert kind in (_UTC_TIME, _GENERALIZED_TIME)
    digits = text.decode("ascii").rstrip("Z")
    if kind == _UTC_TIME:
        digits = ("19" if digits >= "50" else "20") + digits
    end = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return int(end.timestamp() * 1000)


def _read(der: bytes) -> tuple[int, bytes]:
    return next(_all(der))


def _all(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The tags and contents of consecutive values (X.690, distinguished encoding)."""
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        yield tag, der[start : start + length]
        der = der[start + length :]
