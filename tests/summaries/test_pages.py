"""A page of sums ends after many sessions, so that nobody waits for all of them at once."""

import httpx

from tests.derivation.helpers import put_vehicles, read, read_all
from tests.derivation.streams import VEHICLE
from tests.fleet import put_fleet

VEHICLES, DAYS = 60, 90  # 5,400 sessions
BUCKETS = {"from": "2026-01-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"}


def day_of(day: int) -> str:
    month, of_month = next(
        (number, day - before)
        for number, before, length in ((1, 0, 31), (2, 31, 28), (3, 59, 31))
        if day < before + length
    )
    return f"2026-{month:02}-{of_month + 1:02}"


def test_a_page_ends_after_many_sessions(client: httpx.Client) -> None:
    names = [f"V{number:02}" for number in range(VEHICLES)]
    put_fleet(client, vehicles=())
    put_vehicles(client, names, VEHICLE)
    events = [
        {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": name,
         "timestamp": f"{day_of(day)}T{hour}:00:00Z"}
        for day in range(DAYS) for name in names
        for kind, hour in (("CONNECTED", 10), ("DISCONNECTED", 11))
    ]  # fmt: skip
    for start in range(0, len(events), 5_000):
        answer = client.post("/events/bulk", json=events[start : start + 5_000])
        assert {item["status"] for item in read(answer)} == {201}
    for path, query in (
        ("/sessions/summary", {"bucket": "day", "by": "flag"}),
        ("/energy", {**BUCKETS, "step": "day"}),
        ("/energy", {**BUCKETS, "step": "day", "by": "charger"}),
    ):
        first = client.get(path, params={**query, "limit": 1000})
        assert 0 < len(read(first)) < DAYS, path
        assert first.links["next"]["partial"] == "true"
        rows = read_all(client, path, **query)
        assert [row["from"][:10] for row in rows] == [day_of(day) for day in range(DAYS)]
        if path == "/sessions/summary":
            assert {row["sessions"] for row in rows} == {VEHICLES}
