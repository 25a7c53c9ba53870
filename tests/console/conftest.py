"""A real browser: the Chromium of the system, driven by Playwright."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests import debian
from tests.conftest import Server, shared
from tests.console.visitors import cookie_name

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_MS = 40_000
STATUS = ("the server responded with a status of", "Response Status Error Code")
AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@cache
def chromium(own: str) -> str:
    """The path of a Chromium or Chrome; `own` is where Playwright keeps one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and Path(own).exists():
        found = own
    if found is None and os.geteuid() != 0:  # as root we take the system's, with all it needs
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (
            "These tests need Chromium or Chrome. Install it (on Debian and Ubuntu: sudo apt-get "
            f"install chromium), or let `playwright install chromium` work: {done.stderr}"
        )
        found = own
    return found or debian.program("chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a file."""
    with sync_playwright() as playwright:
        path = chromium(playwright.chromium.executable_path)
        started = playwright.chromium.launch(executable_path=path)
        yield started
        started.close()


@pytest.fixture(scope="module")
def console_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on SQLite that the tests of a file share."""
    yield from shared(str(tmp_path_factory.mktemp("console") / "tether.db"))


class Seen:
    """Collects errors of a page, violations of its policy, and requests to other hosts."""

    def __init__(self, context: BrowserContext, server: Server) -> None:
        self.wrong: list[str] = []
        host = urlsplit(server.url).netloc
        context.on("console", lambda message: self._said(message.type, message.text))
        context.on("weberror", lambda error: self.wrong.append(str(error.error)))
        context.on("request", lambda request: self._asked(request.url, host))

    def _asked(self, url: str, host: str) -> None:
        if urlsplit(url).netloc not in (host, ""):
            self.wrong.append(f"asks {url}")

    def _said(self, kind: str, text: str) -> None:
        # Chromium and htmx report every error status, and some tests cause them.
        if kind in ("error", "warning") and not any(words in text for words in STATUS):
            self.wrong.append(text)


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, console_server: Server) -> Iterator[Open]:
    """Opens pages, each in its own context. At the end it checks that none did anything wrong."""
    contexts: list[tuple[BrowserContext, Seen]] = []

    def make(path: str = "", token: str | None = None, *, phone: bool = False,
             dark: bool = False) -> Page:  # fmt: skip
        context = browser.new_context(
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 900},
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(PATIENCE_MS)
        contexts.append((context, Seen(context, console_server)))
        if token:
            address = {"domain": urlsplit(console_server.url).hostname or "", "path": "/"}
            context.add_cookies(
                [{"name": cookie_name(console_server), "value": token, "httpOnly": True,
                  "sameSite": "Strict", **address}]  # type: ignore[typeddict-item]
            )  # fmt: skip
        page = context.new_page()
        if path:
            page.goto(console_server.url + path)
        return page

    yield make
    for context, seen in contexts:
        context.close()
        assert seen.wrong == []


def serious(page: Page, rule: str | None = None) -> list[str]:
    """The serious and critical problems that axe-core finds on the page, by all rules or by one."""
    page.evaluate(AXE)
    options = {"resultTypes": ["violations"], **({"runOnly": [rule]} if rule else {})}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{one['id']}: {node['html']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
