"""The store: what the use cases need from a database, each one SQL statement."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple, cast

from tether.domain.errors import Forbidden, NotFound, PreconditionFailed, SetupError
from tether.domain.keys import Key, Rate
from tether.domain.models import Charger, Entity, Vehicle, from_json, to_json
from tether.ingest.event_batcher import EventBatcher
from tether.projections.change_feed import ChangeFeed
from tether.projections.flexibility import Capacities
from tether.projections.projector import Projector
from tether.projections.rebuild import Rebuilder
from tether.projections.sessions import Sessions
from tether.storage import queries
from tether.storage.engine import Engine, Row
from tether.storage.epochs import Epochs
from tether.storage.patches import Patch, Patches, Place
from tether.storage.queries import EventFilter, Table
from tether.storage.read_turns import Turns

ERASE_AT_ONCE = 5_000
PORTIONS = 20  # of events that one request reads

_TABLE: dict[type[Entity], Table] = {Charger: "chargers", Vehicle: "vehicles"}
_FIRST_ERASED = (*_TABLE.values(), "derivations", "session_versions", "sessions")


class Stored(NamedTuple):
    """An entity as it is stored: `body` is its JSON, `version` counts its changes from 1."""

    version: int
    body: bytes


class Partner(NamedTuple):
    """An organisation whose chargers, vehicles and events are kept apart from all others'."""

    id: int
    name: str
    created_ms: int


class Events(NamedTuple):
    """A page of events: sequence number and JSON of each.

    If `stop` is given there may be more of them beyond that number, of which none was read.
    """

    found: list[tuple[int, str]]
    stop: int | None


class Holdings(NamedTuple):
    """How much of what a partner has."""

    chargers: int
    vehicles: int
    events: int
    keys: int


