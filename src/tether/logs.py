"""Logs: one JSON object a line on standard error, or coloured text when a person is watching."""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from typing import BinaryIO, TextIO, cast

import msgspec
import structlog


def configure(*, level: str, as_json: bool) -> None:
    """Sets up logging for this process; `level` is a name such as `info`."""
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[*common, *(_json() if as_json else _text())],
        logger_factory=(
            structlog.BytesLoggerFactory(cast(BinaryIO, _StandardError()))
            if as_json
            else structlog.PrintLoggerFactory(cast(TextIO, _StandardError()))
        ),
        cache_logger_on_first_use=True,
    )
    # The HTTP server and other libraries log the standard way: what matters is passed on.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_Forward()], force=True)


def _json() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(
            serializer=lambda event, **_: msgspec.json.encode(event, enc_hook=repr)
        ),
    ]


def _text() -> list[structlog.typing.Processor]:
    # Not the renderer's own traces: they show the variables of every frame, and keys among them.
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


class _StandardError:
    """Standard error, where what cannot be written (full disk, reader gone) fails no request.

    The lines of one turn of the event loop are written together: under load that saves most of
    what logging costs.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def write(self, text: str | bytes) -> int:
        line = text.encode(errors="backslashreplace") if isinstance(text, str) else text
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another thread, or before the loop runs or after it
            self._put(line)
        else:
            if not self._lines:
                loop.call_soon(self._put_waiting)
            self._lines.append(line)
        return len(text)

    def _put_waiting(self) -> None:
        lines, self._lines = self._lines, []
        self._put(b"".join(lines))

    def _put(self, lines: bytes) -> None:
        with suppress(OSError):
            os.write(sys.stderr.fileno(), lines)

    def flush(self) -> None:
        """Nothing waits here."""


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), exc_info=record.exc_info
        )
