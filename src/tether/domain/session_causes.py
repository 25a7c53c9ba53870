"""Which event is to blame for what is odd about a session: told by the rules that derive it."""

from collections.abc import Generator, Sequence, Set
from itertools import groupby

import msgspec

from tether.domain.charge_period import PeriodRecord
from tether.domain.earlier_sessions import SessionContext
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import OrderedEvent, SessionRecord
from tether.domain.session_views import StoredSession, session_of
from tether.domain.views import Flag

MOST_AT_ONCE = 50  # events of one instant that are looked at one by one


class _Watched(SessionBuilder):
    """Takes in events, and notices behind which of them the session has a flag that it had not."""

    def __init__(self, known: StoredSession, before: SessionContext) -> None:
        super().__init__(before=before)
        self._known = known
        self._names: Set[str] = frozenset()
        self._periods = 0
        self.found: list[tuple[str, Flag]] = []
        """Ids of events, each with a flag."""
        self.watches = True

    def _take(self, one: OrderedEvent, taken: list[OrderedEvent]) -> None:
        before = self.session
        super()._take(one, taken)
        session = next(filter(self._is_the_one, (self.session, before)), None)
        if session is None or not self.watches:
            return
        if len(session.periods) > self._periods:  # each has what is odd about it anew
            self._names &= self._flags(session, []).keys()
        flags = self._flags(session, session.periods[-1:])
        event_id = one.event.id or ""
        self.found += ((event_id, flag) for name, flag in flags.items() if name not in self._names)
        if len(session.periods) == self._periods:  # what is odd no more was not odd
            for name in self._names - flags.keys():
                self._forget(name)
        self._names, self._periods = flags.keys(), len(session.periods)

    def _forget(self, name: str) -> None:
        """The event behind which the session had this flag last has not caused it."""
        places = [place for place, (_, flag) in enumerate(self.found) if flag.name == name]
        if places:
            del self.found[places[-1]]

    def _is_the_one(self, session: SessionRecord | None) -> bool:
        return session is not None and session.start == self._known.record.start

    def _flags(self, session: SessionRecord, periods: list[PeriodRecord]) -> dict[str, Flag]:
        """What is odd about the session so far, if it has these periods alone."""
        part = msgspec.structs.replace(session, periods=periods, reports=[])
        return {flag.name: flag for flag in session_of(self._known._replace(record=part)).flags}


def causes_of(
    known: StoredSession, before: SessionContext, events: Sequence[OrderedEvent]
) -> Generator[None, None, dict[str, list[Flag]]]:
    """The flags of the session by the id of the event behind which it first had each.

    `before` is what it knows of the time before it, and `events` are those of the vehicle from its
    start on, in order. Does so as it is iterated over, as there may be many. What no event here is
    to blame for has none.
    """
    builder = _Watched(known, before)
    for _, together in groupby(events, key=lambda one: one.position.at_ms):
        instant = [one for one in together if one.position.seq not in before.taken]
        builder.watches = len(instant) <= MOST_AT_ONCE
        builder.take(instant)
        yield
    lasting = {flag.name for flag in session_of(known).flags}
    causes: dict[str, list[Flag]] = {}
    for event_id, flag in builder.found:
        if flag.name in lasting and flag not in causes.get(event_id, ()):
            causes.setdefault(event_id, []).append(flag)
    return causes
