"""The stream of events and states, as Server-Sent Events (an addition to the reference)."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

import structlog
from falcon.asgi import Response

from tether.domain.errors import EpochChanged, Forbidden, Invalid, Unavailable
from tether.domain.filters import EventFilter
from tether.domain.models import to_json
from tether.domain.session_views import vehicle_state
from tether.domain.timestamps import format_instant
from tether.http import pagination, requests
from tether.http.handlers.events import filter_of
from tether.http.requests import ApiRequest
from tether.projections.change_feed import Listener
from tether.server.authenticator import Authenticator
from tether.server.event_streams import EventStreams, StreamBody, wait_for_disconnect
from tether.server.metrics import Metrics
from tether.server.store import Store
from tether.storage.log_positions import Epoch

log = structlog.get_logger()

PARAMETERS = ("cursor", "chargerId", "vehicleId", "type")
MAX_STREAMS = 64  # of one partner in one process
HEARTBEAT_S = 15.0  # without data; many proxies hang up after 60 s
TICK_S = 0.5  # between checks of the key: the stream of a revoked key ends within 2 s
RETRY_MS = 1000  # until a browser connects again

_POSITION = re.compile(r"([0-9]{1,18})(?: ([0-9]{1,18}))?")


class StreamPosition(NamedTuple):
    """The position of a client: it has the events up to `event_seq`, and their states up to
    `state_seq`.

    States follow the events from which they were derived. A client that continues between the two
    gets the missing states, and no event again.
    """

    event_seq: int
    state_seq: int

    def id(self, epoch: Epoch) -> str:
        """The position as clients get it."""
        text = str(self.event_seq)
        if self.state_seq != self.event_seq:
            text += f" {self.state_seq}"
        return pagination.cursor_text(epoch.id, text)


class StreamResource:
    """`/stream`: events and withdrawals in the order of the commits, and the states that follow."""

    def __init__(
        self, store: Store, keys: Authenticator, metrics: Metrics, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._keys = keys
        self._now_ms = now_ms
        self._streams = EventStreams(store, MAX_STREAMS, metrics)

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        wanted, epoch, position = await self._begin(req, resp)
        self._streams.check_room(req.context.partner)
        stream = _Stream(self._store, self._keys, self._now_ms, req, wanted, epoch, position)
        resp.stream = self._streams.body(req.context.partner, stream.run())

    async def on_head(self, req: ApiRequest, resp: Response) -> None:
        await self._begin(req, resp)
        resp.stream = StreamBody(_nothing())  # without it Falcon would add a Content-Length

    async def _begin(
        self, req: ApiRequest, resp: Response
    ) -> tuple[EventFilter, Epoch, StreamPosition]:
        query = pagination.query_of(req, PARAMETERS)
        wanted, epoch = filter_of(query), await self._store.epochs.current()
        head, derived = await self._store.derivations.progress(req.context.partner)
        # The stream begins after all committed events, but their states may still follow.
        position = _position(req, query, epoch, head) or StreamPosition(max(head, derived), derived)
        pagination.show_epoch(resp, epoch)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")  # nginx would delay it
        return wanted, epoch, position


@dataclass(eq=False)
class _Stream:
    """The stream of one client. It reads from the database only what the client takes."""

    store: Store
    keys: Authenticator
    now_ms: Callable[[], int]
    req: ApiRequest
    wanted: EventFilter
    epoch: Epoch
    position: StreamPosition

    def __post_init__(self) -> None:
        self._secret = self.req.get_header("X-API-Key")
        self._key = requests.key_of(self.req)
        self._began = monotonic()
        self._checked = 0.0
        self._events = 0

    async def run(self) -> AsyncGenerator[str]:
        """The text to send, until the client leaves, the key is invalid or the server stops."""
        end, sent = "cut off", self._began
        with self.store.feed.listening(self._key.partner) as listener:
            leaving = asyncio.create_task(wait_for_disconnect(self.req, listener))
            try:
                # At once, so that the client knows its position.
                yield f": connected\nretry: {RETRY_MS}\nid: {self._id()}\n\n"
                while (reason := await self._reason_to_end(leaving)) is None:
                    text = await self._more(listener)
                    if not text and monotonic() - sent >= HEARTBEAT_S:
                        text = f": nothing new\nid: {self._id()}\n\n"
                    if text:
                        yield text
                        sent = monotonic()
                end = reason
            finally:
                leaving.cancel()
                self._log_end(end)

    def _id(self) -> str:
        return self.position.id(self.epoch)

    def _log_end(self, reason: str) -> None:
        """Logs the end of the stream. The line about the request was logged at its beginning."""
        log.info(
            "stream ended",
            request_id=self.req.context.request_id,
            partner=self._key.partner_name,
            key=self._key.prefix,
            reason=reason,
            events=self._events,
            s=round(monotonic() - self._began, 3),
        )

    async def _reason_to_end(self, leaving: "asyncio.Task[None]") -> str | None:
        if leaving.done():
            return "the client is gone"
        if self.store.feed.closed:
            return "the server stops"
        with suppress(Unavailable):  # then nothing can be read either
            if monotonic() - self._checked >= TICK_S:
                self._checked = monotonic()
                try:
                    await self.keys.authenticate(self._secret)
                except Forbidden:
                    return "the key works no more"
            if await self.store.epochs.current() != self.epoch:
                return "a new epoch began"
        return None

    async def _more(self, listener: Listener) -> str:
        """The next portion, or nothing after waiting a little."""
        try:
            if listener.derived > self.position.state_seq:
                return await self._portion(listener.derived)
        except Unavailable:
            pass
        await listener.wait(TICK_S)
        return ""

    async def _portion(self, until: int) -> str:
        event_seq, state_seq = self.position
        portion = await self.store.feed.portion(self._key.partner, self.wanted, state_seq, until)
        entries = [entry for entry in portion.entries if entry.seq > event_seq]
        end = StreamPosition(max(portion.end, event_seq), portion.end)
        # Without states, the last entry completes the portion.
        positions = [StreamPosition(entry.seq, state_seq) for entry in entries]
        if positions and not portion.latest:
            positions[-1] = end
        texts = [
            f"event: {table.removesuffix('s')}\nid: {position.id(self.epoch)}\ndata: {body}\n\n"
            for position, (_, table, body) in zip(positions, entries, strict=True)
        ]
        now_ms = self.now_ms()
        for number, (id, latest) in enumerate(portion.latest.items(), 1):
            state = to_json(vehicle_state(id, latest, now_ms)).decode()
            is_last = number == len(portion.latest)
            id_line = f"id: {end.id(self.epoch)}\n" if is_last else ""
            texts.append(f"event: state\n{id_line}data: {state}\n\n")
        self.position = end
        self._events += len(entries)
        return "".join(texts)


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield b""


# Positions ---------------------------------------------------------------------------------------


def _position(
    req: ApiRequest, query: dict[str, str], epoch: Epoch, head: int
) -> StreamPosition | None:
    """The position at which the client continues; None means now. `head` is the last event.

    A client that reconnects automatically sends the id and the cursor. The id is newer.
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
    epoch_id, text = pagination.position_in(text)
    match = _POSITION.fullmatch(text)
    if match is not None:
        if epoch_id != epoch.id:
            raise EpochChanged(name, format_instant(epoch.began_ms), "with cursor=start")
        position = StreamPosition(int(match[1]), int(match[2] or match[1]))
        # A position after the last event means that events were lost without a new epoch.
        if position.state_seq <= position.event_seq <= head:
            return position
    raise Invalid(name, hint)
