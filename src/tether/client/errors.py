"""What can go wrong for a user of the SDK, by its meaning.

These are not the errors of `tether.domain.errors`: the server raises those itself, without HTTP;
these say what came over the wire. They share the root, so that one `except` catches both.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tether.domain import errors

if TYPE_CHECKING:
    from tether.client.models import Event


class TetherError(errors.TetherError):
    """Base of all errors of the SDK.

    `status` is that of the HTTP answer, None if there was none; `request_id` finds the request in
    the server's log. `code` says what is wrong, by the list in docs/errors.md, such as
    `charger-unknown`, and `parameter` with which member or parameter as the API spells it, such as
    `stateOfCharge`; each is None where there is none.

    An error of `events.post` has the `event` as it was sent, with its timestamp: to try again later
    without reporting it twice, post that one. An error of `bulk` has in `results` what is
    known of the events which were taken from the input; those without an id have their `event` too.
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
    """A value that must not be so (400). The SDK itself raises it for what it cannot send."""


class EpochChanged(Invalid):
    """A cursor is of before the database was restored, and what followed it may be lost (400).

    Follow again without it, or with `start_again=True`, and expect what you have had to come again.
    """


class Conflict(TetherError):
    """The charger or vehicle of an event is unknown, it contradicts a recorded one, or it is older
    than what is kept (409).
    """


class PreconditionFailed(TetherError):
    """The entity has not the version that `if_match` names (412).

    `unsure` is true if the answer to an earlier try was lost: that one may have been carried out,
    which then is why the version is another now. Get the entity to see.
    """

    unsure = False


class TooLarge(TetherError):
    """The body is larger than what the server accepts (413)."""


class RateLimited(TetherError):
    """The key has used up its requests for the moment (429), and the retries did not help.

    `retry_after` is how many seconds the server said to wait, None if it did not say.
    """

    retry_after: float | None = None


class Unavailable(TetherError):
    """No answer, or one that says to come back later (408, 502 to 504), and retries did not help.

    Whether a write was carried out is not known; it can be sent again without harm.
    `retry_after` is how many seconds the server said to wait, None if it did not say.
    """

    retry_after: float | None = None


class UnexpectedAnswer(TetherError):
    """Not an answer of this API: a wrong URL, something in between, or a bug in the server."""


class OutboxError(TetherError):
    """The file of the outbox cannot be used: the disk is full, it is read-only, it is no outbox."""


OF_STATUS: dict[int, type[TetherError]] = {
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
    """What the SDK says where it finds it out by itself, in the words of the server."""
    return EpochChanged(
        "Parameter {cursor} is invalid. It is of before the database was restored: what followed "
        "it may be lost. Begin again without it.",
        status=400,
        code=errors.Code.EPOCH_CHANGED,
        parameter="cursor",
    )


def invalid(parameter: str, hint: str) -> Invalid:
    """What the SDK says of a value that cannot be sent, in the words of the server."""
    return Invalid(
        f"Parameter {{{parameter}}} is invalid. {hint}",
        status=400,
        code=errors.Code.PARAMETER_INVALID,
        parameter=parameter,
    )
