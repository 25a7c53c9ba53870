"""The answer as it comes in: how much of it we take, at which pace, and what it is when unpacked.

Whoever answers may be anybody: a broken proxy, a stranger on the way. So an answer that has no end,
or takes for ever, or grows a thousandfold when it is unpacked, costs a bounded amount of memory and
time.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping

from tether.client.exchange import Answer

MOST_BYTES = 32 * 1024 * 1024  # several times the largest page of this API
MOST_OF_A_REFUSAL = 64 * 1024  # its status counts; of a login page we read no more
SLOWEST_BYTES_PER_S = 1024
_GZIP = 31  # zlib's name for that format
_PIECE = 64 * 1024


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers by their names in lower case; those that come several times, in one."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


class Unpacking:
    """Turns bytes off the wire into those of the body, in small pieces. Raises Damaged."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        coding = headers.get("content-encoding", "identity").strip().lower()
        self._unzip = None if coding == "identity" else zlib.decompressobj(_GZIP)
        self._known = coding in ("identity", "gzip", "x-gzip")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces that these bytes hold."""
        if not self._known:
            raise Damaged("it has a Content-Encoding that was not asked for")
        if self._unzip is None:
            yield data
            return
        full = True
        while data or full:
            try:
                piece = self._unzip.decompress(data, _PIECE)
            except zlib.error:
                raise Damaged("it is no gzip") from None
            data, full = self._unzip.unconsumed_tail, len(piece) == _PIECE
            if piece:
                yield piece

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing at its end."""
        return self._unzip is None or self._unzip.eof


class Damaged(Exception):
    """The body cannot be unpacked."""


class Receiving:
    """An answer whose body is still to come."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._headers = headers
        self._unpacking = Unpacking(headers)
        self._succeeded = 200 <= status < 300
        self._most = MOST_BYTES if self._succeeded else MOST_OF_A_REFUSAL
        self._pieces: list[bytes] = []
        self._packed = self._size = 0
        self._flaw: str | None = None

    def take(self, data: bytes) -> bool:
        """Takes more of the body; returns whether what follows is wanted."""
        self._packed += len(data)
        try:
            for piece in self._unpacking.feed(data):
                self._pieces.append(piece)
                self._size += len(piece)
                if self._size > self._most:
                    break
        except Damaged as error:
            self._flaw = str(error)
        if max(self._size, self._packed) > self._most:
            self._flaw = f"it is larger than {self._most:,} bytes"
        return self._flaw is None

    def answer(self) -> Answer:
        """The answer, once the body has ended or no more of it is wanted."""
        flaw = self._flaw
        if flaw is None and self._pieces and not self._unpacking.is_whole:
            flaw = "its gzip stream ends too early"
        body = b"" if flaw and self._succeeded else b"".join(self._pieces)
        return Answer(self._status, self._headers, body, flaw=flaw)
