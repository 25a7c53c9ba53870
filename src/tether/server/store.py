"""The store: the repositories of one database, and the services that work on them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tether.domain.timestamps import now_ms
from tether.ingest.unit_warnings import UnitWarnings
from tether.projections.capacity import Capacities
from tether.projections.change_feed import ChangeFeed
from tether.projections.erasing import Erasing
from tether.projections.expiring import Expiring
from tether.projections.load_curve import LoadCurves
from tether.projections.projector import Projector
from tether.projections.rebuild import Rebuilder
from tether.projections.summaries import Summaries
from tether.server.authenticator import KeyUse
from tether.server.databases import database_of
from tether.server.request_recorder import RequestRecorder
from tether.storage.audit import Audit
from tether.storage.console_sessions import ConsoleSessions
from tether.storage.engine import Engine
from tether.storage.entities import Entities
from tether.storage.erasures import Erasures
from tether.storage.events import Events
from tether.storage.fleet_overview import FleetOverview
from tether.storage.key_hours import KeyHours
from tether.storage.key_requests import KeyRequests
from tether.storage.log_positions import Derivations, Epochs
from tether.storage.partners import Keys, Partners
from tether.storage.plugged_in import PluggedIn
from tether.storage.refused_requests import DEFAULT_REQUEST_LOG, RefusedRequests, RequestLogSettings
from tether.storage.retention import Retention
from tether.storage.session_records import SessionRecords
from tether.storage.session_sums import SessionSums
from tether.storage.sessions import Sessions
from tether.storage.snapshots import Snapshots
from tether.storage.states import States
from tether.storage.turns import LoopTurns, Turns
from tether.storage.webhooks import Webhooks
from tether.storage.withdrawals import Withdrawals

if TYPE_CHECKING:
    from tether.ingest.event_batcher import EventBatcher

T = TypeVar("T")

# Lists that are read at the same time, in all and of each partner. Each may have megabytes, and
# takes several turns of the event loop on a busy server.
ANSWERS_AT_ONCE, ANSWERS_OF_EACH = 24, 6


class Callbacks(NamedTuple):
    """What a server wants to know about its store. Commands use the defaults."""

    on_progress: Callable[[int, int], None] = lambda committed, waiting: None
    on_backlog: Callable[[int, float], None] = lambda backlog, lag_s: None
    on_failure: Callable[[int, Exception], None] = lambda partner, error: None
    on_refusal: Callable[[str], None] = lambda reason: None


NO_CALLBACKS = Callbacks()


def _repository(kind: Callable[[Engine], T]) -> "cached_property[T]":
    """A repository that is created on first use: most commands need few of them."""
    return cached_property(lambda store: kind(store.engine))


class Store:
    """One database, with a repository for each subject.

    Every method of a repository raises Unavailable while the database cannot be used. Methods for
    partner data see the data of the given partner only.
    """

    def __init__(
        self,
        engine: Engine,
        now_ms: Callable[[], int],
        callbacks: Callbacks,
        request_log: RequestLogSettings,
    ) -> None:
        self.engine = engine
        self._now_ms = now_ms
        self._callbacks = callbacks
        self._request_log = request_log

    audit = _repository(Audit)
    console_sessions = _repository(ConsoleSessions)
    derivations = _repository(Derivations)
    entities = _repository(Entities)
    epochs = _repository(Epochs)
    events = _repository(Events)
    fleet = _repository(FleetOverview)
    key_hours = _repository(KeyHours)
    key_requests = _repository(KeyRequests)
    keys = _repository(Keys)
    partners = _repository(Partners)
    retention = _repository(Retention)
    session_records = _repository(SessionRecords)
    sessions = _repository(Sessions)
    states = _repository(States)
    webhooks = _repository(Webhooks)

    @cached_property
    def refused_requests(self) -> RefusedRequests:
        return RefusedRequests(self.engine, self._request_log)

    @cached_property
    def request_recorder(self) -> RequestRecorder:
        return RequestRecorder(self.refused_requests, self._now_ms)

    @cached_property
    def key_use(self) -> KeyUse:
        return KeyUse(self.keys.record_use, self.key_hours.add, self._now_ms)

    @cached_property
    def loop_turns(self) -> LoopTurns:
        return LoopTurns()

    @cached_property
    def turns(self) -> Turns:
        return Turns(ANSWERS_AT_ONCE, ANSWERS_OF_EACH, self._callbacks.on_refusal)

    @cached_property
    def entity_turns(self) -> Turns:
        """Turns of their own, so that these lists go on while the events are locked."""
        return Turns(ANSWERS_AT_ONCE, ANSWERS_OF_EACH, self._callbacks.on_refusal)

    @cached_property
    def projector(self) -> Projector:
        return Projector(
            self.engine, self._now_ms, self._callbacks.on_backlog, self._callbacks.on_failure,
            loop_turns=self.loop_turns,
        )  # fmt: skip

    @cached_property
    def batcher(self) -> "EventBatcher":
        # Imported on first use, because the help of commands imports this module.
        from tether.ingest.event_batcher import EventBatcher  # noqa: PLC0415

        return EventBatcher(
            self.events, self._now_ms, self._callbacks.on_progress, self.projector.notice,
            apply_backpressure=self.projector.apply_backpressure,
            on_added=self.key_use.count_events,
        )  # fmt: skip

    @cached_property
    def erasing(self) -> Erasing:
        return Erasing(
            Erasures(self.engine), self.entities, self.withdrawals, self.projector,
            self.expiring, self._now_ms, self._callbacks.on_failure,
        )  # fmt: skip

    @cached_property
    def expiring(self) -> Expiring:
        return Expiring(
            self.entities, Snapshots(self.engine), self.session_records, self.withdrawals,
            self.projector,
        )  # fmt: skip

    @cached_property
    def withdrawals(self) -> Withdrawals:
        return Withdrawals(self.engine, self._now_ms, self.projector.notice)

    @cached_property
    def unit_warnings(self) -> UnitWarnings:
        return UnitWarnings(self.entities)

    @cached_property
    def rebuilder(self) -> Rebuilder:
        return Rebuilder(self.entities, self.projector)

    @cached_property
    def feed(self) -> ChangeFeed:
        return ChangeFeed(self.events, self.states, self.projector)

    @cached_property
    def capacities(self) -> Capacities:
        return Capacities(PluggedIn(self.engine), self.projector)

    @cached_property
    def summaries(self) -> Summaries:
        sums, plugged_in = SessionSums(self.engine), PluggedIn(self.engine)
        return Summaries(self.sessions, self.entities, sums, plugged_in)

    @cached_property
    def load_curves(self) -> LoadCurves:
        return LoadCurves(self.summaries, PluggedIn(self.engine))

    async def close(self) -> None:
        """Finishes the pending writes and closes the database."""
        made = vars(self)
        if "feed" in made:
            self.feed.close()
        if "batcher" in made:
            await self.batcher.drain()
        if "entities" in made:
            await self.entities.drain()
        if "erasing" in made:
            await self.erasing.close()
        if "projector" in made:
            await self.projector.close()
        await self.engine.close()


@asynccontextmanager
async def open_store(
    database: str,
    pool_size: int = 2,
    callbacks: Callbacks = NO_CALLBACKS,
    request_log: RequestLogSettings = DEFAULT_REQUEST_LOG,
) -> AsyncIterator[Store]:
    """The store in this database, which must be migrated."""
    store = Store(database_of(database).open(pool_size), now_ms, callbacks, request_log)
    try:
        yield store
    finally:
        await store.close()
