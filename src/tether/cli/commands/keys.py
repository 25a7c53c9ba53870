"""`tether keys`: create, list, change, revoke and rotate API keys."""

from functools import partial

import click

from tether.cli import stores
from tether.cli.commands.key_requests import requests
from tether.cli.display.output import Cell, note, say, show_json, show_table
from tether.cli.options import (
    DURATION,
    NEVER,
    RATE,
    WHEN,
    WHEN_OR_NEVER,
    OrderedGroup,
    WholeNumber,
    database_option,
    json_option,
    rate_options,
    test_option,
)
from tether.cli.times import format_day, format_duration, format_minute
from tether.domain.keys import Key, Rate
from tether.domain.timestamps import DAY_MS, format_instant, format_optional_instant
from tether.server import admin
from tether.server.databases import database_of
from tether.server.store import Store

_PER = {1: "s", 60: "min", 3600: "h"}
TITLES = ("Key", "Partner", "Name", "Rate", "Access", "State", "Used")
SOON_MS = 2 * DAY_MS


@click.group(cls=OrderedGroup)
def keys() -> None:
    """Create, list, change, revoke and rotate keys.

    A key opens the API for one partner. It is shown once, when it is created; after that you
    name it by its first characters, as `tether keys list` shows them. A running server knows
    every change within 2 seconds.
    """


@keys.command()
@click.argument("partner")
@click.option("--name", default="", help="What the key is for, such as production.")
@rate_options
@click.option("--expires", "expires_ms", type=WHEN,
              help="When it stops working: a date (00:00 UTC), a date-time with a zone, or 90d, "
              "12h, 30m from now.  [default: never]")  # fmt: skip
@click.option("--read-only", is_flag=True, help="A key that may read, and not write.")
@test_option
@click.option("--create", "force", is_flag=True,
              help="Make the database if there is none, also while a server runs here on another.",
              )  # fmt: skip
@database_option
def create(
    partner: str,
    name: str,
    rate: Rate,
    burst: int | None,
    expires_ms: int | None,
    read_only: bool,
    test: bool,
    force: bool,
    database: str,
) -> None:
    """Create a key for PARTNER and print it.

    Makes the partner if there is none of this name. The key alone goes to standard output:

    \b
      KEY=$(tether keys create acme --rate 5000/h --expires 90d)
    """
    admin.check_names(partner, name)  # before a database is made
    make = partial(
        admin.create_key, partner_name=partner, name=name, rate=rate, burst=burst,
        expires_ms=expires_ms, read_only=read_only, test=test,
        on_new_partner=lambda name: note(f"New partner {name}."),
    )  # fmt: skip
    secret, key = stores.in_store(database, make, create=True, force=force)
    _show_new_key(secret, key, database)


@keys.command("list")
@click.argument("partner", required=False)
@json_option
@stores.with_store
async def list_keys(store: Store, now_ms: int, partner: str | None, as_json: bool) -> None:
    """List all keys, or PARTNER's."""
    owner = None if partner is None else await admin.find_partner(store, partner)
    show_keys(await store.keys.all(owner), now_ms, as_json=as_json)


@keys.command("set")
@click.argument("prefix")
@click.option("--name", help="What the key is for.")
@click.option("--rate", type=RATE, help="Requests allowed: 100 (a second), 90/min, 5000/h.")
@click.option("--burst", type=WholeNumber(1, 10**9), metavar="N",
              help="Requests allowed at once.  [default: unchanged, or the number of --rate if "
              "it was that]")  # fmt: skip
@click.option("--expires", "expires_ms", type=WHEN_OR_NEVER,
              help="When it stops working, as in create, or never.",
              )  # fmt: skip
@database_option
def set_key(
    prefix: str,
    name: str | None,
    rate: Rate | None,
    burst: int | None,
    expires_ms: int | None,
    database: str,
) -> None:
    """Change what a key may do, and how long.

    PREFIX is any unambiguous beginning of the key. What is not given stays; the key itself stays,
    and servers follow within 2 seconds.
    """
    if all(given is None for given in (name, rate, burst, expires_ms)):
        raise click.UsageError("Give what to change: --name, --rate, --burst or --expires.")

    async def change(store: Store, now_ms: int) -> Key:
        key = await admin.find_key(store, prefix)
        lasts = expires_ms == NEVER
        return await admin.set_key(
            store, now_ms, key, name=name, rate=rate, burst=burst, lasts=lasts,
            expires_ms=None if lasts else expires_ms,
        )  # fmt: skip

    say(_described(stores.in_store(database, change)))


@keys.command()
@click.argument("prefix")
@stores.with_store
async def revoke(store: Store, now_ms: int, prefix: str) -> None:
    """Stop a key for good.

    PREFIX is any unambiguous beginning of the key.
    """
    key = await admin.find_key(store, prefix)
    await admin.revoke_key(store, now_ms, key)
    if key.revoked_ms is None:
        say(f"Revoked {key.prefix} of {key.partner_name}: no server accepts it after 2 seconds.")
    else:
        since = f"{format_minute(key.revoked_ms)} UTC"
        say(f"{key.prefix} of {key.partner_name} is revoked since {since}.")


