"""Visitors of the console in the tests: with a cookie over HTTP, or with a browser."""

import asyncio
from urllib.parse import urlsplit

import httpx

from tests.commands import tether_ok
from tests.conftest import Server
from tether.domain import timestamps
from tether.domain.keys import SESSION_MS, digest_of, new_token
from tether.server.store import open_store
from tether.storage.console_sessions import ConsoleSession

OURS = {"Sec-Fetch-Site": "same-origin"}  # as a browser sends with our forms


def cookie_name(server: Server) -> str:
    """The cookie's name for a browser on this machine, over plain HTTP."""
    return f"tether-console-{urlsplit(server.url).port}"


def new_session(server: Server, key: str | None, *, lasts_ms: int = SESSION_MS) -> str:
    """The token of a new session of this key, or of the operator."""
    token = new_token()

    async def add() -> None:
        async with open_store(server.database) as store:
            now_ms = timestamps.now_ms()
            found = await store.keys.find(digest_of(key)) if key else None
            assert found or key is None
            session = ConsoleSession(digest_of(token), now_ms + lasts_ms, found)
            await store.console_sessions.add(session, now_ms)

    asyncio.run(add())
    return token


def new_link(server: Server) -> str:
    """A link as `tether console` prints it."""
    return tether_ok("console", "--database", server.database, "--url", server.url).strip()


def visitor(server: Server, key: str | None = None, *, token: str | None = None) -> httpx.Client:
    """A visitor who is signed in with this key or as the operator, and can send our forms."""
    token = token or new_session(server, key)
    return httpx.Client(
        base_url=server.url,
        headers={"Cookie": f"{cookie_name(server)}={token}", **OURS},
        timeout=30,
        verify=False,
    )


def partner_number(server: Server, key: str) -> int:
    """The number of the partner in the addresses of its pages."""

    async def find() -> int:
        async with open_store(server.database) as store:
            found = await store.keys.find(digest_of(key))
            assert found
            return found.partner

    return asyncio.run(find())


def from_address(server: Server, address: str) -> httpx.Client:
    """A visitor with another address of this machine."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, headers=OURS, transport=transport, timeout=30)
