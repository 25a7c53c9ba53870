"""The errors of Tether, without HTTP: `server/status_codes.py` has their status codes.

The message of an error is for the partner's developer, who reads it in an answer.

An exception keeps its frames alive, with all that is in them: bodies, batches, the exception
itself. So no exception is kept after it was handled: a Refusal has what must be remembered, and
each of several tasks that wait for the same result gets its own exception.
"""

from enum import StrEnum
from traceback import format_exception
from typing import NamedTuple


class Code(StrEnum):
    """The kinds of errors, for programs: all values of the header `Tether-Error`."""

    REQUEST_MALFORMED = "request-malformed"
    BODY_MALFORMED = "body-malformed"
    PARAMETER_INVALID = "parameter-invalid"
    PARAMETER_MISSING = "parameter-missing"
    PARAMETER_UNKNOWN = "parameter-unknown"
    EPOCH_CHANGED = "epoch-changed"
    KEY_INVALID = "key-invalid"
    KEY_READ_ONLY = "key-read-only"
    PATH_UNKNOWN = "path-unknown"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    REQUEST_TIMEOUT = "request-timeout"
    CHARGER_UNKNOWN = "charger-unknown"
    VEHICLE_UNKNOWN = "vehicle-unknown"
    EVENT_CONTRADICTS = "event-contradicts"
    EVENT_EXPIRED = "event-expired"
    HAS_EVENTS = "has-events"
    TOO_MANY_WEBHOOKS = "too-many-webhooks"
    PRECONDITION_FAILED = "precondition-failed"
    TOO_LARGE = "too-large"
    ENCODING_UNSUPPORTED = "encoding-unsupported"
    RATE_LIMITED = "rate-limited"
    TOO_MANY_AT_ONCE = "too-many-at-once"
    HEAD_TOO_LARGE = "head-too-large"
    INTERNAL_ERROR = "internal-error"
    UNAVAILABLE = "unavailable"
    NOT_DERIVED = "not-derived"


class TetherError(Exception):
    """Base of all errors that Tether raises on purpose.

    `code` tells programs what is wrong, `parameter` names the body member or parameter. Errors that
    answer no request have no code.
    """

    code: str | None = None
    parameter: str | None = None
    message = ""
    retry_after_s = 0  # after that time the same request may succeed; 0 if it never will

    def __init__(self, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)

    def refusal(self) -> "Refusal":
        """The error as a plain value."""
        code = Code(self.code or Code.INTERNAL_ERROR)
        return Refusal(code, self.message, self.retry_after_s, self.parameter)


class Refusal(NamedTuple):
    """An error as a plain value."""

    code: Code
    message: str
    retry_after_s: int = 0
    parameter: str | None = None


class Malformed(TetherError):
    """The body is not a JSON object."""

    code = Code.BODY_MALFORMED


class Invalid(TetherError):
    """A parameter (a body member, a path or a query parameter) has an invalid value.

    `hint` is a sentence that says which values are valid.
    """

    code = Code.PARAMETER_INVALID
    parameter: str

    def __init__(self, parameter: str, hint: str) -> None:
        super().__init__(f"Parameter {{{parameter}}} is invalid. {hint}")
        self.parameter = parameter
        self.hint = hint


class Missing(Invalid):
    """A required parameter is missing."""

    code = Code.PARAMETER_MISSING

    def __init__(self, parameter: str, hint: str = "It is required.") -> None:
        super().__init__(parameter, hint)


class Unknown(Invalid):
    """The request has an unknown parameter."""

    code = Code.PARAMETER_UNKNOWN


class EpochChanged(TetherError):
    """A parameter is a cursor of an earlier epoch, as after a restore of the database.

    `again` says where to begin again.
    """

    code = Code.EPOCH_CHANGED

    def __init__(self, parameter: str, began_at: str, again: str) -> None:
        super().__init__(
            f"Parameter {{{parameter}}} is invalid. It is from before the database was restored "
            f"(a new epoch began at {began_at}): data after it may be lost. Begin again {again}."
        )
        self.parameter = parameter


class Abandoned(TetherError):
    """The client has hung up: nobody gets an answer."""

    message = "The client has hung up."


class Forbidden(TetherError):
    """The key is missing, unknown, expired or revoked, all with one message, or it is read-only."""

    def __init__(self, *, read_only: bool = False) -> None:
        self.code = Code.KEY_READ_ONLY if read_only else Code.KEY_INVALID
        hint = "This key may only read." if read_only else "Send your key in the header x-api-key."
        super().__init__(f"Forbidden. {hint}")


class RateLimited(TetherError):
    """The key has used up its rate limit for now."""

    code = Code.RATE_LIMITED

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("Too Many Requests")
        self.retry_after_s = retry_after_s


class TooManyAtOnce(RateLimited):
    """The partner has too many reads or streams under way."""

    code = Code.TOO_MANY_AT_ONCE


class NotFound(TetherError):
    """It does not exist, or it belongs to another partner."""

    code = Code.NOT_FOUND
    message = "Not Found"


class Conflict(TetherError):
    """The request is valid but contradicts stored data."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.code, self.parameter = refusal.code, refusal.parameter


class HasEvents(TetherError):
    """The charger or vehicle has events. `count` is exact up to `most`."""

    code = Code.HAS_EVENTS

    def __init__(self, count: int, most: int) -> None:
        number = f"{count:,}" if count <= most else f"more than {most:,}"
        super().__init__(
            f"It has {number} event{'' if count == 1 else 's'}: add events=erase to erase it with "
            "all of them, for good."
        )


class PreconditionFailed(TetherError):
    """The version in the request is not the current version of the entity."""

    code = Code.PRECONDITION_FAILED
    message = "Precondition Failed"


class TooLarge(TetherError):
    """The body is too large."""

    code = Code.TOO_LARGE

    def __init__(self, limit: int, unit: str = "bytes", *, what: str = "a body") -> None:
        super().__init__(f"Payload Too Large: {what} has at most {limit:,} {unit}.")


class UnsupportedEncoding(TetherError):
    """The body has an unsupported compression."""

    code = Code.ENCODING_UNSUPPORTED

    def __init__(self, encoding: str) -> None:
        super().__init__(f"Unsupported Media Type: Content-Encoding must be gzip, not {encoding}.")


class Unavailable(TetherError):
    """The server or its database cannot do this now; the same request may succeed soon.

    `cause` is for the log: the original exception, if it is not chained.
    """

    code = Code.UNAVAILABLE

    def __init__(self, retry_after_s: int = 1, why: str | None = None, *, cause: str = "") -> None:
        super().__init__(f"Service Unavailable: {why}" if why else "Service Unavailable")
        self.retry_after_s = retry_after_s
        self.cause = cause


class NotDerived(Unavailable):
    """The answer would lack stored events, which wait to be derived."""

    code = Code.NOT_DERIVED

    def __init__(self, backlog: int, retry_after_s: int, *, failed: bool = False) -> None:
        waiting = "1 event waits" if backlog == 1 else f"{backlog:,} events wait"
        super().__init__(
            retry_after_s,
            f"{waiting} to be derived{', which failed' if failed else ''}. Try again "
            f"in {retry_after_s:,} s, or add stale=allowed for what is derived by now.",
        )


class SetupError(TetherError):
    """The server cannot work with its settings, its database, a file or a port."""


def for_another(error: Exception) -> Exception:
    """A copy of the error for another task that waits for the same result, without its frames."""
    if isinstance(error, Unavailable):
        return Unavailable(error.retry_after_s, cause=error.cause or repr(error.__cause__))
    return RuntimeError("".join(format_exception(error)))
