"""The metrics of the server, for Prometheus.

Labels never contain an id or a key. They contain partners only if the operator wants that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from functools import partial
from operator import add
from time import perf_counter
from typing import Any, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tether import __version__
from tether.domain.webhooks import Status
from tether.storage.engine import Connections, Size
from tether.storage.turns import TimeSlice
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


class _Parts(Collector):
    """A family with many series, in parts that are quickly written: of a call or a partner."""

    def __init__(self, make: Callable[..., Any], name: str, text: str, labels: list[str]) -> None:
        """`make` makes a part: a metric in a registry, or in none."""
        self._make = partial(make, name, text, labels)
        self._parts: dict[Hashable, Any] = {None: self._make(registry=None)}  # has the heading

    def of(self, owner: Hashable) -> Any:
        """The part of this owner."""
        part = self._parts.get(owner)
        if part is None:
            part = self._parts[owner] = self._make(registry=None)
        return part

    def collect(self) -> Iterator[Family]:
        """All parts, each as a family."""
        for part in list(self._parts.values()):
            yield from part.collect()


class _Only(Collector):
    """A collector of one family, because the library writes what a collector has."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        """The family."""
        return [self._family]


class Metrics:
    """The metrics of this process. With several processes `sum_of_all` returns their sum."""

    def __init__(
        self, sum_of_all: Callable[[], Awaitable[str]] | None = None, *, by_partner: bool = False
    ) -> None:
        self._sum_of_all = sum_of_all
        self._writing = asyncio.Lock()
        self._next_page: asyncio.Task[str] | None = None  # that nobody has begun to write
        self.writing_s = 0.0
        """The time that the last page took to write."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        gauge("tether_build_info", "Which Tether this is: always 1.", ["version", "commit"]).labels(
            __version__, commit()
        ).set(1)
        self._requests = _Parts(
            partial(Histogram, buckets=_SECONDS),
            "tether_request_seconds",
            "Time from the request's head to its answer, by route and status.",
            ["method", "route", "status"],
        )
        self.registry.register(self._requests)
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
        self._derivation_backlog = gauge(
            "tether_derivation_waiting_events",
            "Events that sessions and states do not contain yet.",
        )
        self._derivation_lag = gauge(
            "tether_derivation_lag_seconds",
            "For how long the first of the events has waited that sessions and states do not "
            "contain yet.",
        )
        self._webhooks = gauge("tether_webhooks", "Endpoints of webhooks, by status.", ["status"])
        self._webhook_attempts = counter(
            "tether_webhook_attempts",
            "Requests to endpoints of webhooks, by outcome.",
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
            self._partner_requests = _Parts(
                Counter, "tether_partner_requests", "Requests with a key, by partner.", ["partner"]
            )
            self._partner_refusals = _Parts(
                Counter,
                "tether_partner_refusals",
                "Requests, and events of a bulk, that were refused, by partner and reason.",
                ["partner", "reason"],
            )
            self.registry.register(self._partner_requests)
            self.registry.register(self._partner_refusals)
        self.temporary_files_usable = gauge(
            "tether_temporary_files_usable",
            "Workers that can put large bodies into temporary files.",
        )
        self.open_streams = gauge("tether_open_streams", "Consumers of /stream that are connected.")
        self._refused = counter(
            "tether_refused",
            "What was refused so that it does not harm others: connections beyond their bound, "
            "unread answers, reads by those who have too many at once or are gone.",
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
            labels = self._requests.of((method, route)).labels(method, route, str(status))
            child = self._children[label] = labels
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
            requests = self._partners[partner] = self._partner_requests.of(partner).labels(partner)
        requests.inc()
        for reason, count in rejections.items():
            self._partner_refusals.of(partner).labels(partner, reason).inc(count)

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

    def derivation_backlog(self, events: int, lag_s: float) -> None:
        """Sets how many stored events wait to be derived, and how long the first one has waited."""
        self._derivation_backlog.set(events)
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

    def own_page_now(self) -> str:
        """The metrics of this process, in Prometheus' text format, without a pause."""
        return "".join(self._texts())

    async def own_page(self) -> str:
        """The same, while others use the event loop. Calls at the same time get the same page."""
        if self._next_page is None:
            self._next_page = asyncio.create_task(self._write_next())
        return await asyncio.shield(self._next_page)

    async def _write_next(self) -> str:
        async with self._writing:
            self._next_page = None  # the next call wants its own request in the page
            texts, time_slice = list[str](), TimeSlice()
            for text in self._texts():
                texts.append(text)
                await time_slice.yield_if_over()
            return "".join(texts)

    def _texts(self) -> Iterator[str]:
        """The text of each family, or part of one. All together take half a second if a client has
        tried every method on every route.
        """
        last, spent_s = "", 0.0
        began = perf_counter()
        for family in self.registry.collect():
            text = generate_latest(_Only(family)).decode()
            if family.name == last:  # a further part
                text = text.split("\n", 2)[2]  # without the heading
            last = family.name
            spent_s += perf_counter() - began
            yield text
            began = perf_counter()
        self.writing_s = spent_s

    async def page(self) -> str:
        """The metrics of all workers."""
        return await (self.own_page() if self._sum_of_all is None else self._sum_of_all())


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
