"""Puts the parts together: the only module that knows all of them."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from prometheus_client import start_http_server
from uuid_utils import uuid7

from tether.api.app import Application, Parts, create_app
from tether.config import Settings, parse_address, sqlite_path
from tether.errors import SetupError
from tether.keyring import KeyRing
from tether.limits import TokenBuckets
from tether.metrics import Metrics
from tether.protocol import LimitedHttpProtocol
from tether.store.sqlite import SqliteEngine
from tether.store.sqlite_file import migrate_sqlite
from tether.store.store import Store

GRACE_S = 30  # how long requests under way may take once the server was told to stop
BACKLOG = 4096


def now_ms() -> int:
    """The server's clock: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_event_id() -> str:
    """A UUID of version 7: unique, and roughly in the order of receipt (C20)."""
    return str(uuid7())


def migrate(database: str) -> int:
    """Brings the database's schema up to date; returns how many steps that took."""
    return migrate_sqlite(sqlite_path(database))


@asynccontextmanager
async def open_store(
    database: str, on_commit: Callable[[int], None] = lambda events: None
) -> AsyncIterator[Store]:
    """The store in this database, which must be migrated."""
    store = Store(SqliteEngine(sqlite_path(database)), now_ms, new_event_id, on_commit)
    try:
        yield store
    finally:
        await store.close()


def build_app(store: Store, metrics: Metrics, settings: Settings) -> Application:
    """The HTTP application on this store."""
    metrics.watch_queue(lambda: store.intake.waiting)
    return create_app(
        Parts(
            store=store,
            keys=KeyRing(store.find_key, now_ms),
            buckets=TokenBuckets(time.monotonic),
            metrics=metrics,
            now_ms=now_ms,
            cors_origins=settings.cors_origins,
            serve_metrics=settings.metrics == "on",
        )
    )


async def serve(settings: Settings, listening: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; tells `listening` the address once it accepts requests."""
    metrics = Metrics()
    with _listen(settings.host, settings.port) as listener:
        async with open_store(settings.database, metrics.commit) as store:
            if settings.metrics not in ("on", "off"):
                host, port = parse_address(settings.metrics)
                start_http_server(port, host, metrics.registry)
            app = build_app(store, metrics, settings)
            await run(app, listener, listening)


async def run(app: Application, listener: socket.socket, listening: Callable[[str], None]) -> None:
    """Serves the application on the socket until SIGTERM or SIGINT, and finishes what it began."""
    server = _Server(
        uvicorn.Config(
            app,
            http=LimitedHttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_S,
        ),
        lambda: listening(_url(listener)),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.serve([listener])


class _Server(uvicorn.Server):
    """Uvicorn's server, which leaves the signals to us: it would end the process too early."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    def stop(self) -> None:
        """Stops after the requests under way; told twice, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        raise SetupError(f"Tether cannot listen on {host} port {port}: {reason}.") from None
    with listener:
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
