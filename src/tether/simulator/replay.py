"""What a table of charging sessions means in the API's terms: chargers, vehicles and events.

Made for the 1,878 sessions of one fast charging station in `data/level3-sessions.csv`; every table
with the same columns will do. What the data say is sent as they say it:

- a plug is a charger, its name is the charger's id;
- a session is a vehicle of its own, for the data name none, with the session's battery capacity and
  as its only power the highest of the session, rounded up to a whole kW;
- arrival and departure are minutes without a zone, taken as UTC; states of charge are in %;
- energy is the session's to the last digit, Wh divided by 1000;
- the time charged is the stay in whole minutes, which counts the minute of arrival and that of
  departure: the stamps, cut to the minute, lie one minute less apart.

What they do not say, and what is taken instead:

- when charging began and ended: on arrival and on departure, for nothing else is known;
- how it went halfway: the state of charge in the middle of the two, rounded to 0.01 %, and the mean
  power, rounded to a watt;
- the capacity is the source's estimate from energy and states of charge, with more digits than the
  API takes or it can mean: it is rounded to a Wh;
- what the plugs support: up to the station's 172.5 kW, from 1 kW since no lowest power is known.
  (Nine sessions have a reading up to 1.4 % above that; their vehicles keep it.)

No row is left out or bent to fit: one that the API's rules refuse is refused by the server, which
says why. The station's data have no such row: states of charge lie in 0 to 100 and never fall,
powers and energies are above 0, stays last five minutes or more, and never overlap at one plug.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
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
        """What was charged, exactly."""
        return self.energy_wh / _PER_KILO


def sessions_of(rows: Iterable[Mapping[str, str]]) -> list[RecordedSession]:
    """The sessions in these rows, by arrival. Raises SetupError with the row that is at fault."""
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
    """The plugs at which the sessions took place, as chargers, by id."""
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

    The first two share an instant, and so do the last two: their order is that of this list.
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
