"""What of the sessions that events make is not stored just so."""

from collections.abc import Iterable

from tether.domain.charge_period import Report
from tether.storage.session_records import Change, Derived, Stored, text_of


def compared(
    wanted: Iterable[Derived],
    known: Iterable[Stored],
    until_ms: int | None = None,
) -> list[Change]:
    """What of the wanted sessions is not stored just so, and what is stored beyond.

    What events after `until_ms` told of them remains.
    """
    missing = {session.start: (session, before) for session, before in wanted}
    changes = []
    for row, version in known:
        found = missing.pop(row.start, None)
        if found is None:
            changes.append(Change(*row.derived, live=False))
            continue
        if until_ms is not None:
            found[0].reports = [*found[0].reports, *reports_after(row.ties.reports, until_ms)]
        should = Change(*found).row
        if version is None or should != row:
            seen = version is None or should.shown != row.shown
            changes.append(Change(*found, visible=seen))
    return changes + [Change(*begun) for begun in missing.values()]


def is_again(begun: Derived, stored: Stored) -> bool:
    """Whether the session begins as it is stored: then all that follows is as it is stored."""
    session, before = begun
    return session.start == stored.row.start and text_of(before) == stored.row.before


def reports_after(reports: list[Report], until_ms: int | None) -> list[Report]:
    """Those of events after the instant; none without one."""
    return [one for one in reports if until_ms is not None and one.at_ms > until_ms]
