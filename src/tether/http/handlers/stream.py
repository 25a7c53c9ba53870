"""Events and states as they come, over HTTP (an addition to the reference): Server-Sent Events."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from time import monotonic
from typing import NamedTuple

import structlog
from falcon.asgi import Request, Response

from tether.domain.errors import EpochChanged, Forbidden, Invalid, Unavailable
from tether.domain.filters import EventFilter
from tether.domain.models import to_json
from tether.domain.session_views import vehicle_state
from tether.domain.timestamps import format_instant
from tether.http import requests
from tether.http.handlers.events import filter_of
from tether.projections.change_feed import Listener
from tether.server.authenticator import Authenticator
from tether.server.event_streams import EventStreams, StreamBody
from tether.server.metrics import Metrics
from tether.server.store import Store
from tether.storage.log_positions import Epoch

log = structlog.get_logger()

PARAMETERS = ("cursor", "chargerId", "vehicleId", "type")
MOST_STREAMS = 64  # of one partner in one process
HEARTBEAT_S = 15.0  # of silence; proxies commonly hang up after 60
TICK_S = 0.5  # how often the key is looked at: a revoked one stops within 2 s
RETRY_MS = 1000  # how soon a browser connects again

_POSITION = re.compile(r"([0-9]{1,18})(?: ([0-9]{1,18}))?")


class StreamPosition(NamedTuple):
    """Where a consumer is: it has the events up to `shown`, and the states up to `whole`.

    States follow the events that led to them. Whoever goes on between the two gets the states that
    it lacks, and no event again.
    """

    shown: int
    whole: int

    def id(self, epoch: Epoch) -> str:
        """The position as clients see it."""
        position = f"{self.shown}" if self.shown == self.whole else f"{self.shown} {self.whole}"
        return requests.cursor_text(epoch.id, position)


class StreamResource:
    """`/stream`: the events in the order of their commits, those which are taken back among them,
    and the states to which they lead.
    """

    def __init__(
        self, store: Store, keys: Authenticator, metrics: Metrics, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._keys = keys
        self._now_ms = now_ms
        self._streams = EventStreams(store, MOST_STREAMS, metrics)

    async def on_get(self, req: requests.ApiRequest, resp: Response) -> None:
        wanted, epoch, position = await self._asked(req, resp)
        self._streams.check_room(requests.partner_of(req))
        stream = _Stream(
            self._store,
            self._keys,
            self._now_ms,
            req=req,
            wanted=wanted,
            epoch=epoch,
            position=position,
        )
        resp.stream = self._streams.body(requests.partner_of(req), stream.run())

    async def on_head(self, req: Request, resp: Response) -> None:
        await self._asked(req, resp)
        resp.stream = StreamBody(_nothing())  # else Falcon would give it a length

    async def _asked(
        self, req: Request, resp: Response
    ) -> tuple[EventFilter, Epoch, StreamPosition]:
        query = requests.query_of(req, PARAMETERS)
        wanted, epoch = filter_of(query), await self._store.epochs.current()
        head, derived = await self._store.feed.ends(requests.partner_of(req))
        # What is committed and not yet derived is the past too, but its states are still to come.
        position = _position(req, query, epoch, head) or StreamPosition(max(head, derived), derived)
        requests.show_epoch(resp, epoch)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")  # nginx would hold it back
        return wanted, epoch, position


class _Stream:
    """One consumer. All that is kept of it is its position: what it does not take is not read."""

    def __init__(
        self,
        store: Store,
        keys: Authenticator,
        now_ms: Callable[[], int],
        *,
        req: requests.ApiRequest,
        wanted: EventFilter,
        epoch: Epoch,
        position: StreamPosition,
    ) -> None:
        self._store = store
        self._keys = keys
        self._now_ms = now_ms
        self._wanted = wanted
        self._epoch = epoch
        self._position = position
        self._req = req
        self._secret = req.get_header("X-API-Key")
        self._key = requests.key_of(req)
        self._request_id = req.context.request_id
        self._began = self._spoke = monotonic()
        self._checked = 0.0
        self._events = 0
        self._end = "cut off"

    async def run(self) -> AsyncGenerator[str]:
        """What is sent, piece by piece, until the client, the key or the server is gone."""
        with self._store.feed.listening(self._key.partner) as listener:
            leaving = asyncio.create_task(self._until_gone(listener))
            try:
                # At once, so that the client knows that it is connected, and its position.
                yield f": connected\nretry: {RETRY_MS}\nid: {self._id()}\n\n"
                while await self._goes_on(leaving):
                    text = await self._more(listener)
                    if not text and monotonic() - self._spoke >= HEARTBEAT_S:
                        text = f": nothing new\nid: {self._id()}\n\n"
                    if text:
                        yield text
                        self._spoke = monotonic()
            finally:
                leaving.cancel()
                self._log_end()

    def _id(self) -> str:
        return self._position.id(self._epoch)

    def _log_end(self) -> None:
        """Writes the line about the stream: the one of the request came at its beginning."""
        log.info(
            "stream ended",
            request_id=self._request_id,
            partner=self._key.partner_name,
            key=self._key.prefix,
            reason=self._end,
            events=self._events,
            s=round(monotonic() - self._began, 3),
        )

    async def _until_gone(self, listener: Listener) -> None:
        await self._req.until_gone()
        listener.news.set()

    async def _goes_on(self, leaving: "asyncio.Task[None]") -> bool:
        if leaving.done():
            self._end = "the client is gone"
        elif self._store.feed.closed:
            self._end = "the server stops"
        elif not await self._key_works():
            self._end = "the key works no more"
        elif not await self._epoch_lasts():
            self._end = "a new epoch began"
        else:
            return True
        return False

    async def _key_works(self) -> bool:
        if monotonic() - self._checked < TICK_S:
            return True
        self._checked = monotonic()
        try:
            await self._keys.recognise(self._secret)
        except Forbidden:
            return False
        except Unavailable:  # it cannot be told now, and nothing can be read either
            pass
        return True

    async def _epoch_lasts(self) -> bool:
        try:
            return await self._store.epochs.current() == self._epoch
        except Unavailable:  # it cannot be told now, and nothing can be read either
            return True

    async def _more(self, listener: Listener) -> str:
        """The next portion, or nothing after waiting a little."""
        try:
            if listener.derived > self._position.whole:
                return await self._portion(listener.derived)
        except Unavailable:
            pass
        await listener.wait(TICK_S)
        return ""

    async def _portion(self, until: int) -> str:
        shown, whole = self._position
        portion = await self._store.feed.portion(self._key.partner, self._wanted, whole, until)
        entries = [entry for entry in portion.entries if entry.seq > shown]
        end = StreamPosition(max(portion.end, shown), portion.end)
        # Where there is no state, the last entry is all of the portion that is left.
        places = [StreamPosition(entry.seq, whole) for entry in entries]
        if places and not portion.latest:
            places[-1] = end
        texts = [
            f"event: {kind}\nid: {place.id(self._epoch)}\ndata: {body}\n\n"
            for place, (_, kind, body) in zip(places, entries, strict=True)
        ]
        now_ms = self._now_ms()
        for number, (id, latest) in enumerate(portion.latest.items(), 1):
            state = to_json(vehicle_state(id, latest, now_ms)).decode()
            # With the last one all of the portion is there.
            is_last = number == len(portion.latest)
            mark = f"id: {end.id(self._epoch)}\n" if is_last else ""
            texts.append(f"event: state\n{mark}data: {state}\n\n")
        self._position = end
        self._events += len(entries)
        return "".join(texts)


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield b""


# Positions ---------------------------------------------------------------------------------------


def _position(
    req: Request, query: dict[str, str], epoch: Epoch, head: int
) -> StreamPosition | None:
    """Where the client wants to go on; None for now. `head` is the last event that there is.

    A client that connects again by itself sends both id and cursor: the id is newer.
    """
    text, name = req.get_header("Last-Event-ID"), "Last-Event-ID"
    hint = "It must be an id that this stream gave."
    if not text:
        text, name = query.get("cursor"), "cursor"
        hint = "It must be an id of this stream, a cursor of /events, or start."
        if text is None:
            return None
        if text == "start":
            return StreamPosition(0, 0)
    epoch_id, shown = requests.position_in(text)
    match = _POSITION.fullmatch(shown)
    if match is not None:
        if epoch_id != epoch.id:
            raise EpochChanged(name, format_instant(epoch.began_ms), "with cursor=start")
        position = StreamPosition(int(match[1]), int(match[2] or match[1]))
        # What is not there yet was lost since, without a new epoch: that must not pass unnoticed.
        if position.whole <= position.shown <= head:
            return position
    raise Invalid(name, hint)
