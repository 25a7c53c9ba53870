"""Draws the pictures of docs/console.md: a real server with real data, in a real browser.

`make screenshots` needs Chromium or Chrome. Takes a minute.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
TETHER = Path(sys.executable).with_name("tether")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUALITY = 55  # of WebP: text stays sharp
REFUSED = {
    "type": "VEHICLE_CHARGE_UPDATED", "chargerId": "CCS1", "vehicleId": "session-0001",
    "stateOfCharge": 149.1, "chargePower": 48.2, "timestamp": "2022-04-12T19:30:00Z",
}  # fmt: skip
IS_DRAWN = """
!document.querySelector('[hx-trigger=load]') && [...document.querySelectorAll('.map')].every(
  (one) => maps.get(one)?.land?.rings.length)
"""
PAGES = {
    "live": "live",
    "vehicle": "vehicles/session-0001",
    "sessions": "sessions?from=2022-05-01&to=2022-07-01",
    "session": "sessions/{session}",
    "requests": "requests",
    "request": "requests/one?id=late-night-1",
    "flexibility": "flexibility",
    "keys": "keys",
    "start": "start",
}


@contextmanager
def demo() -> Iterator[tuple[str, str, str]]:
    """A demo with a year of real sessions and a simulated day: its address, link and key."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [TETHER, "demo", "--port", "0", "--data", f"{folder}/data"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder,
        )  # fmt: skip
        assert process.stdout is not None
        text = ""
        while "curl" not in text:
            text += process.stdout.readline()
        link = re.findall(r"(http://\S+)(/console/enter/\S+)", text)[0]
        key = re.findall(r"ttr_live_\w+", text)[0]
        environment = {**os.environ, "TETHER_URL": link[0], "TETHER_API_KEY": key}
        day = ["simulate", "--seed", "7", "--chargers", "60", "--vehicles", "90"]
        for words in (["replay"], [*day, "--for", "1d", "--speed", "100000"]):
            subprocess.run([TETHER, *words], check=True, env=environment, capture_output=True)
        try:
            yield link[0], "".join(link), key
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def call(url: str, key: str, body: object = None) -> object:
    """What the API answers."""
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(),
        headers={"x-api-key": key, "X-Request-Id": "late-night-1"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def keep(page: Page, name: str) -> None:
    """Writes what the page shows, as WebP."""
    for _ in range(200):  # what is fetched and drawn behind the page
        page.wait_for_timeout(300)
        if page.evaluate(IS_DRAWN):
            break
    page.wait_for_timeout(1500)
    session = page.context.new_cdp_session(page)
    shot = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    (FIGURES / f"console-{name}.webp").write_bytes(base64.b64decode(shot["data"]))


def request_key(page: Page, url: str) -> None:
    """The form, and what the operator sees of it."""
    page.goto(f"{url}/request-key")
    for label, text in (
        ("Organisation", "Nordic Charge AB"), ("E-mail", "ops@nordic-charge.example"),
        ("What is it for?", "Our public chargers report what happens at them."),
        ("Size of the fleet", "40 chargers, 300 vehicles"),
    ):  # fmt: skip
        page.get_by_label(label).fill(text)
    keep(page, "request-key")
    page.get_by_role("button", name="Send").click()
    page.goto(f"{url}/console/key-requests")
    page.locator("summary").first.click()
    keep(page, "key-requests")


def draw(browser: Browser, url: str, link: str, key: str) -> None:
    """All pictures."""
    first = call(f"{url}/sessions?vehicleId=session-0001", key)
    assert isinstance(first, list)
    call(f"{url}/events", key, REFUSED)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(link)
    page.wait_for_url("**/live")
    start = page.url.removesuffix("live")
    for name, path in PAGES.items():
        page.goto(start + path.replace("{session}", first[0]["id"]))
        keep(page, name)
    page.goto(f"{url}/console/partners")
    keep(page, "partners")
    request_key(page, url)
    phone = browser.new_context(
        viewport={"width": 390, "height": 760}, color_scheme="dark",
        storage_state=context.storage_state(),
    ).new_page()  # fmt: skip
    phone.goto(f"{start}live/vehicles")
    keep(phone, "phone")


def main() -> int:
    """Writes the pictures."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with demo() as (url, link, key), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        draw(browser, url, link, key)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
