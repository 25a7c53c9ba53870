"""The messages for an endpoint: those that follow its position in the log, and those by id."""

from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import msgspec

from tether.domain.errors import NotFound
from tether.domain.filters import EventFilter, SessionFilter
from tether.domain.models import ERASED, Event, Withdrawal, from_json
from tether.domain.session_views import (
    ChargerOccupancy,
    LatestSession,
    StoredSession,
    charger_state,
    session_of,
    vehicle_state,
)
from tether.domain.timestamps import parse_instant
from tether.domain.webhooks import (
    OF_EVENTS,
    Endpoint,
    LogPosition,
    Message,
    MessageId,
    MessageType,
    event_message,
    message_id_in,
    message_of,
)
from tether.projections.change_feed import next_entries
from tether.server.store import Store
from tether.storage.events import EVENTS, WITHDRAWALS
from tether.storage.webhooks import Parked

SESSIONS_AT_ONCE = 100

Advance: TypeAlias = Callable[[LogPosition], LogPosition]
"""Returns the position after a step, given the position before it."""


class Step(NamedTuple):
    """A message to send, or None, and how the position of the endpoint moves when it is sent."""

    message: Message | None
    advance: Advance


class _States(NamedTuple):
    """The states of some vehicles and chargers."""

    vehicles: dict[str, LatestSession | None]
    chargers: dict[str, ChargerOccupancy]


