"""The event log as a stream, with the states of its vehicles.

The stream ends where the sessions are derived, so that the state of a vehicle contains the events
of the stream. Readers have no queue: each has a position and reads the next entries. So a slow
reader costs no memory, and every process and node can answer every reader.
"""

import asyncio
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

import msgspec

from tether.domain.errors import Unavailable
from tether.domain.filters import EventFilter
from tether.domain.models import ERASED
from tether.domain.session_views import LatestSession
from tether.projections.projector import INTERVAL_S, Projector
from tether.storage.events import EVENTS, WITHDRAWALS, Events
from tether.storage.states import States
from tether.storage.turns import Turns, wait_for_event

log = logging.getLogger(__name__)  # structlog takes a while to load

PORTION = 100  # events, and withdrawals
READS_AT_ONCE = 8  # one for each partner
POLL_S = 0.2  # between checks whether other processes have derived events


class LogEntry(NamedTuple):
    """An entry of the log: its sequence number, its table (events or withdrawals), and its JSON."""

    seq: int
    table: str
    body: str


class FeedPortion(NamedTuple):
    """The entries up to a sequence number, and the latest session of each of their vehicles."""

    entries: list[LogEntry]
    latest: dict[str, LatestSession | None]
    end: int


class Listener:
    """A reader of a partner's stream. `derived` is the number of the last derived event."""

    def __init__(self, derived: int) -> None:
        self.derived = derived
        self.news = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Returns when `news` is set, or when this time is over."""
        await wait_for_event(self.news, seconds)
        self.news.clear()


class _Partner:
    """The listeners of a partner in this process, and how far its sessions are derived."""

    def __init__(self) -> None:
        self.derived = 0
        self.listeners: set[Listener] = set()
        self.task: asyncio.Task[None] | None = None


class ChangeFeed:
    """The streams of all partners."""

    def __init__(self, events: Events, states: States, projector: Projector) -> None:
        self._events = events
        self._states = states
        self._projector = projector
        # All streams may wait, without a time limit.
        self._turns = Turns(READS_AT_ONCE, per_partner=1, max_waiting=sys.maxsize, patience_s=None)
        self._partners: dict[int, _Partner] = {}
        self.closed = False

    async def portion(
        self, partner: int, wanted: EventFilter, after: int, until: int
    ) -> FeedPortion:
        """The next portion of wanted entries after a number, up to the number `until`."""
        async with self._turns.of(partner):
            entries, end = await next_entries(self._events, partner, wanted, after, until=until)
            heads = [_decoder.decode(entry.body) for entry in entries]
            vehicles = list(dict.fromkeys(head.vehicle_id for head in heads if head.vehicle_id))
            latest = await self._states.of_vehicles(partner, vehicles) if vehicles else {}
            if latest.get(ERASED, ERASED) is None:  # all erased vehicles have this id, and no state
                del latest[ERASED]
            return FeedPortion(entries, latest, end)

    @contextmanager
    def listening(self, partner_id: int) -> Iterator[Listener]:
        """A listener that is notified until the context ends."""
        partner = self._partners.setdefault(partner_id, _Partner())
        listener = Listener(partner.derived)
        partner.listeners.add(listener)
        if partner.task is None:
            partner.task = asyncio.create_task(self._watch(partner_id, partner))
        try:
            yield listener
        finally:
            partner.listeners.discard(listener)
            if not partner.listeners:
                partner.task.cancel()
                self._partners.pop(partner_id, None)

    def close(self) -> None:
        """Ends all streams: wakes the listeners, which find `closed`."""
        self.closed = True
        for partner in self._partners.values():
            assert partner.task is not None
            partner.task.cancel()
            for listener in partner.listeners:
                listener.news.set()

    async def _watch(self, partner_id: int, partner: _Partner) -> None:
        """Notifies the listeners when events are derived, in this process or another one."""
        backlog_since: float | None = None
        while True:
            progress = self._projector.progress(partner_id)
            try:
                head, derived = await self._projector.derivations.progress(partner_id)
            except Unavailable:
                await asyncio.sleep(INTERVAL_S)
                continue
            except Exception as error:  # a bug must not end the streams
                log.error("watching partner %d failed", partner_id, exc_info=error)
                await asyncio.sleep(10 * INTERVAL_S)
                continue
            if derived != partner.derived:
                partner.derived, backlog_since = derived, None
                for listener in partner.listeners:
                    listener.derived = derived
                    listener.news.set()
            if head <= derived:
                backlog_since = None
            elif backlog_since is None:
                backlog_since = monotonic()
            else:
                if monotonic() - backlog_since > INTERVAL_S / 2:  # no process derives the events
                    self._projector.notice(partner_id)
                self._projector.hurry(partner_id)
            await wait_for_event(progress, POLL_S)


async def next_entries(
    events: Events,
    partner: int,
    wanted: EventFilter,
    after: int,
    *,
    until: int,
    tables: Iterable[str] = (EVENTS, WITHDRAWALS),
) -> tuple[list[LogEntry], int]:
    """The next portion of wanted entries of these tables, and the number up to which it has all of
    them: at most `until`.
    """
    found: list[LogEntry] = []
    for table in tables:
        page = await events.portion(partner, wanted, after, PORTION, table=table)
        beyond = page.events[-1][0] if len(page.events) == PORTION else page.stop
        until = until if beyond is None else min(until, beyond)
        found += (LogEntry(seq, table, body) for seq, body in page.events)
    return sorted(entry for entry in found if entry.seq <= until), until


class _Head(msgspec.Struct, rename="camel"):
    vehicle_id: str | None = None


_decoder = msgspec.json.Decoder(_Head)
