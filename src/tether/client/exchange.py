"""The SDK's logic without I/O: scripts.

A script is a generator. It yields a Request and gets the Answer, or NoAnswer. It yields a Pause to
wait. The two clients (sync.py, aio.py) send the requests and wait, and decide nothing.
"""

import random
import re
import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cache
from itertools import count
from logging import INFO, WARNING, getLogger
from math import inf
from time import monotonic
from typing import Any, TypeAlias, TypeVar, get_type_hints
from urllib.parse import quote, urlencode

import msgspec

from tether.client.errors import (
    OF_STATUS,
    EpochChanged,
    PreconditionFailed,
    RateLimited,
    TetherError,
    Unavailable,
    UnexpectedAnswer,
)
from tether.domain.errors import Code

log = getLogger("tether.client")

T = TypeVar("T")
RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
NOT_EXECUTED = frozenset({408, 429})  # of these: the server has certainly not executed the request
WARNING_INTERVAL_S = 30.0  # after a warning that nothing answers
MAX_RETRY_AFTER_S = 365 * 86_400.0
# A token with a string among its parameters (RFC 9651).
_ERROR = re.compile(
    r" *([A-Za-z*][\w!#$%&'*+.^`|~:/-]*)"
    r'(?:[^"]*?; *parameter="((?:[^"\\]|\\.)*)")?'
)
# Errors of msgspec for a body of another form.
DECODE_ERRORS = (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Every try of it carries the same id. `target` is percent-encoded.

    `may_share`: it may go to the server together with others, in one request.
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

    `unsure`: the server may have executed an earlier try, too. `flaw`: why the body is useless.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    unsure: bool = False
    flaw: str | None = None

    @property
    def retry_after(self) -> float | None:
        """The header Retry-After in seconds, given as a number or as a date; a year at most."""
        text = self.headers.get("retry-after", "").strip()[:64]
        if re.fullmatch(r"[0-9]+", text):
            return min(float(text), MAX_RETRY_AFTER_S)
        try:
            moment = parsedate_to_datetime(text)
            seconds = (moment - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError, ArithmeticError):  # no date, or one without a zone
            return None
        return min(max(0.0, seconds), MAX_RETRY_AFTER_S)


class Created(msgspec.Struct):
    """The body of an answer after something was created."""

    id: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There was no answer: no connection, a broken one, or a time-out.

    `sent`: the request may have reached the server. `final`: another try would not help.
    `request_id`: the id of the request that was sent, if this one shared it.
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
        """Whether to log a warning that nothing answers: once in each outage."""
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
        `max_retry_after_s`, and a random backoff on top of it.
        """
        spread = min(self.cap_s, self.base_s * 2 ** min(failures - 1, 30))
        return min(retry_after or 0, self.max_retry_after_s) + random.uniform(0, spread)  # noqa: S311 - nothing secret


NO_RETRIES = RetryPolicy(0)


def exchange(request: Request, policy: RetryPolicy, *expected: int) -> Script[Answer]:
    """Sends until an answer has an expected status. Raises the error of another status."""
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
    """The error that this outcome means."""
    if isinstance(outcome, NoAnswer):
        return Unavailable(outcome.reason, request_id=outcome.request_id or request.id)
    status, body = outcome.status, _error_body(outcome)
    kind = OF_STATUS.get(status, UnexpectedAnswer)
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
    """The body of an error. An item of a bulk answer also has its code."""

    message: str | None = None
    code: str | None = None
    parameter: str | None = None


def _error_body(answer: Answer) -> _ErrorBody:
    """The error in this answer; empty if it is no error of this API."""
    try:
        body = msgspec.json.decode(answer.body, type=_ErrorBody)
    except DECODE_ERRORS:
        body = _ErrorBody()
    if match := _ERROR.match(answer.headers.get("tether-error", "")):
        body.code, body.parameter = match[1], _unescaped(match[2])
    return body


def _unescaped(text: str | None) -> str | None:
    """The text of a string in a structured header."""
    return text if text is None else re.sub(r"\\(.)", r"\1", text)


def read(kind: type[T], answer: Answer, request: Request) -> T:
    """The body of an answer. Raises UnexpectedAnswer if it is not of this type."""
    try:
        found = msgspec.json.decode(answer.body, type=kind)
    except DECODE_ERRORS as error:
        raise unexpected_answer(answer, request, str(error)) from None
    if has_unsafe_number(found):
        raise unexpected_answer(answer, request, "it has a number that is out of range")
    return found


def ask(kind: type[T], request: Request, policy: RetryPolicy, status: int = 200) -> Script[T]:
    """The body of the answer with this status. Raises the errors of `exchange` and `read`."""
    answer = yield from exchange(request, policy, status)
    return read(kind, answer, request)


def unexpected_answer(answer: Answer, request: Request, why: str) -> UnexpectedAnswer:
    """The error of an answer that this API would not give."""
    return UnexpectedAnswer(
        f"The answer to {request.method} {request.target} is not one of this API: {why}.",
        status=answer.status,
        request_id=answer.headers.get("x-request-id", request.id),
    )


def path(*segments: str) -> str:
    """The path of these segments. An id with slashes or only dots stays one segment."""
    return "".join(
        "/" + (quote(segment, safe="") if segment.strip(".") else "%2E" * len(segment))
        for segment in segments
    )


def with_query(target: str, **parameters: Any) -> str:
    """The path with the parameters that are not None. A list gives the parameter repeatedly.

    `from_` is the parameter `from`, as that is a keyword of Python.
    """
    given = {
        name.removesuffix("_"): value for name, value in parameters.items() if value is not None
    }
    return f"{target}?{urlencode(given, doseq=True, quote_via=quote, safe='')}" if given else target


# Numbers ------------------------------------------------------------------------------------------

_MOST_DIGITS = 80  # sums are exact to 60 digits
# Powers of ten. Events and vehicles may carry 4.9E-324, and some answers have products of two.
_LARGEST, _SMALLEST = 40, -700
_NO_NUMBERS = (str, bool, Enum, type(None))


def has_unsafe_number(found: Any) -> bool:
    """Whether a decoded answer has a number that is too large or too long for this API.

    Showing or adding such numbers could take all memory.
    """
    if isinstance(found, _NO_NUMBERS):
        return False
    if isinstance(found, Decimal):
        return not (
            found.is_finite()
            and _SMALLEST < found.adjusted() < _LARGEST
            and len(str(found)) <= _MOST_DIGITS
        )
    if isinstance(found, int):
        return found.bit_length() > 64
    if isinstance(found, msgspec.Struct):
        return any(
            has_unsafe_number(getattr(found, name)) for name in _members_with_numbers(type(found))
        )
    return any(map(has_unsafe_number, found))  # a list, or a tuple


@cache
def _members_with_numbers(kind: type[msgspec.Struct]) -> list[str]:
    """The members of this type that can hold a number."""
    return [name for name, hint in get_type_hints(kind).items() if not _has_no_number(hint)]


def _has_no_number(hint: Any) -> bool:
    members = getattr(hint, "__args__", None) or (hint,)
    return all(isinstance(one, type) and issubclass(one, _NO_NUMBERS) for one in members)
