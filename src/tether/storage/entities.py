"""Chargers and vehicles: two tables of the same form, of which each row has the JSON of one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

from tether.domain.errors import Forbidden, NotFound, PreconditionFailed, Refusal, Unavailable
from tether.domain.models import Charger, Entity, Vehicle, from_json, to_json
from tether.storage.engine import Engine, Row, batch, batch_of
from tether.storage.erasures import code_of
from tether.storage.patches import Patch, Patches, Target
from tether.storage.turns import Steps, in_steps

BEING_ERASED = partial(Unavailable, 1, "one of this id is being erased.")
PUT_AT_ONCE = 1_000  # in one statement, so that other writes do not wait long

_TABLE: dict[type[Entity], str] = {Charger: "chargers", Vehicle: "vehicles"}

GET = "SELECT version, body FROM {table} WHERE partner = $1 AND id = $2"
PAGE = "SELECT id, body FROM {table} WHERE partner = $1 AND id > $2 ORDER BY id LIMIT $3"
ITSELF = "SELECT id, body FROM {table} WHERE partner = $1 AND id = $2"
GET_MANY = f"""
WITH {batch("wanted", "id")}
SELECT e.id, e.body FROM wanted w JOIN {{table}} e ON e.partner = $1 AND e.id = w.id
"""
PARTNER = "SELECT 1 FROM partners WHERE id = $1"
COUNT = "SELECT count(*) FROM {table} WHERE partner = $1"

# A partner may be deleted while a body of its is still arriving: nothing must be left of it.
_INSERT = """
INSERT INTO {table} (partner, id, version, body)
SELECT $1, $2, 1, $3 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1) AND NOT EXISTS (
    SELECT 1 FROM erasures x WHERE x.partner = $1 AND x.kind = '{table}' AND x.code = $4
)
ON CONFLICT (partner, id)
"""
PUT = f"""
{_INSERT} DO UPDATE SET version = {{table}}.version + 1, body = excluded.body RETURNING version
"""
# Many at once, each with how often it is put. In the order of ids, so that two of these statements
# cannot wait for each other.
PUT_ALL = f"""
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
CREATE = f"{_INSERT} DO NOTHING RETURNING version"
REPLACE = """
UPDATE {table} SET version = version + $4, body = $5
WHERE partner = $1 AND id = $2 AND version = $3
RETURNING version
"""


class Stored(NamedTuple):
    """An entity as it is stored: `body` is its JSON, `version` counts its changes from 1."""

    version: int
    body: bytes


