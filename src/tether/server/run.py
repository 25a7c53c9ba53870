"""The server process: one event loop, one listening socket, until it is told to stop."""

import asyncio
import ctypes
import gc
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import structlog
import uvicorn

from tether.domain.errors import SetupError, Unavailable
from tether.domain.timestamps import now_ms
from tether.server import bootstrap, logging, protocol
from tether.server.connection_bounds import Bounds
from tether.server.databases import database_of
from tether.server.metrics import Metrics
from tether.server.metrics_port import serving
from tether.server.settings import Settings, metrics_address
from tether.server.store import Callbacks, Store, open_store
from tether.server.tracing import tracing
from tether.server.upkeep import forget_audit, keep_expiring, keep_forgetting
from tether.storage.refused_requests import RequestLogSettings

log = structlog.get_logger()

GRACE_S = 30  # how long requests under way may take once the server was told to stop
KEEP_ALIVE_S = 75  # longer than the usual 60 s of load balancers, so that they hang up first
BACKLOG = 4096
LOOK_AGAIN_S = 10.0
# In a round of the event loop libuv takes one connection of a socket, however many wait. A busy
# loop has some hundred rounds a second: who connects would wait for seconds behind a crowd.
ACCEPTED_AT_ONCE = 8
LAST_NOTE_S = 1.0
OTHER_FILES = 192  # file descriptors that are kept from clients, besides those of the pool
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # glibc's names for them
LARGE_BLOCK_BYTES = 128 * 1024


async def serve(
    settings: Settings,
    metrics: Metrics,
    listener: socket.socket,
    listening: Callable[[], None],
) -> None:
    """Serves on the socket until SIGTERM or SIGINT; calls `listening` once it does.

    Then it finishes the requests under way and everything that it acknowledged is on disk.
    """
    most_files = _raise_file_limit()
    _give_back_large_blocks()
    logging.when_dropped(metrics.dropped_log_lines)

    def derivation_failed(partner: int, error: Exception) -> None:
        metrics.derivation_failed()
        log.error("derivation failed", partner=partner, exc_info=error)

    async with (
        open_store(
            settings.database,
            settings.pool_size,
            Callbacks(
                metrics.progress, metrics.derivation_waiting, derivation_failed, metrics.refused
            ),
            RequestLogSettings(
                settings.requests_kept,
                settings.requests_days,
                settings.requests_body,
                settings.requests_sample,
            ),
        ) as store,
        meanwhile(store.projector.sweep()),
        tracing() as tracer,
    ):
        keys = bootstrap.authenticator(store)
        box = bootstrap.secret_box(settings)
        sender = bootstrap.webhook_sender(settings, box)
        webhooks = bootstrap.webhook_service(store, box, sender)
        app = bootstrap.build_app(store, keys, metrics, settings, webhooks=webhooks, tracer=tracer)
        connections = min(
            settings.max_connections, max(1, most_files - OTHER_FILES - settings.pool_size)
        )
        bounds = Bounds(connections, settings.max_unread * 1_000_000, metrics.refused)
        connection: Any = partial(
            protocol.LimitedHttpProtocol,
            bounds=bounds,
            turns=store.loop_turns,
            partner_of=keys.partner_of,
        )
        server = _Server(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
            ),
            listening,
        )

        def stop() -> None:
            store.feed.close()  # streams never end by themselves
            server.stop()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        only = database_of(settings.database).file is not None
        # Of several workers the supervisor serves the metrics.
        alone = settings.workers == 1
        with serving(metrics.own_page, metrics_address(settings.metrics) if alone else None):
            _spare_the_collector()
            async with (
                meanwhile(store.key_use.keep_writing()),
                meanwhile(_look_around(store, metrics)),
                meanwhile(store.erasing.keep_erasing()),
                meanwhile(forget_audit(store, settings.audit_days, now_ms)),
                aclosing(sender),
                meanwhile(bootstrap.deliverer(store, sender, metrics, settings).run()),
                meanwhile(store.refusals.keep_writing())
                if settings.console == "on"
                else nullcontext(),
                meanwhile(keep_forgetting(store, settings.attempt_days, now_ms)),
                meanwhile(keep_expiring(store, settings.event_days, now_ms, alone=only)),
            ):
                # All of them are closed when the server stops, so that nobody connects any more.
                more = [listener.dup() for _ in range(ACCEPTED_AT_ONCE - 1)]
                await server.serve([listener, *more])
            with suppress(TimeoutError):  # the database may be away, and nobody waits for a note
                async with asyncio.timeout(LAST_NOTE_S):
                    await store.key_use.write()
                    await store.refusals.write()


async def _look_around(store: Store, metrics: Metrics) -> None:
    """Tells of what may change any time: how large the database is, its connections, and whether
    large bodies can be put aside.
    """
    while True:
        with suppress(RuntimeError):  # no thread can be started
            metrics.temporary_files_usable(await asyncio.to_thread(_has_temporary_files))
        with suppress(Unavailable, OSError):
            metrics.database(await store.size(), store.connections())
        await asyncio.sleep(LOOK_AGAIN_S)


def _has_temporary_files() -> bool:
    try:
        with TemporaryFile() as file:
            file.write(b"x")
            file.flush()
    except OSError:
        return False
    return True


@asynccontextmanager
async def meanwhile(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Does this work beside what is done in the context."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def listen(host: str, port: int, *, shared: bool = False) -> Iterator[socket.socket]:
    """A socket that listens there; `shared` if other processes of ours do too.

    Raises SetupError if nothing can listen there.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=shared)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise SetupError(
            f"Tether cannot listen on {host} port {port}: {reason}. Choose another with --host "
            "(TETHER_HOST) or --port (TETHER_PORT)."
        ) from error
    with listener:
        _let_go_of_the_lost(listener)
        yield listener


def _let_go_of_the_lost(listener: socket.socket) -> None:
    """Makes the kernel end a connection whose other end takes nothing, or is not there any more.

    The protocol does not see what waits in the kernel, and to a stream that says little all of it
    does: the kernel would try for a quarter of an hour, or for ever if the other end still answers.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; what it accepts has the same
        timeout_ms = int(protocol.READER_TIMEOUT_S * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def url_of(listener: socket.socket) -> str:
    """The address at which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _give_back_large_blocks() -> None:
    """Portions of events and large bodies take megabytes for a moment. glibc gives such blocks back
    when they are freed, but then makes the next ones part of heaps that hardly shrink. And it gives
    each thread a heap of its own, though of ours only one computes at a time.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _raise_file_limit() -> int:
    """Every connection needs a file descriptor; the usual soft limit of 1024 is soon used up.

    Returns how many there may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def _spare_the_collector() -> None:
    """Lets Python look for garbage cycles less often.

    Requests make next to none. At the default of 700 objects it looked several times in each turn
    of a busy event loop, always at the requests under way, and that was a twentieth of the work.
    With many more it looks seldom, but for so long that everybody waits: 25,000 take 25 ms.
    """
    gc.collect()
    gc.freeze()  # what is there now stays until the end
    gc.set_threshold(5_000, 100, 20)


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
