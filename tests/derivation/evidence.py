"""Streams of real equipment, and their meaning: one case for each kind of evidence.

A line of a stream is an instant of 2026-01-05 (`+1` is a day later), a kind, a charger, and
readings: `e` kWh, `t` s, `p` kW, `s` %. A line of the meaning is a charger, the energy, and
whether the vehicle is still there (`here`, `charging`). `!flag` must be among the flags, and
`clean` says that there are none. The vehicle stores 60 kWh; it and the chargers have 11 kW.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

KINDS = {
    "connected": "CONNECTED",
    "started": "CHARGE_STARTED",
    "updated": "CHARGE_UPDATED",
    "stopped": "CHARGE_STOPPED",
    "disconnected": "DISCONNECTED",
}
MEASURES = {"e": "chargedEnergy", "t": "chargedTime", "p": "chargePower", "s": "stateOfCharge"}
LINE = re.compile(r"(?:\+(\d+) )?(\d\d):(\d\d)(?::(\d\d))? (\w+) (C\d)((?: [etps]=\S+)*)")

Body = dict[str, Any]


@dataclass(frozen=True)
class Meaning:
    """The expected sessions of a vehicle: charger, energy, end and some flags of each."""

    sessions: tuple[tuple[str, Decimal | None, str], ...]
    flags: frozenset[str]
    clean: bool


def events_of(stream: str) -> list[Body]:
    """The events of a stream, in the order of its lines."""
    bodies = []
    for text in stream.strip().splitlines():
        line = LINE.fullmatch(text.strip())
        assert line, text
        days, hours, minutes, seconds, kind, charger, measured = line.groups("0")
        instant = datetime(2026, 1, 5, int(hours), int(minutes), int(seconds), tzinfo=UTC)
        instant += timedelta(days=int(days))
        body: Body = {"type": f"VEHICLE_{KINDS[kind]}", "chargerId": charger}
        for one in measured.split() if measured != "0" else ():
            name, number = one.split("=")
            body[MEASURES[name]] = float(number)
        if kind == "updated":
            body.setdefault("stateOfCharge", 50)
        bodies.append({**body, "timestamp": instant.isoformat().replace("+00:00", "Z")})
    return bodies


def meaning_of(text: str) -> Meaning:
    """The sessions behind the arrow."""
    sessions, flags = [], set()
    for line in text.strip().splitlines():
        words = line.split()
        flags |= {word[1:] for word in words if word.startswith("!")}
        if words[0].startswith("C"):
            energy = None if words[1] == "-" else Decimal(words[1])
            rest = [word for word in words[2:] if word in ("here", "charging")]
            sessions.append((words[0], energy, rest[0] if rest else "ended"))
    return Meaning(tuple(sorted(sessions, key=str)), frozenset(flags), "clean" in text.split())


CASES: dict[str, tuple[str, str]] = {}


def case(name: str, stream: str, meaning: str) -> None:
    assert name not in CASES
    CASES[name] = stream, meaning


# One instant --------------------------------------------------------------------------------------

for _second in ("C1", "C2"):
    case(f"one instant, then {_second}", f"""
        08:00 connected C1
        08:00 started C1
        08:30 stopped C1 e=5
        08:30 disconnected C1
        08:30 connected {_second}
        08:30 started {_second}
        09:30 stopped {_second} e=9
        09:30 disconnected {_second}
    """, f"C1 5 clean\n{_second} 9")  # fmt: skip
    case(f"one instant, then {_second} charges", f"""
        08:00 connected C1
        08:00 started C1
        08:30 stopped C1 e=5
        08:30 disconnected C1
        08:30 connected {_second}
        08:30 started {_second} p=11
    """, f"C1 5 clean\n{_second} 0 charging")  # fmt: skip
    case(f"one instant, an update in place of the stop, then {_second}", f"""
        08:00 connected C1
        08:00 started C1
        08:30 updated C1 e=5
        08:30 disconnected C1
        08:30 connected {_second}
        08:30 started {_second}
        09:30 stopped {_second} e=9
        09:30 disconnected {_second}
    """, f"C1 5 !stop-missing\n{_second} 9")  # fmt: skip
    case(f"one instant, the plug-in and the start a minute before, then {_second}", f"""
        08:00 connected C1
        08:01 started C1
        08:30 updated C1 e=4.9
        08:30 stopped C1 e=5
        08:30 disconnected C1
        08:30 connected {_second}
        08:31 started {_second}
        09:30 stopped {_second} e=9
        09:31 disconnected {_second}
    """, f"C1 5 clean\n{_second} 9")  # fmt: skip
case("one instant, a chain of three", """
    08:00 connected C1
    08:00 started C1
    08:30 stopped C1 e=5
    08:30 disconnected C1
    08:30 connected C1
    08:30 started C1
    09:30 stopped C1 e=9
    09:30 disconnected C1
    09:30 connected C2
    09:30 started C2
    10:00 stopped C2 e=4
    10:00 disconnected C2
""", "C1 5 clean\nC1 9\nC2 4")  # fmt: skip
case("one instant, back and forth", """
    08:00 connected C1
    08:00 started C1
    08:30 stopped C1 e=5
    08:30 disconnected C1
    08:30 connected C2
    08:30 started C2
    09:00 stopped C2 e=3
    09:00 disconnected C2
    09:00 connected C1
    09:00 started C1
    09:30 stopped C1 e=4
    09:30 disconnected C1
""", "C1 5 clean\nC2 3\nC1 4")  # fmt: skip
case("one instant, a session of no length", """
    08:00 connected C1
    08:00 started C1
    08:00 stopped C1 e=0
    08:00 disconnected C1
    09:00 connected C1
    09:00 started C1
    10:00 stopped C1 e=7
    10:00 disconnected C1
""", "C1 0 clean\nC1 7")  # fmt: skip
case("one instant, two chargers and a session of no length between", """
    08:00 connected C1
    08:00 started C1
    08:30 stopped C1 e=5
    08:30 disconnected C1
    08:30 connected C2
    08:30 started C2
    08:30 stopped C2 e=0
    08:30 disconnected C2
    08:30 connected C3
    08:30 started C3
    09:00 stopped C3 e=4
    09:00 disconnected C3
""", "C1 5 clean\nC2 0\nC3 4")  # fmt: skip
case("one instant, a second charge of the session", """
    08:00 connected C1
    08:00 started C1
    08:30 stopped C1 e=5
    08:30 started C1
    09:30 stopped C1 e=9
    09:30 disconnected C1
""", "C1 14 clean")  # fmt: skip
case("one instant, a charge of no length before the unplug", """
    08:00 connected C1
    08:30 started C1
    08:30 stopped C1 e=0
    08:30 disconnected C1
""", "C1 0 clean")  # fmt: skip
case("one instant, a start that nothing stops before the unplug", """
    08:00 connected C1
    08:30 started C1
    08:30 disconnected C1
""", "C1 - !stop-missing")  # fmt: skip
case("one instant, only the plug-in again", """
    08:00 connected C1
    08:00 started C1
    08:30 stopped C1 e=5
    08:30 disconnected C1
    08:30 connected C1
