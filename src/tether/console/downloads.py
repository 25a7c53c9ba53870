"""Downloads of sessions in the formats of `tether export sessions`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from tempfile import TemporaryFile
from typing import BinaryIO

from falcon.asgi import Request, Response

from tether.console.request import partner_of, query_of
from tether.console.sessions import session_query
from tether.console.user_sessions import UserSessions
from tether.domain.errors import NotFound
from tether.domain.filters import SessionFilter
from tether.domain.session_views import session_of
from tether.domain.views import Session
from tether.files.csv_dialect import API_DIALECT, BYTE_ORDER_MARK, CsvDialect, csv_line
from tether.files.csv_table import to_csv
from tether.files.parquet import ParquetFile
from tether.files.table import csv_columns
from tether.server.store import Store
from tether.storage.sessions import SessionPosition
from tether.storage.turns import Turns, map_in_steps

MAX_SESSIONS = 200_000
PAGE = 1_000
CHUNK_BYTES = 64 * 1024
TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


class SessionsFile:
    """`…/sessions.csv` and `…/sessions.parquet`: the selected sessions, the newest first.

    With `decimals=comma` the CSV is for the spreadsheets of countries with decimal commas.
    """

    def __init__(self, store: Store, user_sessions: UserSessions) -> None:
        self._store = store
        self._user_sessions = user_sessions
        self._page_turns = Turns(4, per_partner=1)
        self._parquet_turns = Turns(2, per_partner=1)  # each has a temporary file

    async def on_get(self, req: Request, resp: Response, form: str) -> None:
        if form not in TYPES:
            raise NotFound
        fields = query_of(req)
        query, partner = session_query(fields), partner_of(req).id
        wanted = query.filter
        if form == "csv":
            has_commas = fields.get("decimals") == "comma"
            dialect = CsvDialect(";", True, query.time_zone) if has_commas else API_DIALECT
            rows = self._csv(partner, wanted, dialect)
            resp.stream = self._user_sessions.while_signed_in(req, rows)
        else:
            async with self._parquet_turns.of(partner):
                resp.stream = _chunks(await self._parquet(req, partner, wanted))
        resp.content_type = TYPES[form]
        resp.downloadable_as = f"sessions.{form}"

    async def _csv(
        self, partner: int, wanted: SessionFilter, dialect: CsvDialect
    ) -> AsyncGenerator[bytes]:
        # Without the mark Excel does not take a file with decimal commas for UTF-8.
        mark = BYTE_ORDER_MARK if dialect.decimal_comma else ""
        yield (mark + csv_line(csv_columns(Session), dialect)).encode()
        to_row = partial(to_csv, dialect=dialect)
        async with aclosing(self._pages(partner, wanted)) as pages:
            async for page in pages:
                yield "".join(await map_in_steps(to_row, page)).encode()

    async def _parquet(self, req: Request, partner: int, wanted: SessionFilter) -> BinaryIO:
        """The whole file, because a Parquet file cannot be sent in parts. Raises SetupError."""
        target = TemporaryFile()  # noqa: SIM115  # _chunks closes it
        try:
            file = await asyncio.to_thread(ParquetFile, Session, target)
            pages = self._user_sessions.while_signed_in(req, self._pages(partner, wanted))
            try:
                async with aclosing(pages):
                    async for page in pages:
                        await asyncio.to_thread(file.write, page)
            finally:
                await asyncio.to_thread(file.close)
            target.seek(0)
        except BaseException:
            target.close()
            raise
        return target

    async def _pages(self, partner: int, wanted: SessionFilter) -> AsyncGenerator[list[Session]]:
        after: SessionPosition | None = None
        for _ in range(MAX_SESSIONS // PAGE):
            async with self._page_turns.of(partner):
                found, stop = await self._store.sessions.page(
                    partner, wanted, after, PAGE, descending=True
                )
                page = await map_in_steps(session_of, found)
            yield page
            if stop is None:
                return
            after = stop


async def _chunks(file: BinaryIO) -> AsyncGenerator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
