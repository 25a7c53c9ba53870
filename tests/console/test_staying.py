"""Pages that change while somebody works with them, and figures that are large or odd."""

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Server
from tests.console.conftest import PATIENCE_MS, Open
from tests.console.visitors import new_session, partner_number

expect.set_options(timeout=PATIENCE_MS)

FOCUSED = "document.activeElement.textContent"
SELECTED = "getSelection().toString()"


class Owner:
    """A partner with a charger and two vehicles, of which V1 is plugged in."""

    def __init__(self, server: Server, power: float = 11) -> None:
        self.key = server.key()
        self.path = f"/console/p/{partner_number(server, self.key)}/"
        self.token = new_session(server, self.key)
        self.client = server.client(self.key)
        self.client.put("/chargers/C1", json={"chargePowers": [power], "dischargePowers": [power]})
        for number in (1, 2):
            body = {"chargeCapacity": 60, "chargePowers": [power], "dischargePowers": [power]}
            self.client.put(f"/vehicles/V{number}", json=body)
        self.send("CONNECTED", "V1", stateOfCharge=50)
        self.derive()

    def send(self, kind: str, vehicle: str, **members: object) -> httpx.Response:
        event = {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": vehicle, **members}
        return self.client.post("/events", json=event)

    def derive(self) -> None:
        """Waits until all events are derived."""
        self.client.get("/sessions").raise_for_status()


@pytest.fixture(scope="module")
def owners(console_server: Server) -> list[Owner]:
    """One with usual figures, and one with large ones. Both are made before the browser starts."""
    return [Owner(console_server), Owner(console_server, power=987_654_321)]


@pytest.fixture
def owner(owners: list[Owner]) -> Owner:
    return owners[0]


def work_with(page: Page, link: str) -> None:
    """Focuses the link, and selects its text."""
    page.get_by_role("link", name=link, exact=True).focus()
    page.evaluate("getSelection().selectAllChildren(document.activeElement)")
    assert page.evaluate(FOCUSED) == link


def test_who_works_with_a_row_keeps_it_while_others_come(owner: Owner, open_page: Open) -> None:
    page = open_page(owner.path + "live/vehicles", owner.token)
    work_with(page, "V1")
    owner.send("CONNECTED", "V2")
    expect(page.locator("#found tbody tr")).to_have_count(2)
    assert [page.evaluate(FOCUSED), page.evaluate(SELECTED)] == ["V1", "V1"]
    owner.client.post("/events", content=b"[]", headers={"X-Request-Id": "first"})
    refused = open_page(owner.path + "requests", owner.token)
    rows = refused.locator("#found tbody tr")
    expect(rows).to_have_count(1)
    time = rows.get_by_role("link").inner_text()
    work_with(refused, time)
    owner.client.post("/events", content=b"{}", headers={"X-Request-Id": "second"})
    expect(rows).to_have_count(2)
    assert [refused.evaluate(FOCUSED), refused.evaluate(SELECTED)] == [time, time]
    refused.keyboard.press("Enter")
    expect(refused.locator("main")).to_contain_text("first")


def test_a_page_says_when_the_server_does_not_answer(owner: Owner, open_page: Open) -> None:
    page = open_page(owner.path + "requests", owner.token)
    is_down = [True]
    page.context.route(
        "**/requests?*",
        lambda route: route.fulfill(status=503) if is_down else route.continue_(),
    )
    expect(page.get_by_text("No answer from the server")).to_be_visible()
    is_down.clear()
    expect(page.get_by_text("No answer from the server")).to_be_hidden()


def test_bars_have_the_days_of_the_chosen_time_zone(owner: Owner, open_page: Open) -> None:
    owner.client.put("/vehicles/V3", json={"chargeCapacity": 60, "chargePowers": [11]})
    for kind, at, members in (
        ("CONNECTED", "2026-03-03T20:00:00Z", {}), ("CHARGE_STARTED", "2026-03-03T20:00:01Z", {}),
        ("CHARGE_STOPPED", "2026-03-03T21:00:00Z", {"chargedEnergy": -5, "chargedTime": 3599}),
        ("DISCONNECTED", "2026-03-03T21:00:01Z", {}),
    ):  # fmt: skip
        assert owner.send(kind, "V3", timestamp=at, **members).is_success
    owner.derive()
    page = open_page(owner.path + "sessions?vehicle=V3&zone=Asia/Tokyo", owner.token)
    chart = page.locator(".chart")
    legend = chart.locator(".u-legend")
    for place in range(100):  # until it is drawn in its size
        chart.locator(".u-over").hover(position={"x": 400 + place, "y": 80})
        if "2026-03-04" in legend.inner_text():
            break
        page.wait_for_timeout(100)
    expect(legend).to_contain_text("-5")


def test_large_figures_fit_on_a_phone(owners: list[Owner], open_page: Open) -> None:
    large = owners[1]
    page = open_page(large.path + "flexibility", large.token, phone=True)
    expect(page.locator(".tiles")).to_contain_text("987,654,321.0")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
