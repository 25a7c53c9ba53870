"""Bulk requests: many events, chargers, vehicles, or ids of events to withdraw."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from tether.client.errors import (
    Invalid,
    RateLimited,
    TetherError,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
)
from tether.client.exchange import (
    Answer,
    Pause,
    Request,
    RetryPolicy,
    Script,
    WarningHandler,
    exchange,
    log,
    read,
    warn_user,
)
from tether.client.models import BulkResult, Doubt, PutResult, WithdrawResult
from tether.domain.errors import Code
from tether.domain.models import Charger, Event, Vehicle, to_json
from tether.domain.validation import MAX_BYTES, MAX_ITEM_BYTES, MAX_ITEMS

RETRY_STATUSES_OF_ITEMS = frozenset({429, 503})  # items with these statuses are sent again
MAX_WAIT_S = 30.0  # Retry-After is the time until all items fit; some may be sent earlier
_GZIP = 31  # the code of zlib for this format
WITH_ARTICLE = {
    "event": "An event", "charger": "A charger", "vehicle": "A vehicle",
    "event id": "The id of an event",
}  # fmt: skip

M = TypeVar("M", bound=msgspec.Struct | str)
AnyResult = BulkResult | PutResult | WithdrawResult
R = TypeVar("R", bound=AnyResult)


class Item(msgspec.Struct):
    """An item of a bulk answer: the answer about one thing."""

    status: int | None
    id: str | None = None
    etag: str | None = None
    message: str | None = None
    code: str | None = None
    parameter: str | None = None
    warnings: tuple[Doubt, ...] = ()


def refusal(error: TetherError) -> Item:
    """The item of a thing that failed with this error."""
    return Item(error.status, message=error.message, code=error.code, parameter=error.parameter)


@dataclass(slots=True)
class _Entry(Generic[M, R]):
    """A thing of a chunk, its line of JSON, and its result once that is final."""

    thing: M
    line: bytes
    result: R | None


class BulkCalls(Generic[M, R]):
    """Scripts that send many of one kind in as few requests as possible."""

    def __init__(
        self,
        one: str,
        path: str,
        policy: RetryPolicy,
        ready: Callable[[M], M],
        result: Callable[[M, Item], R],
        *,
        on_warnings: WarningHandler = warn_user,
    ) -> None:
        """`one` is event, charger, vehicle or event id. `ready` returns a thing in the form that is
        sent, or raises Invalid. `result` makes its result.
        """
        self._one = one
        self._path = path
        self._policy = policy
        self._ready = ready
        self._result = result
        self._on_warnings = on_warnings

    def all(self, things: Iterable[M]) -> Script[list[R]]:
        """Sends any number of things. Returns the results, in order."""
        if isinstance(things, str):
            raise TypeError("An iterable of ids is expected, not one id.")
        results: list[R] = []
        for chunk in self._chunks(things):
            try:
                yield from self._deliver(chunk)
            except TetherError as error:
                error.results = results + [
                    entry.result or self._result(entry.thing, refusal(error)) for entry in chunk
                ]
                raise
            results += (entry.result for entry in chunk if entry.result is not None)
        return results

    def once(self, things: Sequence[M]) -> Script[tuple[list[R], float]]:
        """Sends ready things in one request. Returns the results and the seconds to wait."""
        return (yield from self._send(things, [to_json(thing) for thing in things]))

    def _chunks(self, things: Iterable[M]) -> Iterator[list[_Entry[M, R]]]:
        """The things of each request. Things that cannot be sent have their result already."""
        chunk: list[_Entry[M, R]] = []
        size = 0
        for given in things:
            thing, line, result = given, b"", None
            try:
                thing = self._ready(given)
                line = self._line_of(thing)
            except (Invalid, TooLarge) as error:
                result = self._result(thing, refusal(error))
            if chunk and (len(chunk) == MAX_ITEMS or size + len(line) >= MAX_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(_Entry(thing, line, result))
            size += len(line) + 1
        if chunk:
            yield chunk

    def _line_of(self, thing: M) -> bytes:
        line = to_json(thing)
        if len(line) > MAX_ITEM_BYTES:  # the server refuses such a line
            raise TooLarge(
                f"{WITH_ARTICLE[self._one]} must not be larger than {MAX_ITEM_BYTES:,} bytes.",
                status=413,
                code=Code.TOO_LARGE,
            )
        return line

    def _deliver(self, chunk: Sequence[_Entry[M, R]]) -> Script[None]:
        """Sends requests until each thing is stored or finally refused.

        Things that are sent again keep their order, and later chunks wait for them. So the events
        of a vehicle are stored in order.
        """
        failures = 0
        while waiting := [entry for entry in chunk if entry.result is None]:
            results, retry_after = yield from self._send(
                [entry.thing for entry in waiting], [entry.line for entry in waiting]
            )
            for entry, result in zip(waiting, results, strict=True):
                entry.result = None if result.status in RETRY_STATUSES_OF_ITEMS else result
            retried = [result for result in results if result.status in RETRY_STATUSES_OF_ITEMS]
            if retried:
                failures = 1 if len(retried) < len(results) else failures + 1
                seconds = self._policy.pause(failures, retry_after)
                if seconds is None:
                    raise retry_error(retried[0], retry_after)
                counts = len(retried), len(results)
                log.info("%d of %d %s wait: %.2f s", *counts, f"{self._one}s", seconds)
                yield Pause(seconds)

    def _send(self, things: Sequence[M], lines: Iterable[bytes]) -> Script[tuple[list[R], float]]:
        request = bulk_request(self._path, lines)
        answer: Answer = yield from exchange(request, self._policy, 200)
        items = read(list[Item], answer, request)
        if len(items) != len(things):
            raise UnexpectedAnswer(
                f"A bulk answer must have one item for each {self._one}.", status=200
            )
        results = [self._result(thing, item) for thing, item in zip(things, items, strict=True)]
        self._on_warnings({warning for item in items for warning in item.warnings})
        return results, min(answer.retry_after or 0, MAX_WAIT_S)


def bulk_request(path: str, lines: Iterable[bytes]) -> Request:
    """The request with these lines of JSON."""
    body = zlib.compress(b"\n".join(lines), 1, wbits=_GZIP)
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    return Request("POST", path, body, headers)


def event_result(event: Event, item: Item) -> BulkResult:
    """The result of an event."""
    return BulkResult(event=event, id=item.id, **_common_fields(item))


def put_result(entity: Charger | Vehicle, item: Item) -> PutResult:
    """The result of a charger or vehicle."""
    return PutResult(entity=entity, etag=item.etag, **_common_fields(item))


def withdraw_result(event_id: str, item: Item) -> WithdrawResult:
    """The result of a withdrawal."""
    return WithdrawResult(id=event_id, **_common_fields(item))


def _common_fields(item: Item) -> dict[str, Any]:
    """The fields that all results have."""
    names = ("status", "message", "code", "parameter", "warnings")
    return {name: getattr(item, name) for name in names}


def retry_error(result: AnyResult, retry_after: float) -> RateLimited | Unavailable:
    """The error of a thing that must be sent again later."""
    kind = RateLimited if result.status == 429 else Unavailable
    error = kind(
        result.message or "Some could not be stored.",
        status=result.status,
        code=result.code,
        parameter=result.parameter,
    )
    error.retry_after = retry_after
    return error
