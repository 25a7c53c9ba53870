"""The one place where errors become HTTP answers: a status, headers and {"message": …}."""

import re
from collections.abc import Mapping
from typing import Any

import falcon
import structlog
from falcon.asgi import Request, Response

from tether.domain import errors
from tether.domain.errors import Code, Refusal
from tether.domain.keys import without_keys
from tether.domain.models import to_json
from tether.server.logging import is_new

log = structlog.get_logger()

STATUS: dict[Code, int] = {
    Code.REQUEST_MALFORMED: 400,
    Code.BODY_MALFORMED: 400,
    Code.PARAMETER_INVALID: 400,
    Code.PARAMETER_MISSING: 400,
    Code.PARAMETER_UNKNOWN: 400,
    Code.EPOCH_CHANGED: 400,
    Code.KEY_INVALID: 403,
    Code.KEY_READ_ONLY: 403,
    Code.PATH_UNKNOWN: 404,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.REQUEST_TIMEOUT: 408,
    Code.CHARGER_UNKNOWN: 409,
    Code.VEHICLE_UNKNOWN: 409,
    Code.EVENT_CONTRADICTS: 409,
    Code.PRECONDITION_FAILED: 412,
    Code.TOO_LARGE: 413,
    Code.ENCODING_UNSUPPORTED: 415,
    Code.RATE_LIMITED: 429,
    Code.TOO_MANY_AT_ONCE: 429,
    Code.HEAD_TOO_LARGE: 431,
    Code.INTERNAL_ERROR: 500,
    Code.UNAVAILABLE: 503,
    Code.NOT_DERIVED: 503,
}


def install(app: "falcon.asgi.App[Request, Response]", methods: Mapping[str, list[str]]) -> None:
    """Makes the app answer every error by the table above; what is not in it is a logged 500.

    `methods` has those of each route.
    """

    async def answer_wrong_method(
        req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any]
    ) -> None:
        _fill(req, resp, Refusal(Code.METHOD_NOT_ALLOWED, "Method Not Allowed"))
        allowed = {*methods[req.uri_template or ""], "OPTIONS"}
        resp.set_header("Allow", ", ".join(sorted(allowed)))

    app.add_error_handler(Exception, _answer_unexpected)
    app.add_error_handler(falcon.HTTPError, _answer_unexpected)
    app.add_error_handler(falcon.HTTPNotFound, _answer_unrouted)
    app.add_error_handler(falcon.HTTPMethodNotAllowed, answer_wrong_method)
    # Falcon's word for a method that it has never heard of.
    app.add_error_handler(falcon.HTTPBadRequest, answer_wrong_method)
    app.add_error_handler(errors.TetherError, _answer_ours)
    for kind in (OSError, MemoryError):
        app.add_error_handler(kind, _answer_exhausted)


async def _answer_ours(
    req: Request, resp: Response, error: errors.TetherError, params: dict[str, Any]
) -> None:
    # Not the error itself, which knows the frames that it came through, and they the request: such
    # a ring, and the body in it, would stay in memory until Python looks for rings.
    refusal = error.refusal()
    _fill(req, resp, refusal)
    if isinstance(error, errors.Unavailable | errors.RateLimited):
        resp.set_header("Retry-After", str(error.retry_after_s))
    if isinstance(error, errors.Unavailable):
        cause = error.cause or (error.message if error.__cause__ is None else repr(error.__cause__))
        if is_new("unavailable", cause):
            log.warning("unavailable", request_id=req.context.request_id, cause=cause)


async def _answer_exhausted(
    req: Request, resp: Response, error: Exception, params: dict[str, Any]
) -> None:
    """The machine is at fault: a full disk, no file descriptors or no memory left."""
    unavailable = errors.Unavailable(cause=repr(error))
    await _answer_ours(req, resp, unavailable, params)


async def _answer_unrouted(
    req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    _fill(req, resp, Refusal(Code.PATH_UNKNOWN, "Not Found"))


async def _answer_unexpected(
    req: Request, resp: Response, error: Exception, params: dict[str, Any]
) -> None:
    log.error("failed", request_id=req.context.request_id, exc_info=error)
    _fill(req, resp, Refusal(Code.INTERNAL_ERROR, "Internal Server Error"))


def _fill(req: Request, resp: Response, refusal: Refusal) -> None:
    resp.status = STATUS[refusal.code]
    resp.content_type = "application/json"
    resp.data = to_json({"message": without_keys(refusal.message)})
    resp.set_header("Tether-Error", structured(refusal.code, refusal.parameter))
    req.context.rejections = {refusal.code: req.context.events or 1}


def structured(token: str, parameter: str | None) -> str:
    """A code and the parameter that it is about, as an item of a structured field (RFC 9651)."""
    if parameter is None:
        return token
    safe = re.sub(r"[^ -~]", "?", without_keys(parameter))
    escaped = safe.replace("\\", "\\\\").replace('"', '\\"')
    return f'{token}; parameter="{escaped}"'
