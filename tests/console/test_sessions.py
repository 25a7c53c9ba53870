"""Sessions in the console, over HTTP: flags beside the events that caused them, and files."""

import io
import re
from collections.abc import Iterator

import httpx
import pytest
from pyarrow import parquet

from tests.conftest import Server
from tests.console.visitors import new_session, partner_number, visitor
from tests.fleet import put_fleet

DAY = "2026-01-05T08:"


class Owner:
    """A partner with a charger and a vehicle, who is signed in."""

    def __init__(self, server: Server) -> None:
        key = server.key()
        self.api = server.client(key)
        put_fleet(self.api, chargers=("C1", "C2"))
        self.console = visitor(server, token=new_session(server, key))
        self.path = f"/console/p/{partner_number(server, key)}"

    def send(self, kind: str, minute: str, charger: str = "C1", **members: float) -> str:
        event = {"type": f"VEHICLE_{kind}", "chargerId": charger, "vehicleId": "V1"}
        body = {**event, "timestamp": f"{DAY}{minute}:00Z", **members}
        return str(self.api.post("/events", json=body).raise_for_status().json()["id"])

    def session(self) -> tuple[str, dict[str, list[str]]]:
        """The page of the newest session, and the flags beside its events, by their ids."""
        found = self.api.get("/sessions", params={"order": "desc"}).raise_for_status().json()[0]
        page = self.console.get(f"{self.path}/sessions/{found['id']}").raise_for_status().text
        rows = re.findall(r'<tr (?:class="odd")? data-at=.*?</tr>', page, re.DOTALL)
        odd = {}
        for row in rows:
            flags = re.findall(r'chip flag">([a-z-]+)<', row)
            (event_id,) = re.findall(r"<code>(.*?)</code>", row)
            assert bool(flags) == ('class="odd"' in row)
            if flags:
                odd[event_id] = flags
        assert {flag for flags in odd.values() for flag in flags} <= {
            flag["name"] for flag in found["flags"]
        }
        return page, odd


@pytest.fixture
def owner(server: Server) -> Iterator[Owner]:
    made = Owner(server)
    yield made
    made.console.close()
    made.api.close()


def test_events_of_one_instant_are_in_the_order_of_a_charge(owner: Owner) -> None:
    for kind in ("DISCONNECTED", "CHARGE_STOPPED", "CHARGE_UPDATED"):
        owner.send(kind, "30", stateOfCharge=50)
    for kind in ("CHARGE_STARTED", "CONNECTED"):
        owner.send(kind, "10", stateOfCharge=40)
    page, _ = owner.session()
    assert re.findall(r'class="type">VEHICLE_(\w+)<', page) == [
        "CONNECTED", "CHARGE_STARTED", "CHARGE_UPDATED", "CHARGE_STOPPED", "DISCONNECTED",
    ]  # fmt: skip


def test_flags_stand_beside_the_events_that_caused_them(owner: Owner) -> None:
    first = owner.send("CHARGE_STARTED", "10", chargePower=11, stateOfCharge=40)
    owner.send("CHARGE_UPDATED", "20", chargePower=11, stateOfCharge=43)
    fell = owner.send("CHARGE_UPDATED", "30", chargePower=10, stateOfCharge=30)
    high = owner.send("CHARGE_UPDATED", "40", chargePower=22, stateOfCharge=46)
    owner.send("CHARGE_STOPPED", "50", chargedEnergy=7)
    again = owner.send("CHARGE_STOPPED", "55", chargedEnergy=7)
    page, odd = owner.session()
    assert odd == {
        first: ["connect-missing"],
        fell: ["state-of-charge-fell"],
        high: ["power-above-charger", "power-above-vehicle"],
        again: ["stop-repeated"],
    }
    assert "its energy is not counted again." in page


def test_what_an_earlier_session_tells_counts_too(owner: Owner) -> None:
    owner.send("CONNECTED", "00")
    owner.send("CHARGE_STARTED", "05")
    owner.send("CHARGE_STOPPED", "20", chargedEnergy=2.5)
    owner.send("DISCONNECTED", "25")
    owner.send("CONNECTED", "30", "C2")
    elsewhere = owner.send("CHARGE_STOPPED", "33", chargedEnergy=2.5)
    _, odd = owner.session()
    assert odd == {elsewhere: ["event-elsewhere"]}


