"""The one place where errors become HTTP answers: a status, headers and {"message": …}."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import falcon
import structlog
from falcon.asgi import Request, Response

from tether.domain import errors
from tether.domain.keys import without_keys
from tether.domain.models import to_json

log = structlog.get_logger()

_STATUS: dict[type[Exception], int] = {
    errors.Malformed: 400,
    errors.Invalid: 400,
    errors.EpochChanged: 400,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.UnsupportedEncoding: 415,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.NotDerived: 503,
}


def install(app: "falcon.asgi.App[Request, Response]", methods: Mapping[str, list[str]]) -> None:
    """Makes the app answer every error by the table above; what is not in it is a logged 500.

    `methods` has those of each route.
    """

    async def answer_wrong_method(
        req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any]
    ) -> None:
        _fill(resp, 405, "Method Not Allowed")
        allowed = {*methods[req.uri_template or ""], "OPTIONS"}
        resp.set_header("Allow", ", ".join(sorted(allowed)))

    app.add_error_handler(Exception, _answer_unexpected)
    app.add_error_handler(falcon.HTTPError, _answer_http)
    app.add_error_handler(falcon.HTTPMethodNotAllowed, answer_wrong_method)
    # Falcon's word for a method that it has never heard of.
    app.add_error_handler(falcon.HTTPBadRequest, answer_wrong_method)
    app.add_error_handler(errors.TetherError, _answer_ours)
    for kind in (OSError, MemoryError):
        app.add_error_handler(kind, _answer_exhausted)


def status_of(kind: type[errors.TetherError]) -> int:
    """The HTTP status that says what errors of this kind say."""
    return _STATUS[kind]


async def _answer_ours(
    req: Request, resp: Response, error: errors.TetherError, params: dict[str, Any]
) -> None:
    _fill(resp, status_of(type(error)), error.message)
    # Not the error itself, which knows the frames that it came through, and they the request: such
    # a ring, and the body in it, would stay in memory until Python looks for rings.
    req.context.rejections = {type(error).__name__: req.context.events}
    if isinstance(error, errors.EpochChanged):
        resp.set_header("Tether-Error", f'epoch-changed; parameter="{error.parameter}"')
    if isinstance(error, errors.Unavailable | errors.RateLimited):
        resp.set_header("Retry-After", str(error.retry_after_s))
    if isinstance(error, errors.Unavailable):
        cause = error.cause or (error.message if error.__cause__ is None else repr(error.__cause__))
        log.warning("unavailable", request_id=req.context.request_id, cause=cause)


async def _answer_exhausted(
    req: Request, resp: Response, error: Exception, params: dict[str, Any]
) -> None:
    """The machine is at fault: a full disk, no file descriptors or no memory left."""
    unavailable = errors.Unavailable(cause=repr(error))
    await _answer_ours(req, resp, unavailable, params)


async def _answer_http(
    req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    _fill(resp, error.status_code, HTTPStatus(error.status_code).phrase)
    resp.set_headers(error.headers or {})


async def _answer_unexpected(
    req: Request, resp: Response, error: Exception, params: dict[str, Any]
) -> None:
    log.error("failed", request_id=req.context.request_id, exc_info=error)
    req.context.rejections = {"Failed": req.context.events}
    _fill(resp, 500, "Internal Server Error")


def _fill(resp: Response, status: int, message: str) -> None:
    resp.status = status
    resp.content_type = "application/json"
    resp.data = to_json({"message": without_keys(message)})
