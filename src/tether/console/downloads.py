"""Downloads of sessions in the formats of `tether export sessions`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
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
from tether.files.csv_dialect import csv_line
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
    """`…/sessions.csv` and `…/sessions.parquet`: the selected sessions, the newest first."""

    def __init__(self, store: Store, user_sessions: UserSessions) -> None:
        self._store = store
        self._user_sessions = user_sessions
        self._page_turns = Turns(4, per_partner=1)
        self._parquet_turns = Turns(2, per_partner=1)  # each has a temporary file

    async def on_get(self, req: Request, resp: Response, form: str) -> None:
        if form not in TYPES:
            raise NotFound
        wanted, partner = session_query(query_of(req)).filter, partner_of(req).id
        if form == "csv":
            resp.stream = self._user_sessions.while_signed_in(req, self._csv(partner, wanted))
        else:
            async with self._parquet_turns.of(partner):
                resp.stream = _chunks(await self._parquet(req, partner, wanted))
        resp.content_type = TYPES[form]
        resp.downloadable_as = f"sessions.{form}"

    async def _csv(self, partner: int, wanted: SessionFilter) -> AsyncGenerator[bytes]:
        yield csv_line(csv_columns(Session)).encode()
        async with aclosing(self._pages(partner, wanted)) as pages:
            async for page in pages:
                yield "".join(await map_in_steps(to_csv, page)).encode()

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
            if stop is None and len(found) < PAGE:
                return
            after = stop or (found[-1].record.start_ms, found[-1].id)


async def _chunks(file: BinaryIO) -> AsyncGenerator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
