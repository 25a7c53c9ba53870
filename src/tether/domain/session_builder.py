"""The session builder: makes sessions and their charge periods of the events of one vehicle.

The sessions depend only on the set of the vehicle's events, never on the order of their arrival,
nor on the clock, the charger or the vehicle. The builder takes the events in the order of their
timestamps. Evidence decides what each event means: the session and the charge under way, and the
event's own time, energy and state of charge. Streams are dirty: no event is refused or corrected,
and an event that does not fit leaves a flag. docs/sessions.md has the rules in the words of users.
"""

from collections.abc import Iterable
from decimal import Decimal
from itertools import groupby

from tether.domain.charge_reports import (
    as_long,
    charges_that_may_go_on,
    goes_on,
    is_too_long,
    read_report,
    repeats_earlier,
    take_late_report,
)
from tether.domain.earlier_sessions import (
    MAX_REPORTS,
    RECENT,
    TOLERANCE_MS,
    EndedSession,
    EventPosition,
    LateReport,
    SessionContext,
    Start,
    milliseconds,
    session_of_report,
)
from tether.domain.joined_charges import joined
from tether.domain.models import Event, EventType
from tether.domain.session_record import (
    CONNECTED,
    DISCONNECTED,
    MAX_TAKEN,
    STARTED,
    STOPPED,
    UPDATED,
    OrderedEvent,
    PeriodRecord,
    SessionRecord,
    in_order,
)


