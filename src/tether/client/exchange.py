"""Requests, answers and retries, without I/O.

The logic of the SDK is in scripts, which both clients run. A script is a generator: it yields a
Request and gets an Answer or NoAnswer, or it yields a Pause to wait.
"""

import random
import re
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from itertools import count
from logging import INFO, WARNING, getLogger
from math import inf
from time import monotonic
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, urlencode
from warnings import warn

import msgspec

from tether.client.errors import (
    ERRORS_BY_STATUS,
    EpochChanged,
    PreconditionFailed,
    RateLimited,
    TetherError,
    Unavailable,
    UnexpectedAnswer,
    UnitWarning,
)
from tether.client.models import Doubt
from tether.domain.errors import Code

log = getLogger("tether.client")

T = TypeVar("T")
RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
NOT_EXECUTED = frozenset({408, 429})  # the server has not executed the request
WARN_AFTER_FAILURES = 3  # in a row, while it follows or reads the stream
WARNING_INTERVAL_S = 30.0  # between warnings that the server does not answer
MAX_RETRY_AFTER_S = 365 * 86_400.0
# An item of a structured header (RFC 9651): a token, perhaps with the parameter `parameter`.
_ITEM = re.compile(
    r" *([A-Za-z*][\w!#$%&'*+.^`|~:/-]*)"
    r'(?:[^",]*?; *parameter="((?:[^"\\]|\\.)*)")?'
)
# Errors of msgspec for a body that does not have the expected form.
DECODE_ERRORS = (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class Request:
    """A request. All its tries have the same id. `target` is percent-encoded.

    `may_share`: it may be sent together with others, as one bulk request.
    """

    method: str
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    may_share: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the server. Names of headers are in lower case.

    `unsure`: the server may also have executed an earlier try. `flaw`: why the body is unusable.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    unsure: bool = False
    flaw: str | None = None

    @property
    def retry_after(self) -> float | None:
        """The header Retry-After in seconds. It may be a number or a date. A year at most."""
        text = self.headers.get("retry-after", "").strip()[:64]
        if re.fullmatch(r"[0-9]+", text):
            return min(float(text), MAX_RETRY_AFTER_S)
        try:
            moment = parsedate_to_datetime(text)
            seconds = (moment - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError, ArithmeticError):  # not a date, or one without a zone
            return None
        return min(max(0.0, seconds), MAX_RETRY_AFTER_S)


class Created(msgspec.Struct):
    """The body of an answer after something was created.

    An event that shared its request also has its warnings there.
    """

    id: str
    warnings: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There was no answer: no connection, a broken connection, or a time-out.

    `sent`: the server may have received the request. `final`: another try would not help.
    `request_id`: the id of the bulk request, if the request shared one.
    """

    reason: str
    sent: bool = True
    final: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before going on."""

    seconds: float


Script: TypeAlias = Generator[Request | Pause, Answer | NoAnswer | None, T]


@dataclass(slots=True)
class RetryPolicy:
    """How often to try again, and how long to wait: exponential backoff with full jitter."""

    retries: int
    base_s: float = 0.25
    cap_s: float = 15.0
    warned_at: float = field(default=-inf, compare=False, repr=False)
    max_retry_after_s: float = 60.0

    def warns(self) -> bool:
        """Whether to log a warning that the server does not answer: once in each outage."""
        now = monotonic()
        is_due = now - self.warned_at >= WARNING_INTERVAL_S
        if is_due:
            self.warned_at = now
        return is_due

    def pause(self, failures: int, retry_after: float | None) -> float | None:
        """The seconds to wait after so many failures in a row; None to give up."""
        if failures > self.retries or (retry_after or 0) > self.max_retry_after_s:
            return None
        return self.backoff(failures, retry_after)

    def backoff(self, failures: int, retry_after: float | None) -> float:
        """The seconds to wait after so many failures in a row: `retry_after`, at most
        `max_retry_after_s`, plus a random backoff.
        """
        spread = min(self.cap_s, self.base_s * 2 ** min(failures - 1, 30))
        return min(retry_after or 0, self.max_retry_after_s) + random.uniform(0, spread)  # noqa: S311 - nothing secret


NO_RETRIES = RetryPolicy(0)


def exchange(request: Request, policy: RetryPolicy, *expected: int) -> Script[Answer]:
    """Sends the request until it has an answer. Raises an error for an unexpected status."""
    unsure = False
    for failures in count(1):
        outcome = yield request
        assert isinstance(outcome, Answer | NoAnswer)
        if isinstance(outcome, Answer) and outcome.status not in RETRY_STATUSES:
            answer = replace(outcome, unsure=True) if unsure else outcome
            if answer.status not in expected:
                raise error_of(answer, request)
            if answer.flaw is not None:
                raise unexpected_answer(answer, request, answer.flaw)
            return answer
        error = error_of(outcome, request)
        assert isinstance(error, RateLimited | Unavailable)
        seconds = policy.pause(failures, error.retry_after)
        if seconds is None or (isinstance(outcome, NoAnswer) and outcome.final):
            raise error
        unsure = unsure or _may_be_executed(outcome)
        first = failures == 1 and isinstance(outcome, NoAnswer) and policy.warns()
        level = WARNING if first else INFO
        words = "%s %s: %s Trying again in %.2f s."
        log.log(level, words, request.method, request.target, error, seconds)
        yield Pause(seconds)
    raise AssertionError


def _may_be_executed(outcome: Answer | NoAnswer) -> bool:
    return outcome.sent if isinstance(outcome, NoAnswer) else outcome.status not in NOT_EXECUTED


def error_of(outcome: Answer | NoAnswer, request: Request) -> TetherError:
    """The error for this outcome."""
    if isinstance(outcome, NoAnswer):
        return Unavailable(outcome.reason, request_id=outcome.request_id or request.id)
    status, body = outcome.status, _error_body(outcome)
    kind = ERRORS_BY_STATUS.get(status, UnexpectedAnswer)
    if body.message is None and status not in RETRY_STATUSES:
        kind = UnexpectedAnswer
    elif body.code == Code.EPOCH_CHANGED:
        kind = EpochChanged
    error = kind(
        body.message or f"{request.method} {request.target} was answered with status {status}.",
        status=status,
        request_id=outcome.headers.get("x-request-id", request.id),
        code=body.code,
        parameter=body.parameter,
    )
    if isinstance(error, RateLimited | Unavailable):
        error.retry_after = outcome.retry_after
    if isinstance(error, PreconditionFailed):
        error.unsure = outcome.unsure
    return error


class _ErrorBody(msgspec.Struct):
    """The body of an error. In an item of a bulk answer it has the code, too."""

    message: str | None = None
    code: str | None = None
    parameter: str | None = None


def _error_body(answer: Answer) -> _ErrorBody:
    """The error in this answer. Its members are None if it is not an error of this API."""
    try:
        body = msgspec.json.decode(answer.body, type=_ErrorBody)
    except DECODE_ERRORS:
        body = _ErrorBody()
    if match := _ITEM.match(answer.headers.get("tether-error", "")):
        body.code, body.parameter = match[1], match[2] and re.sub(r"\\(.)", r"\1", match[2])
    return body


WarningHandler: TypeAlias = Callable[[Iterable[Doubt]], None]
"""Gets the warnings of an answer."""


def warnings_in(answer: Answer) -> tuple[Doubt, ...]:
    """The warnings in the header of an answer."""
    found = _ITEM.findall(answer.headers.get("tether-warning", ""))
    return tuple(Doubt(code, parameter) for code, parameter in found if parameter)


def warn_user(warnings: Iterable[Doubt]) -> None:
    """Passes them to Python's `warnings`, which shows each one once by default."""
    for warning in warnings:
        warn(warning_text(warning), UnitWarning, stacklevel=2)


def warning_text(warning: Doubt) -> str:
    """The warning as a sentence."""
    name = warning.parameter or "A number"
    unit = "kWh" if name in ("chargeCapacity", "chargedEnergy") else "kW"
    return f"{name} was stored as it was sent, but it is far too high for {unit}: check the unit."


def read(kind: type[T], answer: Answer, request: Request) -> T:
    """The body of an answer. Raises UnexpectedAnswer if it does not have this type."""
    try:
        found = msgspec.json.decode(answer.body, type=kind)
    except DECODE_ERRORS as error:
        raise unexpected_answer(answer, request, str(error)) from None
    if has_unsafe_number(found):
        raise unexpected_answer(answer, request, "it has a number that is out of range")
    return found


def unexpected_answer(answer: Answer, request: Request, why: str) -> UnexpectedAnswer:
    """The error for an answer that does not come from this API."""
    return UnexpectedAnswer(
        f"The answer to {request.method} {request.target} is not one of this API: {why}.",
        status=answer.status,
        request_id=answer.headers.get("x-request-id", request.id),
    )


def path(*segments: str) -> str:
    """The path of these segments. An id with slashes, or of dots only, stays one segment."""
    for segment in segments:
        if not isinstance(segment, str):
            raise TypeError(f"An id must be a str, not {type(segment).__name__}.")
    return "".join(
        "/" + (quote(segment, safe="") if segment.strip(".") else "%2E" * len(segment))
        for segment in segments
    )


def with_query(target: str, **parameters: Any) -> str:
    """The path with the parameters that are not None. A list gives the parameter repeatedly."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{target}?{urlencode(given, doseq=True, quote_via=quote, safe='')}" if given else target


# Numbers ------------------------------------------------------------------------------------------

_MAX_DIGITS = 80  # sums are exact to 60 digits
# Powers of ten. Events and vehicles may carry 4.9E-324, and some answers have products of two.
_LARGEST, _SMALLEST = 40, -700


def has_unsafe_number(found: Any) -> bool:
    """Whether a decoded answer has a number that is too large or too long for this API.

    Showing or adding such numbers could take all memory.
    """
    if found is None or isinstance(found, str):
        return False
    if isinstance(found, Decimal):
        return not (
            found.is_finite()
            and _SMALLEST < found.adjusted() < _LARGEST
            and len(str(found)) <= _MAX_DIGITS
        )
    if isinstance(found, int):
        return found.bit_length() > 64
    members = msgspec.structs.astuple(found) if isinstance(found, msgspec.Struct) else found
    return any(map(has_unsafe_number, members))
