"""The events of wrk/post.lua, made in Python: as documents and as rows of our table."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from uuid_utils import uuid7

from tether.domain.timestamps import format_instant

THINGS = 1000  # chargers, and vehicles
STEP = 617  # no common divisor with THINGS
TYPES = (
    "VEHICLE_CONNECTED",
    "VEHICLE_CHARGE_STARTED",
    "VEHICLE_CHARGE_UPDATED",
    "VEHICLE_CHARGE_STOPPED",
    "VEHICLE_DISCONNECTED",
)
COLUMNS = "partner, seq, id, type, charger_id, vehicle_id, at_ms, stamp, body"


class Numbered(NamedTuple):
    """An event of a run; no two of them have the same millisecond."""

    at_ms: int
    document: dict[str, Any]


def event(first_second: int, n: int) -> Numbered:
    """All vehicles in turn, each at a charger; then again with the next type."""
    turn, vehicle = n // THINGS, n * STEP % THINGS
    at_ms = first_second * 1000 + n
    return Numbered(
        at_ms,
        {
            "type": TYPES[turn % len(TYPES)],
            "chargerId": f"C{(7 * vehicle + turn // len(TYPES)) % THINGS:04d}",
            "vehicleId": f"V{vehicle:04d}",
            "stateOfCharge": n % 1001 / 10,
            "timestamp": format_instant(at_ms),
        },
    )


def ndjson(first_second: int, numbers: Iterable[int]) -> bytes:
    """A body of POST /events/bulk."""
    documents = (event(first_second, n).document for n in numbers)
    return "\n".join(json.dumps(document, separators=(",", ":")) for document in documents).encode()


def row(partner: int, one: Numbered) -> tuple[Any, ...]:
    """The row of our table that the event becomes; its millisecond is its sequence number too."""
    document = {"id": str(uuid7()), **one.document}
    body = json.dumps(document, separators=(",", ":"))
    kind, charger, vehicle = (document[name] for name in ("type", "chargerId", "vehicleId"))
    return partner, one.at_ms, document["id"], kind, charger, vehicle, one.at_ms, 0, body