class SessionBuilder:
    """Takes the events of one vehicle in the order of their instants.

    `session` is the last session so far, with its `context`. A builder may begin with any
    known session. `begun` has all sessions that began since, and `reports` the reports on earlier
    sessions.
    """

    def __init__(
        self, session: SessionRecord | None = None, context: SessionContext | None = None
    ) -> None:
        self.session = self._first = session
        self.context = context or SessionContext()
        self.begun: list[tuple[SessionRecord, SessionContext]] = []
        self.reports: list[tuple[Start, LateReport]] = []

    def take(self, events: Iterable[OrderedEvent]) -> "SessionBuilder":
        """Takes these events, which are in order. All events of an instant come in one call."""
        for _, group in groupby(events, key=lambda event: event.position.at_ms):
            instant = list(group)
            if len(instant) > 1:
                instant = in_order(self.session, instant)
            for number, event in enumerate(instant):
                self._take(*event, instant[:number])
        return self

    def _take(self, position: EventPosition, event: Event, taken: list[OrderedEvent]) -> None:
        """Takes the next event; `taken` are the events of its instant before it."""
        session = self.session
        begins = session is None or self._plugs_in(session, position, event)
        if session is None or begins:
            session = self._begin(position, event, taken)
        period = None
        elsewhere = session.charger_id != position.charger_id
        if elsewhere or session.end_ms is not None:
            self._report_to_ended(session, position, event)
        elif (event.charged_time or event.charged_energy) and (
            ended := self._earlier_session(session, position, event)
        ):
            self._report(session, ended, position, event)
        elif not (begins and position.rank == CONNECTED):
            period = session.charging
            _APPLY[position.rank](session, position, event)
        session.record_newest(position, event, elsewhere=elsewhere)
        session.read_soc(position, event, period, elsewhere=elsewhere)

    def _begin(
        self, position: EventPosition, event: Event, taken: list[OrderedEvent]
    ) -> SessionRecord:
        """Begins a session with this event; it ends the active one."""
        if (old := self.session) is not None:
            if old.end_ms is None:
                old.end(position.at_ms)
                old.end_missing = True
            earlier = old.ended().after(self._known_at(old))
            newest = self.context if old.soc is None else old
            numbers = tuple(ordered.position.seq for ordered in taken[:MAX_TAKEN])
            continues = charges_that_may_go_on(old, position)
            self.context = SessionContext(earlier, newest.soc, newest.soc_ms, numbers, continues)
        self.session = SessionRecord(
            event.vehicle_id, event.charger_id, position.at_ms, position.rank, position,
            start_missing=position.rank != CONNECTED, continues=self.context.continues,
        )  # fmt: skip
        self.begun.append((self.session, self.context))
        return self.session

    def _plugs_in(self, session: SessionRecord, position: EventPosition, event: Event) -> bool:
        """Whether the event is evidence that the vehicle was plugged in again."""
        here, active = session.charger_id == position.charger_id, session.end_ms is None
        soc = self.context.soc if session.soc is None else session.soc
        if position.rank == CONNECTED:
            return not (here and active) or session.was_away(event)
        if here and active:
            return False
        if position.rank == STARTED:
            return True
        ended = self._ended_session(session, position, event)
        if position.rank == DISCONNECTED or ended is None:
            # An unknown session at this charger, unless the vehicle is plugged in elsewhere.
            shows = position.rank == STOPPED or _shows_charge(soc, event)
            return ended is None and (not active or (position.rank != DISCONNECTED and shows))
        may_continue = ended.end_missing and bool(ended.charges)
        is_of_known = may_continue or ended.matches(position.at_ms, event)
        if is_of_known or any(
            known.had_more(event) for known in self._ended_here(session, position)
        ):
            return False
        late = position.at_ms - ended.end_ms <= TOLERANCE_MS
        return not late and (position.rank == STOPPED or _shows_charge(soc, event))

    def _known_at(self, session: SessionRecord) -> tuple[EndedSession, ...]:
        """The earlier sessions, with the reports from events of this session."""
        return self.context.earlier if session.earlier is None else session.earlier

    def _ended_here(self, session: SessionRecord, position: EventPosition) -> list[EndedSession]:
        """The known ended sessions at the charger of the event."""
        known = self._known_at(session)
        if session.end_ms is not None:
            known = *known, session.ended()
        return [old for old in known if old.charger_id == position.charger_id]

    def _ended_session(
        self, session: SessionRecord, position: EventPosition, event: Event
    ) -> EndedSession | None:
        """The ended session at this charger that the event belongs to."""
        ended = self._ended_here(session, position)
        if position.rank not in (UPDATED, STOPPED):
            return ended[-1] if ended else None
        return session_of_report(ended, event.charged_energy, event.charged_time)

    def _earlier_session(
        self, session: SessionRecord, position: EventPosition, event: Event
    ) -> EndedSession | None:
        """The earlier session that a report belongs to, though the vehicle is back at the charger.

        The report does not fit into this session, or into its time after the last reported charge,
        and it fits a charge of the earlier session.
        """
        energy, time_s, charging = event.charged_energy, event.charged_time, session.charging
        free_ms = session.start_ms if time_s is not None else session.first_start_ms
        done = [period for period in session.periods[-2:] if period.stop_ms is not None]
        last = done[-1] if done and done[-1].energy is not None else None
        if last is not None:
            free_ms = max(free_ms, last.stop_ms or 0)
        since_ms = position.at_ms - free_ms
        too_long = time_s is not None and time_s * 1000 > since_ms + TOLERANCE_MS
        stopped = position.rank == STOPPED
        if time_s is not None and not too_long:  # it fits, but may be of an earlier charge
            own = as_long(session.periods, time_s, position.at_ms) if stopped else charging
            if charging or event.charge_power or energy is None or own:
                return None
        elif goes_on(session, energy, time_s, position.at_ms):
            return None
        if last is not None:
            began_ms = position.at_ms - milliseconds(time_s or Decimal(0))
            if abs(began_ms - last.start_ms) <= TOLERANCE_MS or last.report.covers(energy, time_s):
                return None
        if (ended := self._ended_session(session, position, event)) is None:
            return None
        if time_s is None:
            power = charging.power_max if charging else None
            return ended if ended.gives_more(energy, since_ms, power) else None
        fits = energy is not None and ended.has_report(energy, time_s)
        if too_long:
            fits = fits or ended.had_time_for(time_s)
        elif stopped:
            spare_ms = ended.spare_ms(time_s)
            fits = spare_ms is not None and spare_ms <= TOLERANCE_MS
        return ended if fits else None

    def _report_to_ended(
        self, session: SessionRecord, position: EventPosition, event: Event
    ) -> None:
        """Reports the event to an ended session; the vehicle's place does not change."""
        ended = self._ended_session(session, position, event)
        late = ended is None or position.at_ms - ended.end_ms > TOLERANCE_MS
        if session.charger_id == position.charger_id and late:
            session.flag("event-after-disconnect")
        if ended is not None and ended.start == session.start:
            if position.rank in (UPDATED, STOPPED):
                take_late_report(session, ended.late_report(position, event))
            return
        shared = ended is not None and self._report(session, ended, position, event)
        leaves = ended is not None and ended.end_missing and position.rank == DISCONNECTED
        if late and not leaves and session.charger_id != position.charger_id:
            session.flag("vehicle-shared" if shared else "event-elsewhere")

    def _report(
        self, session: SessionRecord, ended: EndedSession, position: EventPosition, event: Event
    ) -> bool:
        """Reports the event to an earlier session. True if the vehicle was still there."""
        report = ended.late_report(position, event)
        if position.rank in (CONNECTED, STARTED) or not ended.is_new(report):
            return report.still_there
        begun = [self._first, *(old for old, _ in self.begun[-RECENT - 1 :])]
        earlier = next((old for old in reversed(begun) if old and old.start == ended.start), None)
        if earlier is None:
            self.reports.append((ended.start, report))
        else:
            earlier.reports = [*earlier.reports, report]
        session.note_report(report, ended, self._known_at(session))
        return report.still_there


