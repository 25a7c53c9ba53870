"""Snapshots of expired events are erased with their vehicle, and name no erased charger."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Server
from tests.derivation.test_retention import expire
from tests.derivation.test_withdrawals import differing
from tests.erasing.test_erasing import GONE, erased, fleet, plain
from tests.lists import everything
from tether.domain.timestamps import parse_instant


def test_what_is_erased_is_not_in_snapshots_either(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=str(tmp_path / "tether.db"))
    charger = "GONE-charger_1"
    with server.client(server.key()) as client:
        fleet(client, "V1", "V2", GONE)
        client.put(f"/chargers/{charger}", json={"chargePowers": [11]}).raise_for_status()
        events = [
            {"type": f"VEHICLE_{kind}", "chargerId": place, "vehicleId": vehicle, "timestamp": at}
            for vehicle in ("V1", "V2", GONE)
            for kind, place, at in (
                ("CONNECTED", charger if vehicle != "V2" else "C1", "2026-01-01T08:00:00Z"),
                ("CHARGE_STARTED", charger, "2026-01-01T09:00:00Z"),
                ("CONNECTED", "C2", "2026-01-02T08:00:00Z"),
                ("CONNECTED", "C1", "2026-01-03T08:00:00Z"),
                ("DISCONNECTED", "C1", "2026-01-03T09:00:00Z"),
            )
        ]
        answer = client.post("/events/bulk", json=events)
        assert {one["status"] for one in answer.json()} == {201}
        before = plain(everything(client, "/sessions"))
        expire(server, client, parse_instant("2026-01-02T12:00:00Z"))
        after = plain(everything(client, "/sessions"))
        assert after == [one for one in before if one["connectedAt"] > "2026-01-01T24"]
        # A session ended because another one began. It continues when that one is withdrawn.
        events = everything(client, "/events", vehicleId="V1")
        gone = next(one for one in events if one["chargerId"] == "C2")
        assert client.delete(f"/events/{gone['id']}").status_code == 204
        (shown, _) = everything(client, "/sessions", vehicleId="V1")
        assert shown["chargerId"] == charger
        assert shown["connectedAt"] == "2026-01-01T08:00:00.000Z"
        assert shown["disconnectedAt"] == "2026-01-03T08:00:00.000Z"

        assert erased(client, f"/vehicles/{GONE}")
        assert erased(client, f"/chargers/{charger}")
        assert differing(server, client, "V1") == 0
        assert differing(server, client, "V2") == 0
        assert len(everything(client, "/sessions")) == 3
    assert server.stop() == 0
    found = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert b"GONE-" not in found
