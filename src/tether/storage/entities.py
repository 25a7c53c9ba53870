"""Chargers and vehicles: two tables with the same columns, which have the JSON of an entity."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias, cast

from tether.domain.errors import Forbidden, NotFound, PreconditionFailed, Refusal, Unavailable
from tether.domain.models import Charger, Entity, Vehicle, from_json, to_json
from tether.storage.batches import Batches
from tether.storage.engine import Engine, Repository, Row, batch, batch_of
from tether.storage.erasures import code_of
from tether.storage.turns import TimeSlice, map_in_steps

BEING_ERASED = partial(Unavailable, 1, "one of this id is being erased.")
PUT_AT_ONCE = 1_000  # entities in one statement, so that other writes do not wait long
MAX_PATCHES_WAITING = 2_000  # of one entity; later ones are refused with Unavailable
PATCHES_AT_ONCE = 200

Patch: TypeAlias = Callable[[int, Any], Any]
"""Returns the changed entity, given its version and itself; raises the error for its sender."""
Target: TypeAlias = tuple[type[Entity], int, str]
"""Kind, partner and id of an entity."""

_TABLE: dict[type[Entity], str] = {Charger: "chargers", Vehicle: "vehicles"}

GET = "SELECT version, body FROM {table} WHERE partner = $1 AND id = $2"
PAGE = "SELECT id, body FROM {table} WHERE partner = $1 AND id > $2 ORDER BY id LIMIT $3"
GET_MANY = f"""
WITH {batch("wanted", "id")}
SELECT e.id, e.body FROM wanted w JOIN {{table}} e ON e.partner = $1 AND e.id = w.id
"""
PARTNER = "SELECT 1 FROM partners WHERE id = $1"
COUNT = "SELECT count(*) FROM {table} WHERE partner = $1"

# A partner may be deleted while one of its requests arrives. Then nothing may be stored.
CREATE = """
INSERT INTO {table} (partner, id, version, body)
SELECT $1, $2, 1, $3 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1) AND NOT EXISTS (
    SELECT 1 FROM erasures x WHERE x.partner = $1 AND x.kind = '{table}' AND x.code = $4
)
ON CONFLICT (partner, id) DO NOTHING RETURNING version
"""
# `times` says how often an entity was put in the batch. The order of ids prevents deadlocks between
# these statements.
PUT = f"""
WITH {batch("batch", "id", "times BIGINT", "body", "code")}
INSERT INTO {{table}} (partner, id, version, body)
SELECT $1, b.id, b.times, b.body FROM batch b
WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1) AND NOT EXISTS (
    SELECT 1 FROM erasures x WHERE x.partner = $1 AND x.kind = '{{table}}' AND x.code = b.code
)
ORDER BY b.id
ON CONFLICT (partner, id)
DO UPDATE SET version = {{table}}.version + excluded.version, body = excluded.body
RETURNING id, version
"""
REPLACE = """
UPDATE {table} SET version = version + $4, body = $5
WHERE partner = $1 AND id = $2 AND version = $3
RETURNING version
"""


def vehicle_of(alias: str) -> str:
    """The JSON of the vehicle of a row."""
    return f"(SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = {alias}.vehicle_id)"


def charger_of(alias: str) -> str:
    """The JSON of the charger of a row."""
    return f"(SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = {alias}.charger_id)"


class Stored(NamedTuple):
    """An entity as it is stored: `body` is its JSON, `version` counts its changes from 1."""

    version: int
    body: bytes


class Entities(Repository):
    """Chargers and vehicles. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._patches = Batches(
            self._apply, max_at_once=PATCHES_AT_ONCE, max_waiting=MAX_PATCHES_WAITING
        )

    async def drain(self) -> None:
        """Returns when all patches are written."""
        await self._patches.drain()

    async def get(self, kind: type[Entity], partner: int, entity_id: str) -> Stored:
        """The entity. Raises NotFound."""
        row = await self._engine.look_up(_sql(GET, kind), partner, entity_id)
        if row is None:
            raise NotFound
        version, body = row
        return Stored(version, body.encode())

    async def get_many(
        self, kind: type[Entity], partner: int, entity_ids: Iterable[str]
    ) -> list[tuple[str, str]]:
        """Id and JSON of the entities with these ids, where they exist."""
        wanted = batch_of((entity_id,) for entity_id in entity_ids)
        rows = await self._engine.scan(_sql(GET_MANY, kind), partner, wanted)
        return [(entity_id, body) for entity_id, body in rows]

    async def page(
        self, kind: type[Entity], partner: int, after: str, limit: int, *, begins: str = ""
    ) -> list[tuple[str, str]]:
        """Id and JSON of the `limit` entities that follow the id `after`, in order of id. With
        `begins`, only entities whose ids begin with it.
        """
        rows: list[Row] = []
        if after < begins:
            found = await self._engine.read(_sql(GET, kind), partner, begins)
            rows = [(begins, body) for _, body in found]
            after = begins
        rows += await self._engine.read(_sql(PAGE, kind), partner, after, limit - len(rows))
        return [(entity_id, body) for entity_id, body in rows if entity_id.startswith(begins)]

    async def count(self, kind: type[Entity], partner: int) -> int:
        """How many there are."""
        ((count,),) = await self._engine.scan(_sql(COUNT, kind), partner)
        return int(count)

    async def put(self, partner: int, entity: Entity) -> int:
        """Creates or replaces the entity; returns its version, 1 if it is new.

        Raises Forbidden if the partner is deleted, Unavailable while an entity with this id is
        being erased.
        """
        (version,) = await self._put_portion(partner, [entity])
        if isinstance(version, Refusal):
            raise BEING_ERASED()
        return version

    async def _require_partner(self, partner: int) -> None:
        if not await self._engine.read(PARTNER, partner):
            raise Forbidden

    async def put_all(self, partner: int, entities: Sequence[Entity]) -> list[int | Refusal]:
        """Puts entities of one kind, one after the other. Returns the version of each, or why it
        was not stored.

        Raises Forbidden if the partner is deleted, Unavailable if nothing could be stored.
        """
        versions: list[int | Refusal] = []
        while portion := entities[len(versions) : len(versions) + PUT_AT_ONCE]:
            try:
                versions += await self._put_portion(partner, portion)
            except Unavailable as error:
                if not versions:
                    raise
                versions += [error.refusal()] * (len(entities) - len(versions))
        return versions

    async def _put_portion(self, partner: int, entities: Sequence[Entity]) -> list[int | Refusal]:
        times = Counter(entity.id for entity in entities)
        last = {entity.id: entity for entity in entities}

        def row(entity: Entity) -> tuple[str, int, str, str]:
            body = to_json(entity).decode()
            return entity.id, times[entity.id], body, code_of(entity.id)

        rows = await map_in_steps(row, last.values())  # each may have hundreds of powers
        sql = _sql(PUT, type(entities[0]))
        stored = await self._engine.write_returning(sql, partner, batch_of(rows))
        if not stored:
            await self._require_partner(partner)
        newest = {id: version - times[id] for id, version in stored}
        versions: list[int | Refusal] = []
        for entity in entities:
            if entity.id in newest:
                newest[entity.id] += 1
                versions.append(newest[entity.id])
            else:
                versions.append(BEING_ERASED().refusal())
        return versions

    async def create(self, partner: int, entity: Entity) -> int:
        """Creates the entity. Raises PreconditionFailed if it exists, and the errors of `put`."""
        kind, id = type(entity), entity.id
        row = partner, id, to_json(entity).decode(), code_of(id)
        if not await self._engine.write_returning(_sql(CREATE, kind), *row):
            await self._require_partner(partner)
            if await self._engine.read(_sql(GET, kind), partner, id):
                raise PreconditionFailed
            raise BEING_ERASED()
        return 1

    async def replace(self, partner: int, entity: Entity, version: int, by: int = 1) -> int:
        """Replaces this version of the entity; returns the new version, which is `by` higher.

        Raises PreconditionFailed if the entity has another version.
        """
        row = partner, entity.id, version, by, to_json(entity).decode()
        if not await self._engine.write_returning(_sql(REPLACE, type(entity)), *row):
            raise PreconditionFailed
        return version + by

    async def patch(self, kind: type[Entity], partner: int, entity_id: str, patch: Patch) -> int:
        """Changes the entity with `patch`; returns its new version.

        Raises NotFound, Unavailable, also if too many patches wait, and what `patch` raises.
        """
        return await self._patches.add((kind, partner, entity_id), patch)

    async def _apply(self, target: Target, patches: Sequence[Patch]) -> Sequence[int | Exception]:
        """Applies patches that arrived together, one after the other, and writes the result once.

        Otherwise only one of them would find the version that it has read. If another process was
        faster, they are applied again.
        """
        kind, partner, entity_id = target
        while True:
            try:
                stored = await self.get(kind, partner, entity_id)
            except NotFound:
                return [NotFound() for _ in patches]
            version, entity = stored.version, from_json(cast(type[Any], kind), stored.body)
            results: list[int | Exception] = []
            time_slice = TimeSlice()
            for patch in patches:
                try:
                    entity = patch(version, entity)
                    version += 1
                    results.append(version)
                except Exception as error:
                    results.append(error.with_traceback(None))
                await time_slice.yield_if_over()
            with suppress(PreconditionFailed):
                if version > stored.version:
                    await self.replace(partner, entity, stored.version, version - stored.version)
                return results


@lru_cache
def _sql(text: str, kind: type[Entity]) -> str:
    return text.format(table=_TABLE[kind])