# Types of events ----------------------------------------------------------------------------------


def _connect(session: SessionRecord, position: EventPosition, event: Event) -> None:
    """The vehicle is already plugged in there, and nothing shows that it was away."""
    if session.start_missing and position.at_ms - session.start_ms <= TOLERANCE_MS:
        session.start_missing = False
    else:
        session.flag("connect-repeated")


def _start(session: SessionRecord, position: EventPosition, event: Event) -> None:
    """A charge begins. It ends the charge under way, unless that one has just begun."""
    period = session.charging
    if period is not None and position.at_ms - period.start_ms <= TOLERANCE_MS:
        if not period.start_missing:
            session.flag("start-repeated")
        period.start_missing = False
    else:
        if period is not None:
            period.stop_ms, period.cut = position.at_ms, True
            session.flag("start-repeated")
        period = session.new_period(position.at_ms)
    if event.charge_power is not None:
        period.read_power(event.charge_power, position.at_ms)


def _update(session: SessionRecord, position: EventPosition, event: Event) -> None:
    """Updates the charge under way or one that has ended, or shows that a charge is under way."""
    period = session.charging
    if repeats_earlier(session, event.charged_energy, event.charged_time, position.at_ms):
        session.flag("update-after-stop")
        return
    if (ended := _ended_charge(session, position.at_ms, event)) is not None:
        session.flag("update-after-stop")
        if period is None and ended.continue_with(event, position.at_ms):
            if event.charge_power:
                ended.resume(event.charge_power, position.at_ms)
        elif event.charged_energy is not None and ended.energy is None:
            ended.metered = event.charged_energy
        return
    if period is None:
        if not _begins_charge(session, position, event):
            return
        period = session.new_period(session.free_start(position.at_ms, event), start_missing=True)
        period.by_soc = not event.charge_power and event.charged_energy is None
    elif period.by_soc and not _shows_charge(session.soc, event):
        period.stop_ms = max(period.start_ms, session.soc_ms)  # it rose until then
        return
    period = joined(session, position.at_ms, event, period)
    if event.charge_power is not None:
        period.read_power(event.charge_power, position.at_ms)
    read_report(session, period, event.charged_energy, event.charged_time, position.at_ms)
    energy = event.charged_energy
    if energy is not None and period.read_meter(energy, position.at_ms):
        session.flag("meter-began-anew")


def _stop(session: SessionRecord, position: EventPosition, event: Event) -> None:
    """Ends and reports the charge that fits the event."""
    period = session.charging
    if (ended := _ended_charge(session, position.at_ms, event)) is not None:
        if ended.energy is not None or not ended.cut:
            session.flag("stop-repeated")
        ended.cut = False
        if not (period is None and ended.continue_with(event, position.at_ms)):
            ended.take_report(event.charged_energy, event.charged_time)
        return
    if period is None:
        period = session.new_period(session.free_start(position.at_ms, event), start_missing=True)
    period = joined(session, position.at_ms, event, period)
    read_report(session, period, event.charged_energy, event.charged_time, position.at_ms)
    if is_too_long(period, position.at_ms, event.charged_time):
        session.flag("charged-time-too-long")
    period.stop_ms = position.at_ms
    if period.energy is not None or period.time_s is not None:
        period.add(event)  # one period for many charges
    elif period.take_report(event.charged_energy, event.charged_time):
        session.flag("meter-began-anew")


