"""A load that retries until all is stored, and a follower of the events."""

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.conftest import Server
from tests.sql import query
from tests.wire import CUT_OFF, Answer, Partner, Wire

RECONNECT_S = 0.05
BACK_OFF_S = 0.1
_NEXT = re.compile(r"<[^>]*?(/events\?[^>]*)>; rel=\"next\"")


@dataclass
class Load:
    """Clients that post events 0, 1, 2 … of one partner, and repeat those without an answer.

    `answered` has the id of each acknowledged event. An answer that is neither a 201 nor expected
    (a 503 needs Retry-After) is kept in `surprises`.
    """

    partner: Partner
    servers: list[Server] = field(default_factory=list)
    """The nodes to which the clients connect in turn; the partner's server if there are none."""
    answered: dict[int, str] = field(default_factory=dict)
    unavailable: set[int] = field(default_factory=lambda: {503})
    """What the clients may be answered while something is down."""
    statuses: Counter[int] = field(default_factory=Counter)
    surprises: list[Answer] = field(default_factory=list)
    slowest_s: float = 0.0
    times: list[float] = field(default_factory=list)
    """When each event was acknowledged."""
    _numbers: Iterator[int] = field(default_factory=lambda: iter(()))
    _stopped: bool = False

    def stop(self) -> None:
        """Stops each client after its current event."""
        self._stopped = True

    async def run(self, numbers: Iterable[int], connections: int = 64) -> None:
        """Posts these events, until all are acknowledged or a test calls `stop`."""
        self._numbers, self._stopped = iter(numbers), False
        await asyncio.gather(*(self._client(place) for place in range(connections)))

    async def _client(self, place: int) -> None:
        servers = self.servers or [self.partner.server]
        wire: Wire | None = None
        for number in self._numbers:
            while number not in self.answered:
                try:
                    wire = wire or await Wire.to(servers[place % len(servers)])
                    await self._report(wire, number)
                except (*CUT_OFF, OSError):
                    if wire is not None:
                        wire.reset()
                    wire, place = None, place + 1  # as a balancer would, try the next node
                    await asyncio.sleep(RECONNECT_S)
            if self._stopped:
                break
        if wire is not None:
            wire.hang_up()

    async def _report(self, wire: Wire, number: int) -> None:
        started = time.monotonic()
        answer = await wire.ask(self.partner.post(number))
        now = time.monotonic()
        self.slowest_s = max(self.slowest_s, now - started)
        self.statuses[answer.status] += 1
        if answer.status == 201:
            self.answered[number] = answer.json()["id"]
            self.times.append(now)
            return
        told = answer.status != 503 or "retry-after" in answer.headers
        if answer.status not in self.unavailable or not told:
            self.surprises.append(answer)
        await asyncio.sleep(BACK_OFF_S)

    def rate(self, since: float, until: float) -> float:
        """Acknowledged events per second between two instants of the monotonic clock."""
        return sum(since <= moment < until for moment in self.times) / (until - since)


class Seen(msgspec.Struct):
    """The part of an event that a follower keeps."""

    id: str
    timestamp: str


_page = msgspec.json.Decoder(list[Seen])


@dataclass
class Follower:
    """Reads `GET /events` from the beginning as fast as it can, and polls at the end."""

    partner: Partner
    seen: list[Seen] = field(default_factory=list)
    requests: int = 0

    async def run(self, enough: Callable[[], bool]) -> None:
        """Follows until `enough` says so when an empty page came."""
        wire: Wire | None = None
        path = "/events?limit=1000"
        while True:
            try:
                wire = wire or await Wire.to(self.partner.server)
                last = enough()
                answer = await wire.ask(self.partner.request("GET", path))
            except (*CUT_OFF, OSError):
                wire = None
                await asyncio.sleep(RECONNECT_S)
                continue
            self.requests += 1
            if answer.status == 503:
                await asyncio.sleep(BACK_OFF_S)
                continue
            assert answer.status == 200, answer
            page = _page.decode(answer.body)
            self.seen += page
            if page:
                link = _NEXT.search(answer.headers["link"])
                assert link is not None, answer.head
                path = link[1]
            elif last:
                wire.hang_up()
                return


def check_exactly_once(load: Load, follower: Follower, count: int) -> None:
    """The follower saw each of the events 0 … count - 1 once, and each under its answered id."""
    assert load.surprises == []
    assert len(load.answered) == count
    ids = [one.id for one in follower.seen]
    assert len(set(ids)) == len(ids), "an event was repeated"
    assert set(ids) == set(load.answered.values()), "an event was missed"
    assert len({one.timestamp for one in follower.seen}) == len(ids) == count


def sessions(url: str) -> list[tuple[Any, ...]]:
    """State and age of the transaction of each of Tether's connections to this database."""
    return query(
        url,
        "SELECT pid, state, xact_start FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'tether'",
    )


def endless(first: int = 0) -> Iterator[int]:
    """The numbers from this one on."""
    return itertools.count(first)
