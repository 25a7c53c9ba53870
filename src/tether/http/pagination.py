"""Lists: their parameters, their pages with cursors, and whether they wait for derived data."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar
from urllib.parse import unquote, urlencode

from falcon.asgi import Request, Response

from tether.domain.errors import EpochChanged, Invalid, Unknown
from tether.domain.timestamps import format_instant
from tether.domain.validation import check_instant
from tether.http.requests import ApiRequest, base_url, prefix_of
from tether.server.store import Store
from tether.storage.log_positions import EPOCH_ID, Epoch
from tether.storage.turns import Turns

MAX_PARAMETER = 2_000  # characters, percent-encoded
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
P = TypeVar("P")  # the position of a row in a list
T = TypeVar("T")  # a row


def query_of(
    req: Request, allowed: Collection[str], repeated: Collection[str] = ()
) -> dict[str, str]:
    """The query parameters. Raises Unknown, and Invalid for one that is given twice.

    The values of a `repeated` parameter are joined with commas. A plus sign does not mean a blank,
    because ids and time zones have plus signs and no value has blanks.
    """
    query: dict[str, str] = {}
    for pair in filter(None, req.query_string.split("&")):
        name, _, value = pair.partition("=")
        name = unquote(name[:MAX_PARAMETER])
        if name not in allowed:
            safe = re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:40]
            known = "This list has the parameters" if len(allowed) > 1 else "The only parameter is"
            raise Unknown(safe, f"{known} {', '.join(allowed)}.")
        if name in query and name not in repeated:
            raise Invalid(name, "It is given twice.")
        if len(value) > MAX_PARAMETER:
            raise Invalid(name, f"It must have at most {MAX_PARAMETER:,} characters.")
        value = unquote(value)
        query[name] = f"{query[name]},{value}" if name in query else value
    return query


def instants_of(query: dict[str, str], *windows: tuple[str, ...]) -> dict[str, int]:
    """The instants in the query by parameter, in ms since 1970.

    `windows` names the parameters of each window of time, the first one first. Raises Invalid.
    """
    found: dict[str, int] = {}
    for window in windows:
        given = {name: check_instant(name, query[name]) for name in window if name in query}
        if [*given.values()] != sorted(given.values()):
            raise Invalid(window[0], f"It must not be after {window[-1]}.")
        found |= given
    return found


def seconds_of(query: dict[str, str], name: str, alternatives: str = "") -> int:
    """The parameter as a whole number of seconds above 0. Raises Invalid.

    `alternatives` ends the rule in the message.
    """
    text = query[name]
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        rule = f"It must be a whole number of seconds from 1 to 999999999{alternatives}."
        raise Invalid(name, rule)
    return int(text)


def large_answer_turns() -> Turns:
    """Turns for answers that may each read and keep a lot: one of each partner at a time."""
    return Turns(4, 1, patience_s=120.0)


class Page:
    """The page of a list that a request asks for, and the link to the page that follows it."""

    def __init__(
        self,
        store: Store,
        req: ApiRequest,
        resp: Response,
        allowed: Collection[str],
        repeated: Collection[str] = (),
    ) -> None:
        """The list has the `allowed` parameters. Raises Invalid, Unknown."""
        self.query = query = query_of(req, allowed, repeated)
        limit, order = query.get("limit", str(DEFAULT_LIMIT)), query.get("order", "asc")
        if not (re.fullmatch(r"[0-9]{1,4}", limit) and 1 <= int(limit) <= MAX_LIMIT):
            raise Invalid("limit", f"It must be a whole number from 1 to {MAX_LIMIT}.")
        if order not in ("asc", "desc"):
            raise Invalid("order", "It must be asc (oldest first) or desc (newest first).")
        self.limit = int(limit)
        self.descending = order == "desc"
        self.partner = req.context.partner
        self._store, self._req, self._resp, self._repeated = store, req, resp, repeated
        self._epoch_id = ""

    async def begin(
        self, read_position: Callable[[str], P | None] | None, *, derived: bool = False
    ) -> P | None:
        """The position in the cursor, after which the page begins; None at the start of the list.

        `read_position` returns None for an invalid position. Without this function the cursor is
        not read. If the list shows `derived` data, waits until all events are derived. Raises
        Invalid, EpochChanged if the cursor is of another epoch, and NotDerived.
        """
        epoch = await self._store.epochs.current()
        cursor = self.query.get("cursor")
        position: P | None = None
        if cursor is not None and read_position is not None:
            epoch_id, text = position_in(cursor)
            position = read_position(text)
            if position is None:
                raise Invalid("cursor", "It must be one that a Link header of this list gave.")
            if epoch_id != epoch.id:
                raise EpochChanged("cursor", format_instant(epoch.began_ms), "without it")
        self._epoch_id = epoch.id
        show_epoch(self._resp, epoch)
        if derived:
            await wait_until_derived(self._store, self._req, self._resp, self.query)
        return position

    def finish(
        self,
        found: Sequence[T],
        position_of: Callable[[T], str],
        *,
        stop: str | None = None,
        follow: bool = False,
    ) -> Sequence[T]:
        """The rows of this page, with a link to the next page if more rows may follow: `found` has
        one row more than the page, or the search stopped at the position `stop`, or the client can
        `follow` the list, because new rows come at its end.
        """
        rows = found[: self.limit]
        if stop is not None and len(found) <= self.limit:
            self.link_next(stop, partial=True)
        elif len(found) > self.limit or (follow and rows):
            self.link_next(position_of(rows[-1]))
        return rows

    def link_next(self, position: str, *, partial: bool = False) -> None:
        """Adds a Link header that leads to the page after this position.

        `partial`: this page is shorter than asked for, or empty, although more may follow.
        """
        parameters: dict[str, str | list[str]] = {
            name: [*dict.fromkeys(value.split(","))] if name in self._repeated else value
            for name, value in self.query.items()
        }
        parameters["cursor"] = cursor_text(self._epoch_id, position)
        more = '; partial="true"' if partial else ""
        path = f"{base_url(self._req)}{prefix_of(self._req)}{self._req.path}"
        target = f"{path}?{urlencode(parameters, doseq=True)}"
        self._resp.set_header("Link", f'<{target}>; rel="next"{more}')


def position_in(text: str) -> tuple[str, str]:
    """The epoch id and the position in a cursor; two empty texts if it is not one of ours."""
    try:
        cursor = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
    except (UnicodeError, ValueError):
        return "", ""
    epoch_id, _, position = cursor.rpartition("/")
    # The decoder skips unknown characters.
    is_ours = EPOCH_ID.fullmatch(epoch_id) and cursor_text(epoch_id, position) == text
    return (epoch_id, position) if is_ours else ("", "")


async def wait_until_derived(
    store: Store, req: ApiRequest, resp: Response, query: Mapping[str, str] | None = None
) -> None:
    """Waits until all events are derived, unless the client accepts stale data.

    Raises NotDerived, and the errors of `accepts_stale`.
    """
    partner = req.context.partner
    if not await accepts_stale(store, req, resp, query):
        head, derived = await store.derivations.progress(partner)
        if derived < head:
            await store.projector.catch_up(partner)


async def accepts_stale(
    store: Store, req: ApiRequest, resp: Response, query: Mapping[str, str] | None = None
) -> bool:
    """Whether the client accepts stale data. Then a header has the last derived event.

    `query` has the parameters if they were read before. Raises Invalid.
    """
    if query is None:
        query = query_of(req, ("stale",))
    wanted = query.get("stale")
    if wanted is None:
        return False
    if wanted != "allowed":
        raise Invalid("stale", "It must be allowed, or left out.")
    # The number is read before the data. So the data contain at least the events up to it.
    epoch = await store.epochs.current()
    seq = await store.projector.derived_to(req.context.partner)
    resp.set_header("Tether-Derived-To", cursor_text(epoch.id, str(seq)))
    return True


def show_epoch(resp: Response, epoch: Epoch) -> None:
    """Adds a header with the epoch, for clients that store positions."""
    if epoch.id:
        resp.set_header("Tether-Epoch", epoch.id)


def cursor_text(epoch_id: str, position: str) -> str:
    """The cursor of a position, as clients get it."""
    text = f"{epoch_id}/{position}" if epoch_id else position
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")
