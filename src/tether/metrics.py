"""What the operator's monitoring sees. Labels never hold an id, a partner or a key."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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
            registry=self.registry,
        )
        # Finding a labelled child costs more than using it.
        self._children: dict[tuple[str, str, int], Histogram] = {}

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """From now on the queue's depth is what `depth` returns."""
        self._queue.set_function(depth)

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

    def commit(self, events: int) -> None:
        """Events were committed together."""
        self._batches.observe(events)

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