class Messages:
    """The messages of all partners. Every method raises Unavailable."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def next_steps(self, endpoint: Endpoint) -> list[Step]:
        """The next steps after the position: events, and changes of sessions. Empty if there are no
        more.

        A message that failed stays the first one.
        """
        sources = [self._events, self._sessions]
        head = message_id_in(endpoint.head)
        if head is not None and head.type not in OF_EVENTS:
            sources.reverse()
        return [step for source in sources for step in await source(endpoint)]

    async def parked_due(self, endpoint: Endpoint, limit: int) -> list[Parked]:
        """The parked messages that are due."""
        return await self._store.webhooks.parked_due(
            endpoint.partner, endpoint.id, self._now_ms(), limit
        )

    async def of_id(self, endpoint: Endpoint, text: str) -> Message | None:
        """The message with this id. None if its object is gone, or a newer message replaces it."""
        message_id = message_id_in(text)
        if message_id is None:
            return None
        find = self._event if message_id.type in OF_EVENTS else self._session
        return await find(endpoint.partner, message_id)

    async def _event(self, partner: int, message_id: MessageId) -> Message | None:
        table, message = _EVENT_MESSAGES[message_id.type]
        entry = await self._store.webhooks.log_entry(partner, message_id.object_id, table)
        return None if entry is None else message(*entry)

    async def _session(self, partner: int, message_id: MessageId) -> Message | None:
        try:
            session = await self._store.sessions.get(
                partner, message_id.object_id, with_removed=True
            )
        except NotFound:
            return None
        # A start is sent in any version, because no later message reports it.
        is_start = message_id.type is MessageType.SESSION_STARTED and not session.removed
        if session.version != message_id.version and not is_start:
            return None
        if "state" in message_id.type:
            return await self._state(partner, session, message_id.type)
        message = _of_session(session, message_id.type, session_of(session))
        return message._replace(id=str(message_id))

    async def _state(self, partner: int, session: StoredSession, kind: MessageType) -> Message:
        now_ms = self._now_ms()
        states = await self._states(partner, {kind}, [session])
        if kind is MessageType.VEHICLE_STATE_CHANGED:
            return _vehicle_message(session, states.vehicles[session.record.vehicle_id], now_ms)
        return _charger_message(session, states.chargers[session.record.charger_id], now_ms)

    async def _events(self, endpoint: Endpoint) -> list[Step]:
        """Events and their withdrawals, in the order of the log."""
        if not endpoint.wants_events:
            return []
        partner = endpoint.partner
        end = (await self._store.webhooks.end_of_log(partner)).seq
        if end <= endpoint.position.seq:
            return []
        wanted = EventFilter(charger_id=endpoint.charger_id, vehicle_id=endpoint.vehicle_id)
        messages = {
            table: message for kind, (table, message) in _EVENT_MESSAGES.items()
            if kind in endpoint.types
        }  # fmt: skip
        entries, end = await next_entries(
            self._store.events, partner, wanted, endpoint.position.seq, until=end, tables=messages
        )
        return [
            *(
                Step(messages[table](seq, body), partial(LogPosition.after_event, seq=seq))
                for seq, table, body in entries
            ),
            Step(None, partial(LogPosition.after_event, seq=end)),
        ]

    async def _sessions(self, endpoint: Endpoint) -> list[Step]:
        """Changes of sessions, in the order of their instants."""
        if not endpoint.wants_sessions:
            return []
        partner, position = endpoint.partner, endpoint.position
        end = await self._store.webhooks.end_of_log(partner)
        after = (position.session_ms, position.session_id)
        if after >= (end.session_ms, end.session_id):
            return []
        wanted = SessionFilter(
            charger_ids=(endpoint.charger_id,) if endpoint.charger_id else (),
            vehicle_ids=(endpoint.vehicle_id,) if endpoint.vehicle_id else (),
            updated_from_ms=position.session_ms,
        )
        found, stop = await self._store.sessions.page(partner, wanted, after, SESSIONS_AT_ONCE)
        now_ms = self._now_ms()
        states = await self._states(partner, endpoint.types, found)
        steps: list[Step] = []
        for session in found:
            changes = _change_messages(session, endpoint)
            messages = [
                message for message in [*changes, *_state_messages(session, states, now_ms)]
                if message.id not in position.sent
            ]  # fmt: skip
            steps += _steps_of(session, messages)
        if stop is not None:
            at_ms, session_id = stop
            after_stop = partial(LogPosition.after_session, at_ms=at_ms, session_id=session_id)
            steps.append(Step(None, after_stop))
        else:
            # After this step all changes up to the end of the log are sent.
            steps.append(Step(None, partial(LogPosition.caught_up, at_ms=end.session_ms)))
        return steps

    async def _states(
        self, partner: int, types: Container[MessageType], sessions: Sequence[StoredSession]
    ) -> _States:
        """The states of the vehicles and chargers of these sessions, if messages on them are of
        these types.
        """
        vehicles, chargers = set[str](), set[str]()
        if MessageType.VEHICLE_STATE_CHANGED in types:
            vehicles = {session.record.vehicle_id for session in sessions}
        if MessageType.CHARGER_STATE_CHANGED in types:
            chargers = {session.record.charger_id for session in sessions}
        stored = self._store.states
        return _States(
            await stored.of_vehicles(partner, sorted(vehicles)) if vehicles else {},
            await stored.of_chargers(partner, sorted(chargers)) if chargers else {},
        )


def _steps_of(session: StoredSession, messages: Sequence[Message]) -> Iterable[Step]:
    """The steps of one change of a session. The position moves behind the change with its last
    message. Until then it remembers the messages that were sent.
    """
    for message in messages[:-1]:
        yield Step(message, partial(LogPosition.after_message, message_id=message.id))
    yield Step(
        messages[-1] if messages else None,
        partial(LogPosition.after_session, at_ms=session.updated_ms, session_id=session.id),
    )


def _event_created(seq: int, body: str) -> Message:
    event = from_json(Event, body)
    shown = msgspec.Raw(body.encode())
    return event_message(MessageType.EVENT_CREATED, event, seq, event.at_ms, shown)


def _event_withdrawn(seq: int, body: str) -> Message:
    withdrawal = from_json(Withdrawal, body)
    withdrawn_ms = parse_instant(withdrawal.withdrawn_at)
    return event_message(MessageType.EVENT_WITHDRAWN, withdrawal, seq, withdrawn_ms, withdrawal)


_EVENT_MESSAGES = {
    MessageType.EVENT_CREATED: (EVENTS, _event_created),
    MessageType.EVENT_WITHDRAWN: (WITHDRAWALS, _event_withdrawn),
}


def _change_messages(session: StoredSession, endpoint: Endpoint) -> list[Message]:
    """The messages on a change of a session that the endpoint wants.

    If it is unknown whether a start was sent, it is sent again.
    """
    was_sent = _was_sent(session, endpoint.position)
    if session.removed:
        # A process that was killed may have sent its start without storing that.
        kinds = [MessageType.SESSION_REMOVED]
    else:
        starts = not was_sent and MessageType.SESSION_STARTED in endpoint.types
        kinds = [MessageType.SESSION_STARTED] if starts else []
        if session.record.end_ms is not None:
            kinds.append(MessageType.SESSION_ENDED)
        elif was_sent or (was_sent is None and not starts):
            kinds.append(MessageType.SESSION_UPDATED)
    return [
        _of_session(session, kind, session_of(session))
        for kind in kinds if kind in endpoint.types
    ]  # fmt: skip


def _was_sent(session: StoredSession, position: LogPosition) -> bool | None:
    """Whether an endpoint at this position has received the session; None if that is unknown.

    This depends on the positions of the endpoint since the session was created, not on versions.
    """
    if not session.created_ms:
        return session.version > 1
    if session.created_ms <= position.caught_up_ms:
        return True
    was_behind = (session.created_ms, session.id) > (position.session_ms, position.session_id)
    return False if was_behind and not any(session.id in id for id in position.sent) else None


def _state_messages(session: StoredSession, states: _States, now_ms: int) -> list[Message]:
    """The messages on the states of the vehicle and the charger after a change of a session."""
    messages: list[Message] = []
    vehicle, charger = session.record.vehicle_id, session.record.charger_id
    if vehicle == ERASED:  # it has no state any more
        return messages
    if vehicle in states.vehicles:
        latest = states.vehicles[vehicle]
        # A change of an earlier session does not change the vehicle's state.
        if latest is None or session.record.start >= latest.record.start:
            messages.append(_vehicle_message(session, latest, now_ms))
    if charger in states.chargers:
        messages.append(_charger_message(session, states.chargers[charger], now_ms))
    return messages


def _vehicle_message(session: StoredSession, latest: LatestSession | None, now_ms: int) -> Message:
    state = vehicle_state(session.record.vehicle_id, latest, now_ms)
    return _of_session(session, MessageType.VEHICLE_STATE_CHANGED, state, without="chargerId")


def _charger_message(session: StoredSession, occupancy: ChargerOccupancy, now_ms: int) -> Message:
    state = charger_state(session.record.charger_id, occupancy, now_ms)
    return _of_session(session, MessageType.CHARGER_STATE_CHANGED, state, without="vehicleId")


def _of_session(
    session: StoredSession, kind: MessageType, shown: object, *, without: str = ""
) -> Message:
    """The message on the newest change of a session; `without` is the id that it lacks, because it
    is not about that object.
    """
    ids: dict[str, object] = {
        "sessionId": session.id, "chargerId": session.record.charger_id,
        "vehicleId": session.record.vehicle_id, "version": session.version,
    }  # fmt: skip
    ids.pop(without, None)
    id = MessageId(kind, session.id, session.version)
    return message_of(kind, str(id), session.updated_ms, ids, shown)
