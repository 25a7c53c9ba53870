"""The messages that entries of the log lead to, and those that an id names."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

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
    Message,
    MessageId,
    MessageType,
    Place,
    message_id_in,
    message_of,
)
from tether.server.store import Store
from tether.storage.events import EVENTS, WITHDRAWALS
from tether.storage.states import AtCharger
from tether.storage.webhook_rows import Parked

PORTION = 100  # entries of the log


class Entry(NamedTuple):
    """What one entry of the log leads to for an endpoint, and the place behind it."""

    messages: Sequence[Message]
    behind: Callable[[Place], Place]


class Messages:
    """The messages of all partners. Every method raises Unavailable."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def following(self, webhook: Endpoint, place: Place) -> list[Entry]:
        """The next entries behind the place, of both orders; none if there are no more.

        A message that failed comes first, so that nothing else takes its turn.
        """
        orders = [self._events, self._sessions]
        head = message_id_in(webhook.head)
        if head is not None and head.type not in OF_EVENTS:
            orders.reverse()
        return [entry for order in orders for entry in await order(webhook, place)]

    async def parked_due(self, webhook: Endpoint, limit: int) -> list[Parked]:
        """The messages beside the line whose turn it is."""
        return await self._store.webhooks.parked_due(
            webhook.partner, webhook.id, self._now_ms(), limit
        )

    async def of_id(self, webhook: Endpoint, text: str) -> Message | None:
        """The message of this id, unless what it told of is gone or told of anew."""
        named = message_id_in(text)
        if named is None:
            return None
        of_kind = self._of_event if named.type in OF_EVENTS else self._of_session
        return await of_kind(webhook.partner, named)

    async def _of_event(self, partner: int, named: MessageId) -> Message | None:
        if named.type is MessageType.EVENT_CREATED:
            found = await self._store.webhooks.event(partner, named.object_id)
            return None if found is None else _event_created(*found)
        found = await self._store.webhooks.withdrawal(partner, named.object_id)
        return None if found is None else _event_withdrawn(*found)

    async def _of_session(self, partner: int, named: MessageId) -> Message | None:
        try:
            known = await self._store.sessions.get(partner, named.object_id, with_removed=True)
        except NotFound:
            return None
        # Nobody else tells that it started: not the line, which tells of the newer version.
        is_start = named.type is MessageType.SESSION_STARTED and not known.removed
        if known.version != named.version and not is_start:
            return None
        if "state" in named.type:
            return await self._state(partner, known, named.type)
        return _of_session(known, named.type, named.version)

    async def _events(self, webhook: Endpoint, place: Place) -> list[Entry]:
        """Events and their withdrawals, in the order of the log."""
        if not webhook.wants_events:
            return []
        partner = webhook.partner
        end = (await self._store.webhooks.heads(partner)).seq
        if end <= place.seq:
            return []
        wanted = EventFilter(charger_id=webhook.charger_id, vehicle_id=webhook.vehicle_id)
        told: list[tuple[int, Message]] = []
        for kind, table, message in (
            (MessageType.EVENT_CREATED, EVENTS, _event_created),
            (MessageType.EVENT_WITHDRAWN, WITHDRAWALS, _event_withdrawn),
        ):
            if kind in webhook.types:
                found, stop = await self._store.events.portion(
                    partner, wanted, place.seq, PORTION, table=table
                )
                told += [(seq, message(seq, body)) for seq, body in found]
                # No further than both were read.
                end = min(end, found[-1][0] if len(found) == PORTION else stop or end)
        told.sort(key=lambda one: one[0])
        entries = [Entry([message], _behind_event(seq)) for seq, message in told if seq <= end]
        return [*entries, Entry([], _behind_event(end))]

    async def _sessions(self, webhook: Endpoint, place: Place) -> list[Entry]:
        if not webhook.wants_sessions:
            return []
        partner = webhook.partner
        head_ms = (await self._store.webhooks.heads(partner)).session_ms
        after = (place.session_ms, place.session_id)
        if after >= (head_ms, LAST_ID):
            return []
        wanted = SessionFilter(
            charger_ids=(webhook.charger_id,) if webhook.charger_id else (),
            vehicle_ids=(webhook.vehicle_id,) if webhook.vehicle_id else (),
            updated_from_ms=place.session_ms,
        )
        found, stop = await self._store.sessions.page(partner, wanted, after, PORTION)
        shown = await self._shown(webhook, found)
        entries = []
        for known in found:
            change = _of_change(known, webhook, _is_told(known, place))
            messages = [
                message for message in [*change, *shown(known)] if message.id not in place.passed
            ]
            entries.append(Entry(messages, _behind_session(known.updated_ms, known.id)))
        if stop is not None:
            entries.append(Entry([], _behind_session(*stop)))
        elif len(found) < PORTION:
            # All that there was is told, wherever it was when this began.
            entries.append(Entry([], _behind_session(head_ms, LAST_ID, told_ms=head_ms)))
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
            told: list[Message] = []
            if known.record.vehicle_id == ERASED:  # nothing is left whose state there could be
                return told
            if of_vehicles is not None:
                latest = of_vehicles.get(known.record.vehicle_id)
                # A session of before says nothing of where the vehicle is now.
                if known.removed or latest is None or latest.record.id == known.id:
                    told.append(_vehicle(known, vehicle_state(
                        known.record.vehicle_id, latest, now_ms)))  # fmt: skip
            if of_chargers is not None:
                told.append(_charger(known, of_chargers[known.record.charger_id], now_ms))
            return told

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
    kind = MessageType.EVENT_CREATED
    assert event.id is not None
    ids = {
        "eventId": event.id, "chargerId": event.charger_id, "vehicleId": event.vehicle_id,
        "sequence": seq,
    }  # fmt: skip
    id = str(MessageId(kind, event.id, 0))
    return message_of(kind, id, event.at_ms, ids, msgspec.Raw(body.encode()))


