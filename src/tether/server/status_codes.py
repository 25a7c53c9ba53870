"""The status code of each error: of the API, of the console, and before a connection is closed."""

from tether.domain.errors import Code

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
    Code.EVENT_EXPIRED: 409,
    Code.HAS_EVENTS: 409,
    Code.TOO_MANY_WEBHOOKS: 409,
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