""", "C1 5 clean\nC1 - here")  # fmt: skip

# A late report ------------------------------------------------------------------------------------

for _kind in ("stopped", "updated"):
    case(f"late: {_kind}", f"""
        09:00 connected C1
        09:00 started C1 p=11
        10:00 disconnected C1
        10:15 {_kind} C1 e=11 t=3600
    """, "C1 11 !event-after-disconnect")  # fmt: skip
    case(f"late: {_kind} by energy alone", f"""
        09:00 connected C1
        09:00 started C1 p=11
        10:00 disconnected C1
        10:15 {_kind} C1 e=11
    """, "C1 11 !event-after-disconnect")  # fmt: skip
    case(f"late: {_kind} without a start", f"""
        09:00 connected C1
        10:00 disconnected C1
        10:15 {_kind} C1 e=10 t=3500
    """, "C1 10 !event-after-disconnect")  # fmt: skip
    for _other in ("C1", "C2"):
        case(f"late: {_kind} when the vehicle charges at {_other}", f"""
            09:00 connected C1
            09:00 started C1 p=11
            10:00 disconnected C1
            10:10 connected {_other}
            10:10 started {_other} p=11
            10:15 {_kind} C1 e=11 t=3600
            10:40 stopped {_other} e=5.5 t=1800
            10:40 disconnected {_other}
        """, f"C1 11\n{_other} 5.5")  # fmt: skip
case("late: no account at all", """
    09:00 connected C1
    09:00 started C1 p=11
    10:00 disconnected C1
    10:15 stopped C1
""", "C1 11 !event-after-disconnect")  # fmt: skip
case("late: of the first of two sessions at the charger", """
    08:00 connected C1
    08:00 started C1
    09:00 disconnected C1
    10:00 connected C1
    10:00 started C1
    11:00 stopped C1 e=5 t=3600
    11:00 disconnected C1
    12:00 stopped C1 e=7 t=3500
""", "C1 7 !event-after-disconnect\nC1 5")  # fmt: skip
case("late: of the first while plugged in again", """
    08:00 connected C1
    08:00 started C1
    09:00 disconnected C1
    10:00 connected C1
    10:00 started C1
    11:00 stopped C1 e=5 t=3600
    11:10 stopped C1 e=7 t=3500
    11:20 disconnected C1
""", "C1 7 !event-after-disconnect\nC1 5")  # fmt: skip
case("late: two sessions, two reports, the other way round", """
    08:00 connected C1
    08:00 started C1
    09:00 disconnected C1
    10:00 connected C1
    10:00 started C1
    10:30 disconnected C1
    12:00 stopped C1 e=4 t=1790
    12:01 stopped C1 e=7 t=3500
""", "C1 7 !event-after-disconnect\nC1 4")  # fmt: skip
case("late: two charges of one session", """
    08:00 connected C1
    08:00 started C1
    09:00 started C1
    09:30 disconnected C1
    10:00 connected C2
    12:00 stopped C1 e=7 t=3500
    12:01 stopped C1 e=4 t=1790
""", "C1 11\nC2 - here")  # fmt: skip
case("late: one report of two that only a repeated start parts", """
    08:00 connected C1
    08:00 started C1
    08:20 started C1
    08:50 disconnected C1
    08:55 stopped C1 e=8 t=3000
""", "C1 8 !start-repeated !event-after-disconnect")  # fmt: skip
for _between in range(1, 9):
    _sessions = "\n".join(f"""
        +{number} 08:00 connected C2
        +{number} 08:00 started C2
        +{number} 09:00 stopped C2 e={number} t=3600
        +{number} 09:00 disconnected C2""" for number in range(1, _between + 1))  # fmt: skip
    _found = "\n".join(f"C2 {number}" for number in range(1, _between + 1))
    case(f"late: {_between} sessions later", f"""
        09:00 connected C1
        09:00 started C1 p=11
        10:00 disconnected C1{_sessions}
        +{_between} 12:00 stopped C1 e=11 t=3600
    """.replace("\n\n", "\n"), f"C1 11 !event-after-disconnect\n{_found}")  # fmt: skip
    case(f"repeated: {_between} sessions later", f"""
        09:00 connected C1
        09:00 started C1 p=11
        10:00 stopped C1 e=11 t=3600
        10:00 disconnected C1{_sessions}
        +{_between} 12:00 stopped C1 e=11 t=3600
    """.replace("\n\n", "\n"), f"C1 11\n{_found}")  # fmt: skip

# Reports repeated ---------------------------------------------------------------------------------

for _kind in ("updated", "stopped"):
    case(f"repeated: {_kind} while plugged in", f"""
        18:00 connected C1
        18:05 started C1
        18:40 stopped C1 e=6 t=2100
        19:00 {_kind} C1 e=6 t=2100
    """, "C1 6 here")  # fmt: skip
    case(f"repeated: {_kind} hours later", f"""
        18:00 connected C1
        18:05 started C1
        18:40 stopped C1 e=6 t=2100
        22:00 {_kind} C1 e=6 t=2100
    """, "C1 6 here")  # fmt: skip
    case(f"repeated: {_kind} after the unplug", f"""
        18:00 connected C1
        18:05 started C1
        18:40 stopped C1 e=6 t=2100
        18:50 disconnected C1
        22:00 {_kind} C1 e=6 t=2100
        23:00 {_kind} C1 e=6 t=2100
    """, "C1 6 !event-after-disconnect")  # fmt: skip
    case(f"repeated: {_kind} of the first of two charges", f"""
        08:00 connected C1
        08:05 started C1
        08:40 stopped C1 e=6 t=2100
        09:00 started C1
        09:10 stopped C1 e=1 t=600
        10:30 {_kind} C1 e=6 t=2100
        12:00 disconnected C1
    """, "C1 7")  # fmt: skip
    case(f"repeated: {_kind} during the next charge", f"""
        08:00 connected C1
        08:05 started C1
        08:40 stopped C1 e=6 t=2100
        09:00 started C1
        09:05 {_kind} C1 e=6 t=2100
        10:00 stopped C1 e=10 t=3600
        12:00 disconnected C1
    """, "C1 16")  # fmt: skip
case("repeated: without time", """
    18:00 connected C1
    18:05 started C1
    18:40 stopped C1 e=6
    19:00 updated C1 e=6
""", "C1 6 here")  # fmt: skip
case("repeated: a counter of the meter that began anew", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    09:00 stopped C1 e=1.2 t=3600
    09:00 disconnected C1
    10:00 stopped C1 e=1.2 t=3600
""", "C1 6.2 !meter-began-anew !event-after-disconnect")  # fmt: skip

# A plug-in announced again ------------------------------------------------------------------------