def test_each_period_has_its_own_and_what_was_mended_later_is_not_odd(owner: Owner) -> None:
    owner.send("CONNECTED", "00", stateOfCharge=0.4)  # looks like a fraction, up to the next one
    one = owner.send("CHARGE_STARTED", "10", chargePower=22)
    owner.send("CHARGE_STOPPED", "20", chargedEnergy=1, stateOfCharge=20)
    two = owner.send("CHARGE_STARTED", "30", chargePower=22)
    owner.send("CHARGE_STOPPED", "40", chargedEnergy=1)
    owner.send("DISCONNECTED", "50")
    _, odd = owner.session()
    assert {event: flags for event, flags in odd.items() if event in (one, two)} == {
        one: ["power-above-charger", "power-above-vehicle"],
        two: ["power-above-charger", "power-above-vehicle"],
    }
    assert not any("state-of-charge-tiny" in flags for flags in odd.values())


def test_of_very_many_events_the_first_are_looked_at(owner: Owner) -> None:
    owner.send("CONNECTED", "00")
    owner.send("CHARGE_STARTED", "05")
    owner.send("CHARGE_STOPPED", "08")
    event = {"type": "VEHICLE_CHARGE_STOPPED", "chargerId": "C1", "vehicleId": "V1"}
    body = [
        {**event, "timestamp": f"{DAY}10:{number // 1000:02}.{number % 1000:03}Z"}
        for number in range(1_200)
    ]
    answer = owner.api.post("/events/bulk", json=body)
    assert {one["status"] for one in answer.json()} == {201}
    page, odd = owner.session()
    assert "Only the first 1,000 are shown." in page
    assert list(odd.values()) == [["stop-repeated"]]


def test_sessions_are_downloaded_as_parquet(owner: Owner) -> None:
    owner.send("CONNECTED", "00", stateOfCharge=40)
    owner.send("CHARGE_STARTED", "10", chargePower=11)
    owner.send("CHARGE_STOPPED", "40", chargedEnergy=5.5)
    owner.send("DISCONNECTED", "50")
    shown = owner.api.get("/sessions").raise_for_status().json()
    link = f"{owner.path}/sessions.parquet"
    assert link in owner.console.get(f"{owner.path}/sessions").text
    answer = owner.console.get(link)
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="sessions.parquet"'
    table = parquet.read_table(io.BytesIO(answer.content))
    assert table["id"].to_pylist() == [shown[0]["id"]]
    assert [float(energy) for energy in table["chargedEnergy"].to_pylist()] == [5.5]
    nothing = owner.console.get(link, params={"vehicle": "V9"})
    assert parquet.read_table(io.BytesIO(nothing.content)).num_rows == 0
    assert table.schema == parquet.read_schema(io.BytesIO(nothing.content))
    assert owner.console.get(f"{owner.path}/sessions.xlsx").status_code == 404
    assert owner.console.get(link, params={"from": "x"}).status_code == 400


def test_numbers_that_are_too_fine_for_parquet_are_told_before_a_file_begins(owner: Owner) -> None:
    owner.send("CONNECTED", "00", stateOfCharge=40)
    body = (
        '{"type":"VEHICLE_CHARGE_STOPPED","chargerId":"C1","vehicleId":"V1",'
        f'"timestamp":"{DAY}40:00Z","chargedEnergy":0.{"0" * 20}1}}'
    )
    owner.api.post("/events", content=body).raise_for_status()
    owner.api.get("/sessions").raise_for_status()
    answer: httpx.Response = owner.console.get(f"{owner.path}/sessions.parquet")
    assert answer.status_code == 400
    assert "too fine for Parquet" in answer.text


def test_what_is_odd_about_a_running_session_is_seen_live(owner: Owner) -> None:
    owner.send("CHARGE_UPDATED", "10", stateOfCharge=40, chargePower=7)
    owner.session()  # all is derived
    for page in ("live", "live/vehicles", "vehicles/V1"):
        shown = owner.console.get(f"{owner.path}/{page}").raise_for_status().text
        assert re.search(r'chip flag"[^>]*>connect-missing<', shown), page
        assert re.search(r'chip flag"[^>]*>start-missing<', shown), page


def test_the_hour_that_clocks_show_twice_is_told_apart(owner: Owner) -> None:
    for kind, at in (("CONNECTED", "00:15"), ("DISCONNECTED", "01:45")):
        event = {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": "V1"}
        body = {**event, "timestamp": f"2025-10-26T{at}:00Z"}
        owner.api.post("/events", json=body).raise_for_status()
    owner.api.get("/sessions").raise_for_status()
    days = "zone=Europe/Berlin&from=2025-10-26&to=2025-10-26"
    page = owner.console.get(f"{owner.path}/sessions/totals?unit=hour&{days}").text
    assert "2025-10-26 02:00 +0200" in page
    assert "2025-10-26 02:00 +0100" in page
