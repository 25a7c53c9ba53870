"""Compares the sessions that a server derives from the real data with the data."""

from decimal import Decimal

import httpx

from tests.derivation.helpers import read_all
from tests.replay.table import rows
from tether.simulator.replay import sessions_of, vehicle_of


def check_sessions(client: httpx.Client) -> None:
    """Each row is one session, with all digits, and with the expected flag only."""
    found = {session["vehicleId"]: session for session in read_all(client, "/sessions")}
    again = read_all(client, "/sessions", status="ended")
    assert len(found) == len(again) == 1878
    # Each of these charges more than its battery stores, by the data's own numbers: 5 % are lost
    # on the way into it, and it was charged by more than 95 % of its capacity.
    above_capacity = 0
    for session in sessions_of(rows()):
        vehicle, shown = vehicle_of(session), found.pop(vehicle_of(session).id)
        (period,) = shown["periods"]
        assert (shown["chargerId"], shown["status"]) == (session.plug, "ended")
        assert shown["connectedAt"] == period["startedAt"]
        assert shown["disconnectedAt"] == period["stoppedAt"]
        assert shown["pluggedTime"] * 1000 == session.departure_ms - session.arrival_ms
        assert str(shown["chargedEnergy"]) == str(session.energy_kwh)
        assert shown["chargedTime"] == session.stay_min * 60
        assert (period["energySource"], shown["estimated"]) == ("reported", False)
        assert shown["stateOfChargeStart"] == session.soc_arrival
        assert shown["stateOfChargeEnd"] == session.soc_departure
        expected = ["energy-above-capacity"] * (session.energy_kwh > vehicle.charge_capacity)
        assert [flag["name"] for flag in shown["flags"]] == expected
        above_capacity += len(expected)
    assert (found, above_capacity) == ({}, 15)
    total = sum((one["chargedEnergy"] for one in again), Decimal(0))
    assert total == Decimal("60441.9355749999998")
