"""Reads lines from a file or standard input, gzip or not, within bounded memory.

Rows of Parquet come as lines of NDJSON.
"""

import codecs
import gzip
import sys
import zlib
from collections.abc import Iterator
from io import BufferedIOBase, TextIOWrapper
from pathlib import Path

from tether.domain.errors import SetupError
from tether.files import parquet
from tether.files.table import MAX_LINE_BYTES

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # of Excel's "Unicode Text"
_CHUNK = 1 << 16


class Damaged(SetupError):
    """The file is cut off or damaged."""


class LineReader:
    """Reads bytes line by line. Of a line that is too long it skips the rest.

    `size` is the size of the file in bytes, 0 if it is not known; `number` counts the lines.
    Raises Damaged if the gzip stream is broken.
    """

    def __init__(self, path: str, encoding: str) -> None:
        """`encoding` is the encoding of the file. The lines are UTF-8."""
        self.name = "Standard input" if path == STANDARD_INPUT else path
        self.number = 0
        if path == STANDARD_INPUT:
            # Not sys.stdin.buffer: Python cannot exit while a thread reads from it.
            self.size, self._raw = 0, open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
        else:
            self.size = Path(path).stat().st_size
            self._raw = Path(path).open("rb")  # noqa: SIM115 - closed in __exit__
        self._rows: Iterator[bytes] | None = None
        if self._raw.peek(4)[:4] == parquet.MARK:
            if path == STANDARD_INPUT:
                raise SetupError("Parquet is read from its end: name the file.")
            self.size, self._rows = 0, parquet.read_lines(Path(path))
        is_gzip = self._raw.peek(2)[:2] == _GZIP
        self._lines: BufferedIOBase = gzip.GzipFile(fileobj=self._raw) if is_gzip else self._raw
        self._text: TextIOWrapper | None = None
        codec = codecs.lookup(encoding).name
        if codec == "utf-8" and self._raw.peek(2)[:2] in _UTF_16_MARKS:
            codec = "utf-16"
        if codec != "utf-8":
            self._text = TextIOWrapper(self._lines, codec, newline="\n")

    def __enter__(self) -> "LineReader":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:  # after an error a thread may still read, and closing would wait for it
            self._raw.close()

    @property
    def position(self) -> int:
        """The number of bytes that are read."""
        return self._raw.tell() if self.size else 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._rows or self._read_lines():
            self.number += 1
            yield line

    def _read_lines(self) -> Iterator[bytes]:
        while line := self._read(MAX_LINE_BYTES + 1):
            yield line
            if len(line) > MAX_LINE_BYTES:
                while not line.endswith(b"\n"):
                    line = self._read(_CHUNK) or b"\n"

    def _read(self, most: int) -> bytes:
        try:
            if self._text is not None:
                return self._text.readline(most).encode()
            return self._lines.readline(most)
        except UnicodeError as error:
            raise Damaged(
                f"{self.name} is not in the encoding that you name, after line {self.number:,} "
                f"({error})."
            ) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Damaged(
                f"{self.name} ends in the middle of its gzip stream, or is damaged, "
                f"after line {self.number:,} ({error})."
            ) from None