case("announced again: the meter and the time go on", """
    08:00 connected C1
    08:05 started C1
    08:20 updated C1 e=2.5 t=900
    08:25 connected C1
    08:40 updated C1 e=6 t=2100
    08:50 stopped C1 e=8 t=2700
    09:00 disconnected C1
""", "C1 8 !connect-repeated")  # fmt: skip
case("announced again: with another start", """
    08:00 connected C1
    08:05 started C1
    08:20 updated C1 e=2.5 t=900
    08:25 connected C1
    08:25 started C1
    08:40 updated C1 e=6 t=2100
    08:50 stopped C1 e=8 t=2700
    09:00 disconnected C1
""", "C1 8 !connect-repeated !start-repeated")  # fmt: skip
case("announced again: three times", """
    08:00 connected C1
    08:05 started C1
    08:20 connected C1
    08:30 connected C1
    08:40 connected C1 s=0
    08:50 stopped C1 e=8 t=2700
    09:00 disconnected C1
""", "C1 8 !connect-repeated")  # fmt: skip
case("announced again: with more charge", """
    08:00 connected C1 s=20
    08:05 started C1
    08:20 connected C1 s=24
    08:50 stopped C1 e=8 t=2700
    09:00 disconnected C1
""", "C1 8 !connect-repeated")  # fmt: skip
case("announced again: with less charge, it was away", """
    08:00 connected C1 s=60
    18:00 connected C1 s=40
    18:00 started C1
    19:00 stopped C1 e=8 t=3600
    19:00 disconnected C1
""", "C1 - !disconnect-missing\nC1 8")  # fmt: skip
case("announced again: it was elsewhere", """
    08:00 connected C1
    09:00 connected C2
    10:00 connected C1
""", "C1 - !disconnect-missing\nC2 -\nC1 - here")  # fmt: skip

# A meter that begins anew -------------------------------------------------------------------------

case("anew: once", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    08:40 updated C1 e=0.2
    09:00 updated C1 e=3.9
    09:00 disconnected C1
""", "C1 8.9 !meter-began-anew")  # fmt: skip
case("anew: twice", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    08:40 updated C1 e=0.2
    09:00 updated C1 e=3.9
    09:10 updated C1 e=0
    09:30 updated C1 e=2
    09:30 disconnected C1
""", "C1 10.9 !meter-began-anew")  # fmt: skip
case("anew: the stop reports the last part", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    08:40 updated C1 e=0.2
    09:00 stopped C1 e=3.9
    09:00 disconnected C1
""", "C1 8.9 !meter-began-anew")  # fmt: skip
case("anew: the stop reports the whole", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    08:40 updated C1 e=0.2
    09:00 stopped C1 e=9
    09:00 disconnected C1
""", "C1 9 !meter-began-anew")  # fmt: skip
case("anew: a correction is none", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    08:40 updated C1 e=4.8
    09:00 updated C1 e=7
    09:00 disconnected C1
""", "C1 7")  # fmt: skip

# Order off by seconds -----------------------------------------------------------------------------

case("seconds: started before connected", """
    08:00:00 started C1
    08:00:20 connected C1
    09:00 stopped C1 e=8
    09:01 disconnected C1
""", "C1 8 clean")  # fmt: skip
case("seconds: stopped after disconnected", """
    08:00 connected C1
    08:00 started C1
    09:00:00 disconnected C1
    09:00:30 stopped C1 e=8
""", "C1 8 clean")  # fmt: skip
case("seconds: an update after the unplug", """
    08:00 connected C1
    08:00 started C1
    09:00:00 stopped C1 e=8
    09:00:10 disconnected C1
    09:00:30 updated C1 e=8 p=11
""", "C1 8 clean")  # fmt: skip
case("seconds: both ends", """
    08:00:00 started C1
    08:01:50 connected C1
    09:00:00 disconnected C1
    09:01:50 stopped C1 e=8 t=3600
""", "C1 8 clean")  # fmt: skip
case("seconds: three minutes are too many", """
    08:00:00 started C1
    08:03:00 connected C1
    09:00 stopped C1 e=8
    09:01 disconnected C1
""", "C1 8 !connect-missing !connect-repeated")  # fmt: skip

# Impossible energy --------------------------------------------------------------------------------

case("impossible: fifty in a minute", """
    18:00 connected C1
    18:00 started C1 p=11
    18:01 stopped C1 e=50
    18:05 disconnected C1
""", "C1 50 !energy-above-power")  # fmt: skip
case("impossible: a counter since the plug-in", """
    08:00 connected C1
    08:00 started C1
    10:00 stopped C1 e=20
    11:00 started C1
    11:27 stopped C1 e=25 t=1620
    12:00 disconnected C1
""", "C1 45 !energy-above-power")  # fmt: skip
case("impossible: by the meter", """
    18:00 connected C1
    18:00 started C1
    18:01 updated C1 e=50
    18:05 disconnected C1
""", "C1 50 !energy-above-power")  # fmt: skip
case("impossible: within the tolerance", """
    18:00 connected C1
    18:00 started C1
    19:00 stopped C1 e=12.1 t=3600
    19:05 disconnected C1
""", "C1 12.1 clean")  # fmt: skip

# State of charge ----------------------------------------------------------------------------------

case("charge: falls to 0", """
    08:00 connected C1 s=33
    08:00 started C1
    08:10 updated C1 s=34.7
    08:20 updated C1 s=0
    08:30 stopped C1
    08:30 disconnected C1
""", "C1 - !state-of-charge-jumped !state-of-charge-fell")  # fmt: skip
case("charge: 0, then 79", """
    08:00 connected C1 s=0
    08:00 started C1
    09:00 updated C1 s=79
    09:00 stopped C1
    09:00 disconnected C1
""", "C1 - !state-of-charge-jumped")  # fmt: skip
case("charge: what the power allows", """
    08:00 connected C1 s=30
    08:00 started C1
    09:00 stopped C1 s=40
    09:00 disconnected C1
""", "C1 6 clean")  # fmt: skip
case("charge: full, hour by hour", """
    08:00 connected C1
    09:00 updated C1 s=100
    10:00 updated C1 s=100
    11:00 updated C1 s=100
""", "C1 - here clean")  # fmt: skip
case("charge: no power, hour by hour", """
    08:00 connected C1
    09:00 updated C1 s=80 p=0
    10:00 updated C1 s=80 p=0
    11:00 updated C1 s=80 p=0
""", "C1 - here clean")  # fmt: skip
case("charge: it rises", """
    08:00 connected C1 s=50
    09:00 updated C1 s=55
    10:00 updated C1 s=60
""", "C1 6 charging !start-missing")  # fmt: skip
case("charge: it rises, then no more", """
    08:00 connected C1 s=50
    09:00 updated C1 s=55
    10:00 updated C1 s=60
    11:00 updated C1 s=60
    12:00 updated C1 s=60
""", "C1 6 here !start-missing")  # fmt: skip

# Power --------------------------------------------------------------------------------------------

case("power: on change", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 updated C1 p=0
    12:00 updated C1 p=11
    13:00 stopped C1
    13:00 disconnected C1
""", "C1 22")  # fmt: skip
case("power: nothing all the time", """
    08:00 connected C1
    08:00 started C1 p=0
    09:00 updated C1 p=0
    13:00 stopped C1
    13:00 disconnected C1
""", "C1 0 clean")  # fmt: skip
case("power: a fifth more than the state of charge tells", """
    08:00 connected C1 s=20
    08:00 started C1 p=11
    09:00 updated C1 s=30 p=11
    09:00 stopped C1
    09:00 disconnected C1
""", "C1 11 !state-of-charge-differs")  # fmt: skip

# One id for several guests ------------------------------------------------------------------------

