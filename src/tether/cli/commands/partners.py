"""`tether partners`: list, show, rename and delete partners."""

import sys

import click
import msgspec

from tether.cli import stores
from tether.cli.commands.keys import key_json, show_keys
from tether.cli.display.output import confirm, counted, note, say, show_json, show_pairs, show_table
from tether.cli.display.progress import progress
from tether.cli.options import OrderedGroup, Parsed, database_option, json_option
from tether.cli.times import format_day, format_minute, parse_duration
from tether.domain.filters import EventFilter
from tether.domain.partners import Holdings, Partner, RetentionPeriods, retention_in_words
from tether.domain.timestamps import DAY_MS, format_instant, format_optional_instant
from tether.server import admin
from tether.server.store import Store


@click.group(cls=OrderedGroup)
def partners() -> None:
    """List, show, rename and delete partners; set their retention.

    A partner comes with its first key: tether keys create PARTNER
    """


@partners.command("list")
@json_option
@stores.with_store
async def list_partners(store: Store, now_ms: int, as_json: bool) -> None:
    """List all partners."""
    use = await store.keys.use_by_partner(now_ms)
    partners = await store.partners.all()
    found = [(partner, use.get(partner.id, (0, None))[0]) for partner in partners]
    if as_json:
        show_json(
            [
                {
                    "name": partner.name,
                    "createdAt": format_instant(partner.created_ms),
                    "activeKeys": keys,
                }
                for partner, keys in found
            ]
        )
        return
    show_table(
        ("Partner", "Created", "Active keys"),
        [(partner.name, format_day(partner.created_ms), str(keys)) for partner, keys in found],
        empty="There are no partners yet; make one with its first key: tether keys create PARTNER",
    )


@partners.command()
@click.argument("partner")
@json_option
@stores.with_store
async def show(store: Store, now_ms: int, partner: str, as_json: bool) -> None:
    """Show what PARTNER has: keys, chargers, vehicles, events."""
    found = await admin.find_partner(store, partner)
    held = await store.partners.holdings(found)
    first = await _time_of_event(store, found, newest=False)
    last = await _time_of_event(store, found, newest=True)
    keys = await store.keys.all(found)
    if as_json:
        show_json(
            {
                "name": found.name,
                "createdAt": format_instant(found.created_ms),
                "chargers": held.chargers,
                "vehicles": held.vehicles,
                "events": held.events,
                "firstEventAt": first,
                "lastEventAt": last,
                "keys": [key_json(key, now_ms) for key in keys],
            }
        )
        return
    received = f" (first received: {first[:10]}, last: {last[:10]})" if first and last else ""
    active = sum(key.works_at(now_ms) for key in keys)
    show_pairs(
        [
            ("Partner", found.name),
            ("Created", f"{format_minute(found.created_ms)} UTC"),
            ("Chargers", f"{held.chargers:,}"),
            ("Vehicles", f"{held.vehicles:,}"),
            ("Events", f"{held.events:,}{received}"),
            ("Keys", f"{len(keys):,}, {active:,} active"),
        ]
    )
    if keys:
        click.echo()
        show_keys(keys, now_ms, as_json=False)


async def _time_of_event(store: Store, partner: Partner, *, newest: bool) -> str | None:
    """The timestamp of the event that was received first or last."""
    page, _ = await store.events.portion(partner.id, EventFilter(), None, 1, descending=newest)
    return str(msgspec.json.decode(page[0][1])["timestamp"]) if page else None


@partners.command()
@click.argument("partner")
@click.argument("new_name")
@stores.with_store
async def rename(store: Store, now_ms: int, partner: str, new_name: str) -> None:
    """Give PARTNER another name; its keys and data stay."""
    await admin.rename_partner(store, now_ms, partner, new_name)
    say(f"{partner} is now {new_name}.")


SERVER_DEFAULT = -1  # instead of ms: the setting of the server applies


