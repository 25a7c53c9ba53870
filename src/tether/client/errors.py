"""The errors of the SDK, and its warning.

The server raises the errors of `tether.domain.errors`. These errors are about answers over HTTP.
Both have one base class, so that one `except` catches both.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tether.domain import errors

if TYPE_CHECKING:
    from tether.client.models import Event


class TetherError(errors.TetherError):
    """Base of all errors of the SDK.

    `status` is the status of the HTTP answer. `request_id` is the id of the request in the server's
    log. `code` says what is wrong, such as `charger-unknown`; docs/errors.md lists the codes.
    `parameter` is the wrong member or parameter in the API's spelling, such as `stateOfCharge`.
    Each of them is None if it is not known.

    An error of `events.post` has the `event` as it was sent, with its timestamp. To try again later
    without reporting it twice, post this `event`. An error of `bulk` has in `results` the results
    of all things that were taken from the input so far, each with its `event`, `entity` or `id`.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.code = code
        self.parameter = parameter
        self.event: Event | None = None
        self.results: Sequence[Any] = ()

    def __str__(self) -> str:
        known = (("status", self.status), ("request", self.request_id))
        found = ", ".join(f"{name} {value}" for name, value in known if value is not None)
        return f"{self.message} ({found})" if found else self.message


class Forbidden(TetherError):
    """The key is missing, unknown, expired or revoked, or may not write (403)."""


class NotFound(TetherError):
    """There is no such charger, vehicle or event (404)."""


class Invalid(TetherError):
    """A value is not valid (400). The SDK raises it, too, for a value that it cannot send."""


class EpochChanged(Invalid):
    """A cursor is older than a restore of the database, and events after it may be lost (400).

    Follow again without a cursor, or with `start_again=True`. You will get entries again.
    """


class Conflict(TetherError):
    """The charger or vehicle of an event is unknown, the event contradicts a stored one, or it is
    older than the retention time (409).
    """


class PreconditionFailed(TetherError):
    """The entity does not have the version of `if_match` (412).

    `unsure` is true if the answer to an earlier try was lost. That try may have changed the entity,
    and with it the version. Get the entity to see.
    """

    unsure = False


class TooLarge(TetherError):
    """The body is larger than the server accepts (413)."""


class RateLimited(TetherError):
    """The key has used up its requests for the moment (429), and the retries did not help.

    `retry_after` is the number of seconds that the server asked to wait, or None.
    """

    retry_after: float | None = None


class Unavailable(TetherError):
    """No answer, or one that says to try again later (408, 502 to 504), and retries did not help.

    It is not known whether a write was executed. Sending it again does no harm.
    `retry_after` is the number of seconds that the server asked to wait, or None.
    """

    retry_after: float | None = None


class UnexpectedAnswer(TetherError):
    """Not an answer of this API: a wrong URL, a proxy in between, or a bug in the server."""


class OutboxError(TetherError):
    """The outbox file cannot be used: the disk is full, it is read-only, or it is no outbox."""


class UnitWarning(UserWarning):
    """A number was stored as it was sent, but seems to be meant in another unit."""


ERRORS_BY_STATUS: dict[int, type[TetherError]] = {
    400: Invalid,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def epoch_changed() -> EpochChanged:
    """The error for an old cursor that the SDK detects, in the words of the server."""
    return EpochChanged(
        "Parameter {cursor} is invalid. It is from before the database was restored: data after "
        "it may be lost. Begin again without it.",
        status=400,
        code=errors.Code.EPOCH_CHANGED,
        parameter="cursor",
    )


def invalid(parameter: str, hint: str) -> Invalid:
    """The error for a value that cannot be sent, in the words of the server."""
    return Invalid(
        f"Parameter {{{parameter}}} is invalid. {hint}",
        status=400,
        code=errors.Code.PARAMETER_INVALID,
        parameter=parameter,
    )
