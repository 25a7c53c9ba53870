"""Makes chargers, vehicles and events from a table of charging sessions.

It is made for the 1,878 sessions of one fast charging station in `data/level3-sessions.csv`, and
accepts every table with the same columns. These values are in the data:

- Each plug is a charger. Its name is the charger's id.
- The data name no vehicles, so each session has its own. It has the session's battery capacity, and
  as its only power the maximum of the session, rounded up to a whole kW.
- Arrival and departure are minutes without a zone, taken as UTC. States of charge are in %.
- Energy has all its digits: Wh divided by 1000.
- The charging time is the stay in whole minutes. It counts the minute of arrival and the minute of
  departure, so it is one minute more than the difference between the two.

These values are not in the data:

- Charging begins on arrival and ends on departure.
- Halfway, the state of charge is the mean of both, rounded to 0.01 %, and the power is the mean
  power, rounded to a watt.
- The capacity is the source's estimate from energy and states of charge, with more digits than the
  API takes. It is rounded to a Wh.
- A plug supports 1 kW to the station's 172.5 kW. (Nine sessions have up to 1.4 % more; their
  vehicles keep that.)

No row is skipped or changed. If a row breaks the API's rules, the server refuses it and says why.
The station's data have no such row: states of charge are from 0 to 100 and never fall, powers and
energies are above 0, stays last five minutes or more, and do not overlap at one plug.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from importlib.resources.abc import Traversable
from math import ceil
from typing import Any

from tether.domain.errors import SetupError
from tether.domain.models import Charger, Event, EventType, Vehicle
from tether.domain.timestamps import format_instant

COLUMNS = (
    "session", "plug", "arrival", "departure", "stay_min", "energy_wh", "power_max_w",
    "soc_arrival_pct", "soc_departure_pct", "battery_capacity_wh",
)  # fmt: skip
LOWEST_POWER_KW = Decimal(1)
STATION_POWER_KW = Decimal("172.5")

_PER_KILO = Decimal(1000)
_WH = _WATT = Decimal("0.001")  # in kWh and in kW
_HUNDREDTH = Decimal("0.01")
_MINUTES_PER_HOUR = _SECONDS_PER_MINUTE = Decimal(60)


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """One row: a vehicle's stay at a plug. Instants in ms since 1970, energies in Wh, powers in W,
    states of charge in %."""

    number: int
    plug: str
    arrival_ms: int
    departure_ms: int
    stay_min: Decimal
    energy_wh: Decimal
    power_max_w: Decimal
    soc_arrival: Decimal
    soc_departure: Decimal
    capacity_wh: Decimal

    @property
    def vehicle_id(self) -> str:
        """The id of the session's vehicle."""
        return f"session-{self.number:04d}"

    @property
    def energy_kwh(self) -> Decimal:
        """The energy charged, exactly."""
        return self.energy_wh / _PER_KILO


def packaged_data(name: str) -> Traversable:
    """A data file that comes with Tether."""
    return files("tether.simulator").joinpath("data", name)


def read_rows(source: Traversable) -> list[dict[str, str]]:
    """The rows of a CSV. Raises SetupError if it cannot be read."""
    try:
        text = source.read_text(encoding="utf-8-sig")
        return list(csv.DictReader(text.splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{source} cannot be read: {error}") from None


def sessions_of(rows: Iterable[Mapping[str, str]]) -> list[RecordedSession]:
    """The sessions in these rows, by arrival. Raises SetupError that names the bad row."""
    sessions: dict[int, RecordedSession] = {}
    for place, row in enumerate(rows, start=1):
        try:
            session = _session(row)
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            raise SetupError(f"Row {place} of the sessions cannot be read: {_why(error)}") from None
        if session.number in sessions:
            raise SetupError(f"Row {place} of the sessions repeats session {session.number}.")
        sessions[session.number] = session
    return sorted(sessions.values(), key=lambda s: (s.arrival_ms, s.departure_ms, s.number))


def _session(row: Mapping[str, str]) -> RecordedSession:
    values = {name: row[name] for name in COLUMNS}
    session = RecordedSession(
        int(values["session"]),
        values["plug"],
        _minute_ms(values["arrival"]),
        _minute_ms(values["departure"]),
        *(_number(values[name]) for name in COLUMNS[4:]),
    )
    if session.departure_ms < session.arrival_ms:
        raise ValueError("it departs before it arrives.")
    if session.stay_min <= 0:
        raise ValueError("its stay_min is not above 0.")
    return session


def _number(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a number.")
    return number


def _minute_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 1000


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no column {error}."
    if isinstance(error, InvalidOperation):
        return "a number is not a number."
    return "a column is empty." if isinstance(error, TypeError) else str(error)


def chargers_of(sessions: Iterable[RecordedSession]) -> list[Charger]:
    """The plugs of these sessions as chargers, by id."""
    return [
        Charger(id=plug, charge_power_min=LOWEST_POWER_KW, charge_power_max=STATION_POWER_KW)
        for plug in sorted({session.plug for session in sessions})
    ]


def vehicle_of(session: RecordedSession) -> Vehicle:
    """The vehicle of the session."""
    return Vehicle(
        id=session.vehicle_id,
        charge_capacity=(session.capacity_wh / _PER_KILO).quantize(_WH),
        charge_powers=(Decimal(ceil(session.power_max_w / _PER_KILO)),),
    )


def events_of(session: RecordedSession) -> list[Event]:
    """The five events of the session, in the order in which they happened.

    The first two share an instant, and so do the last two. The list has their order.
    """
    halfway_ms = (session.arrival_ms + session.departure_ms) // 2
    soc_halfway = ((session.soc_arrival + session.soc_departure) / 2).quantize(_HUNDREDTH)
    mean_kw = (session.energy_kwh * _MINUTES_PER_HOUR / session.stay_min).quantize(_WATT)

    def event(kind: EventType, at_ms: int, soc: Decimal, **values: Any) -> Event:
        return Event(
            type=kind,
            charger_id=session.plug,
            vehicle_id=session.vehicle_id,
            state_of_charge=soc,
            timestamp=format_instant(at_ms),
            **values,
        )

    return [
        event(EventType.VEHICLE_CONNECTED, session.arrival_ms, session.soc_arrival),
        event(EventType.VEHICLE_CHARGE_STARTED, session.arrival_ms, session.soc_arrival),
        event(EventType.VEHICLE_CHARGE_UPDATED, halfway_ms, soc_halfway, charge_power=mean_kw),
        event(
            EventType.VEHICLE_CHARGE_STOPPED,
            session.departure_ms,
            session.soc_departure,
            charged_energy=session.energy_kwh,
            charged_time=session.stay_min * _SECONDS_PER_MINUTE,
        ),
        event(EventType.VEHICLE_DISCONNECTED, session.departure_ms, session.soc_departure),
    ]
