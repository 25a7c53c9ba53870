"""`tether rebuild`: derives the sessions again from the events, and compares."""

from typing import NamedTuple

import click

from tether.cli.display.output import counted, note, say, show_json
from tether.cli.display.progress import progress
from tether.cli.options import json_option
from tether.cli.stores import with_store
from tether.domain.models import Vehicle
from tether.domain.partners import Partner
from tether.server import admin
from tether.server.store import Store

MAX_VEHICLES_SHOWN = 20


class Report(NamedTuple):
    """The result for one partner."""

    partner: str
    sessions: int
    differing: dict[str, int]
    """Numbers of sessions that differ, by vehicle."""
    backlog: int
    """Events that are not derived yet."""


@click.command()
@click.argument("partner", required=False)
@click.option("--check", "only_check", is_flag=True,
              help="Only report: the exit status is 1 if anything differs.")  # fmt: skip
@json_option
@with_store
async def rebuild(
    store: Store, now_ms: int, partner: str | None, only_check: bool, as_json: bool
) -> None:
    """Derive the sessions again from the events.

    Derives the waiting events of PARTNER, or of all partners, compares every session with its
    events and stores what differs. The server may run meanwhile. Nothing differs unless the
    database was damaged or changed by hand.
    """
    reports = await _rebuild_all(store, partner, repair=not only_check)
    if as_json:
        show_json([_json(report) for report in reports])
    else:
        for report in reports:
            _show(report, only_check=only_check)
    if only_check and any(report.differing for report in reports):
        click.get_current_context().exit(1)


async def differing_sessions(store: Store, now_ms: int) -> int:
    """The number of sessions of all partners that differ from their events."""
    reports = await _rebuild_all(store, None, repair=False)
    return sum(sum(report.differing.values()) for report in reports)


async def _rebuild_all(store: Store, name: str | None, *, repair: bool) -> list[Report]:
    partners = (
        await store.partners.all() if name is None else [await admin.find_partner(store, name)]
    )
    return [await _rebuild(store, partner, repair=repair) for partner in partners]


async def _rebuild(store: Store, partner: Partner, *, repair: bool) -> Report:
    rebuilder = store.rebuilder
    backlog = await store.projector.count_backlog(partner.id)
    if repair and backlog:
        with progress(f"{partner.name}: deriving", backlog) as done:
            async for left in rebuilder.derive(partner.id):
                done(max(0, backlog - left))
        backlog = await store.projector.count_backlog(partner.id)
    sessions, vehicles, differing = 0, 0, {}
    count = await store.entities.count(Vehicle, partner.id)
    with progress(f"{partner.name}: comparing", count) as done:
        async for checked in rebuilder.check(partner.id, repair=repair):
            vehicles += 1
            done(vehicles)
            sessions += checked.sessions
            if checked.differing:
                differing[checked.vehicle_id] = checked.differing
    return Report(partner.name, sessions, differing, backlog)


def _json(report: Report) -> dict[str, object]:
    return {
        "partner": report.partner,
        "sessions": report.sessions,
        "differing": sum(report.differing.values()),
        "vehicles": report.differing,
        "waitingEvents": report.backlog,
    }


def _show(report: Report, *, only_check: bool) -> None:
    total = sum(report.differing.values())
    what = f"{report.partner}: {counted(report.sessions, 'session')}"
    if not total:
        say(f"{what}, none differs.")
    else:
        say(f"{what}, {total:,} differed{'' if only_check else ' and put right'}.")
        for vehicle, count in list(report.differing.items())[:MAX_VEHICLES_SHOWN]:
            say(f"  vehicle {vehicle}: {count:,}")
        if len(report.differing) > MAX_VEHICLES_SHOWN:
            say(f"  and {counted(len(report.differing) - MAX_VEHICLES_SHOWN, 'vehicle')} more")
    if report.backlog:
        waiting = f"{counted(report.backlog, 'event')} or fewer wait to be derived"
        note(f"{report.partner}: {waiting}: until then sessions may differ.")