case("guests: two at once", """
    08:00 connected C1
    08:00 started C1
    08:10 connected C2
    08:10 started C2
    09:00 stopped C1 e=11 t=3600
    09:00 disconnected C1
    09:10 stopped C2 e=11 t=3600
    09:10 disconnected C2
""", "C1 11 !vehicle-shared\nC2 11")  # fmt: skip
case("guests: two at once, without time", """
    08:00 connected C1
    08:00 started C1
    08:10 connected C2
    08:10 started C2
    09:00 stopped C1 e=11
    09:00 disconnected C1
    09:10 stopped C2 e=11
    09:10 disconnected C2
""", "C1 11 !vehicle-shared\nC2 11")  # fmt: skip
case("guests: three at once", """
    08:00 connected C1
    08:00 started C1
    08:10 connected C2
    08:10 started C2
    08:20 connected C3
    08:20 started C3
    09:00 stopped C1 e=11 t=3600
    09:00 disconnected C1
    09:10 stopped C2 e=10.9 t=3600
    09:10 disconnected C2
    09:20 stopped C3 e=10.8 t=3600
    09:20 disconnected C3
""", "C1 11 !vehicle-shared\nC2 10.9\nC3 10.8")  # fmt: skip
case("guests: with updates", """
    08:00 connected C1
    08:00 started C1 p=11
    08:10 connected C2
    08:10 started C2 p=11
    08:30 updated C1 e=5.5 p=11
    08:40 updated C2 e=5.5 p=11
    09:00 stopped C1 e=11 t=3600
    09:00 disconnected C1
    09:10 stopped C2 e=11 t=3600
    09:10 disconnected C2
""", "C1 11 !vehicle-shared\nC2 11")  # fmt: skip

# Clocks -------------------------------------------------------------------------------------------

case("clock: a late stop", """
    08:00 connected C1
    08:00 started C1
    08:12 disconnected C1
    08:15 stopped C1 e=2 t=9248
""", "C1 2 !charged-time-too-long")  # fmt: skip
case("clock: a stop in time", """
    08:00 connected C1
    08:00 started C1
    08:15 stopped C1 e=2 t=9248
    08:16 disconnected C1
""", "C1 2 !charged-time-too-long")  # fmt: skip

# What feeds back ----------------------------------------------------------------------------------

case("back: nothing here can, so less charge is no energy", """
    08:00 connected C1 s=60
    08:00 started C1
    09:00 stopped C1 s=50
    09:00 disconnected C1
""", "C1 - !state-of-charge-jumped")  # fmt: skip
case("back: the energy that was told", """
    08:00 connected C1 s=60
    08:00 started C1 p=-5
    09:00 stopped C1 e=-5 t=3600 s=52
    09:00 disconnected C1
    12:00 stopped C1 e=-5 t=3600
""", "C1 -5 !event-after-disconnect")  # fmt: skip

# What public files and bug reports of chargers have -----------------------------------------------

