"""Reads and decompresses answers within bounds of size and time.

A broken proxy or a stranger may answer instead of the server. An endless answer, a very slow one,
or one that decompresses to a thousand times its size must not take all memory or time.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping

from tether.client.exchange import Answer

MAX_BODY_BYTES = 32 * 1024 * 1024  # several times the largest page of this API
MAX_ERROR_BYTES = 64 * 1024  # only the status and the message matter
MIN_DOWNLOAD_BYTES_PER_S = 1024
_GZIP = 31  # the code of zlib for this format
_PIECE_BYTES = 64 * 1024


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers by their names in lower case. Repeated headers are joined."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


class Decompressor:
    """Decompresses a body in small pieces."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        coding = headers.get("content-encoding", "identity").strip().lower()
        self._unzip = None if coding == "identity" else zlib.decompressobj(_GZIP)
        self._known = coding in ("identity", "gzip", "x-gzip")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces of the body in these bytes. Raises DecompressionError."""
        if not self._known:
            raise DecompressionError("it has a Content-Encoding that was not asked for")
        if self._unzip is None:
            yield data
            return
        full = True
        while data or full:
            try:
                piece = self._unzip.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise DecompressionError("it is no gzip") from None
            data, full = self._unzip.unconsumed_tail, len(piece) == _PIECE_BYTES
            if piece:
                yield piece

    @property
    def is_complete(self) -> bool:
        """Whether the body is complete."""
        return self._unzip is None or self._unzip.eof


class DecompressionError(Exception):
    """The body cannot be decompressed."""


class AnswerReader:
    """Reads the body of an answer."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._headers = headers
        self._decompressor = Decompressor(headers)
        self._succeeded = 200 <= status < 300
        self._max_bytes = MAX_BODY_BYTES if self._succeeded else MAX_ERROR_BYTES
        self._pieces: list[bytes] = []
        self._received = self._size = 0
        self._flaw: str | None = None

    def take(self, data: bytes) -> bool:
        """Takes more of the body. Returns whether to read on."""
        self._received += len(data)
        try:
            for piece in self._decompressor.feed(data):
                self._pieces.append(piece)
                self._size += len(piece)
                if self._size > self._max_bytes:
                    break
        except DecompressionError as error:
            self._flaw = str(error)
        if max(self._size, self._received) > self._max_bytes:
            self._flaw = f"it is larger than {self._max_bytes:,} bytes"
        return self._flaw is None

    def answer(self) -> Answer:
        """The answer, after the last `take`."""
        flaw = self._flaw
        if flaw is None and self._pieces and not self._decompressor.is_complete:
            flaw = "its gzip stream ends too early"
        body = b"" if flaw and self._succeeded else b"".join(self._pieces)
        return Answer(self._status, self._headers, body, flaw=flaw)
