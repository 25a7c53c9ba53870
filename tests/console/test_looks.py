"""Pages stay readable with long ids, long bodies and long names, and with nothing to show."""

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Server
from tests.console.conftest import PATIENCE_MS, Open
from tests.console.visitors import new_session, partner_number

expect.set_options(timeout=PATIENCE_MS)

LONG_ID = "E" * 60 + "." * 34 + "~" * 34
LONG_NAME = "Wattenmeer Windstrom " * 4 + "Ladepark GmbH"


class Owner:
    """A partner with a long name, and one charger, without a position, and one vehicle."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.key = server.key(LONG_NAME)
        self.token = new_session(server, self.key)
        self.operator = new_session(server, None)
        self.path = f"/console/p/{partner_number(server, self.key)}/"
        self.client = server.client(self.key)
        self.client.put(f"/chargers/{LONG_ID}", json={"chargePowers": [11]}).raise_for_status()
        vehicle = {"chargeCapacity": 60, "chargePowers": [11]}
        self.client.put(f"/vehicles/{LONG_ID}", json=vehicle).raise_for_status()
        event = {"chargerId": LONG_ID, "vehicleId": LONG_ID, "type": "VEHICLE_CONNECTED"}
        good = {**event, "stateOfCharge": 40.123456789}
        self.client.post("/events", json=good).raise_for_status()
        bad = self.client.post("/events", json={**event, "stateOfCharge": 149.1})
        self.request_id = bad.headers["X-Request-Id"]
        self.client.get("/sessions").raise_for_status()  # all is derived


@pytest.fixture(scope="module")
def owner(console_server: Server) -> Owner:
    return Owner(console_server)


def too_wide(page: Page) -> list[str]:
    """What reaches beyond the screen and cannot be scrolled to within its own box."""
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll, .unseen')"
        " && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"
    )
    return found


@pytest.mark.parametrize("phone", [True, False])
def test_a_long_id_stays_in_its_place(owner: Owner, open_page: Open, phone: bool) -> None:
    page = open_page(f"{owner.path}chargers/{LONG_ID}", owner.token, phone=phone)
    card = page.locator(".card").first
    expect(card).to_contain_text("40 %")
    edge = card.evaluate("(one) => one.getBoundingClientRect().right")
    within = card.locator("*").evaluate_all(
        "(all, edge) => all.every((one) => one.getBoundingClientRect().right <= edge)", edge
    )
    assert within
    assert too_wide(page) == []


def test_a_long_name_leaves_the_pages_in_one_row(owner: Owner, open_page: Open) -> None:
    page = open_page(f"{owner.path}keys", owner.operator)
    rows = page.locator(".top > *").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect())"
        ".filter((box, number, boxes) => box.top >= boxes[0].bottom).length"
    )
    assert rows == 0
    expect(page.locator(".partner")).to_have_attribute("title", LONG_NAME)


def test_the_wrong_member_of_a_long_body_is_in_sight(owner: Owner, open_page: Open) -> None:
    page = open_page(f"{owner.path}requests?q={owner.request_id}", owner.token, phone=True)
    page.locator("tbody th a").click()
    expect(page.locator("mark")).to_have_text('"stateOfCharge":149.1')
    box = page.locator("mark").bounding_box()
    assert box
    assert box["x"] + box["width"] <= 390


def test_without_positions_there_is_a_sentence_in_place_of_a_map(
    owner: Owner, open_page: Open
) -> None:
    page = open_page(f"{owner.path}live", owner.token)
    expect(page.locator(".map")).to_have_text("No charger has a position, so there is no map.")
    page.goto(page.url.replace("/live", "/flexibility"))
    expect(page.get_by_role("region", name="By area")).to_contain_text("no position")
    expect(page.locator(".map")).to_have_count(0)


def test_readings_are_rounded_and_complete_on_demand(owner: Owner, open_page: Open) -> None:
    page = open_page(f"{owner.path}vehicles/{LONG_ID}", owner.token)
    expect(page.get_by_title("40.123456789")).to_have_text("40.123 %")


def test_a_chart_at_rest_names_its_lines_and_no_values(owner: Owner, open_page: Open) -> None:
    page = open_page(f"{owner.path}flexibility", owner.token)
    legend = page.locator(".u-legend")
    expect(legend).to_contain_text("Taken (kW)")
    page.mouse.move(0, 0)
    assert "--" not in legend.inner_text()
    assert page.title() == "Flexibility · Tether"  # what is loaded into the page keeps its title


def test_a_chart_writes_numbers_as_the_page_does(owner: Owner, open_page: Open) -> None:
    page = open_page(token=owner.token)
    german = {"userAgent": page.evaluate("navigator.userAgent"), "acceptLanguage": "de-DE"}
    page.context.new_cdp_session(page).send("Emulation.setUserAgentOverride", german)
    (session,) = owner.client.get("/sessions").json()
    page.goto(f"{owner.url}{owner.path}sessions/{session['id']}")
    assert page.evaluate("navigator.language") == "de-DE"
    page.locator(".chart .u-over").hover()
    expect(page.locator(".u-legend")).to_contain_text("40.123")


def test_on_paper_a_page_says_what_was_chosen(owner: Owner, open_page: Open) -> None:
    page = open_page(f"{owner.path}sessions?vehicle={LONG_ID}", owner.token)
    page.emulate_media(media="print")
    expect(page.get_by_label("Vehicle", exact=True)).to_be_visible()
    expect(page.get_by_text("All times are UTC.")).to_be_visible()
    expect(page.get_by_text("Show", exact=True)).to_be_hidden()


def test_without_scripts_no_room_is_kept_for_a_chart(owner: Owner, open_page: Open) -> None:
    page = open_page(token=owner.token)
    emulation = page.context.new_cdp_session(page)
    emulation.send("Emulation.setScriptExecutionDisabled", {"value": True})
    (session,) = owner.client.get("/sessions").json()
    page.goto(f"{owner.url}{owner.path}sessions/{session['id']}")
    expect(page.get_by_role("region", name="Events")).to_contain_text("VEHICLE_CONNECTED")
    expect(page.locator(".chart")).to_be_hidden()