case("seconds: the next plug-in between the unplug and the stop", """
    08:00 connected C1
    08:00 started C1
    09:00:00 disconnected C1
    09:00:10 connected C1
    09:00:20 stopped C1 e=8 t=3600
    09:00:30 started C1
    10:00 stopped C1 e=9 t=3570
    10:00 disconnected C1
""", "C1 8\nC1 9")  # fmt: skip
case("guests: the second leaves first", """
    08:00 connected C1
    08:00 started C1
    08:10 connected C2
    08:10 started C2
    08:40 stopped C2 e=5 t=1800
    08:40 disconnected C2
    09:00 stopped C1 e=11 t=3600
    09:00 disconnected C1
""", "C1 11 !vehicle-shared\nC2 5")  # fmt: skip
case("guests: only updates with power", """
    08:00 connected C1
    08:00 started C1 p=11
    08:10 connected C2
    08:10 started C2 p=11
    08:20 updated C1 p=11
    08:30 updated C2 p=11
    08:40 updated C1 p=11
    09:00 disconnected C1
    09:10 disconnected C2
""", "C1 1.833333 !vehicle-shared\nC2 11")  # fmt: skip
case("nothing, hour by hour", """
    08:00 connected C1
    09:00 updated C1 s=80 p=0 e=0 t=0
    10:00 updated C1 s=80 p=0 e=0 t=0
    11:00 updated C1 s=80 e=0 t=0
    12:00 updated C1 s=80 e=0
""", "C1 - here clean")  # fmt: skip
case("late: energy alone while the next one charges there", """
    09:00 connected C1
    09:00 started C1 p=11
    10:00 disconnected C1
    10:10 connected C1
    10:10 started C1 p=11
    10:15 stopped C1 e=11
    10:40 stopped C1 e=5.5
    10:40 disconnected C1
""", "C1 11\nC1 5.5")  # fmt: skip
case("late: energy alone while the next one sits there", """
    09:00 connected C1
    09:00 started C1 p=11
    10:00 disconnected C1
    10:10 connected C1
    10:15 stopped C1 e=11
    10:40 disconnected C1
""", "C1 11\nC1 -")  # fmt: skip
case("late: an update with no power", """
    09:00 connected C1
    09:00 started C1 p=11
    10:00 disconnected C1
    10:15 updated C1 e=11 t=3600 p=0
""", "C1 11 !event-after-disconnect")  # fmt: skip
case("one instant: stopped, then started elsewhere", """
    08:00 connected C1
    08:00 started C1
    08:30 stopped C1 e=5
    08:30 started C2
    09:30 stopped C2 e=9
    09:30 disconnected C2
""", "C1 5 !disconnect-missing !connect-missing\nC2 9")  # fmt: skip
case("repeated: hour by hour with no power", """
    18:00 connected C1
    18:05 started C1
    18:40 stopped C1 e=6 t=2100
    19:00 updated C1 e=6 t=2100 p=0
    20:00 updated C1 e=6 t=2100 p=0
    21:00 updated C1 e=6 t=2100 p=0
""", "C1 6 here")  # fmt: skip
case("repeated: the counter creeps", """
    18:00 connected C1
    18:05 started C1
    18:40 stopped C1 e=6 t=2100
    19:00 updated C1 e=6.01 t=2100 p=0
    20:00 updated C1 e=6.02 t=2100 p=0
""", "C1 6 here")  # fmt: skip
case("repeated: the time goes on", """
    18:00 connected C1
    18:05 started C1
    18:40 stopped C1 e=6 t=2100
    19:00 updated C1 e=6 t=3300
    20:00 updated C1 e=6 t=6900
    21:00 updated C1 e=6 t=10500
""", "C1 6 here")  # fmt: skip
case("the energy comes with an update after the stop", """
    18:00 connected C1
    18:05 started C1
    18:40 stopped C1
    19:00 updated C1 e=6
""", "C1 6 here")  # fmt: skip
case("corrected a minute later", """
    18:00 connected C1
    18:05 started C1
    18:40 stopped C1 e=6 t=2100
    18:41 stopped C1 e=6.2 t=2160
""", "C1 6.2 here")  # fmt: skip
case("meter values after the stop", """
    08:00 connected C1
    08:05 started C1 p=11
    09:00 stopped C1 e=7.9
    09:05 updated C1 e=8 p=11
    09:10 disconnected C1
""", "C1 8 !stop-missing !update-after-stop")  # fmt: skip
case("one instant: restart within a minute", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    08:30 connected C1
    08:30 started C1
    09:00 updated C1 e=8
    09:30 stopped C1 e=11
    09:30 disconnected C1
""", "C1 11 !connect-repeated")  # fmt: skip
case("started again, energy alone goes on", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5
    08:31 started C1
    09:30 stopped C1 e=11
    09:30 disconnected C1
""", "C1 11 !start-repeated")  # fmt: skip
case("late: thrice, elsewhere", """
    09:00 connected C1
    09:00 started C1
    10:00 disconnected C1
    11:00 connected C2
    11:15 stopped C1 e=11 t=3600
    11:25 stopped C1 e=11 t=3600
    11:35 updated C1 e=11 t=3600
    12:00 disconnected C2
""", "C1 11\nC2 -")  # fmt: skip
case("only updates and an unplug", """
    08:00 updated C1 e=1 t=300 p=11
    08:30 updated C1 e=6 t=2100 p=11
    09:00 updated C1 e=11 t=3900 p=0
    09:05 disconnected C1
""", "C1 11 !connect-missing !start-missing")  # fmt: skip
case("only stops", """
    08:00 stopped C1 e=5 t=1800
    10:00 stopped C1 e=6 t=2000
    12:00 stopped C1 e=7 t=2200
""", "C1 18 here !connect-missing")  # fmt: skip
case("only stops, each at another charger", """
    08:00 stopped C1 e=5 t=1800
    10:00 stopped C2 e=6 t=2000
    12:00 stopped C3 e=7 t=2200
""", "C1 5\nC2 6\nC3 7 here")  # fmt: skip
case("only starts", """
    08:00 started C1 p=11
    10:00 started C2 p=11
    12:00 started C1 p=11
""", "C1 22\nC2 22\nC1 0 charging")  # fmt: skip
case("meter started at plug-in, two charges, energy alone", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 stopped C1 e=10
    12:00 started C1 p=11
    13:00 stopped C1 e=10
    13:00 disconnected C1
""", "C1 20 clean")  # fmt: skip
case("Available, Preparing, Available, Preparing", """
    08:00:00 connected C1
    08:00:02 disconnected C1
    08:00:04 connected C1
    08:00:06 disconnected C1
    08:00:08 connected C1
    08:00:10 started C1
    09:00 stopped C1 e=8 t=3590
    09:01 disconnected C1
""", "C1 -\nC1 -\nC1 8")  # fmt: skip
case("two days offline, then all at once", """
    08:00 connected C1
    08:01 started C1
    09:00 stopped C1 e=8 t=3540
    09:05 disconnected C1
    +1 08:00 connected C1
    +1 08:01 started C1
    +1 09:00 stopped C1 e=8 t=3540
    +1 09:05 disconnected C1
    +2 08:00 connected C1
    +2 08:01 started C1
    +2 09:00 stopped C1 e=8 t=3540
    +2 09:05 disconnected C1
""", "C1 8 clean\nC1 8\nC1 8")  # fmt: skip
case("the same charge each day, unplugs lost", """
    08:00 connected C1 s=40
    08:01 started C1
    09:00 stopped C1 e=8 t=3540 s=53
    +1 08:00 connected C1 s=40
    +1 08:01 started C1
    +1 09:00 stopped C1 e=8 t=3540 s=53
    +2 08:00 connected C1 s=40
    +2 08:01 started C1
    +2 09:00 stopped C1 e=8 t=3540 s=53
""", "C1 8 !disconnect-missing\nC1 8\nC1 8 here")  # fmt: skip
case("the same charge each day, unplugs lost, no state of charge", """
    08:00 connected C1
    08:01 started C1
    09:00 stopped C1 e=8 t=3540
    +1 08:00 connected C1
    +1 08:01 started C1
    +1 09:00 stopped C1 e=8 t=3540
""", "C1 16 here !connect-repeated")  # fmt: skip
case("the same charge each day, starts lost", """
    08:00 connected C1
    09:00 stopped C1 e=8 t=3540
    09:05 disconnected C1
    +1 08:00 connected C1
    +1 09:00 stopped C1 e=8 t=3540
    +1 09:05 disconnected C1
""", "C1 8\nC1 8")  # fmt: skip
case("the same charge each day, only stops and unplugs", """
    09:00 stopped C1 e=8 t=3540
    09:05 disconnected C1
    +1 09:00 stopped C1 e=8.5 t=3640
    +1 09:05 disconnected C1
    +2 09:00 stopped C1 e=9 t=3740
    +2 09:05 disconnected C1
""", "C1 8\nC1 8.5\nC1 9")  # fmt: skip
case("stop of a transaction after reconnect, in the next one", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=4
    12:00 connected C1
    12:01 stopped C1 e=5 t=2000
    12:02 started C1
    13:00 stopped C1 e=9 t=3480
    13:01 disconnected C1
""", "C1 14")  # fmt: skip
case("a charge longer than the session", """
    08:00 connected C1
    08:00 started C1
    08:30 stopped C1 e=5 t=3600
    08:31 disconnected C1
""", "C1 5 !charged-time-too-long")  # fmt: skip
case("the unplug before the plug-in, by a wrong clock", """
    08:00 disconnected C1
    09:00 connected C1
    09:00 started C1
    10:00 stopped C1 e=8 t=3600
""", "C1 -\nC1 8 here")  # fmt: skip
case("meter values after the stop, and on", """
    08:00 connected C1
    08:05 started C1 p=11
    09:00 stopped C1 e=7.9
    09:05 updated C1 e=8 p=11
    09:10 updated C1 e=9 p=11
    10:00 stopped C1 e=18
    10:10 disconnected C1
""", "C1 18 !update-after-stop")  # fmt: skip
case("longer with more energy", """
    08:00 connected C1
    08:05 started C1 p=11
    09:00 stopped C1 e=7.9 t=3300
    09:05 updated C1 e=8.5 t=3600 p=11
    10:00 stopped C1 e=18 t=6900
    10:10 disconnected C1
""", "C1 18 !update-after-stop")  # fmt: skip
case("no energy at all", """
    08:00 connected C1
    08:01 started C1
    08:02 stopped C1 e=0 t=60
    08:03 started C1
    08:04 stopped C1 e=0 t=60
    08:05 started C1
    08:06 stopped C1 e=0 t=60
    08:10 disconnected C1
""", "C1 0 clean")  # fmt: skip
case("the same again within a session", """
    08:00 connected C1
    08:00 started C1
    09:00 stopped C1 e=8 t=3600
    10:00 started C1
    11:00 stopped C1 e=8 t=3600
    12:00 started C1
    13:00 stopped C1 e=8 t=3600
    13:10 disconnected C1
""", "C1 24 clean")  # fmt: skip
case("the same again within a session, starts lost", """
    08:00 connected C1
    09:00 stopped C1 e=8 t=3600
    11:00 stopped C1 e=8.2 t=3660
    13:00 stopped C1 e=8.4 t=3720
    13:10 disconnected C1
""", "C1 24.6")  # fmt: skip
case("power reported once a minute, one zero in between", """
    08:00 connected C1
    08:00 started C1 p=11
    08:10 updated C1 p=11
    08:11 updated C1 p=0
    08:12 updated C1 p=11
    08:30 stopped C1
    08:30 disconnected C1
""", "C1 5.316667")  # fmt: skip
case("discharge: repeated by updates", """
    08:00 connected C1 s=60
    08:00 started C1
    08:30 updated C1 e=-2 p=-5 s=57
    09:00 stopped C1 e=-4 t=3600 s=54
    09:30 updated C1 e=-4 t=3600 s=54
    10:00 disconnected C1
""", "C1 -4")  # fmt: skip
case("discharge: connected again", """
    08:00 connected C1 s=60
    08:00 started C1 p=-5
    08:30 connected C1 s=57
    09:00 stopped C1 e=-4 t=3600 s=54
    10:00 disconnected C1
""", "C1 -4 !connect-repeated")  # fmt: skip
case("discharge: the meter falls below zero and on", """
    08:00 connected C1 s=60
    08:00 started C1
    08:30 updated C1 e=-2
    09:00 updated C1 e=-4
    09:30 updated C1 e=-6
    09:30 disconnected C1
""", "C1 -6")  # fmt: skip