def _event_withdrawn(seq: int, body: str) -> Message:
    gone = _withdrawal.decode(body)
    kind = MessageType.EVENT_WITHDRAWN
    ids = {
        "eventId": gone.id, "chargerId": gone.charger_id, "vehicleId": gone.vehicle_id,
        "sequence": seq,
    }  # fmt: skip
    at_ms = parse_instant(gone.withdrawn_at)
    return message_of(kind, str(MessageId(kind, gone.id, 0)), at_ms, ids, gone)


_withdrawal = msgspec.json.Decoder(Withdrawal)


def _is_told(known: StoredSession, place: Place) -> bool | None:
    """Whether whoever is at the place has been told of the session; None if nobody knows.

    It depends on where it has been since the session was first there, not on its versions.
    """
    if not known.created_ms:
        return known.version > 1
    if known.created_ms <= place.told_ms:
        return True
    was_behind = (known.created_ms, known.id) > (place.session_ms, place.session_id)
    return False if was_behind and not any(known.id in id for id in place.passed) else None


def _of_change(known: StoredSession, webhook: Endpoint, is_told: bool | None) -> list[Message]:
    """What a change of a session tells, of what is wanted. Better two starts than none."""
    if known.removed:
        kinds = [] if is_told is False else [MessageType.SESSION_REMOVED]
    else:
        starts = not is_told and MessageType.SESSION_STARTED in webhook.types
        kinds = [MessageType.SESSION_STARTED] if starts else []
        if known.record.end_ms is not None:
            kinds.append(MessageType.SESSION_ENDED)
        elif is_told or (is_told is None and not starts):
            kinds.append(MessageType.SESSION_UPDATED)
    return [_of_session(known, kind, known.version) for kind in kinds if kind in webhook.types]


def _of_session(known: StoredSession, kind: MessageType, version: int) -> Message:
    id = str(MessageId(kind, known.id, version))
    return message_of(kind, id, known.updated_ms, _ids(known), session_of(known))


def _vehicle(known: StoredSession, state: object) -> Message:
    kind = MessageType.VEHICLE_STATE_CHANGED
    ids = {name: value for name, value in _ids(known).items() if name != "chargerId"}
    return message_of(
        kind, str(MessageId(kind, known.id, known.version)), known.updated_ms, ids, state
    )


def _charger(known: StoredSession, found: AtCharger, now_ms: int) -> Message:
    kind = MessageType.CHARGER_STATE_CHANGED
    there = [vehicle_state(latest.record.vehicle_id, latest, now_ms) for latest in found.sessions]
    state = charger_state(known.record.charger_id, there, found.last_event, now_ms, more=found.more)
    ids = {name: value for name, value in _ids(known).items() if name != "vehicleId"}
    return message_of(
        kind, str(MessageId(kind, known.id, known.version)), known.updated_ms, ids, state
    )


def _ids(known: StoredSession) -> dict[str, object]:
    return {
        "sessionId": known.id, "chargerId": known.record.charger_id,
        "vehicleId": known.record.vehicle_id, "version": known.version,
    }  # fmt: skip


def _behind_event(seq: int) -> Callable[[Place], Place]:
    return lambda place: place._replace(seq=max(place.seq, seq))


def _behind_session(at_ms: int, session_id: str, *, told_ms: int = 0) -> Callable[[Place], Place]:
    def behind(place: Place) -> Place:
        place = place._replace(told_ms=max(place.told_ms, told_ms))
        if (at_ms, session_id) < (place.session_ms, place.session_id):
            return place  # what was read last changed after the end was looked up
        return place._replace(session_ms=at_ms, session_id=session_id, passed=())

    return behind
