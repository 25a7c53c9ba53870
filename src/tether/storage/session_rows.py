"""Sessions and events as they are stored: between rows, JSON and what the session builder takes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from tether.domain.charge_period import Report
from tether.domain.earlier_sessions import SessionContext, Start
from tether.domain.models import Event, from_json
from tether.domain.session_record import PlacedEvent, SessionRecord, placed_event
from tether.storage.engine import Row


class Change(NamedTuple):
    """A stay that differs from what is stored. Not `visible`: only in what it knows of before.

    `grown`: it lasts, and is stored as one that lasts.
    """

    stay: SessionRecord
    before: SessionContext
    live: bool = True
    visible: bool = True
    grown: bool = False


class Ties(msgspec.Struct):
    """What ties a stay to others: of which earlier ones its events told, and what later ones told
    of it.
    """

    told: list[Start] = []
    reports: list[Report] = []


_ties = msgspec.json.Decoder(Ties)


def ties_of(row: Sequence[object]) -> Ties:
    """What ties the stay of this row to others."""
    return _ties.decode(str(row[-3]))


def placed_event_in(row: Row) -> PlacedEvent:
    """The fact of a row with an event's number, its instant and itself."""
    seq, at_ms, body = row
    return placed_event(seq, at_ms, from_json(Event, body))


def placed_events_in(text: str | None) -> list[PlacedEvent]:
    """The facts of a list of JSON arrays, in order."""
    return sorted(placed_event(*one) for one in _events.decode(f"[{text or ''}]"))


def rows_in(text: str | None) -> list[Row]:
    """The columns of stays of a list of JSON arrays."""
    return [
        (*row, bytes(body).decode(), bytes(before).decode(), version)
        for *row, body, before, version in _stored.decode(f"[{text or ''}]")
    ]


_events = msgspec.json.Decoder(list[tuple[int, int, Event]])
_stored = msgspec.json.Decoder(
    list[
        tuple[
            str, int, int, str, str, int, int | None, int | None, int | None, int, int,
            msgspec.Raw, msgspec.Raw, int | None,
        ]
    ]
)  # fmt: skip


# As they are stored -------------------------------------------------------------------------------


def start_in(row: Row) -> Start:
    """The start of the stay of this row."""
    _, start_ms, start_rank, charger_id, *_ = row
    return start_ms, start_rank, charger_id


def read_record(text: str) -> tuple[SessionRecord, SessionContext]:
    """The stay, and what it knows of before, as they are stored."""
    return _stays.decode(text)


_stays = msgspec.json.Decoder(tuple[SessionRecord, SessionContext])
_encoder = msgspec.json.Encoder(decimal_format="number")


def text_of(value: SessionRecord | SessionContext) -> str:
    """The JSON as it is stored."""
    return _encoder.encode(value).decode()


ID = 4
"""Where the id stands among the columns."""


def row_of(change: Change) -> Row:
    """The columns of a stay as they are stored, but for the partner."""
    stay = change.stay
    ended = stay.end_ms is not None
    return (
        stay.vehicle_id,
        stay.start_ms,
        stay.start_rank,
        stay.charger_id,
        stay.id,
        int(change.live),
        stay.end_ms,
        (stay.end_ms - stay.start_ms).bit_length() if stay.end_ms is not None else None,
        stay.newest_here.at_ms if ended else None,
        stay.last.seq,
        stay.newest_here.seq,
        text_of(stay),
        text_of(change.before),
    )


def numbered(rows: Iterable[object]) -> str:
    """The JSON object of these arrays that statements take as a batch."""
    return _encoder.encode({str(place): row for place, row in enumerate(rows, 1)}).decode()
