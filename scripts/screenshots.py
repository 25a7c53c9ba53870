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
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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
    "webhooks": "webhooks",
    "webhook": "webhooks/{webhook}",
    "audit": "audit",
    "start": "start",
}


@contextmanager
def server() -> Iterator[tuple[str, str, str]]:
    """A server with a year of real sessions and a simulated day: its address, a link and a key."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TETHER_DATABASE": f"{folder}/tether.db"}

        def tether(*words: str) -> str:
            done = subprocess.run(
                [TETHER, *words], check=True, env=environment, capture_output=True, text=True
            )
            return done.stdout

        with (log := Path(folder, "log")).open("w") as file:
            process = subprocess.Popen(
                [TETHER, "serve", "--port", "0", "--key-requests", "on",
                 "--webhooks-allow", "127.0.0.0/8", "--webhooks-allow-http"],
                stdout=file, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        while not (found := re.search(r"http://[\w.]+:\d+", log.read_text())):
            time.sleep(0.1)
        url = found[0]
        key = tether("keys", "create", "demo", "--name", "demo", "--rate", "10000").strip()
        environment |= {"TETHER_URL": url, "TETHER_API_KEY": key}
        link = re.findall(r"http://\S+/console/enter/\S+", tether("console", "--url", url))[0]
        day = ["simulate", "--seed", "7", "--chargers", "60", "--vehicles", "90"]
        for words in (["replay"], [*day, "--for", "1d", "--speed", "100000"]):
            subprocess.run([TETHER, *words], check=True, env=environment, capture_output=True)
        try:
            yield url, link, key
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def call(url: str, key: str, body: object = None, method: str | None = None, **headers: str) -> Any:
    """The answer of the API."""
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(), method=method,
        headers={"x-api-key": key, **headers},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return json.load(error)


@contextmanager
def receiver() -> Iterator[str]:
    """An address for webhooks, which answers 204; below it `/billing`, which answers 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            is_broken = self.path == "/billing"
            self.send_response(500 if is_broken else 204)
            self.end_headers()
            if is_broken:
                self.wfile.write(b"out of memory")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://localhost:{httpd.server_port}"
        httpd.shutdown()


def call_back(url: str, key: str, address: str) -> str:
    """Creates webhooks and events for them; returns the id of one that works."""
    works = {"url": f"{address}/tether", "description": "Back office"}
    fails = {"url": f"{address}/billing", "description": "Invoices", "types": ["session.ended"]}
    webhook = call(f"{url}/webhooks", key, works)
    call(f"{url}/webhooks", key, fails)
    event = {"chargerId": "C1408", "vehicleId": "V0313"}
    call(f"{url}/chargers/C1408", key, {"chargePowers": [11]}, method="PUT")
    capacity = {"chargePowers": [11], "chargeCapacity": 74.8}
    call(f"{url}/vehicles/V0313", key, capacity, method="PUT")
    call(f"{url}/events", key, {**event, "type": "VEHICLE_CONNECTED", "stateOfCharge": 22})
    mistake = call(f"{url}/events", key, {**event, "type": "VEHICLE_CHARGE_STARTED"})
    call(f"{url}/events/{mistake['id']}", key, method="DELETE")
    call(f"{url}/events", key, {**event, "type": "VEHICLE_DISCONNECTED"})
    time.sleep(10)  # until the second try has failed, too
    call(f"{url}/webhooks/{webhook['id']}/test", key, method="POST")
    return str(webhook["id"])


def keep(page: Page, name: str) -> None:
    """Writes a picture of the page, as WebP."""
    for _ in range(200):  # what is fetched and drawn behind the page
        page.wait_for_timeout(300)
        if page.evaluate(IS_DRAWN):
            break
    page.wait_for_timeout(1500)
    session = page.context.new_cdp_session(page)
    shot = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    (FIGURES / f"console-{name}.webp").write_bytes(base64.b64decode(shot["data"]))


def request_key(page: Page, url: str) -> None:
    """The form for a key, and the operator's page."""
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


def draw(browser: Browser, url: str, link: str, key: str, webhook: str) -> None:
    """All pictures."""
    first = call(f"{url}/sessions?vehicleId=session-0001", key)
    call(f"{url}/events", key, REFUSED, **{"X-Request-Id": "late-night-1"})
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(link)
    page.wait_for_url("**/live")
    start = page.url.removesuffix("live")
    for name, path in PAGES.items():
        page.goto(start + path.format(session=first[0]["id"], webhook=webhook))
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
    with server() as (url, link, key), receiver() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        draw(browser, url, link, key, call_back(url, key, address))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
