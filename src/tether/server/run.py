"""A server process: it has one event loop and one listening socket."""

import asyncio
import ctypes
import gc
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import structlog
import uvicorn

from tether.domain.errors import Unavailable
from tether.server import bootstrap, logging, protocol
from tether.server.connections import BodyTurns, Bounds
from tether.server.databases import database_of
from tether.server.listeners import BACKLOG
from tether.server.metrics import Metrics
from tether.server.metrics_port import serving
from tether.server.retention import CautiousClock, run_audit_deletion, run_deletion, run_expiry
from tether.server.settings import Settings, metrics_address
from tether.server.store import Callbacks, Store, open_store
from tether.server.tracing import tracing
from tether.storage.refused_requests import RequestLogSettings

log = structlog.get_logger()

GRACE_S = 30  # that running requests may take after the signal to stop
KEEP_ALIVE_S = 75  # longer than the usual 60 s of load balancers, so that they hang up first
OBSERVE_S = 10.0  # between two measurements of the database
# In each round of the event loop libuv accepts one connection of a socket. A busy loop has about a
# hundred rounds a second, so with one socket many new connections would wait for seconds.
ACCEPTED_AT_ONCE = 8
LAST_WRITE_S = 1.0  # for the last write of the use of keys, and of recorded requests
RESERVED_FILES = 192  # file descriptors reserved for the server, besides those of the pool
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # glibc's names for them
LARGE_BLOCK_BYTES = 128 * 1024


async def serve(
    settings: Settings,
    metrics: Metrics,
    listener: socket.socket,
    listening: Callable[[], None],
) -> None:
    """Serves on the socket until SIGTERM or SIGINT. Calls `listening` when clients can connect.

    Before it returns, it finishes the running requests. What it acknowledged is on disk.
    """
    max_files = _raise_file_limit()
    _return_large_blocks()
    logging.when_dropped(metrics.dropped_log_lines.inc)

    def derivation_failed(partner: int, error: Exception) -> None:
        metrics.derivation_failures.inc()
        log.error("derivation failed", partner=partner, exc_info=error)

    async with (
        open_store(
            settings.database,
            settings.pool_size,
            Callbacks(
                metrics.progress, metrics.derivation_backlog, derivation_failed, metrics.refused
            ),
            RequestLogSettings(
                settings.requests_kept,
                settings.requests_days,
                settings.requests_body,
                settings.requests_sample,
            ),
        ) as store,
        background_tasks(store.projector.sweep()),
        tracing() as tracer,
    ):
        keys = bootstrap.authenticator(store)
        box = bootstrap.secret_box(settings)
        sender = bootstrap.webhook_sender(settings, box)
        webhooks = bootstrap.webhook_service(store, box, sender)
        app = bootstrap.build_app(store, keys, metrics, settings, webhooks=webhooks, tracer=tracer)
        connections = min(
            settings.max_connections, max(1, max_files - RESERVED_FILES - settings.pool_size)
        )
        bounds = Bounds(connections, settings.max_unread * 1_000_000, metrics.refused)
        connection: Any = partial(
            protocol.LimitedHttpProtocol,
            bounds=bounds,
            turns=store.loop_turns,
            body_turns=BodyTurns(),
            cached_key=keys.cached_key,
        )
        loop = asyncio.get_running_loop()

        def when_listening() -> None:
            listening()
            with suppress(RuntimeError):  # no thread can be started
                loop.run_in_executor(None, _import_the_rest, settings)

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
            when_listening,
        )

        def stop() -> None:
            store.feed.close()  # otherwise the server would wait for open streams
            server.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        is_sqlite = database_of(settings.database).file is not None
        # If there are several workers, the supervisor serves the metrics.
        is_only_worker = settings.workers == 1
        with serving(
            metrics.own_page_now, metrics_address(settings.metrics) if is_only_worker else None
        ):
            _collect_garbage_less_often()
            clock = CautiousClock()
            jobs = [
                store.key_use.run(),
                _observe(store, metrics),
                store.erasing.run(),
                run_audit_deletion(store, settings.audit_days, clock),
                bootstrap.deliverer(store, sender, metrics, settings).run(),
                run_deletion(store, settings.attempt_days, clock),
                run_expiry(store, settings.event_days, clock, alone=is_sqlite),
            ]
            if settings.console == "on":
                jobs.append(store.request_recorder.run())
            async with aclosing(sender), background_tasks(*jobs):
                # When the server stops, it closes all of these, so that no client can connect.
                duplicates = [listener.dup() for _ in range(ACCEPTED_AT_ONCE - 1)]
                await server.serve([listener, *duplicates])
            logging.write_gathered()
            with suppress(TimeoutError):  # the database may be away
                async with asyncio.timeout(LAST_WRITE_S):
                    await store.key_use.write()
                    await store.request_recorder.write()


async def _observe(store: Store, metrics: Metrics) -> None:
    """Regularly sets the metrics of the database's size and connections, and whether temporary
    files for large bodies can be written.
    """
    while True:
        with suppress(RuntimeError):  # no thread can be started
            usable = await asyncio.to_thread(_can_write_temporary_files)
            metrics.temporary_files_usable.set(usable)
        with suppress(Unavailable, OSError):
            metrics.database(await store.engine.size(), store.engine.connections())
        await asyncio.sleep(OBSERVE_S)


def _can_write_temporary_files() -> bool:
    try:
        with TemporaryFile() as file:
            file.write(b"x")
            file.flush()
    except OSError:
        return False
    return True


@asynccontextmanager
async def background_tasks(*jobs: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs each job in a task of its own, until the block ends."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _return_large_blocks() -> None:
    """Makes glibc return large blocks of memory to the system, and use one heap for all threads.

    Portions of events and large bodies take megabytes for a moment. After the first of them glibc
    would put the next ones into heaps, which hardly shrink.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _raise_file_limit() -> int:
    """Raises the limit of file descriptors, and returns it. Each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def _collect_garbage_less_often() -> None:
    """Makes Python search for cycles of references less often, because requests have almost none.

    At the default of 700 objects it searched several times in each round of a busy event loop,
    which was a twentieth of the work. At 25,000 objects a search would take 25 ms.
    """
    gc.collect()
    gc.freeze()  # the objects of now stay until the end
    gc.set_threshold(5_000, 100, 20)


def _import_the_rest(settings: Settings) -> None:
    bootstrap.import_the_rest(settings)
    gc.freeze()


class _Server(uvicorn.Server):
    """Uvicorn's server without its signal handlers, which would end the process too early."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    def stop(self) -> None:
        """Stops after the running requests. The second call stops at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()