# Which charge a report is of, by its own time and energy ------------------------------------------

case("a stop comes while the vehicle is charged again, an hour after its charge ended", """
    08:00 connected C1
    08:00 started C1 p=11
    10:00 disconnected C1
    10:01 connected C1
    10:02 started C1 p=11
    10:15 stopped C1 e=10 t=3600
    11:02 stopped C1 e=8 t=3600
    11:10 disconnected C1
""", "C1 10 !event-after-disconnect\nC1 8")  # fmt: skip
case("a stop comes during the second charge of the next session", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 disconnected C1
    10:00 connected C1
    10:00 started C1
    11:00 stopped C1 e=7 t=3600
    11:30 started C1
    11:40 stopped C1 e=9 t=3500
    12:30 stopped C1 e=8 t=3600
    12:40 disconnected C1
""", "C1 9\nC1 15")  # fmt: skip
case("a stop just after the unplug, of a charge without a start, after another one", """
    08:00 connected C1
    08:00 started C1
    09:00 stopped C1 e=8 t=3600
    11:00 disconnected C1
    11:01 stopped C1 e=5 t=1800
    11:02 stopped C1 e=5 t=1800
    11:30 connected C2
""", "C1 13 !start-missing\nC2 - here")  # fmt: skip
case("an update repeats the report of an earlier session", """
    08:00 connected C1
    08:00 started C1
    09:00 stopped C1 e=8 t=3600
    09:10 disconnected C1
    09:20 connected C1
    09:20 started C1
    09:50 stopped C1 e=3 t=1800
    11:30 updated C1 e=8 t=3600
    12:00 disconnected C1
""", "C1 8\nC1 3")  # fmt: skip
case("the same on two days, and no starts", """
    08:00 connected C1
    09:00 stopped C1 e=8 t=3600
    09:10 disconnected C1
    +1 08:00 connected C1
    +1 09:00 stopped C1 e=8 t=3600
    +1 09:10 disconnected C1
""", "C1 8\nC1 8")  # fmt: skip
case("a stop is lost, the next charge takes more, and its time shows that it is another one", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=4 s=30
    10:00 started C1
    10:30 updated C1 e=5 s=40
    11:00 stopped C1 e=9 t=3600 s=50
    11:10 disconnected C1
""", "C1 13 !start-repeated")  # fmt: skip
case("the same with an update in place of the stop", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=4 s=30
    10:00 started C1
    10:30 updated C1 e=5 s=40
    11:00 updated C1 e=9 t=3600 s=50
    11:10 disconnected C1
""", "C1 13 !start-repeated")  # fmt: skip
case("a charge started again, its time shows that it is the same one", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=4 s=30
    09:00 started C1
    09:30 updated C1 e=8 s=40
    10:00 stopped C1 e=9 t=7200 s=50
    10:10 disconnected C1
""", "C1 9 !start-repeated")  # fmt: skip
case("a charge started again without a power, and more energy than the power before it gives", """
    08:00 connected C1
    08:00 started C1 p=11
    08:50 started C1
    09:00 stopped C1 e=10
    09:10 disconnected C1
""", "C1 10 !start-repeated")  # fmt: skip
case("a stop without a time, repeated just after the next start", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 stopped C1 e=10
    09:30 started C1
    09:35 stopped C1 e=10
    10:30 stopped C1 e=9
    10:40 disconnected C1
""", "C1 19 !stop-repeated")  # fmt: skip
case("a start is lost, and an update shows the charge: it began when its report says", """
    08:00 connected C1
    08:40 updated C1 p=11 s=40
    09:00 stopped C1 e=10 t=3540 s=50
    09:10 disconnected C1
""", "C1 10 !start-missing")  # fmt: skip
case("a start is lost, and the stop comes a day late", """
    08:00 connected C1
    08:40 updated C1 p=11 s=40
    09:00 disconnected C1
    +1 09:00 stopped C1 e=10 t=3540 s=50
""", "C1 10 !start-missing !event-after-disconnect")  # fmt: skip
case("a start is lost, and the stop comes while the vehicle is elsewhere", """
    08:00 connected C1
    08:40 updated C1 p=11 s=40
    09:00 disconnected C1
    09:30 connected C2
    11:00 stopped C1 e=10 t=3540 s=50
""", "C1 10 !start-missing\nC2 - here")  # fmt: skip
case("a car that is used after its charge, and comes back without a plug-in", """
    08:00 connected C1 s=20
    08:00 started C1
    10:00 updated C1 s=50
    10:05 stopped C1
    +1 08:00 updated C1 s=10
    +1 09:00 updated C1 s=20
""", "C1 24 charging")  # fmt: skip
case("an unplug with a state of charge of 0, because the charger does not know it", """
    08:00 connected C1 s=20
    08:00 started C1
    10:00 updated C1 s=50
    10:05 stopped C1
    10:10 disconnected C1 s=0
""", "C1 18")  # fmt: skip
case("readings of the state of charge alone, and the car is used in between", """
    08:00 updated C1 s=20
    09:00 updated C1 s=30
    10:00 updated C1 s=40
    +1 08:00 updated C1 s=20
    +1 09:00 updated C1 s=30
""", "C1 18 charging !state-of-charge-fell")  # fmt: skip
case("a stop without an energy, which a report tells hours after the unplug", """
    08:00 connected C1
    08:00 started C1
    09:00 stopped C1
    09:01 disconnected C1
    12:30 stopped C1 e=10 t=3600
""", "C1 10 !event-after-disconnect")  # fmt: skip
for _report in ("e=10", "e=10 t=3600"):
    case(f"a stop without an energy, and {_report} while the vehicle is elsewhere", f"""
        08:00 connected C1
        08:00 started C1
        09:00 stopped C1
        09:01 disconnected C1
        09:20 connected C2
        11:30 stopped C1 {_report}
        11:40 stopped C1 {_report}
    """, "C1 10 !event-after-disconnect\nC2 - here")  # fmt: skip

# A charge that goes on while the vehicle seems to leave -------------------------------------------

for _again in ("", "09:00:15 started C1"):
    case(f"goes on: unplugged for seconds, then '{_again}'", f"""
        08:00 connected C1
        08:00 started C1
        08:30 updated C1 e=5.5 t=1800
        09:00 updated C1 e=11 t=3600
        09:00:10 disconnected C1
        09:00:15 connected C1
        {_again}
        09:30 updated C1 e=16.5 t=5400
        10:00 stopped C1 e=22 t=7200
        10:05 disconnected C1
        12:00 stopped C1 e=22 t=7200
    """.replace("\n        \n", "\n"), "C1 11 !earlier-charge-included\nC1 11")  # fmt: skip
    case(f"goes on: by its energy and power alone, then '{_again}'", f"""
        08:00 connected C1
        08:00 started C1 p=11
        08:30 updated C1 e=5.5 p=11
        09:00 updated C1 e=11 p=11
        09:00:10 disconnected C1
        09:00:15 connected C1
        {_again}
        09:30 updated C1 e=16.5 p=11
        10:00 stopped C1 e=22
        10:05 disconnected C1
    """.replace("\n        \n", "\n"), "C1 11 !earlier-charge-included\nC1 11")  # fmt: skip
case("goes on: the last minute of the meter comes after the plug-in", """
    08:00 connected C1
    08:00 started C1
    09:00 updated C1 e=11 t=3600
    09:00:10 disconnected C1
    09:00:15 connected C1
    09:01 updated C1 e=11.2 t=3660
    10:00 stopped C1 e=22 t=7200
    10:05 disconnected C1
""", "C1 11.2 !earlier-charge-included\nC1 10.8")  # fmt: skip
case("goes on: with a stop and a start", """
    08:00 connected C1
    08:00 started C1
    09:00 stopped C1 e=11 t=3600
    09:00:10 disconnected C1
    09:00:15 connected C1
    09:00:15 started C1
    10:00 stopped C1 e=22 t=7200
    10:05 disconnected C1
""", "C1 11 !earlier-charge-included\nC1 11")  # fmt: skip
case("goes on: the energy is told at the end only, and the power shows how much was before", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 disconnected C1
    09:00:05 connected C1
    09:00:05 started C1 p=11
    10:00 stopped C1 e=22 t=7200
    10:05 disconnected C1
""", "C1 11 !earlier-charge-included\nC1 11")  # fmt: skip
case("goes on: the energy is told at the end only, and the state of charge rose before", """
    08:00 connected C1 s=20
    08:00 started C1
    09:00 updated C1 s=40
    09:00 disconnected C1
    09:00:05 connected C1
    09:00:05 started C1
    10:00 stopped C1 e=24 t=7200 s=60
    10:05 disconnected C1
""", "C1 12 !earlier-charge-included\nC1 12")  # fmt: skip
case("goes on: nothing shows how much was before", """
    08:00 connected C1
    08:00 started C1
    09:00 disconnected C1
    09:00:05 connected C1
    10:00 stopped C1 e=11 t=7200
    10:05 disconnected C1
""", "C1 - !earlier-charge-included\nC1 11")  # fmt: skip
case("goes on: the meter begins anew at the plug-in, the time does not", """
    08:00 connected C1
    08:00 started C1
    09:00 updated C1 e=11 t=3600
    09:00:10 disconnected C1
    09:00:15 connected C1
    09:30 updated C1 e=5.5 t=5400
    10:00 stopped C1 e=10.9 t=7200
    10:05 disconnected C1
""", "C1 11 !earlier-charge-included\nC1 10.9")  # fmt: skip
case("goes on: twice unplugged for seconds", """
    08:00 connected C1
    08:00 started C1
    08:30 updated C1 e=5.5 t=1800
    08:30:10 disconnected C1
    08:30:15 connected C1
    09:00 updated C1 e=11 t=3600
    09:00:10 disconnected C1
    09:00:15 connected C1
    10:00 stopped C1 e=22 t=7200
    10:05 disconnected C1
""", "C1 5.5 !earlier-charge-included\nC1 5.5\nC1 11")  # fmt: skip
case("goes on: the report comes after the second unplug", """
    08:00 connected C1
    08:00 started C1
    09:00 updated C1 e=11 t=3600
    09:00:10 disconnected C1
    09:00:15 connected C1
    09:00:15 started C1
    10:00 disconnected C1
    10:20 connected C2
    12:00 stopped C1 e=22 t=7200
""", "C1 11 !earlier-charge-included !event-after-disconnect\nC1 11\nC2 - here")  # fmt: skip
case("goes on: it feeds back", """
    08:00 connected C1
    08:00 started C1 p=-5
    09:00 updated C1 e=-5 t=3600 p=-5
    09:00:10 disconnected C1
    09:00:15 connected C1
    10:00 stopped C1 e=-10 t=7200
    10:05 disconnected C1
""", "C1 -5 !earlier-charge-included\nC1 -5")  # fmt: skip
case("goes on: it charges", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 updated C1 e=11 t=3600 p=11
    09:00:10 disconnected C1
    09:00:15 connected C1
    09:30 updated C1 e=16.5 t=5400 p=11
""", "C1 11 !earlier-charge-included\nC1 5.5 charging")  # fmt: skip
case("goes on: it does not, the vehicle is plugged in again and charged anew", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 updated C1 e=11 t=3600 p=11
    09:00:10 disconnected C1
    09:01 connected C1
    09:01 started C1 p=11
    10:03 stopped C1 e=11.3 t=3720
    10:05 disconnected C1
""", "C1 11\nC1 11.3")  # fmt: skip
case("counters since the plug-in, with a time", """
    08:00 connected C1
    08:00 started C1
    09:00 stopped C1 e=10 t=3600
    11:00 started C1
    12:00 stopped C1 e=18 t=7200
    13:00 started C1
    14:00 stopped C1 e=24 t=10800
    14:10 disconnected C1
""", "C1 24 !earlier-charge-included")  # fmt: skip
case("a start is repeated, and an earlier charge at the charger has no stop", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 disconnected C1
    12:00 connected C1
    12:00 started C1 p=11
    13:00 started C1
    14:00 stopped C1 e=21
    14:10 disconnected C1
""", "C1 11\nC1 21 !start-repeated")  # fmt: skip
case("an energy without a time, and an earlier charge at a lower power has no stop", """
    08:00 connected C1
    08:00 started C1 p=4
    10:00 disconnected C1
    12:00 connected C1
    12:00 started C1 p=11
    13:00 stopped C1 e=10
    13:10 disconnected C1
""", "C1 8\nC1 10")  # fmt: skip
case("late: two sessions without a stop, and the report of the first one comes first", """
    08:00 connected C1
    08:00 started C1 p=8
    09:30 disconnected C1
    10:00 connected C1
    10:00 started C1 p=4
    17:00 disconnected C1
    20:00 stopped C1 e=10 t=4800
    21:00 stopped C1 e=25 t=24000
""", "C1 10 !event-after-disconnect\nC1 25")  # fmt: skip
case("a stop without a time is repeated during the next charge, and ends it too early", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 stopped C1 e=10
    09:00 disconnected C1
    09:05 connected C1
    09:05 started C1 p=11
    10:15 stopped C1 e=10
    11:05 stopped C1 e=21
    11:05 disconnected C1
""", "C1 10\nC1 21 !stop-repeated")  # fmt: skip
for _kind in ("updated", "stopped"):
    case(f"repeated: {_kind} without a time during the next session", f"""
        08:00 connected C1
        08:00 started C1 p=11
        10:00 stopped C1 e=20
        10:00 disconnected C1
        10:05 connected C1
        10:05 started C1 p=11
        10:30 {_kind} C1 e=20
        11:05 stopped C1 e=10.5
        11:05 disconnected C1
    """, "C1 20\nC1 10.5 clean")  # fmt: skip
