"""The console in a real browser: what people do there, and that pages are accessible."""

import csv
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Server
from tests.console.conftest import PATIENCE_MS, Open, serious
from tests.console.visitors import new_link, new_session, partner_number

expect.set_options(timeout=PATIENCE_MS)

HOSTILE = "<img src=x onerror=alert(1)>'\"{{7*7}}"
PATHS = (
    "live?show=all", "live/vehicles", "chargers/C1", "vehicles/V1", "sessions",
    "sessions/{session}", "requests", "flexibility", "start", "keys", "webhooks",
)  # fmt: skip


class Partner:
    """A partner with a small fleet."""

    def __init__(self, server: Server) -> None:
        self.key = server.key("Nordic & Söner (AB)", name=HOSTILE)
        self.number = partner_number(server, self.key)
        self.token = new_session(server, self.key)
        self.second_token = new_session(server, server.key("Nordic & Söner (AB)"))
        self.operator = new_session(server, None)
        self.new_key = server.key("Newcomer")
        self.new_token = new_session(server, self.new_key)
        self.simulated_token = new_session(server, server.key("Simulated"))
        self.client = server.client(self.key)
        for number in range(1, 4):
            body = {"chargePowers": [11, 22], "latitude": 59.3, "longitude": 18 + number / 10}
            self.client.put(f"/chargers/C{number}", json=body).raise_for_status()
            vehicle = {"chargeCapacity": 60, "chargePowers": [11]}
            self.client.put(f"/vehicles/V{number}", json=vehicle).raise_for_status()
        self.send("CONNECTED", "C1", "V1", minutes_ago=90, stateOfCharge=20)
        self.send("CHARGE_STARTED", "C1", "V1", minutes_ago=80, chargePower=11)
        self.send("CHARGE_UPDATED", "C1", "V1", minutes_ago=20, chargePower=10.5, stateOfCharge=47)
        self.send("CONNECTED", "C2", "V2", minutes_ago=60, stateOfCharge=80)

    def send(
        self, kind: str, charger: str, vehicle: str, *, minutes_ago: float = 0, **members: float
    ) -> None:
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        timestamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = {"type": f"VEHICLE_{kind}", "chargerId": charger, "vehicleId": vehicle}
        body = {**event, "timestamp": timestamp, **members}
        self.client.post("/events", json=body).raise_for_status()

    def path(self, page: str) -> str:
        """The address of a page; {session} is the first session of V1."""
        if "{session}" in page:
            found = self.client.get("/sessions", params={"vehicleId": "V1"}).json()
            page = page.replace("{session}", found[0]["id"])
        return f"/console/p/{self.number}/{page}"


@pytest.fixture(scope="module")
def partner(console_server: Server) -> Iterator[Partner]:
    made = Partner(console_server)
    made.client.get("/sessions").raise_for_status()  # all is derived
    yield made
    made.client.close()


def table(page: Page) -> list[str]:
    """The texts in the first column of the first table."""
    return page.locator("table").first.locator("tbody th").all_inner_texts()