class Store:
    """Chargers, vehicles, events, partners and keys in one database.

    Every method raises Unavailable while the database cannot be used. Those on partner data see
    the given partner's only.
    """

    def __init__(
        self,
        engine: Engine,
        now_ms: Callable[[], int],
        new_event_id: Callable[[], str],
        on_progress: Callable[[int, int], None] = lambda committed, waiting: None,
        *,
        on_waiting: Callable[[int], None] = lambda waiting: None,
        on_failure: Callable[[int, Exception], None] = lambda partner, error: None,
        on_refusal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._engine = engine
        self.turns = Turns(engine.scans_at_once, on_refusal)
        # Apart, so that they go on while the events are locked.
        self.entity_turns = Turns(engine.scans_at_once, on_refusal)
        self.projector = Projector(engine, now_ms, on_waiting, on_failure)
        self.batcher = EventBatcher(
            engine, now_ms, new_event_id, on_progress, self.projector.notice,
            apply_backpressure=self.projector.apply_backpressure,
        )  # fmt: skip
        self._patches = Patches(self._read_entity, self.replace)
        self.epochs = Epochs(engine)
        self.rebuilder = Rebuilder(engine, self.projector)
        self.sessions = Sessions(engine, self.projector)
        self.feed = ChangeFeed(engine, self.projector, self.sessions, self.turns)
        self.capacities = Capacities(engine, self.projector, self.turns)

    async def close(self) -> None:
        """Finishes the writes under way and lets go of the database."""
        self.feed.close()
        await self.batcher.drain()
        await self._patches.drain()
        await self.projector.close()
        await self._engine.close()

    async def ping(self) -> None:
        """Returns if the database answers."""
        await self._engine.ping(queries.PING)

    # Chargers and vehicles ------------------------------------------------------------------------

    async def get(self, kind: type[Entity], partner: int, entity_id: str) -> Stored:
        """The entity. Raises NotFound."""
        row = await self._engine.look_up(_sql(queries.GET, kind), partner, entity_id)
        if row is None:
            raise NotFound
        version, body = row
        return Stored(version, body.encode())

    async def page(
        self, kind: type[Entity], partner: int, after: str, limit: int
    ) -> list[tuple[str, str]]:
        """Id and JSON of the `limit` entities that follow the id `after`, in order of id."""
        rows = await self._engine.read(_sql(queries.PAGE, kind), partner, after, limit)
        return [(entity_id, body) for entity_id, body in rows]

    async def put(self, partner: int, entity: Entity) -> int:
        """Creates or replaces the entity; returns its version, 1 if it is new.

        Raises Forbidden if the partner is gone.
        """
        version = await self._change(queries.PUT, partner, entity)
        if version is None:
            raise Forbidden
        return version

    async def create(self, partner: int, entity: Entity) -> int:
        """Creates the entity. Raises PreconditionFailed if it exists."""
        return _expected(await self._change(queries.CREATE, partner, entity))

    async def replace(self, partner: int, entity: Entity, version: int, by: int = 1) -> int:
        """Replaces this version of the entity; returns the next version, which is `by` higher.

        Raises PreconditionFailed if there is no such version any more.
        """
        return _expected(await self._change(queries.REPLACE, partner, entity, version, by))

    async def patch(self, kind: type[Entity], partner: int, entity_id: str, patch: Patch) -> int:
        """Makes the next version of the entity as `patch` says; returns which that is.

        However many patches come at once, each finds what those before it made. Raises NotFound,
        and what `patch` raises.
        """
        return await self._patches.apply((kind, partner, entity_id), patch)

    async def _read_entity(self, place: Place) -> tuple[int, Entity]:
        kind, partner, entity_id = place
        stored = await self.get(kind, partner, entity_id)
        return stored.version, from_json(cast(type[Any], kind), stored.body)

    async def _change(self, sql: str, partner: int, entity: Entity, *version: int) -> int | None:
        rows = await self._engine.write_returning(
            _sql(sql, type(entity)), partner, entity.id, *version, to_json(entity).decode()
        )
        return int(rows[0][0]) if rows else None

    # Events ---------------------------------------------------------------------------------------

    async def event(self, partner: int, event_id: str) -> bytes:
        """The JSON of the event. Raises NotFound."""
        row = await self._engine.look_up(queries.GET_EVENT, partner, event_id, again=False)
        if row is None:
            raise NotFound
        body: str = row[0]
        return body.encode()

    async def events(
        self,
        partner: int,
        wanted: EventFilter,
        *,
        after: int | None,
        limit: int,
        descending: bool = False,
    ) -> Events:
        """The next events in the order of their commits, from `after` on.

        Where few of many are wanted it reads PORTIONS portions at most, and may find none.
        """
        # What is in an index one after the other is read sooner than a thread takes over.
        read = self._engine.read if wanted == EventFilter() else self._engine.scan
        async with self.turns.of(partner) as turn:
            for portion in range(PORTIONS):
                sql, parameters = queries.events_page(wanted, after, descending)
                rows = await read(sql, partner, limit, *parameters)
                stop = rows.pop()[0] if rows and rows[-1][1] is None else None
                if rows or stop is None:
                    found = [(seq, body) for seq, body in rows]
                    return Events(found, stop if len(found) < limit else None)
                after = stop
                if portion == 0 and queries.has_window(wanted):
                    nearest = await self._nearest(partner, wanted, stop, descending)
                    if nearest is None:
                        return Events([], None)
                    after = nearest
                await turn.pass_on()
        return Events([], after)

    async def _nearest(
        self, partner: int, wanted: EventFilter, beyond: int, descending: bool
    ) -> int | None:
        """Behind which number events of the window of time are to be looked for, beyond this one.

        None if there are none. If there are too many of the window to look at, it is this one.
        """
        sql, parameters = queries.events_window(wanted, beyond, descending)
        ((count, nearest),) = await self._engine.scan(sql, partner, *parameters)
        if count >= queries.WINDOW_AT_ONCE:
            return beyond
        if nearest is None:
            return None
        return int(nearest) + (1 if descending else -1)

    # Partners and keys ----------------------------------------------------------------------------

    async def find_key(self, digest: str) -> Key | None:
        """The key with this SHA-256, also if it is revoked or expired."""
        rows = await self._engine.read(queries.FIND_KEY, digest)
        return _key(rows[0]) if rows else None

    async def keys(self) -> list[Key]:
        """All keys, by partner and age."""
        return [_key(row) for row in await self._engine.read(queries.LIST_KEYS)]

    async def add_key(self, key: Key) -> None:
        """Stores a new key."""
        await self._engine.write(
            queries.ADD_KEY, key.digest, key.prefix, key.partner, key.name, key.rate.requests,
            key.rate.window_s, key.burst, int(key.read_only), key.created_ms, key.expires_ms,
        )  # fmt: skip

    async def revoke_key(self, key: Key, at_ms: int) -> None:
        """The key stops working for good; the instant is a note, the first one stays."""
        await self._engine.write(queries.REVOKE_KEY, key.digest, at_ms)

    async def expire_key(self, key: Key, at_ms: int) -> None:
        """The key stops working at this instant at the latest."""
        await self._engine.write(queries.EXPIRE_KEY, key.digest, at_ms)

    async def add_partner(self, partner: Partner) -> Partner:
        """Stores a new partner; returns the partner of this name, new or not."""
        await self._engine.write(queries.ADD_PARTNER, *partner)
        found = await self.partner(partner.name)
        assert found is not None
        return found

    async def partner(self, name: str) -> Partner | None:
        """The partner of this name."""
        rows = await self._engine.read(queries.FIND_PARTNER, name)
        return Partner(*rows[0]) if rows else None

    async def partners(self) -> list[Partner]:
        """All partners, by name."""
        return [Partner(*row) for row in await self._engine.read(queries.LIST_PARTNERS)]

    async def rename_partner(self, partner: Partner, name: str) -> None:
        """Gives the partner another name. Raises SetupError if it is taken."""
        if await self.partner(name) is not None:
            raise SetupError(f"There is a partner {name!r} already.")
        await self._engine.write(queries.RENAME_PARTNER, partner.id, name)

    async def holdings(self, partner: Partner) -> Holdings:
        """How much of what the partner has."""
        return Holdings(*(await self._engine.scan(queries.COUNT_OF_PARTNER, partner.id))[0])

    async def erase_partner(self, partner: Partner, progress: Callable[[int], None]) -> None:
        """Deletes the partner and everything it has; tells `progress` of events as they go.

        The keys go first, then what events refer to, so that nothing new arrives. Between the
        portions of events the others have their turn. In the end the database's files have nothing
        of it.
        """
        await self._engine.write(queries.ERASE_KEYS, partner.id)
        await self._erase_all(partner, _FIRST_ERASED)
        erased = ERASE_AT_ONCE
        while erased == ERASE_AT_ONCE:
            began = time.monotonic()
            erased = await self._engine.write(queries.ERASE_EVENTS, partner.id, ERASE_AT_ONCE)
            progress(erased)
            await asyncio.sleep(time.monotonic() - began)
        # As long as there are events it must be known how far they are listed, else they are again.
        tables = (*_FIRST_ERASED, *self._engine.dialect.own_tables)
        await self._erase_all(partner, tables)
        await self._engine.scrub()  # before the partner goes: if it fails, it can be done again
        await self._engine.write(queries.ERASE_PARTNER, partner.id)
        await self._erase_all(partner, tables)  # a server may just have begun to derive once more

    async def _erase_all(self, partner: Partner, tables: Iterable[str]) -> None:
        for table in tables:
            await self._engine.write(queries.ERASE_ALL.format(table=table), partner.id)


def _expected(version: int | None) -> int:
    if version is None:
        raise PreconditionFailed
    return version


@lru_cache
def _sql(text: str, kind: type[Entity]) -> str:
    return text.format(table=_TABLE[kind])


def _key(row: Row) -> Key:
    digest, prefix, partner, partner_name, name, requests, window_s, burst, read_only, *times = row
    return Key(
        digest, prefix, partner, partner_name, name, Rate(requests, window_s), burst,
        bool(read_only), *times,
    )  # fmt: skip