case("a start is lost, and the power is higher than that of the charge before", """
    08:00 connected C1
    08:00 started C1 p=4
    09:00 stopped C1 e=4
    09:30 updated C1 e=2.5 p=11
    10:00 updated C1 e=8 p=11
    10:15 stopped C1 e=10.5
    10:20 disconnected C1
""", "C1 14.5 !start-missing")  # fmt: skip
for _again in (
    "",
    """09:00:20 disconnected C1
        09:00:25 connected C1""",
):
    case(f"an older reading is repeated just after the next start '{_again}'", f"""
        08:00 connected C1
        08:00 started C1
        09:00 stopped C1 e=8 t=3600
        {_again}
        09:00:30 started C1
        09:01 updated C1 e=7.8 t=3540
        09:10 updated C1 e=1 t=540
        10:00 stopped C1 e=6 t=3570
        10:05 disconnected C1
    """.replace("\n        \n", "\n"),
    "C1 8 !update-after-stop\nC1 6" if _again else "C1 14 !update-after-stop")  # fmt: skip
case("anew: one wrong reading is no beginning", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 updated C1 e=10
    09:01 updated C1 e=0.6
    09:02 updated C1 e=10.4
    09:30 updated C1 e=15
    09:30 disconnected C1
""", "C1 15 !meter-began-anew")  # fmt: skip
for _power in ("", " p=11"):
    case(f"anew: it takes as long as before to come back{_power}", f"""
        08:00 connected C1
        08:00 started C1{_power}
        08:30 updated C1 e=5
        08:31 updated C1 e=0.1
        09:05 updated C1 e=5.5
        09:30 disconnected C1
    """, "C1 10.5 !meter-began-anew")  # fmt: skip
for _power in ("", " p=11"):
    case(f"anew: one reading is nothing, and the others go on{_power}", f"""
        08:00 connected C1
        08:00 started C1{_power}
        09:00 updated C1 e=10
        09:05 updated C1 e=0
        09:10 updated C1 e=11.7
        10:00 stopped C1 e=20
        10:00 disconnected C1
    """, "C1 20 !meter-began-anew")  # fmt: skip
    case(f"anew: one reading jumps{_power}", f"""
        08:00 connected C1
        08:00 started C1{_power}
        08:30 updated C1 e=5
        08:35 updated C1 e=500
        08:40 updated C1 e=6.7
        08:59 disconnected C1
    """, "C1 6.7 !meter-began-anew")  # fmt: skip
    case(f"anew: the last reading before the stop jumps{_power}", f"""
        08:00 connected C1
        08:00 started C1{_power}
        08:30 updated C1 e=5
        08:35 updated C1 e=500
        08:40 stopped C1 e=6.7
        08:59 disconnected C1
    """, "C1 6.7 !meter-began-anew")  # fmt: skip
    case(f"anew: a late reading of the charge before{_power}", f"""
        08:00 connected C1
        08:00 started C1{_power}
        10:00 stopped C1 e=20
        10:00 disconnected C1
        12:00 connected C1
        12:00 started C1{_power}
        12:15 updated C1 e=2.5
        12:20 updated C1 e=18
        12:30 updated C1 e=5
        13:00 stopped C1 e=10
        13:00 disconnected C1
    """, "C1 20\nC1 10 !meter-began-anew")  # fmt: skip
for _told in ("", " t=3900"):
    for _another in (
        "",
        """11:00 connected C1
        11:00 started C1 p=11
        11:30 stopped C1 e=4 t=1800
        11:30 disconnected C1""",
    ):
        case(
            f"late: a reading of a charge that had more is no plug-in{_told} '{_another}'",
            f"""
            08:00 connected C1
            08:00 started C1 p=11
            10:00 stopped C1 e=20 t=7200
            10:00 disconnected C1
            {_another}
            15:00 updated C1 e=12{_told} p=11
        """.replace("\n            \n", "\n"),
            "C1 20\nC1 4 !event-after-disconnect" if _another else "C1 20 !event-after-disconnect",
        )
    case(f"late: more than any charge had is a plug-in{_told}", f"""
        08:00 connected C1
        08:00 started C1 p=11
        10:00 stopped C1 e=20 t=7200
        10:00 disconnected C1
        15:00 updated C1 e=25{_told} p=11
    """, "C1 20\nC1 25 charging !connect-missing")  # fmt: skip
case("late: a stop as long as a charge without one, while none is under way", """
    08:00 connected C1
    08:00 started C1
    09:00 started C1
    10:00 stopped C1 e=9 t=3600
    12:00 stopped C1 e=8 t=3540
""", "C1 17 here !start-repeated")  # fmt: skip
case("late: a stop as long as a charge without one, while another is longer", """
    08:00 connected C1
    08:00 started C1
    09:00 started C1
    10:00 stopped C1 e=9 t=3600
    11:00 started C1
    12:30 stopped C1 e=8 t=3540
    13:00 stopped C1 e=12 t=7200
    13:00 disconnected C1
""", "C1 29 !start-repeated")  # fmt: skip
case("late: a stop as long as both charges is of the one under way", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 started C1 p=11
    10:00 stopped C1 e=9 t=3600
    10:00 disconnected C1
""", "C1 20")  # fmt: skip
case("late: a stop as long as a charge of the session before", """
    08:00 connected C1
    08:00 started C1
    09:00 disconnected C1
    10:00 connected C1
    12:00 stopped C1 e=8 t=3590
    12:30 started C1
    13:00 stopped C1 e=4 t=1800
    13:00 disconnected C1
""", "C1 8 !event-after-disconnect\nC1 4")  # fmt: skip
case("goes on: a counter since the plug-in without a time", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 stopped C1 e=11
    10:00 started C1 p=11
    10:30 updated C1 e=16.5 p=11
    11:00 stopped C1 e=22
    11:00 disconnected C1
""", "C1 22 !earlier-charge-included")  # fmt: skip
case("goes on: a counter of each charge without a time", """
    08:00 connected C1
    08:00 started C1 p=11
    09:00 stopped C1 e=11
    10:00 started C1 p=11
    10:30 updated C1 e=5.5 p=11
    11:00 stopped C1 e=11
    11:00 disconnected C1
""", "C1 22 clean")  # fmt: skip
case("goes on: the power is rounded to whole kW", """
    08:00 connected C1
    08:00 started C1 p=2
    09:00 stopped C1 e=1.2
    10:00 started C1 p=2
    11:00 updated C1 e=2.3 p=2
    13:00 stopped C1 e=6.9
    13:00 disconnected C1
""", "C1 8.1")  # fmt: skip