def test_the_operators_link_opens_the_console_signed_in_and_once(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page()
    link = new_link(console_server)
    page.goto(link)
    page.wait_for_url("**/console/partners")
    expect(page.get_by_text("operator")).to_be_visible()
    page.get_by_role("link", name="Partners").click()
    page.get_by_role("link", name="Nordic & Söner (AB)").click()
    expect(page).to_have_url(console_server.url + partner.path("live"))
    page.goto(link)
    expect(page.get_by_role("heading", name="This link does not work")).to_be_visible()
    page.goto(f"{console_server.url}/console")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_partner_signs_in_by_keyboard_alone_and_comes_back(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("vehicles/V1"))
    page.keyboard.type("ttr_live_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("does not work")
    page.keyboard.type(partner.key)
    page.keyboard.press("Enter")
    expect(page).to_have_url(console_server.url + partner.path("vehicles/V1"))
    for _ in range(2):  # past the way to the content
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Live")).to_be_visible()


def test_the_fleet_is_filtered_searched_and_sorted(partner: Partner, open_page: Open) -> None:
    page = open_page(partner.path("live"), partner.token)
    assert table(page) == ["C2", "C1"]
    tiles = page.locator(".tiles").inner_text()
    assert "Chargers\n3" in tiles
    assert "10.5 kW" in tiles
    page.get_by_label("Sort by").select_option("highest power")
    expect(page.locator("tbody th").first).to_have_text("C1")
    page.locator("select[name=show]").select_option("charging")
    expect(page.locator("tbody th")).to_have_count(1)
    page.locator("select[name=show]").select_option("all")
    expect(page.locator("tbody th")).to_have_count(3)
    page.get_by_label("Id begins with").fill("C3")
    expect(page.locator("tbody th")).to_have_text(["C3"])
    page.wait_for_url("**q=C3**")  # which can be passed on, and gone back from
    page.get_by_label("Id begins with").fill("<b>")
    expect(page.get_by_text("No charger with such an id")).to_be_visible()
    page.get_by_role("link", name="Vehicles").click()
    page.wait_for_url("**/live/vehicles?show=all**")  # else what follows may change the other page
    expect(page.get_by_label("Id begins with")).to_have_value("<b>")
    page.get_by_label("Id begins with").fill("")
    expect(page.locator("tbody th")).to_have_text(["V1", "V2", "V3"])


def let_see(page: Page, *, seen: bool) -> None:
    """Tells the page that its tab comes to the front, or goes behind another."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { get: () => hidden,"
        " configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }",
        not seen,
    )


def test_a_page_that_is_open_follows_the_events(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("vehicles/V3"), partner.token)
    fleet = open_page(partner.path("live?show=plugged"), partner.token)
    expect(page.get_by_role("heading", name="Now free")).to_be_visible()
    expect(fleet.locator("tbody th")).to_have_text(["C2", "C1"])
    partner.send("CONNECTED", "C3", "V3", stateOfCharge=55)
    expect(page.get_by_role("heading", name="Now plugged in")).to_be_visible()
    expect(fleet.locator("tbody th")).to_have_text(["C3", "C2", "C1"])
    let_see(page, seen=False)  # its connection is for others then
    stream = "document.querySelector('[sse-connect]')['htmx-internal-data'].sseEventSource"
    assert page.evaluate(f"{stream}.readyState === EventSource.CLOSED")
    partner.send("CHARGE_STARTED", "C3", "V3", chargePower=7.4)
    let_see(page, seen=True)
    expect(page.get_by_role("heading", name="Now charging")).to_be_visible()
    expect(fleet.locator("tbody tr").first).to_contain_text("7.4 kW")
    partner.send("CHARGE_STOPPED", "C3", "V3", chargedEnergy=0.1)
    partner.send("DISCONNECTED", "C3", "V3")
    expect(page.get_by_role("heading", name="Now free")).to_be_visible()
    expect(page.get_by_role("region", name="Sessions").get_by_role("row")).to_have_count(2)
    expect(fleet.locator("tbody th")).to_have_text(["C2", "C1"])


def test_sessions_are_chosen_added_up_and_downloaded(partner: Partner, open_page: Open) -> None:
    files: list[dict[str, str]] = []
    page = open_page(partner.path("sessions"), partner.token)
    page.get_by_role("link", name="Add up these sessions").click()
    energy = page.get_by_role("region", name="These sessions together").locator(".tiles")
    expect(energy).to_contain_text("kWh")
    expect(page.locator(".chart canvas")).to_be_visible()
    page.get_by_role("textbox", name="Vehicle").fill("V1")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**vehicle=V1**")
    rows = page.get_by_role("region", name="Sessions", exact=True).locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(energy).to_contain_text("Sessions\n1", use_inner_text=True)
    page.get_by_label("Time zone of days").fill("Asia/Tokyo")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**zone=Asia**")
    for name, separator in (("CSV", ","), ("CSV with decimal commas", ";")):
        with page.expect_download() as downloading:
            page.get_by_role("link", name=f"Download as {name}", exact=True).click()
        text = downloading.value.path().read_text(encoding="utf-8-sig")
        (row,) = csv.DictReader(text.splitlines(), delimiter=separator)
        files.append(row)
    assert [row["vehicleId"] for row in files] == ["V1", "V1"]
    at = datetime.fromisoformat(files[0]["connectedAt"]) + timedelta(hours=9)
    assert files[1]["connectedAt"].replace(",", ".") in at.isoformat(" ", "milliseconds")
    assert files[1]["chargedEnergy"] == files[0]["chargedEnergy"].replace(".", ",")
    page.get_by_label("From").fill("2001-01-01")
    page.get_by_label("To", exact=True).fill("2001-02-01")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("No session matches.")).to_be_visible()
    page.get_by_label("Time zone of days").fill("Mars/Olympus")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_contain_text("zone")


def test_a_session_shows_its_course_its_charges_and_its_neighbours(
    partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("sessions"), partner.token)
    page.get_by_role("row").filter(has_text="V1").get_by_role("rowheader").get_by_role(
        "link"
    ).click()
    expect(page.get_by_role("heading", name="V1 at C1")).to_be_visible()
    expect(page.locator(".chart canvas")).to_be_visible()
    assert "estimated" in page.get_by_role("region", name="Charge periods").inner_text()
    events = page.get_by_role("region", name="Events").locator("tbody tr")
    expect(events.first).to_contain_text("VEHICLE_CONNECTED")
    before = events.count()
    partner.send("CHARGE_UPDATED", "C1", "V1", minutes_ago=5, chargePower=9.9, stateOfCharge=50)
    expect(events).to_have_count(before + 1)
    expect(page.locator(".chart canvas")).to_be_visible()


def test_a_simulated_day_fills_a_partner_without_events(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page("/console", partner.simulated_token, phone=True)
    expect(page.get_by_role("heading", name="Start")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Send a simulated day").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("arrived", exact=True)).to_have_count(3)  # by themselves
    expect(page.get_by_text("A simulated day is there")).to_be_visible()
    assert serious(page) == []
    expect(page.get_by_text("has events that may be real")).to_be_visible()
    page.get_by_role("link", name="See it live").click()
    expect(page.get_by_role("heading", name="Live")).to_be_visible()
    page.locator("select[name=show]").select_option("all")  # at this hour none may be plugged in
    expect(page.locator("tbody th").first).to_contain_text("SZ")


def test_a_key_is_requested_approved_claimed_and_used(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page("/console/sign-in")
    page.get_by_role("link", name="Request one").click()
    assert serious(page) == []
    for text in ("Nordic AB", "ops@nordic.example", f"{HOSTILE}\u202e", "40 chargers"):
        page.keyboard.press("Tab")
        while page.evaluate("!document.activeElement.matches('form.card *')"):
            page.keyboard.press("Tab")
        page.keyboard.insert_text(text)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("waiting")).to_be_visible()
    waits_at = page.url
    operator = open_page(token=partner.operator, phone=True)
    operator.goto(f"{console_server.url}/console/partners")
    operator.get_by_role("link", name="Key requests").click()
    expect(operator.locator(".said")).to_contain_text(f"{HOSTILE}\\u202e")
    operator.locator("summary").click()
    assert serious(operator) == []
    assert operator.evaluate("document.documentElement.scrollWidth") <= 390
    operator.get_by_label("Rate").fill("3/h")
    operator.get_by_role("button", name="Approve").click()
    expect(operator.get_by_text("approved")).to_be_visible()
    # The requester's page follows by itself.
    page.get_by_role("button", name="Show my key").click()
    key = page.locator("#secret").inner_text()
    assert serious(page) == []
    with console_server.client(key) as client:
        answer = client.get("/chargers")
        assert answer.status_code == 200
        assert answer.headers["ratelimit-policy"] == '"default";q=3;w=3600'
    page.goto(waits_at)
    expect(page.get_by_text("claimed")).to_be_visible()
    assert key not in page.content()
    page.get_by_role("link", name="Sign in with it").click()
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Start")).to_be_visible()


def test_a_key_is_created_copied_used_rotated_and_revoked(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("keys"), partner.token)
    assert HOSTILE in page.get_by_role("region", name="Keys").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("What is it for?").fill("by hand")
    page.get_by_label("It may only read").check()
    page.get_by_role("button", name="Create").click()
    secret = page.locator("#secret").inner_text()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    call = f"{console_server.url}/chargers"
    assert httpx.get(call, headers={"x-api-key": secret}, verify=False).status_code == 200
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_text(secret)).to_have_count(0)
    row = page.get_by_role("row").filter(has_text="by hand")
    expect(row).to_contain_text("read")
    row.get_by_text("Change").click()
    row.get_by_label("The old key works for another").select_option("1h")
    row.get_by_role("button", name="Rotate").click()
    rotated = page.locator("#secret").inner_text()
    assert rotated != secret
    page.get_by_role("link", name="I have copied it").click()
    row = page.get_by_role("row").filter(has_text=rotated[:17])
    row.get_by_text("Change").click()
    row.get_by_role("button", name="Revoke for good").click()
    expect(page.get_by_role("row").filter(has_text="revoked")).to_have_count(1)
    assert httpx.get(call, headers={"x-api-key": rotated}, verify=False).status_code == 403
    assert httpx.get(call, headers={"x-api-key": secret}, verify=False).status_code == 200


def test_a_form_that_is_sent_twice_in_a_moment_is_sent_once(
    partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("keys"), partner.token)
    form = page.locator("form").filter(has=page.get_by_role("button", name="Create"))
    sent = (
        "form => [1, 2].map(() =>"
        " form.dispatchEvent(new Event('submit', { bubbles: true, cancelable: true })))"
    )
    assert form.evaluate(sent) == [True, False]


def test_a_refused_call_is_found_by_its_id_with_its_member_marked(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("requests?path=/events"), partner.token)
    body = (
        '{"type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C1", "vehicleId": "V1",'
        ' "stateOfCharge": 149.1, "note": "<script>alert(1)</script>\u202e\x1b[31m"}'
    )
    refused = partner.client.post("/events?x=1", content=body.encode())
    assert refused.status_code == 400
    refused = partner.client.post(
        "/events", content=body.replace(', "note"', ', "timestamp"').encode()
    )
    known = partner.client.post(
        "/events", content=b'{"type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C1", "vehicleId":'
        b' "V1", "stateOfCharge" : 149.1}', headers={"X-Request-Id": "mine-1"},
    )  # fmt: skip
    assert (refused.status_code, known.status_code) == (400, 400)
    found = page.get_by_role("region", name="Refused requests").locator("tbody tr")
    expect(found).to_have_count(3)  # without asking again
    page.get_by_label("Contains").fill("mine-1")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**q=mine-1")
    expect(found).to_have_count(1)
    assert "stateOfCharge" in found.inner_text()
    assert serious(page) == []
    found.get_by_role("link").click()
    expect(page.locator("mark")).to_have_text('"stateOfCharge" : 149.1')
    assert serious(page) == []
    curl = page.locator("#curl").inner_text()
    again = subprocess.run(
        ["sh", "-c", curl + " --silent"], check=True, capture_output=True, text=True,
        env={"KEY": partner.key, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert again.stdout == known.text
    page.goto(console_server.url + partner.path("requests?path=/events%3Fx"))
    found.get_by_role("link").click()
    shown = page.locator("pre").first.inner_text()
    assert "<script>alert(1)</script>" in shown
    assert "\\u202e" in shown
    assert "\\u001b[31m" in shown


def test_flexibility_is_shown_now_and_over_time(partner: Partner, open_page: Open) -> None:
    page = open_page(partner.path("flexibility"), partner.token)
    figures = page.get_by_role("region", name="Figures")
    expect(figures.locator(".tiles")).to_contain_text("More could be taken")
    course = page.get_by_role("region", name="Over time")
    expect(course.locator(".chart canvas")).to_be_visible()
    course.get_by_text("The same as a table").click()
    expect(course.locator("#course tbody tr")).to_have_count(25)
    assert course.locator("#course tbody tr").last.locator("td").last.inner_text() != "0"
    page.get_by_role("link", name="Week").click()
    expect(course.locator("#course tbody tr")).to_have_count(29)


def test_a_new_partner_starts_with_three_calls_that_are_ticked(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page("/console", partner.new_token)
    expect(page.get_by_role("heading", name="Start")).to_be_visible()
    expect(page.get_by_text("arrived")).to_have_count(0)
    calls = [page.locator(f"#c{number}").inner_text() for number in (1, 2, 3)]
    for number, call in enumerate(calls, 1):
        assert console_server.url in call
        done = subprocess.run(
            ["sh", "-c", call + " --silent --fail"], check=True, capture_output=True,
            env={"KEY": partner.new_key, "PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert done.stdout
        expect(page.locator(".chip", has_text="arrived")).to_have_count(number)
    expect(page.get_by_role("status")).to_contain_text("All three have arrived")


def test_the_operator_makes_renames_and_deletes_partners(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page("/console/partners", partner.operator)
    page.get_by_label("Name", exact=True).fill("Made here")
    page.get_by_role("button", name="Create").click()
    key = page.locator("#secret").inner_text()
    call = f"{console_server.url}/chargers"
    assert httpx.get(call, headers={"x-api-key": key}, verify=False).status_code == 200
    page.get_by_label("Name", exact=True).fill("Made here")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("already")
    page.get_by_label("Name contains").fill("made H")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("region", name="Partners").locator("tbody tr")).to_have_count(1)
    row = page.get_by_role("row").filter(has_text="Made here")
    row.get_by_text("Change").click()
    row.get_by_label("New name").fill("Renamed")
    row.get_by_role("button", name="Rename").click()
    expect(page.get_by_text("No partner has such a name")).to_be_visible()
    page.goto(f"{console_server.url}/console/partners")
    row = page.get_by_role("row").filter(has_text="Renamed")
    row.get_by_text("Change").click()
    row.get_by_label("Type its name").fill("Something else")
    row.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was deleted")
    row.get_by_text("Change").click()
    row.get_by_label("Type its name").fill("Renamed")
    row.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    for _ in range(PATIENCE_MS // 200):
        if "Renamed" not in page.get_by_role("region", name="Partners").inner_text():
            break
        page.wait_for_timeout(200)
        page.goto(f"{console_server.url}/console/partners")
    expect(page.get_by_role("row").filter(has_text="Renamed")).to_have_count(0)
    assert httpx.get(call, headers={"x-api-key": key}, verify=False).status_code == 403


def test_a_page_that_is_open_when_its_session_ends_leads_to_the_sign_in(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("live"), partner.second_token)
    expect(page.get_by_role("heading", name="Live")).to_be_visible()
    keys = open_page(partner.path("keys"), partner.second_token)
    row = keys.get_by_role("row").filter(has_text="yours now")
    row.get_by_text("Change").click()
    row.get_by_role("button", name="Revoke for good").click()
    expect(keys.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_pages_are_for_everybody_by_day_and_by_night(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    stranger = open_page("/console/sign-in")
    found = {"sign-in": serious(stranger)}
    for dark in (False, True):
        page = open_page("/console/partners", partner.operator, dark=dark)
        found["partners"] = serious(page)
        for path in PATHS:
            page.goto(console_server.url + partner.path(path))
            found[f"{path} {dark}"] = serious(page, "color-contrast" if dark else None)
    assert {name: problems for name, problems in found.items() if problems} == {}


@pytest.mark.parametrize("width", [390, 768])
def test_pages_fit_on_a_phone_and_a_tablet(
    console_server: Server, partner: Partner, open_page: Open, width: int
) -> None:
    page = open_page("/console/sign-in", phone=True)
    paths = ["/console/sign-in", "/console/partners", *map(partner.path, PATHS)]
    for path in paths:
        if path.endswith("partners"):
            page = open_page(path, partner.operator, phone=True)
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(console_server.url + path)
        sideways = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert sideways <= 0, f"{path} is wider than the screen by {sideways}"


def test_pages_show_their_data_without_scripts(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page(token=partner.token)  # nothing yet: a page would be loading its scripts
    page.context.route("**/*.js*", lambda route: route.fulfill(body=""))
    page.goto(console_server.url + partner.path("live?show=all"))
    assert table(page) == ["C1", "C2", "C3"]
    page.get_by_label("Id begins with").fill("C2")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**q=C2")
    assert table(page) == ["C2"]


def test_nothing_that_a_partner_names_becomes_a_part_of_the_page(
    console_server: Server, partner: Partner, open_page: Open
) -> None:
    page = open_page(partner.path("keys"), partner.token)
    assert page.locator("main img").count() == 0
    assert "{{7*7}}" in page.content()
    assert HOSTILE in page.locator("main").inner_text()
