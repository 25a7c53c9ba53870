"""The metrics of the server, for Prometheus.

Labels never contain an id or a key. They contain partners only if the operator wants that.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from operator import add
from typing import cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.utils import floatToGoString

from tether import __version__
from tether.domain.webhooks import Status
from tether.storage.engine import Connections, Size
from tether.version import commit

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MAX_PARTNERS = 1_000  # with series of their own, in each worker
OTHERS = "other"
# Every worker has the same value of these, or its own, so they are not summed.
_HIGHEST_OF_ALL = {
    "tether_build_info", "tether_derivation_waiting_events", "tether_derivation_lag_seconds",
    "tether_database_bytes", "tether_database_free_bytes", "process_start_time_seconds",
    "tether_webhooks",
}  # fmt: skip

disable_created_metrics()  # type: ignore[no-untyped-call]  # sums of them mean nothing


class Metrics:
    """The metrics of this process. With several processes `sum_of_all` returns their sum."""

    def __init__(
        self, sum_of_all: Callable[[], Awaitable[str]] | None = None, *, by_partner: bool = False
    ) -> None:
        self._sum_of_all = sum_of_all
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        gauge("tether_build_info", "Which Tether this is: always 1.", ["version", "commit"]).labels(
            __version__, commit()
        ).set(1)
        self._requests = histogram(
            "tether_request_seconds",
            "Time from the request's head to its answer, by route and status.",
            ["method", "route", "status"],
            buckets=_SECONDS,
        )
        self._rejected = counter(
            "tether_rejected_events", "Events that were not accepted, by reason.", ["reason"]
        )
        self._unit_warnings = counter(
            "tether_doubted_units",
            "Numbers that were stored, and are more likely meant in another unit, by member.",
            ["parameter"],
        )
        self._batches = histogram(
            "tether_commit_batch_size", "Events that were written together.", buckets=_BATCHES
        )
        self._queue = gauge("tether_queue_depth", "Events that wait for a commit.")
        self._derivation_waiting = gauge(
            "tether_derivation_waiting_events",
            "Events that sessions and states do not contain yet.",
        )
        self._derivation_lag = gauge(
            "tether_derivation_lag_seconds",
            "For how long the first of the events has waited that sessions and states do not "
            "contain yet.",
        )
        self._webhooks = gauge(
            "tether_webhooks", "Endpoints of webhooks, by how they are.", ["status"]
        )
        self._webhook_attempts = counter(
            "tether_webhook_attempts",
            "Requests to endpoints of webhooks, by what came of them.",
            ["outcome"],
        )
        self.derivation_failures = counter(
            "tether_derivation_failures", "Portions of events that could not be derived."
        )
        self.redis_in_use = gauge(
            "tether_redis_in_use", "Workers that share their rate limits through Redis."
        )
        gauge("tether_workers", "Worker processes that serve.").set(1)
        self._database = gauge("tether_database_bytes", "What the database takes.")
        self._database_free = gauge(
            "tether_database_free_bytes",
            "What there is room for on the disk of the SQLite file, by its folder.",
            ["folder"],
        )
        self._connections = gauge(
            "tether_pool_connections",
            "Connections to PostgreSQL, by purpose and state.",
            ["purpose", "state"],
        )
        self._partners: dict[str, Counter] | None = {} if by_partner else None
        if by_partner:
            self._partner_requests = counter(
                "tether_partner_requests", "Requests with a key, by partner.", ["partner"]
            )
            self._partner_refusals = counter(
                "tether_partner_refusals",
                "Requests, and events of a bulk, that were refused, by partner and reason.",
                ["partner", "reason"],
            )
        self.temporary_files_usable = gauge(
            "tether_temporary_files_usable",
            "Workers that can put large bodies into temporary files.",
        )
        self.open_streams = gauge("tether_open_streams", "Consumers of /stream that are connected.")
        self._refused = counter(
            "tether_refused",
            "What was refused so that it does not harm others: connections beyond their bound, "
            "unread answers, reads by those who have too many at once.",
            ["reason"],
        )
        self.dropped_log_lines = counter(
            "tether_dropped_log_lines",
            "Log lines that nobody read in time, or that could not be written.",
        )
        # Finding a labelled child costs more than using it.
        self._children: dict[tuple[str, str, int], Histogram] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        label = (method, route, status)
        child = self._children.get(label)
        if child is None:
            child = self._children[label] = self._requests.labels(method, route, str(status))
        child.observe(seconds)

    def count_partner(self, partner: str, rejections: Mapping[str, int]) -> None:
        """Counts an answered request of this partner, and what was refused in it by reason.

        The first MAX_PARTNERS partners have series of their own. The others share one.
        """
        if self._partners is None:
            return
        requests = self._partners.get(partner)
        if requests is None:
            if len(self._partners) >= MAX_PARTNERS:
                partner = OTHERS
            requests = self._partners[partner] = self._partner_requests.labels(partner)
        requests.inc()
        for reason, count in rejections.items():
            self._partner_refusals.labels(partner, reason).inc(count)

    def database(self, size: Size, connections: Mapping[str, Connections]) -> None:
        """Sets the size of the database, and the connections to its server by purpose."""
        self._database.set(size.used)
        if size.folder is not None:
            self._database_free.labels(size.folder).set(size.free)
        for purpose, pool in connections.items():
            self._connections.labels(purpose, "busy").set(pool.busy)
            self._connections.labels(purpose, "idle").set(pool.idle)
            self._connections.labels(purpose, "free").set(pool.max - pool.busy - pool.idle)

    def rejected_events(self, reason: str, count: int) -> None:
        """Counts refused events."""
        self._rejected.labels(reason).inc(count)

    def unit_warning(self, parameter: str) -> None:
        """Counts a stored number that is probably in another unit."""
        self._unit_warnings.labels(parameter).inc()

    def progress(self, committed: int, waiting: int) -> None:
        """Sets how many events wait, and records how many were committed together, if any."""
        if committed:
            self._batches.observe(committed)
        self._queue.set(waiting)

    def derivation_waiting(self, events: int, lag_s: float) -> None:
        """Sets how many stored events wait to be derived, and how long the first one has waited."""
        self._derivation_waiting.set(events)
        self._derivation_lag.set(lag_s)

    def webhooks(self, counts: Mapping[Status, int]) -> None:
        """Sets the number of endpoints by status."""
        for status, count in counts.items():
            self._webhooks.labels(status).set(count)

    def webhook_attempted(self, *, succeeded: bool) -> None:
        """Counts a finished request to an endpoint."""
        self._webhook_attempts.labels("success" if succeeded else "failure").inc()

    def refused(self, reason: str) -> None:
        """Counts something that was refused to protect others, by reason."""
        self._refused.labels(reason).inc()

    def own_page(self) -> str:
        """The metrics of this process, in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    async def page(self) -> str:
        """The metrics of all workers."""
        return self.own_page() if self._sum_of_all is None else await self._sum_of_all()


def sum_pages(pages: Iterable[str], *, ended: bool = False) -> str:
    """The sum of the metrics of several processes, each in Prometheus' text format.

    Without the gauges if the processes have `ended`. Otherwise raises ValueError if there are no
    metrics, because an empty page would silence every alert.
    """
    families: dict[str, dict[str, float]] = {}  # by the comments before each family
    for page in pages:
        heading = ""
        series: dict[str, float] = {}
        for line in page.splitlines():
            if line.startswith("# HELP "):
                heading = line
            elif line.startswith("# TYPE "):
                series = families.setdefault(f"{heading}\n{line}\n", {})
            else:
                name, _, number = line.rpartition(" ")
                combine = max if name.partition("{")[0] in _HIGHEST_OF_ALL else add
                series[name] = combine(series.get(name, 0.0), float(number))
    if ended:
        families = {head: of for head, of in families.items() if not head.endswith(" gauge\n")}
    elif not families:
        raise ValueError("No worker has said what it counted.")
    return "".join(
        heading + "".join(f"{name} {_text(number)}\n" for name, number in series.items())
        for heading, series in families.items()
    )


def _text(number: float) -> str:
    return cast(str, floatToGoString(number))  # type: ignore[no-untyped-call]
