"""What the operator's monitoring sees. Labels never hold an id, a partner or a key."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tether.errors import SetupError

# Set for worker processes: the library then keeps each one's numbers in files of this folder.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters and histograms of one server process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "tether_request_seconds",
            "Time from the request's head to its answer, by route and status.",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rejected = Counter(
            "tether_rejected_events",
            "Events that were not accepted, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._batches = Histogram(
            "tether_commit_batch_size",
            "Events that were written together.",
            buckets=_BATCHES,
            registry=self.registry,
        )
        self._queue = Gauge(
            "tether_queue_depth",
            "Events that wait for a commit.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._derivation_waiting = Gauge(
            "tether_derivation_waiting_events",
            "Events that sessions and states do not contain yet.",
            multiprocess_mode="livemax",  # each worker sees those of all
            registry=self.registry,
        )
        self._derivation_failures = Counter(
            "tether_derivation_failures",
            "Portions of events that could not be derived.",
            registry=self.registry,
        )
        self._redis = Gauge(
            "tether_redis_in_use",
            "Workers that share their rate limits through Redis.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._streams = Gauge(
            "tether_open_streams",
            "Consumers of /stream that are connected.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._refused = Counter(
            "tether_refused",
            "What was refused so that it does not harm others: connections beyond their bound, "
            "unread answers, reads of a partner that has too many at once.",
            ["reason"],
            registry=self.registry,
        )
        # Finding a labelled child costs more than using it.
        self._children: dict[tuple[str, str, int], Histogram] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        label = (method, route, status)
        child = self._children.get(label)
        if child is None:
            child = self._children[label] = self._requests.labels(method, route, str(status))
        child.observe(seconds)

    def rejected_event(self, reason: str) -> None:
        """An event was refused."""
        self._rejected.labels(reason).inc()

    def progress(self, committed: int, waiting: int) -> None:
        """So many events were committed together, if any, and so many wait now."""
        if committed:
            self._batches.observe(committed)
        self._queue.set(waiting)

    def derivation_waiting(self, events: int) -> None:
        """So many stored events wait to be derived."""
        self._derivation_waiting.set(events)

    def derivation_failed(self) -> None:
        """A portion of events could not be derived."""
        self._derivation_failures.inc()

    def redis_in_use(self, yes: bool) -> None:
        """Whether this process shares its rate limits through Redis, or has lost it."""
        self._redis.set(yes)

    def open_streams(self, change: int) -> None:
        """So many more consumers of /stream are connected."""
        self._streams.inc(change)

    def refused(self, reason: str) -> None:
        """Something was refused so that it does not harm others."""
        self._refused.labels(reason).inc()

    def page(self) -> bytes:
        """All of it in Prometheus' text format; of all workers, if there are several."""
        folder = os.environ.get(FOLDER_VARIABLE)
        return generate_latest(all_workers(folder) if folder else self.registry)


def all_workers(folder: str) -> CollectorRegistry:
    """The metrics of all workers added up; they keep them in files in this folder."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry


def forget_worker(pid: int, folder: str) -> None:
    """A worker is gone: what it counted stays, what it was busy with does not."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


@contextmanager
def serving(registry: CollectorRegistry, address: tuple[str, int] | None) -> Iterator[None]:
    """Serves the metrics at an address of their own meanwhile, if there is one.

    Raises SetupError if nothing can listen there.
    """
    if address is None:
        yield
        return
    host, port = address
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(
            f"Metrics cannot be served on {host} port {port}: {reason}. Choose another address "
            "with --metrics (TETHER_METRICS)."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
