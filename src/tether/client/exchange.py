"""The SDK's logic without input and output: scripts that say what to do and are told the outcome.

A script is a generator. It yields a Request and is sent the Answer, or Lost if there was none; it
yields a Pause when it wants to wait. The two clients (sync.py, aio.py) do what scripts say, one
blocking and one awaiting, and decide nothing.
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
AGAIN_LATER = frozenset({408, 429, 502, 503, 504})
NOT_DONE = frozenset({408, 429})  # of these: what certainly was not carried out
QUIET_S = 30.0  # after a warning that nothing answers
LONGEST_WISH_S = 365 * 86_400.0
# A token and, among its parameters, a string (RFC 9651).
_ERROR = re.compile(
    r" *([A-Za-z*][\w!#$%&'*+.^`|~:/-]*)"
    r'(?:[^"]*?; *parameter="((?:[^"\\]|\\.)*)")?'
)
# What msgspec raises for a body that is not what it should be.
UNREADABLE = (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; every try of it carries the same id. `target` is percent-encoded.

    One that `may_share` can go to the server together with others, if that comes to the same.
    """

    method: str
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    may_share: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; names of headers are in lower case.

    `unsure`: an earlier try may have been carried out too. `flaw`: why there is no use in the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    unsure: bool = False
    flaw: str | None = None

    @property
    def retry_after(self) -> float | None:
        """The seconds that it says to wait, given as a number or as a date; a year at most."""
        text = self.headers.get("retry-after", "").strip()[:64]
        if re.fullmatch(r"[0-9]+", text):
            return min(float(text), LONGEST_WISH_S)
        try:
            moment = parsedate_to_datetime(text)
            wish = (moment - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError, ArithmeticError):  # no date, or one without a zone
            return None
        return min(max(0.0, wish), LONGEST_WISH_S)


class Created(msgspec.Struct):
    """The body of an answer that says what was made."""

    id: str


@dataclass(frozen=True, slots=True)
class Lost:
    """There was no answer: no connection, a broken one, or a time-out.

    `sent`: the request may have come to the server. `final`: it makes no sense to try again.
    `request_id`: of the request that it came with, if that was another.
    """

    reason: str
    sent: bool = True
    final: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait that long before going on."""

    seconds: float


Script: TypeAlias = Generator[Request | Pause, Answer | Lost | None, T]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again, and how long to wait before: exponentially longer, full jitter."""

    retries: int
    base_s: float = 0.25
    cap_s: float = 15.0
    warned: list[float] = field(default_factory=list, compare=False, repr=False)
    longest_s: float = 60.0  # whoever is told to wait longer is told so; work without end asks then

    def warns(self) -> bool:
        """Whether the user should be told that nothing answers: once in each outage."""
        now = monotonic()
        if self.warned and now - self.warned[-1] < QUIET_S:
            return False
        self.warned[:] = [now]
        return True

    def pause(self, failures: int, retry_after: float | None) -> float | None:
        """The seconds to wait after that many failures in a row; None to give up."""
        if failures > self.retries or (retry_after or 0) > self.longest_s:
            return None
        return self.backoff(failures, retry_after)

    def backoff(self, failures: int, retry_after: float | None) -> float:
        """The seconds to wait after that many failures in a row, on top of the server's wish.

        A wish of an hour, or of an age as some proxies have it, counts as the longest wait.
        """
        spread = min(self.cap_s, self.base_s * 2 ** min(failures - 1, 30))
        wish = min(retry_after or 0, self.longest_s)
        return wish + random.uniform(0, spread)  # noqa: S311 - nothing secret


NO_RETRIES = RetryPolicy(0)


def exchange(request: Request, policy: RetryPolicy, *expected: int) -> Script[Answer]:
    """Sends until there is an answer of an expected status. Raises what another one means."""
    unsure = False
    for failures in count(1):
        outcome = yield request
        assert isinstance(outcome, Answer | Lost)
        if isinstance(outcome, Answer) and outcome.status not in AGAIN_LATER:
            answer = replace(outcome, unsure=True) if unsure else outcome
            if answer.status not in expected:
                raise error_of(answer, request)
            if answer.flaw is not None:
                raise no_answer_of_ours(answer, request, answer.flaw)
            return answer
        error = error_of(outcome, request)
        assert isinstance(error, RateLimited | Unavailable)
        seconds = policy.pause(failures, error.retry_after)
        if seconds is None or (isinstance(outcome, Lost) and outcome.final):
            raise error
        unsure = unsure or _may_be_done(outcome)
        first = failures == 1 and isinstance(outcome, Lost) and policy.warns()
        level = WARNING if first else INFO
        words = "%s %s: %s Trying again in %.2f s."
        log.log(level, words, request.method, request.target, error, seconds)
        yield Pause(seconds)
    raise AssertionError


