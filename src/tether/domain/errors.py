"""Everything that can go wrong in Tether's own terms. No HTTP here: the edge has a table for that.

The message of an error is written for the partner's developer who reads it in an answer.

An exception holds the frames that it came through, and they all that was in them: bodies, batches,
the exception itself. So none is kept for longer than it takes to handle it: what has to be
remembered becomes a Refusal, and whoever waits for the same as others gets an exception of its own.
"""

from enum import StrEnum
from traceback import format_exception
from typing import NamedTuple


class Code(StrEnum):
    """What went wrong, for programs: the closed list of what an answer's `Tether-Error` may say."""

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
    """Base of all errors which Tether raises on purpose.

    `code` says to programs what is wrong, `parameter` with which member or parameter. Errors that
    answer no request have no code.
    """

    code: str | None = None
    parameter: str | None = None
    retry_after_s = 0  # from then on the same request may succeed; 0 if it never will by itself

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def refusal(self) -> "Refusal":
        """What to remember of it."""
        code = Code(self.code or Code.INTERNAL_ERROR)
        return Refusal(code, self.message, self.retry_after_s, self.parameter)


class Refusal(NamedTuple):
    """An error as a plain value."""

    code: Code
    message: str
    retry_after_s: int = 0
    parameter: str | None = None


class Malformed(TetherError):
    """The body is not the JSON object that it has to be."""

    code = Code.BODY_MALFORMED


class Invalid(TetherError):
    """A parameter (a body member, a path or a query parameter) has a value that it must not have.

    `hint` is one sentence that says what would be valid.
    """

    code = Code.PARAMETER_INVALID
    parameter: str

    def __init__(self, parameter: str, hint: str) -> None:
        super().__init__(f"Parameter {{{parameter}}} is invalid. {hint}")
        self.parameter = parameter
        self.hint = hint


class Missing(Invalid):
    """A parameter that is required was left out."""

    code = Code.PARAMETER_MISSING

    def __init__(self, parameter: str, hint: str = "It is required.") -> None:
        super().__init__(parameter, hint)


class Unknown(Invalid):
    """There is no such parameter here."""

    code = Code.PARAMETER_UNKNOWN


class EpochChanged(TetherError):
    """A parameter is a place in a history of the database that was left, as by restoring a backup.

    `again` says with what to begin again.
    """

    code = Code.EPOCH_CHANGED

    def __init__(self, parameter: str, began_at: str, again: str) -> None:
        super().__init__(
            f"Parameter {{{parameter}}} is invalid. It is of before the database was restored (a "
            f"new epoch began at {began_at}): what followed it may be lost. Begin again {again}."
        )
        self.parameter = parameter


class Abandoned(TetherError):
    """Whoever asked for this has hung up: nobody gets an answer."""

    def __init__(self) -> None:
        super().__init__("The client has hung up.")


class Forbidden(TetherError):
    """The key is missing, unknown, expired or revoked, all with one sentence, or may only read."""

    def __init__(self, *, read_only: bool = False) -> None:
        self.code = Code.KEY_READ_ONLY if read_only else Code.KEY_INVALID
        hint = "This key may only read." if read_only else "Send your key in the header x-api-key."
        super().__init__(f"Forbidden. {hint}")


class RateLimited(TetherError):
    """The key has used up its requests for the moment."""

    code = Code.RATE_LIMITED

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("Too Many Requests")
        self.retry_after_s = retry_after_s


class TooManyAtOnce(RateLimited):
    """The partner has as many reads or streams under way as it may have."""

    code = Code.TOO_MANY_AT_ONCE


class NotFound(TetherError):
    """There is no such thing, or it belongs to somebody else."""

    code = Code.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("Not Found")


class Conflict(TetherError):
    """The request is valid but contradicts what is stored."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.code, self.parameter = refusal.code, refusal.parameter


class HasEvents(TetherError):
    """The charger or vehicle has events, of which up to `most` were counted."""

    code = Code.HAS_EVENTS

    def __init__(self, count: int, most: int) -> None:
        number = f"{count:,}" if count <= most else f"more than {most:,}"
        super().__init__(
            f"It has {number} event{'' if count == 1 else 's'}: add events=erase to erase it with "
            "all of them, for good."
        )


class PreconditionFailed(TetherError):
    """The caller asked for a version of the entity that is not the current one."""

    code = Code.PRECONDITION_FAILED

    def __init__(self) -> None:
        super().__init__("Precondition Failed")


class TooLarge(TetherError):
    """The body is larger than what is accepted."""

    code = Code.TOO_LARGE

    def __init__(self, limit: int, unit: str = "bytes", *, what: str = "a body") -> None:
        super().__init__(f"Payload Too Large: {what} has at most {limit:,} {unit}.")


class UnsupportedEncoding(TetherError):
    """The body is compressed in a way that is not understood."""

    code = Code.ENCODING_UNSUPPORTED

    def __init__(self, encoding: str) -> None:
        super().__init__(f"Unsupported Media Type: Content-Encoding must be gzip, not {encoding}.")


class Unavailable(TetherError):
    """The server or its database cannot do this now; the same request may succeed soon.

    `cause` is for the log: the exception that was met, if none is chained.
    """

    code = Code.UNAVAILABLE

    def __init__(self, retry_after_s: int = 1, why: str | None = None, *, cause: str = "") -> None:
        super().__init__(f"Service Unavailable: {why}" if why else "Service Unavailable")
        self.retry_after_s = retry_after_s
        self.cause = cause


class NotDerived(Unavailable):
    """What is asked for would lack events that are stored: they wait to be derived."""

    code = Code.NOT_DERIVED

    def __init__(self, waiting: int, retry_after_s: int, *, failed: bool = False) -> None:
        super().__init__(
            retry_after_s,
            f"{waiting:,} events wait to be derived{', which failed' if failed else ''}. Try again "
            f"in {retry_after_s:,} s, or add stale=allowed for what is derived by now.",
        )


class SetupError(TetherError):
    """The server cannot work with what it was given: settings, database, file or port."""


def for_another(error: Exception) -> Exception:
    """The same error for one more who waits for what failed, without the frames that it knows."""
    if isinstance(error, Unavailable):
        return Unavailable(error.retry_after_s, cause=error.cause or repr(error.__cause__))
    return RuntimeError("".join(format_exception(error)))
