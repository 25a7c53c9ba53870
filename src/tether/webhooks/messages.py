"""The messages that entries of the log lead to, and those that an id names."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple, TypeAlias

import msgspec

from tether.domain.errors import NotFound
from tether.domain.filters import EventFilter, SessionFilter
from tether.domain.models import ERASED, Event, Withdrawal, from_json
from tether.domain.session_views import (
    StoredSession,
    charger_state,
    session_of,
    vehicle_state,
)
from tether.domain.timestamps import parse_instant
from tether.domain.webhooks import (
    LAST_ID,
    OF_EVENTS,
    Endpoint,
    LogPosition,
    Message,
    MessageId,
    MessageType,
    message_id_in,
    message_of,
)
from tether.server.store import Store
from tether.storage.events import EVENTS, WITHDRAWALS
from tether.storage.states import AtCharger
from tether.storage.webhooks import Parked

PORTION = 100  # entries of the log


Advance: TypeAlias = Callable[[LogPosition], LogPosition]
"""Moves a position behind an entry of the log."""


class Entry(NamedTuple):
    """What one entry of the log leads to for an endpoint, and how its position moves behind it."""

    messages: Sequence[Message]
    advance: Advance


class Messages:
    """The messages of all partners. Every method raises Unavailable."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def next_entries(self, endpoint: Endpoint) -> list[Entry]:
        """The next entries behind the position, of both orders; none if there are no more.

        A message that failed comes first, so that nothing else takes its turn.
        """
        orders = [self._events, self._sessions]
        head = message_id_in(endpoint.head)
        if head is not None and head.type not in OF_EVENTS:
            orders.reverse()
        return [entry for order in orders for entry in await order(endpoint)]

    async def parked_due(self, webhook: Endpoint, limit: int) -> list[Parked]:
        """The parked messages whose turn it is."""
        return await self._store.webhooks.parked_due(
            webhook.partner, webhook.id, self._now_ms(), limit
        )

    async def of_id(self, webhook: Endpoint, text: str) -> Message | None:
        """The message of this id, unless what it is about is gone or there is a newer one."""
        named = message_id_in(text)
        if named is None:
            return None
        of_kind = self._event if named.type in OF_EVENTS else self._session
        return await of_kind(webhook.partner, named)

    async def _event(self, partner: int, named: MessageId) -> Message | None:
        if named.type is MessageType.EVENT_CREATED:
            found = await self._store.webhooks.event(partner, named.object_id)
            return None if found is None else _event_created(*found)
        found = await self._store.webhooks.withdrawal(partner, named.object_id)
        return None if found is None else _event_withdrawn(*found)

    async def _session(self, partner: int, named: MessageId) -> Message | None:
        try:
            known = await self._store.sessions.get(partner, named.object_id, with_removed=True)
        except NotFound:
            return None
        # Nobody else tells that it started: the queue has the newer version.
        is_start = named.type is MessageType.SESSION_STARTED and not known.removed
        if known.version != named.version and not is_start:
            return None
        if "state" in named.type:
            return await self._state(partner, known, named.type)
        return _of_session(known, named.type, session_of(known), named.version)

    async def _events(self, webhook: Endpoint) -> list[Entry]:
        """Events and their withdrawals, in the order of the log."""
        if not webhook.wants_events:
            return []
        partner = webhook.partner
        end = (await self._store.webhooks.heads(partner)).seq
        if end <= webhook.position.seq:
            return []
        wanted = EventFilter(charger_id=webhook.charger_id, vehicle_id=webhook.vehicle_id)
        messages: list[tuple[int, Message]] = []
        for kind, table, message in (
            (MessageType.EVENT_CREATED, EVENTS, _event_created),
            (MessageType.EVENT_WITHDRAWN, WITHDRAWALS, _event_withdrawn),
        ):
            if kind in webhook.types:
                found, stop = await self._store.events.portion(
                    partner, wanted, webhook.position.seq, PORTION, table=table
                )
                messages += [(seq, message(seq, body)) for seq, body in found]
                # No further than both were read.
                end = min(end, found[-1][0] if len(found) == PORTION else stop or end)
        messages.sort(key=itemgetter(0))
        entries = [Entry([message], _after_event(seq)) for seq, message in messages if seq <= end]
        return [*entries, Entry([], _after_event(end))]

    async def _sessions(self, webhook: Endpoint) -> list[Entry]:
        """Changes of sessions, in the order of their instants."""
        if not webhook.wants_sessions:
            return []
        partner, position = webhook.partner, webhook.position
        head_ms = (await self._store.webhooks.heads(partner)).session_ms
        after = (position.session_ms, position.session_id)
        if after >= (head_ms, LAST_ID):
            return []
        wanted = SessionFilter(
            charger_ids=(webhook.charger_id,) if webhook.charger_id else (),
            vehicle_ids=(webhook.vehicle_id,) if webhook.vehicle_id else (),
            updated_from_ms=position.session_ms,
        )
        found, stop = await self._store.sessions.page(partner, wanted, after, PORTION)
        shown = await self._shown(webhook, found)
        entries = []
        for known in found:
            change = _of_change(known, webhook, _is_known(known, position))
            messages = [
                message for message in [*change, *shown(known)] if message.id not in position.sent
            ]
            entries.append(Entry(messages, _after_session(known.updated_ms, known.id)))
        if stop is not None:
            entries.append(Entry([], _after_session(*stop)))
        elif len(found) < PORTION:
            # All that there was is sent, wherever it was when this began.
            entries.append(Entry([], partial(LogPosition.caught_up, at_ms=head_ms)))
        return entries

    async def _shown(
        self, webhook: Endpoint, found: Sequence[StoredSession]
    ) -> Callable[[StoredSession], list[Message]]:
        """What a change of a session says of the states of its vehicle and its charger."""
        partner, now_ms = webhook.partner, self._now_ms()
        vehicles = sorted({known.record.vehicle_id for known in found})
        chargers = sorted({known.record.charger_id for known in found})
        of_vehicles = (
            await self._store.states.of_vehicles(partner, vehicles)
            if vehicles and MessageType.VEHICLE_STATE_CHANGED in webhook.types else None
        )  # fmt: skip
        of_chargers = (
            await self._store.states.of_chargers(partner, chargers)
            if chargers and MessageType.CHARGER_STATE_CHANGED in webhook.types else None
        )  # fmt: skip

        def messages(known: StoredSession) -> list[Message]:
            states: list[Message] = []
            if known.record.vehicle_id == ERASED:  # nothing is left whose state there could be
                return states
            if of_vehicles is not None:
                latest = of_vehicles.get(known.record.vehicle_id)
                # A session of before says nothing of where the vehicle is now, nor that it is gone.
                if latest is None or known.record.start >= latest.record.start:
                    states.append(_vehicle(known, vehicle_state(
                        known.record.vehicle_id, latest, now_ms)))  # fmt: skip
            if of_chargers is not None:
                states.append(_charger(known, of_chargers[known.record.charger_id], now_ms))
            return states

        return messages

    async def _state(self, partner: int, known: StoredSession, kind: MessageType) -> Message | None:
        now_ms = self._now_ms()
        if kind is MessageType.VEHICLE_STATE_CHANGED:
            vehicle = known.record.vehicle_id
            latest = (await self._store.states.of_vehicles(partner, [vehicle])).get(vehicle)
            return _vehicle(known, vehicle_state(vehicle, latest, now_ms))
        charger = known.record.charger_id
        there = (await self._store.states.of_chargers(partner, [charger]))[charger]
        return _charger(known, there, now_ms)


