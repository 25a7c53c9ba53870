"""What is served without a key: landing page, reference, guides, files, health and metrics."""

import asyncio
import gzip
import re
from functools import cache, lru_cache
from html import escape
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from shlex import quote

import falcon
import yaml
from falcon.asgi import Request, Response

from tether import __version__
from tether.domain.errors import NotFound
from tether.domain.models import to_json
from tether.http.requests import prefix_of
from tether.server.metrics import CONTENT_TYPE, Metrics
from tether.server.store import Store

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "webp": "image/webp",
}
_DEMO_KEY = b"""
      <p>This is a demo, and its key is in a file. In the folder in which it was started:</p>
      <div class="command"><pre tabindex="0"><code>%b</code></pre></div>
      <p class="hint">It is the key that <code>make run</code> printed.</p>
"""
_ROOT = b'"servers":[{"url":"/"'
_VERSION = re.compile(r"^  version: .*$", re.MULTILINE)
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The script of the reference sets styles. Nothing from other servers is allowed.
_CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GUIDES_SECURITY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class PageResource:
    """A page that never changes: `/`, `/docs`."""

    def __init__(self, page: bytes) -> None:
        self._page = page

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data = self._page
        resp.content_type = _TYPES["html"]
        resp.set_header("Content-Security-Policy", _CONTENT_SECURITY)
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Referrer-Policy", "no-referrer")


class AssetResource:
    """Files of the pages: `/static/{name}`, or always the file of this name."""

    def __init__(self, name: str = "") -> None:
        self._name = name

    async def on_get(self, req: Request, resp: Response, name: str = "") -> None:
        name = self._name or name
        resp.set_header("Vary", "Accept-Encoding")
        if "gzip" in (req.get_header("Accept-Encoding") or ""):
            # Once for each file: the script of the reference shrinks from over 4 MB to 1 MB.
            resp.data = await asyncio.to_thread(_gzipped, name)
            resp.set_header("Content-Encoding", "gzip")
        else:
            resp.data = _static(name)
        resp.content_type = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        resp.set_header("Cache-Control", "public, max-age=3600")
        resp.set_header("X-Content-Type-Options", "nosniff")


class GuideResource:
    """`/guides/{name}`: a guide. `/guides`: the list of guides, and with `?q=` a search."""

    async def on_get(self, req: Request, resp: Response, name: str = "", below: str = "") -> None:
        if req.path.endswith("/"):
            raise NotFound  # the answer redirects to the path without the slash
        resp.set_header("X-Content-Type-Options", "nosniff")
        # bootstrap.py imports the Markdown library after the start.
        guides = await asyncio.to_thread(import_module, "tether.http.guides")
        if name == "figures":
            resp.data = await asyncio.to_thread(guides.figure, below)
            resp.content_type = _TYPES[below.rpartition(".")[2]]
            resp.set_header("Cache-Control", "public, max-age=3600")
            return
        query = req.get_param("q") if name == guides.INDEX else None
        if query is not None:
            resp.data = await asyncio.to_thread(guides.found, query)
        else:
            resp.data = await asyncio.to_thread(guides.page, f"{name}/{below}" if below else name)
        resp.content_type = _TYPES["html"]
        resp.set_header("Content-Security-Policy", _GUIDES_SECURITY)
        resp.set_header("Referrer-Policy", "no-referrer")


class OpenApiResource:
    """`/openapi.json`: the OpenAPI document."""

    async def on_get(self, req: Request, resp: Response) -> None:
        # Without this a cache could send the address of one proxy to clients of another.
        resp.set_header("Vary", "X-Forwarded-Prefix")
        resp.data = openapi_json(prefix_of(req))


class HealthResource:
    """`/health`: the process is alive."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data = to_json({"status": "ok"})


class ReadyResource:
    """`/ready`: the database is reachable (its schema was checked at the start)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._store.engine.ping()
        resp.data = to_json({"status": "ok"})


class MetricsResource:
    """`/metrics`: for Prometheus."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data = (await self._metrics.page()).encode()
        resp.content_type = CONTENT_TYPE


def reference_page() -> bytes:
    """The page `/docs`."""
    return _static("docs.html")


def landing_page(demo_key: str, *, console: bool, asks: bool) -> bytes:
    """The page `/`. `demo_key` is the file with the key of a demo, or empty. `asks`: anybody can
    request a key.
    """
    page = _static("index.html")
    if not console:
        page = _with(page, b"console", b"")
    if not asks:
        page = _with(page, b"ask", b"")
    if demo_key:
        command = escape(f"KEY=$(cat {quote(demo_key)})").encode()
        page = _with(page, b"key", _DEMO_KEY % command)
    return page


def _with(page: bytes, name: bytes, text: bytes) -> bytes:
    """The page with this text in place of the part between the comments of this name."""
    return re.sub(
        b"<!-- %b -->.*?<!-- /%b -->" % (name, name), lambda _: text, page, flags=re.DOTALL
    )


def _folder() -> Traversable:
    return files("tether.http")


@cache
def _assets() -> frozenset[str]:
    return frozenset(file.name for file in _folder().joinpath("static").iterdir())


@cache  # all answers share one buffer
def _static(name: str) -> bytes:
    if name not in _assets():
        raise falcon.HTTPNotFound
    return _folder().joinpath("static", name).read_bytes()


@cache
def _gzipped(name: str) -> bytes:
    return gzip.compress(_static(name), mtime=0)


def openapi_text() -> str:
    """The OpenAPI document in YAML, with this version."""
    text = _folder().joinpath("openapi.yaml").read_text(encoding="utf-8")
    return _VERSION.sub(f"  version: {__version__}", text, count=1)


@lru_cache(maxsize=4)  # clients can send any number of prefixes
def openapi_json(prefix: str = "") -> bytes:
    """The OpenAPI document as JSON, of a server under this path of a proxy."""
    if not prefix:
        return to_json(yaml.load(openapi_text(), Loader=_YAML))  # noqa: S506 - a safe loader
    return openapi_json().replace(_ROOT, b'"servers":[{"url":"%s"' % prefix.encode(), 1)