def _parse_period(text: str) -> int:
    word = text.strip().lower()
    if word in ("forever", "default"):
        return 0 if word == "forever" else SERVER_DEFAULT
    try:
        period_ms = parse_duration(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of 400d, 52w, 36h …, forever and default.") from None
    if period_ms < DAY_MS:
        raise ValueError("It must be a day at least, forever or default.")
    return period_ms


PERIOD = Parsed("duration", _parse_period)  # ms; 0 means for ever


@partners.command()
@click.argument("partner")
@click.option("--events", "events_ms", type=PERIOD, metavar="AGE",
              help="Ended sessions and their events: 400d, forever, or default as the server "
              "says.")  # fmt: skip
@click.option("--requests", "requests_ms", type=PERIOD, metavar="AGE",
              help="Refused requests: 7d, forever or default.")  # fmt: skip
@click.option("--attempts", "attempts_ms", type=PERIOD, metavar="AGE",
              help="Attempts of webhooks: 30d, forever or default.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@database_option
def retention(
    partner: str,
    events_ms: int | None,
    requests_ms: int | None,
    attempts_ms: int | None,
    yes: bool,
    as_json: bool,
    database: str,
) -> None:
    """Show or set how long the data of PARTNER are kept.

    Older data are deleted in the background, for good, and older events are refused from then on.
    To keep them elsewhere, first: tether export events --output events.parquet

    In JSON, 0 days means for ever, and null what the server is set to.
    """

    async def look(store: Store, now_ms: int) -> int:
        found = await admin.find_partner(store, partner)
        return await store.retention.count_events_before(found.id, now_ms - (events_ms or 0))

    if events_ms is not None and events_ms > 0 and (older := stores.in_store(database, look)):
        loss = f"This deletes what is older of {partner}: {counted(older, 'event')}."
        if sys.stdin.isatty() and not yes:
            confirm(loss, "Delete them?", "Nothing was changed")
        else:
            note(loss)

    given = {"events_ms": events_ms, "requests_ms": requests_ms, "attempts_ms": attempts_ms}
    changes = {
        name: None if age_ms == SERVER_DEFAULT else age_ms
        for name, age_ms in given.items() if age_ms is not None
    }  # fmt: skip

    async def change(store: Store, now_ms: int) -> RetentionPeriods:
        found = await admin.find_partner(store, partner)
        return await admin.set_retention(store, now_ms, found, changes)

    periods = stores.in_store(database, change)
    horizon = format_optional_instant(periods.horizon_ms)
    if as_json:
        show_json(
            {
                "partner": partner,
                "eventDays": _days(periods.events_ms),
                "requestDays": _days(periods.requests_ms),
                "attemptDays": _days(periods.attempts_ms),
                "horizon": horizon,
            }
        )
        return
    show_pairs(
        [
            ("Events", _in_words(periods.events_ms, "--event-days")),
            ("Refused requests", _in_words(periods.requests_ms, "--requests-days")),
            ("Attempts of webhooks", _in_words(periods.attempts_ms, "--attempt-days")),
            ("Horizon", f"events before {horizon} are refused" if horizon else "none yet"),
        ]
    )


def _days(period_ms: int | None) -> float | None:
    return None if period_ms is None else period_ms / DAY_MS


def _in_words(period_ms: int | None, setting: str) -> str:
    return retention_in_words(period_ms) + (f": {setting}" if period_ms is None else "")


@partners.command()
@click.argument("partner")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_option
def delete(partner: str, yes: bool, database: str) -> None:
    """Erase PARTNER: its keys, chargers, vehicles and events.

    Its keys stop working first. When interrupted, run it again.
    """

    async def look(store: Store, now_ms: int) -> Holdings:
        return await store.partners.holdings(await admin.find_partner(store, partner))

    async def erase(store: Store, now_ms: int) -> Holdings:
        found = await admin.find_partner(store, partner)
        done = 0

        def erased(events: int) -> None:
            nonlocal done
            done += events
            set_progress(done)

        return await admin.erase_partner(store, now_ms, found, erased)

    held = stores.in_store(database, look)
    if not yes:
        confirm(
            f"This erases {partner} for good: {_holdings_text(held)}.",
            "Erase it?",
            "Nothing was erased",
        )
    with progress("Erasing events", held.events) as set_progress:
        erased = stores.in_store(database, erase)
    say(f"Erased {partner}: {_holdings_text(erased)}.")


def _holdings_text(held: Holdings) -> str:
    kinds = ("key", "charger", "vehicle", "event")
    return ", ".join(counted(getattr(held, f"{kind}s"), kind) for kind in kinds)