def _event_created(seq: int, body: str) -> Message:
    event = from_json(Event, body)
    return _of_event(MessageType.EVENT_CREATED, event, seq, event.at_ms, msgspec.Raw(body.encode()))


def _event_withdrawn(seq: int, body: str) -> Message:
    gone = _withdrawal.decode(body)
    return _of_event(MessageType.EVENT_WITHDRAWN, gone, seq, parse_instant(gone.withdrawn_at), gone)


_withdrawal = msgspec.json.Decoder(Withdrawal)


def _of_event(
    kind: MessageType, about: Event | Withdrawal, seq: int, at_ms: int, shown: object
) -> Message:
    assert about.id is not None
    ids = {
        "eventId": about.id, "chargerId": about.charger_id, "vehicleId": about.vehicle_id,
        "sequence": seq,
    }  # fmt: skip
    return message_of(kind, str(MessageId(kind, about.id, 0)), at_ms, ids, shown)


def _is_known(known: StoredSession, position: LogPosition) -> bool | None:
    """Whether an endpoint at this position has been told of the session; None if nobody can say.

    It depends on where it has been since the session was first there, not on its versions.
    """
    if not known.created_ms:
        return known.version > 1
    if known.created_ms <= position.caught_up_ms:
        return True
    was_behind = (known.created_ms, known.id) > (position.session_ms, position.session_id)
    return False if was_behind and not any(known.id in id for id in position.sent) else None


def _of_change(known: StoredSession, webhook: Endpoint, is_known: bool | None) -> list[Message]:
    """What a change of a session tells, of what is wanted. Better two starts than none."""
    if known.removed:
        kinds = [] if is_known is False else [MessageType.SESSION_REMOVED]
    else:
        starts = not is_known and MessageType.SESSION_STARTED in webhook.types
        kinds = [MessageType.SESSION_STARTED] if starts else []
        if known.record.end_ms is not None:
            kinds.append(MessageType.SESSION_ENDED)
        elif is_known or (is_known is None and not starts):
            kinds.append(MessageType.SESSION_UPDATED)
    return [_of_session(known, kind, session_of(known)) for kind in kinds if kind in webhook.types]


def _vehicle(known: StoredSession, state: object) -> Message:
    return _of_session(known, MessageType.VEHICLE_STATE_CHANGED, state, without="chargerId")


def _charger(known: StoredSession, found: AtCharger, now_ms: int) -> Message:
    state = charger_state(
        known.record.charger_id, found.sessions, found.last_event, now_ms, more=found.more
    )
    return _of_session(known, MessageType.CHARGER_STATE_CHANGED, state, without="vehicleId")


def _of_session(
    known: StoredSession,
    kind: MessageType,
    shown: object,
    version: int | None = None,
    *,
    without: str = "",
) -> Message:
    """The message about a change of a session, of this version or its newest; `without` the id
    that it says nothing about.
    """
    ids: dict[str, object] = {
        "sessionId": known.id, "chargerId": known.record.charger_id,
        "vehicleId": known.record.vehicle_id, "version": known.version,
    }  # fmt: skip
    ids.pop(without, None)
    id = MessageId(kind, known.id, known.version if version is None else version)
    return message_of(kind, str(id), known.updated_ms, ids, shown)


def _after_event(seq: int) -> Advance:
    return partial(LogPosition.after_event, seq=seq)


def _after_session(at_ms: int, session_id: str) -> Advance:
    return partial(LogPosition.after_session, at_ms=at_ms, session_id=session_id)
