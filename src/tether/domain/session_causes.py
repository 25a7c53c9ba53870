"""Which event caused a flag of a session: found by the rules that make the session."""

from collections.abc import Generator, Sequence, Set
from itertools import groupby

import msgspec

from tether.domain.earlier_sessions import EventPosition, SessionContext
from tether.domain.models import Event
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import OrderedEvent, PeriodRecord, SessionRecord
from tether.domain.session_views import StoredSession, session_of
from tether.domain.views import Flag

MAX_AT_ONCE = 50  # events of one instant; with more, none of them is a cause


class _FlagWatcher(SessionBuilder):
    """Takes events, and notes after which of them the session has a new flag."""

    def __init__(self, known: StoredSession, context: SessionContext) -> None:
        super().__init__(context=context)
        self._known = known
        self._names: Set[str] = frozenset()
        self._periods = 0
        self.found: list[tuple[str, Flag]] = []
        """Ids of events, each with its flag."""
        self.watches = True

    def _take(self, position: EventPosition, event: Event, taken: list[OrderedEvent]) -> None:
        before = self.session
        super()._take(position, event, taken)
        session = next(filter(self._is_the_one, (self.session, before)), None)
        if session is None or not self.watches:
            return
        if len(session.periods) > self._periods:  # a new period begins without flags
            self._names &= self._flags(session, []).keys()
        flags = self._flags(session, session.periods[-1:])
        event_id = event.id or ""
        self.found += ((event_id, flag) for name, flag in flags.items() if name not in self._names)
        if len(session.periods) == self._periods:  # a flag that is gone had no cause
            for name in self._names - flags.keys():
                self._forget(name)
        self._names, self._periods = flags.keys(), len(session.periods)

    def _forget(self, name: str) -> None:
        """Removes the last cause of this flag."""
        indexes = [index for index, (_, flag) in enumerate(self.found) if flag.name == name]
        if indexes:
            del self.found[indexes[-1]]

    def _is_the_one(self, session: SessionRecord | None) -> bool:
        return session is not None and session.start == self._known.record.start

    def _flags(self, session: SessionRecord, periods: list[PeriodRecord]) -> dict[str, Flag]:
        """The flags of the session so far, with only these periods."""
        part = msgspec.structs.replace(session, periods=periods, reports=[])
        return {flag.name: flag for flag in session_of(self._known._replace(record=part)).flags}


def causes_of(
    known: StoredSession, before: SessionContext, events: Sequence[OrderedEvent]
) -> Generator[None, None, dict[str, list[Flag]]]:
    """The flags of the session, by the id of the event that caused each.

    `before` is the session's context. `events` are the vehicle's events from the start of the
    session on, in order. The work happens during the iteration: there may be many events. A flag
    that none of them caused is left out.
    """
    builder = _FlagWatcher(known, before)
    for _, together in groupby(events, key=lambda event: event.position.at_ms):
        instant = [event for event in together if event.position.seq not in before.taken]
        builder.watches = len(instant) <= MAX_AT_ONCE
        builder.take(instant)
        yield
    lasting = {flag.name for flag in session_of(known).flags}
    causes: dict[str, list[Flag]] = {}
    for event_id, flag in builder.found:
        if flag.name in lasting and flag not in causes.get(event_id, ()):
            causes.setdefault(event_id, []).append(flag)
    return causes
