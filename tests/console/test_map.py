"""The maps of the console, in a real browser."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.commands import tether
from tests.conftest import Server
from tests.console.conftest import PATIENCE_MS, Open, serious
from tests.console.visitors import cookie_name, new_session, partner_number
from tether.domain.errors import SetupError
from tether.server.settings import origin_of

expect.set_options(timeout=PATIENCE_MS)

MANY = 10_000
AT_ONCE = 2_000
MAP = "maps.get(document.querySelector('.map'))"


class Fleet:
    """A partner with chargers at these places."""

    def __init__(self, server: Server, places: dict[str, tuple[float, float]]) -> None:
        self.server = server
        self.key = server.key()
        self.token = new_session(server, self.key)
        self.path = f"/console/p/{partner_number(server, self.key)}"
        self.client = server.client(self.key)
        chargers = [
            {"id": id, "chargePowers": [11], "longitude": longitude, "latitude": latitude}
            for id, (longitude, latitude) in places.items()
        ]
        chargers.append({"id": "NOWHERE", "chargePowers": [11]})
        for start in range(0, len(chargers), AT_ONCE):
            body = "\n".join(map(json.dumps, chargers[start : start + AT_ONCE]))
            headers = {"Content-Type": "application/x-ndjson"}
            answer = self.client.post("/chargers/bulk", content=body, headers=headers)
            assert {item["status"] for item in answer.json()} == {201}
        vehicle = {"chargeCapacity": 60, "chargePowers": [11]}
        self.client.put("/vehicles/V1", json=vehicle).raise_for_status()

    def send(self, kind: str, charger: str, **members: float) -> None:
        body = {"type": f"VEHICLE_{kind}", "chargerId": charger, "vehicleId": "V1", **members}
        self.client.post("/events", json=body).raise_for_status()
        self.client.get("/sessions").raise_for_status()  # it is derived


class Tiles(BaseHTTPRequestHandler):
    """A server of empty tiles, which remembers what it was asked."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    picture = b"<svg xmlns='http://www.w3.org/2000/svg' width='256' height='256'/>"

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Referer"]))
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.send_header("Content-Length", str(len(self.picture)))
        self.end_headers()
        self.wfile.write(self.picture)

    def log_message(self, *args: object) -> None:
        pass


class World(NamedTuple):
    """All data of these tests. They are made before the browser, whose loop blocks asyncio."""

    fleet: Fleet
    crowd: Fleet
    tiled: Fleet
    growing: Fleet
    tiles: str