def _may_be_done(outcome: Answer | Lost) -> bool:
    return outcome.sent if isinstance(outcome, Lost) else outcome.status not in NOT_DONE


def error_of(outcome: Answer | Lost, request: Request) -> TetherError:
    """What this answer, or that there is none, means."""
    if isinstance(outcome, Lost):
        return Unavailable(outcome.reason, request_id=outcome.request_id or request.id)
    status, said = outcome.status, _said_by(outcome)
    kind = OF_STATUS.get(status, UnexpectedAnswer)
    if said.message is None and status not in AGAIN_LATER:
        kind = UnexpectedAnswer
    elif said.code == Code.EPOCH_CHANGED:
        kind = EpochChanged
    error = kind(
        said.message or f"{request.method} {request.target} was answered with status {status}.",
        status=status,
        request_id=outcome.headers.get("x-request-id", request.id),
        code=said.code,
        parameter=said.parameter,
    )
    if isinstance(error, RateLimited | Unavailable):
        error.retry_after = outcome.retry_after
    if isinstance(error, PreconditionFailed):
        error.unsure = outcome.unsure
    return error


class _Said(msgspec.Struct):
    """The body of an error. One that is an item of a bulk answer has the code, too."""

    message: str | None = None
    code: str | None = None
    parameter: str | None = None


def _said_by(answer: Answer) -> _Said:
    """What the answer says, if it is an error of this API."""
    try:
        said = msgspec.json.decode(answer.body, type=_Said)
    except UNREADABLE:
        said = _Said()
    if match := _ERROR.match(answer.headers.get("tether-error", "")):
        said.code, said.parameter = match[1], _unescaped(match[2])
    return said


def _unescaped(text: str | None) -> str | None:
    """The text of a string of a structured field."""
    return text if text is None else re.sub(r"\\(.)", r"\1", text)


def read(kind: type[T], answer: Answer, request: Request) -> T:
    """The body of an answer. Raises UnexpectedAnswer if it is not what the API promises."""
    try:
        found = msgspec.json.decode(answer.body, type=kind)
    except UNREADABLE as error:
        raise no_answer_of_ours(answer, request, str(error)) from None
    if has_number_out_of_range(found):
        raise no_answer_of_ours(answer, request, "it has a number that is out of range")
    return found


def ask(kind: type[T], request: Request, policy: RetryPolicy, status: int = 200) -> Script[T]:
    """The body of the answer of this status. Raises what `exchange` and `read` do."""
    answer = yield from exchange(request, policy, status)
    return read(kind, answer, request)


def no_answer_of_ours(answer: Answer, request: Request, why: str) -> UnexpectedAnswer:
    """What it means that the body of an answer is not what the API promises."""
    return UnexpectedAnswer(
        f"The answer to {request.method} {request.target} is not one of this API: {why}.",
        status=answer.status,
        request_id=answer.headers.get("x-request-id", request.id),
    )


def path(*segments: str) -> str:
    """The path of these segments. An id that no entity can have stays one segment."""
    return "".join(
        "/" + (quote(segment, safe="") if segment.strip(".") else "%2E" * len(segment))
        for segment in segments
    )


def with_query(target: str, **parameters: Any) -> str:
    """The path with those parameters that are not None; one that is a list is given repeatedly.

    `from_` is the parameter `from`, which is a word of Python.
    """
    given = {
        name.removesuffix("_"): value for name, value in parameters.items() if value is not None
    }
    return f"{target}?{urlencode(given, doseq=True, quote_via=quote, safe='')}" if given else target


# Numbers ------------------------------------------------------------------------------------------

_MOST_DIGITS = 80  # sums of what events carry are exact to 60 digits
# Powers of ten. Events and vehicles may carry 4.9E-324, and some answers have products of two.
_LARGEST, _SMALLEST = 40, -700
_HARMLESS = (str, bool, Enum, type(None))


def has_number_out_of_range(found: Any) -> bool:
    """Whether a decoded answer has a number that no answer of this API has, by its size or length.

    To show or add up some of them would take all memory.
    """
    if isinstance(found, _HARMLESS):
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
            has_number_out_of_range(getattr(found, name)) for name in _to_look_at(type(found))
        )
    return any(map(has_number_out_of_range, found))  # a list, or a tuple


@cache
def _to_look_at(kind: type[msgspec.Struct]) -> list[str]:
    """The members which may have a number in them."""
    return [name for name, hint in get_type_hints(kind).items() if not _is_harmless(hint)]


def _is_harmless(hint: Any) -> bool:
    members = getattr(hint, "__args__", None) or (hint,)
    return all(isinstance(one, type) and issubclass(one, _HARMLESS) for one in members)