@keys.command()
@click.argument("prefix")
@click.option("--overlap", "overlap_ms", type=DURATION, default="24h", show_default=True,
              help="How long the old key still works: 24h, 30m, 0.")  # fmt: skip
@click.option("--expires", "expires_ms", type=WHEN,
              help="When the new key stops working, as in create.  [default: it lives as long as "
              "the old one was to live]")  # fmt: skip
@click.option("--rate", type=RATE,
              help="Another rate for the new key.  [default: that of the old one]")  # fmt: skip
@click.option("--burst", type=WholeNumber(1, 10**9), metavar="N",
              help="Another burst for the new key.  [default: as in set]")  # fmt: skip
@database_option
def rotate(
    prefix: str,
    overlap_ms: int,
    expires_ms: int | None,
    rate: Rate | None,
    burst: int | None,
    database: str,
) -> None:
    """Replace a key: print a new one that may do the same.

    PREFIX is any unambiguous beginning of the old key, which works on for the overlap.
    """

    async def replace(store: Store, now_ms: int) -> tuple[str, Key, Key]:
        key = await admin.find_key(store, prefix)
        return await admin.rotate_key(
            store, now_ms, key, overlap_ms, expires_ms, rate=rate, burst=burst
        )

    secret, key, old = stores.in_store(database, replace)
    if overlap_ms:
        assert old.expires_ms is not None
        note(f"The old key, {old.prefix}…, works until {format_minute(old.expires_ms)} UTC.")
    else:
        note(f"The old key, {old.prefix}…, is revoked: no server accepts it after 2 seconds.")
    _show_new_key(secret, key, database)


def _show_new_key(secret: str, key: Key, database: str) -> None:
    note(
        f"{_described(key)}\nFor servers of {database_of(database).describe()}. "
        "Keep it well: it is shown only now."
    )
    click.echo(secret)


def _described(key: Key) -> str:
    ends = f"until {format_minute(key.expires_ms)} UTC" if key.expires_ms else "for good"
    access = "reads only" if key.read_only else "reads and writes"
    rate = f"{_rate_text(key.rate)} (burst {key.burst})"
    return f"Key {key.prefix}… of {key.partner_name} {access}, {rate}, {ends}."


keys.add_command(requests)


# How a key is shown -------------------------------------------------------------------------------


def show_keys(found: list[Key], now_ms: int, *, as_json: bool) -> None:
    """Prints the keys as a table or as JSON."""
    if as_json:
        show_json([key_json(key, now_ms) for key in found])
        return
    rows = [_row(key, now_ms) for key in found]
    empty = "There are no keys yet; make one: tether keys create PARTNER"
    show_table(TITLES, rows, wrapped=("Partner", "Name", "Used"), empty=empty)


def key_json(key: Key, now_ms: int) -> dict[str, object]:
    """The key for scripts; docs/operations.md describes the members."""
    return {
        "prefix": key.prefix,
        "partner": key.partner_name,
        "name": key.name,
        "state": key.state_at(now_ms),
        "rate": {"requests": key.rate.requests, "windowSeconds": key.rate.window_s},
        "burst": key.burst,
        "readOnly": key.read_only,
        "test": key.is_test,
        "createdAt": format_instant(key.created_ms),
        "expiresAt": format_optional_instant(key.expires_ms),
        "revokedAt": format_optional_instant(key.revoked_ms),
        "lastUsedAt": format_optional_instant(key.last_used_ms),
        "lastUsedFrom": key.last_used_from,
    }


def _rate_text(rate: Rate) -> str:
    """The rate as `--rate` takes it."""
    return f"{rate.requests}/{_PER.get(rate.window_s, f'{rate.window_s}s')}"


def _row(key: Key, now_ms: int) -> list[str]:
    return [
        key.prefix,
        key.partner_name,
        key.name,
        _rate_text(key.rate),
        "read" if key.read_only else "",
        _state_cell(key, now_ms),
        f"{format_minute(key.last_used_ms)} {key.last_used_from or ''}" if key.last_used_ms else "",
    ]


def _state_cell(key: Key, now_ms: int) -> str:
    if key.revoked_ms is not None:
        return Cell(f"revoked {format_day(key.revoked_ms)}", "red")
    if key.expires_ms is None:
        return Cell("active", "green")
    left_ms = key.expires_ms - now_ms
    if left_ms <= 0:
        return Cell(f"expired {format_day(key.expires_ms)}", "yellow")
    ends = (
        f"in {format_duration(left_ms // 1000)}"
        if left_ms < SOON_MS
        else format_day(key.expires_ms)
    )
    return Cell(f"ends {ends}", "green")