class Entities:
    """Chargers and vehicles. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._patches = Patches(self._read, self.replace)

    async def drain(self) -> None:
        """Returns when no patch waits any more."""
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
        """Id and JSON of those of these ids that there are."""
        wanted = batch_of((entity_id,) for entity_id in entity_ids)
        rows = await self._engine.scan(_sql(GET_MANY, kind), partner, wanted)
        return [(entity_id, body) for entity_id, body in rows]

    async def page(
        self, kind: type[Entity], partner: int, after: str, limit: int
    ) -> list[tuple[str, str]]:
        """Id and JSON of the `limit` entities that follow the id `after`, in order of id."""
        rows = await self._engine.read(_sql(PAGE, kind), partner, after, limit)
        return [(entity_id, body) for entity_id, body in rows]

    async def beginning(
        self, kind: type[Entity], partner: int, begins: str, after: str, limit: int
    ) -> list[tuple[str, str]]:
        """The same of those whose ids begin so."""
        rows: list[Row] = []
        if after < begins:
            rows = await self._engine.read(_sql(ITSELF, kind), partner, begins)
            after = begins
        rows += await self._engine.read(_sql(PAGE, kind), partner, after, limit - len(rows))
        return [(entity_id, body) for entity_id, body in rows if entity_id.startswith(begins)]

    async def count(self, kind: type[Entity], partner: int) -> int:
        """How many there are."""
        ((count,),) = await self._engine.scan(_sql(COUNT, kind), partner)
        return int(count)

    async def put(self, partner: int, entity: Entity) -> int:
        """Creates or replaces the entity; returns its version, 1 if it is new.

        Raises Forbidden if the partner is gone, Unavailable while one of this id is being erased.
        """
        version = await self._change(PUT, partner, entity, new=True)
        if version is None:
            await self._require_partner(partner)
            raise BEING_ERASED()
        return version

    async def _require_partner(self, partner: int) -> None:
        if not await self._engine.read(PARTNER, partner):
            raise Forbidden

    async def put_all(self, partner: int, entities: Sequence[Entity]) -> list[int | Refusal]:
        """Puts them one after the other, all of one kind; for each its version, or why not.

        Raises Forbidden if the partner is gone, Unavailable if nothing could be put.
        """
        versions: list[int | Refusal] = []
        while some := entities[len(versions) : len(versions) + PUT_AT_ONCE]:
            try:
                versions += await self._put_some(partner, some)
            except Unavailable as error:
                if not versions:
                    raise
                versions += [error.refusal()] * (len(entities) - len(versions))
        return versions

    async def _put_some(self, partner: int, entities: Sequence[Entity]) -> list[int | Refusal]:
        times = Counter(entity.id for entity in entities)
        last = {entity.id: entity for entity in entities}
        rows = await in_steps(_rows(last.values(), times))
        sql = _sql(PUT_ALL, type(entities[0]))
        found = await self._engine.write_returning(sql, partner, batch_of(rows))
        if not found:
            await self._require_partner(partner)
        newest = {id: version - times[id] for id, version in found}
        versions: list[int | Refusal] = []
        for entity in entities:
            if entity.id in newest:
                newest[entity.id] += 1
                versions.append(newest[entity.id])
            else:
                versions.append(BEING_ERASED().refusal())
        return versions

    async def create(self, partner: int, entity: Entity) -> int:
        """Creates the entity. Raises PreconditionFailed if it exists, and else as `put`."""
        version = await self._change(CREATE, partner, entity, new=True)
        if version is None:
            await self._require_partner(partner)
            if await self._engine.read(_sql(GET, type(entity)), partner, entity.id):
                raise PreconditionFailed
            raise BEING_ERASED()
        return version

    async def replace(self, partner: int, entity: Entity, version: int, by: int = 1) -> int:
        """Replaces this version of the entity; returns the next version, which is `by` higher.

        Raises PreconditionFailed if there is no such version any more.
        """
        return _expected(await self._change(REPLACE, partner, entity, version, by))

    async def patch(self, kind: type[Entity], partner: int, entity_id: str, patch: Patch) -> int:
        """Makes the next version of the entity as `patch` says; returns which that is.

        However many patches come at once, each finds what those before it made. Raises NotFound,
        and what `patch` raises.
        """
        return await self._patches.apply((kind, partner, entity_id), patch)

    async def _read(self, target: Target) -> tuple[int, Entity]:
        kind, partner, entity_id = target
        stored = await self.get(kind, partner, entity_id)
        return stored.version, from_json(cast(type[Any], kind), stored.body)

    async def _change(
        self, sql: str, partner: int, entity: Entity, *version: int, new: bool = False
    ) -> int | None:
        code = (code_of(entity.id),) if new else ()
        rows = await self._engine.write_returning(
            _sql(sql, type(entity)), partner, entity.id, *version, to_json(entity).decode(), *code
        )
        return int(rows[0][0]) if rows else None


def _rows(
    entities: Iterable[Entity], times: Mapping[str, int]
) -> Steps[list[tuple[str, int, str, str]]]:
    """The batch of PUT_ALL; each may have hundreds of powers to write."""
    rows = []
    for entity in entities:
        body = to_json(entity).decode()
        rows.append((entity.id, times[entity.id], body, code_of(entity.id)))
        yield
    return rows


def _expected(version: int | None) -> int:
    if version is None:
        raise PreconditionFailed
    return version


@lru_cache
def _sql(text: str, kind: type[Entity]) -> str:
    return text.format(table=_TABLE[kind])