def _disconnect(session: SessionRecord, position: EventPosition, event: Event) -> None:
    """The vehicle leaves."""
    session.end(position.at_ms)


_APPLY = (_connect, _start, _update, _stop, _disconnect)


# Evidence -----------------------------------------------------------------------------------------


def _shows_charge(soc: Decimal | None, event: Event) -> bool:
    """Whether an update shows that a charge is under way: by its power, by its energy or time, or
    because the state of charge rose.
    """
    if event.charge_power:
        return True
    if event.charged_energy or (event.charged_time and event.charge_power is None):
        return True
    rose = soc is not None and event.state_of_charge is not None and event.state_of_charge > soc
    return event.charge_power is None and rose


def _begins_charge(session: SessionRecord, position: EventPosition, event: Event) -> bool:
    """Whether an update belongs to a charge without a start, while no charge is under way."""
    last = session.periods[-1] if session.periods else None
    late = last is not None and position.at_ms - (last.stop_ms or 0) <= TOLERANCE_MS
    if late and event.charge_power:
        session.flag("update-after-stop")
    return not late and _shows_charge(session.soc, event)


def _ended_charge(session: SessionRecord, at_ms: int, event: Event) -> PeriodRecord | None:
    """The ended charge of the session that a report belongs to, by its energy and time."""
    period, energy, time_s = session.charging, event.charged_energy, event.charged_time
    ended = (session.periods if period is None else session.periods[:-1])[-MAX_REPORTS:]
    if time_s is None:
        return ended[-1] if ended and _is_by_energy(ended[-1], period, at_ms, event) else None
    stopped = event.type is EventType.VEHICLE_CHARGE_STOPPED
    if energy is not None and (period is None or not stopped):
        for charge in reversed(ended):
            if charge.report.covers(energy, time_s):
                return charge
    shorter = period is not None and period.lasted_ms(at_ms) - time_s * 1000 > TOLERANCE_MS
    late = period is None or (stopped and shorter)
    if late and (same := as_long(ended, time_s, at_ms)) is not None:
        return same
    return ended[-1] if ended and _is_by_time(ended[-1], period, at_ms, event) else None


def _is_by_time(last: PeriodRecord, period: PeriodRecord | None, at_ms: int, event: Event) -> bool:
    """Whether a report with a time belongs to the last charge, not to a later one: less time has
    passed since.
    """
    assert event.charged_time is not None
    assert last.stop_ms is not None
    time_ms = event.charged_time * 1000
    since_ms = at_ms - (last.stop_ms if period is None else period.start_ms)
    again = last.report.covers(event.charged_energy, event.charged_time)
    if again and (period is None or event.type is not EventType.VEHICLE_CHARGE_STOPPED):
        return True
    if time_ms <= since_ms + TOLERANCE_MS:
        idle = event.type is EventType.VEHICLE_CHARGE_UPDATED and not event.charge_power
        return period is None and idle and event.charged_time == last.time_s
    if again or period is None:
        return True
    others = [since_ms, at_ms - last.start_ms]
    own_ms = abs(last.lasted_ms(at_ms) - time_ms)
    return last.energy is None and all(own_ms < abs(other - time_ms) for other in others)


def _is_by_energy(
    last: PeriodRecord, period: PeriodRecord | None, at_ms: int, event: Event
) -> bool:
    """The same for a report without a time: its energy is already known, or belongs to a charge
    that was not reported, or is more than the power allows since then.
    """
    energy, stopped = event.charged_energy, event.type is EventType.VEHICLE_CHARGE_STOPPED
    assert last.stop_ms is not None
    if period is not None:
        since_ms = at_ms - period.start_ms
        return energy == last.report.energy and not period.allows(energy, since_ms, last)
    if energy is None or energy == last.report.energy:
        return stopped or energy is not None
    if last.energy is None:
        return not event.charge_power
    since_ms = at_ms - last.stop_ms
    if not last.allows_since(event, at_ms) or (stopped and since_ms <= TOLERANCE_MS):
        return True
    return not stopped and energy > last.energy and not event.charge_power