@pytest.fixture(scope="module")
def world(console_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pictures = ThreadingHTTPServer(("127.0.0.1", 0), Tiles)
    threading.Thread(target=pictures.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{pictures.server_port}"
    database = str(tmp_path_factory.mktemp("tiled") / "tether.db")
    server = Server(database, ["--map-tiles", f"{origin}/t/{{z}}/{{x}}/{{y}}.svg?s=1"]).start()
    crowd = {f"C{number}": (number % 100 / 8, 45 + number // 100 / 8) for number in range(MANY)}
    made = World(
        Fleet(console_server, {"FIJI": (179.5, -17.2), "TAVEUNI": (-179.9, -16.8)}),
        Fleet(console_server, crowd),
        Fleet(server, {"C1": (18.0, 59.3)}),
        Fleet(console_server, {"C1": (18.0, 59.3)}),
        origin,
    )
    yield made
    for one in made[:4]:
        one.client.close()
    server.stop()
    pictures.shutdown()
    pictures.server_close()


@pytest.fixture
def fleet(world: World) -> Fleet:
    return world.fleet


def until(page: Page, condition: str) -> None:
    """Returns when this is true. (The page's policy forbids `wait_for_function`.)"""
    for _ in range(PATIENCE_MS // 100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{condition} does not come")


def near(page: Page, text: str) -> Locator:
    """The link to a charger in the middle of the map, with this text."""
    return page.locator(".near").get_by_role("link", name=text, exact=True)


def test_chargers_stand_on_the_map_and_change_colour_as_it_happens(
    fleet: Fleet, open_page: Open
) -> None:
    page = open_page(f"{fleet.path}/live", fleet.token)
    expect(page.get_by_text("1 without a position")).to_be_visible()
    # Around the antimeridian both are near each other.
    expect(near(page, "FIJI, free")).to_be_visible()
    expect(near(page, "TAVEUNI, free")).to_be_visible()
    assert page.evaluate(f"{MAP}.zoom") > 6
    land = page.evaluate(f"ringsOnce({MAP}.element.dataset.world).then(rings => rings.length)")
    assert land > 1_000
    fleet.send("CONNECTED", "FIJI", stateOfCharge=40)
    expect(near(page, "FIJI, plugged in")).to_be_visible()
    fleet.send("CHARGE_STARTED", "FIJI", chargePower=7)
    expect(near(page, "FIJI, charging")).to_be_visible()
    assert serious(page) == []
    near(page, "TAVEUNI, free").click()
    expect(page.get_by_role("heading", name="TAVEUNI")).to_be_visible()


def test_a_new_charger_comes_to_the_open_map(world: World, open_page: Open) -> None:
    fleet = world.growing
    page = open_page(f"{fleet.path}/live", fleet.token)
    expect(near(page, "C1, free")).to_be_visible()
    new = {"chargePowers": [11], "longitude": 18.01, "latitude": 59.3}
    fleet.client.put("/chargers/NEW", json=new).raise_for_status()
    fleet.send("CONNECTED", "NEW", stateOfCharge=40)
    expect(near(page, "NEW, plugged in")).to_be_visible()


def test_the_map_works_by_keyboard_mouse_and_buttons(fleet: Fleet, open_page: Open) -> None:
    page = open_page(f"{fleet.path}/live", fleet.token, dark=True)
    expect(page.locator(".near a")).to_have_count(2)
    zoom = page.evaluate(f"{MAP}.zoom")
    page.locator(".map canvas").focus()
    page.keyboard.press("+")
    assert page.evaluate(f"{MAP}.zoom") == pytest.approx(zoom + 1)
    page.keyboard.press("-")
    before = page.evaluate(f"{MAP}.x")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"{MAP}.x") != before
    for _ in range(20):  # beyond what the map shows
        page.keyboard.press("ArrowDown")
        page.keyboard.press("-")
    page.keyboard.press("0")
    assert page.evaluate(f"{MAP}.zoom") == pytest.approx(zoom)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="All").click()
    box = page.locator(".map canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -240)
    until(page, f"{MAP}.zoom > {zoom} + 0.5")
    before = page.evaluate(f"{MAP}.x")
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 40, steps=3)
    page.mouse.up()
    assert page.evaluate(f"{MAP}.x") != before
    assert page.url.endswith("/live")  # dragging the map does not open a charger
    page.keyboard.press("0")
    page.evaluate(f"{MAP}.paint()")
    x, y = page.evaluate(
        f"(() => {{ const m = {MAP}; const c = m.clusters.find(c => m.shown.name(c.numbers[0]) === "
        "'FIJI'); return [c.x, c.y]; })()"
    )
    page.mouse.click(box["x"] + x, box["y"] + y)
    expect(page.get_by_role("heading", name="FIJI")).to_be_visible()
    page.go_back()
    expect(page.locator(".near a")).to_have_count(2)
    page.locator(".map canvas").focus()
    page.keyboard.press("Enter")  # what is next to the middle
    page.wait_for_url("**/chargers/**")


def test_two_fingers_zoom_on_a_phone(fleet: Fleet, open_page: Open) -> None:
    page = open_page(f"{fleet.path}/live", fleet.token, phone=True)
    expect(page.locator(".near a")).to_have_count(2)
    zoom = page.evaluate(f"{MAP}.zoom")
    box = page.locator(".map canvas").bounding_box()
    assert box
    fingers = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 80)):
        at = [{"x": box["x"] + 150 + side * apart, "y": box["y"] + 100, "id": side + 1}
              for side in (-1, 1)]  # fmt: skip
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    until(page, f"{MAP}.zoom > {zoom} + 1")


def test_ten_thousand_chargers_are_drawn_in_a_moment(world: World, open_page: Open) -> None:
    many = world.crowd
    page = open_page(f"{many.path}/live", many.token)
    expect(page.locator(".near a")).to_have_count(8)
    took = page.evaluate(
        f"(() => {{ const m = {MAP}; return [...Array(9)].map(() => {{ const began = "
        "performance.now(); m.paint(); return performance.now() - began; }); })()"
    )
    assert min(took) < 200
    assert (
        page.evaluate(f"{MAP}.clusters.reduce((all, one) => all + one.numbers.length, 0)") == MANY
    )
    many.client.close()


def test_flexibility_is_shown_by_area(fleet: Fleet, open_page: Open) -> None:
    fleet.send("CONNECTED", "TAVEUNI", stateOfCharge=40)
    page = open_page(f"{fleet.path}/flexibility", fleet.token)
    areas = page.get_by_role("region", name="By area").locator("tbody tr")
    expect(areas).to_have_count(1)
    expect(areas).to_contain_text("from 16.8° S, 179.9° W")
    expect(areas.locator("td").nth(2)).to_have_text("11.0")
    link = page.locator(".near a")
    expect(link).to_have_text("from 16.8° S, 179.9° W: 11 kW could be taken, 0 kW given")
    assert serious(page) == []
    link.click()
    expect(page).to_have_url(re.compile("#area-1$"))
    fleet.send("CHARGE_STARTED", "NOWHERE")
    page.goto(page.url.partition("#")[0])
    expect(areas).to_contain_text("no position")
    unknown = page.get_by_role("listitem").filter(has_text="its power was not reported")
    unknown.get_by_role("link", name="V1").click()
    expect(page.get_by_role("heading", name="V1")).to_be_visible()


def test_an_operator_may_name_a_server_of_tiles_and_no_other_is_asked(
    world: World, browser: Browser
) -> None:
    fleet, origin = world.tiled, world.tiles
    url = fleet.server.url
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    cookie = {"name": cookie_name(fleet.server), "value": fleet.token, "url": url}
    page.context.add_cookies([cookie])  # type: ignore[list-item]
    answer = page.goto(f"{url}{fleet.path}/live")
    assert answer
    assert f"img-src 'self' {origin};" in answer.headers["content-security-policy"]
    expect(page.get_by_text(f"Map: {urlsplit(origin).netloc}")).to_be_visible()
    expect(page.locator(".near a")).to_have_count(1)  # the map has begun
    until(page, f"[...{MAP}.tiles.values()].some(tile => tile.naturalWidth === 256)")
    page.close()
    assert problems == []
    assert all(path.startswith("/t/") and path.endswith(".svg?s=1") for path, _ in Tiles.asked)
    assert {referer for _, referer in Tiles.asked} == {f"{url}/"}


@pytest.mark.parametrize(
    "url",
    ["a.example/{z}/{x}/{y}", "https://a.example/{z}/{x}", "https://a; b/{z}/{x}/{y}",
     "https://a.example/{z}/{x}/{y}\n", "https://a.example;x/{z}/{x}/{y}", "data:{z}{x}{y}"],
)  # fmt: skip
def test_of_what_is_no_server_of_tiles_no_policy_is_made(url: str) -> None:
    with pytest.raises(SetupError):
        origin_of(url)


def test_what_is_no_server_of_tiles_is_refused() -> None:
    url = "https://tiles.example.com/"
    done = tether("serve", "--map-tiles", url)
    assert done.returncode == 2
    assert "is no address of tiles" in " ".join(done.stderr.split())
