"""Makes HTTP answers of errors: a status, headers and {"message": …}."""

from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import falcon
import structlog
from falcon.asgi import Request, Response

from tether.domain import errors
from tether.domain.errors import Code, Refusal
from tether.domain.keys import without_keys
from tether.domain.models import to_json
from tether.http.requests import ApiRequest, prefix_of, structured
from tether.server.logging import is_new
from tether.server.status_codes import STATUS

log = structlog.get_logger()

# The pages use only files of this server.
CONTENT_SECURITY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
CLIENT_GONE = 499  # as in nginx: only the log and the metrics show it
PAGES = frozenset({403, 404, 405})
"""Statuses that a person can get who opens an address in a browser."""
LONGEST_SHOWN = 200  # characters of a path in a message


def install(
    app: "falcon.asgi.App[ApiRequest, Response]",
    methods: Mapping[str, list[str]],
    route_of: Callable[[str], str | None],
) -> None:
    """Makes the app answer every error with the status of its code. Unexpected errors are
    logged, and get a 500.

    `methods` has the methods of each route. `route_of` finds the route of a path.
    """

    def slash_hint(req: Request) -> str | None:
        path = req.path.rstrip("/")
        is_one = path not in ("", req.path) and len(path) <= LONGEST_SHOWN and route_of(path)
        return f"There is no trailing slash: {path}." if is_one else None

    async def answer_wrong_method(
        req: ApiRequest, resp: Response, error: falcon.HTTPError, params: dict[str, Any]
    ) -> None:
        allowed = ", ".join(sorted({*methods[req.uri_template or ""], "OPTIONS"}))
        hint = slash_hint(req) or f"Allowed here: {allowed}."
        _fill(req, resp, Refusal(Code.METHOD_NOT_ALLOWED, f"Method Not Allowed. {hint}"))
        resp.set_header("Allow", allowed)

    async def answer_unrouted(
        req: ApiRequest, resp: Response, error: Exception, params: dict[str, Any]
    ) -> None:
        if req.path in ("/docs/", "/guides/") and req.method in ("GET", "HEAD"):
            resp.status = 308
            resp.set_header("Location", prefix_of(req) + req.path.rstrip("/"))
            return
        docs = f"{prefix_of(req)}/docs"
        hint = slash_hint(req) or f"There is no such path: see {docs}."
        _fill(req, resp, Refusal(Code.PATH_UNKNOWN, f"Not Found. {hint}"))

    async def answer_not_found(
        req: ApiRequest, resp: Response, error: errors.TetherError, params: dict[str, Any]
    ) -> None:
        if req.path.endswith("/"):  # no id ends so
            await answer_unrouted(req, resp, error, params)
        else:
            await _answer_ours(req, resp, error, params)

    app.add_error_handler(Exception, _answer_unexpected)
    app.add_error_handler(falcon.HTTPError, _answer_unexpected)
    app.add_error_handler(falcon.HTTPNotFound, answer_unrouted)
    app.add_error_handler(falcon.HTTPMethodNotAllowed, answer_wrong_method)
    # Falcon raises this for an unknown method.
    app.add_error_handler(falcon.HTTPBadRequest, answer_wrong_method)
    app.add_error_handler(errors.TetherError, _answer_ours)
    app.add_error_handler(errors.NotFound, answer_not_found)
    app.add_error_handler(errors.Abandoned, _end_abandoned)


async def _answer_ours(
    req: ApiRequest, resp: Response, error: errors.TetherError, params: dict[str, Any]
) -> None:
    # The error refers to its frames, and they refer to the request. If the request kept the error,
    # this cycle would keep the body in memory until the garbage collector runs.
    refusal = error.refusal()
    _fill(req, resp, refusal)
    if isinstance(error, errors.Unavailable | errors.RateLimited):
        resp.set_header("Retry-After", str(error.retry_after_s))
    if isinstance(error, errors.Unavailable):
        cause = error.cause or (error.message if error.__cause__ is None else repr(error.__cause__))
        if is_new("unavailable", cause):
            log.warning("unavailable", request_id=req.context.request_id, cause=cause)


async def _end_abandoned(
    req: ApiRequest, resp: Response, error: errors.Abandoned, params: dict[str, Any]
) -> None:
    resp.status = CLIENT_GONE


async def _answer_unexpected(
    req: ApiRequest, resp: Response, error: Exception, params: dict[str, Any]
) -> None:
    # The machine has no disk space, no memory, no file descriptors or no threads left.
    if isinstance(error, OSError | MemoryError) or str(error) == "can't start new thread":
        await _answer_ours(req, resp, errors.Unavailable(cause=repr(error)), params)
        return
    log.error("failed", request_id=req.context.request_id, exc_info=error)
    _fill(req, resp, Refusal(Code.INTERNAL_ERROR, "Internal Server Error"))


def _fill(req: ApiRequest, resp: Response, refusal: Refusal) -> None:
    status, message = STATUS[refusal.code], without_keys(refusal.message)
    resp.status = status
    if status in PAGES and wants_page(req):
        resp.content_type = "text/html; charset=utf-8"
        resp.data = _page(prefix_of(req), status, message)
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY)
        resp.append_header("Vary", "Accept, X-Forwarded-Prefix")
    else:
        resp.content_type = "application/json"
        resp.data = to_json({"message": message})
    resp.set_header("Tether-Error", structured(refusal.code, refusal.parameter))
    req.context.rejections = {refusal.code: req.context.in_bulk or 1}


def wants_page(req: Request) -> bool:
    """Whether the client is a browser, in which a person has opened an address."""
    return req.method in ("GET", "HEAD") and "text/html" in (req.get_header("Accept") or "")


def _page(base: str, status: int, message: str) -> bytes:
    name = f"{status} {HTTPStatus(status).phrase}"
    return _template().format(base=base, status=name, message=escape(message)).encode()


@cache
def _template() -> str:
    return files("tether.http").joinpath("static", "error.html").read_text(encoding="utf-8")
