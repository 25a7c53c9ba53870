"""`tether keys requests`: lists, approves and declines requests for a key."""

import click

from tether.cli.display.output import say, show_json, show_table
from tether.cli.options import DURATION, OrderedGroup, json_option, rate_options, test_option
from tether.cli.stores import with_store
from tether.cli.times import format_minute
from tether.domain.key_requests import KeyRequest, Limits
from tether.domain.keys import Rate
from tether.domain.timestamps import format_instant, format_optional_instant
from tether.server import key_requests
from tether.server.store import Store

TITLES = ("Request", "State", "Asked", "Organisation", "E-mail", "Fleet", "Purpose")


@click.group(cls=OrderedGroup)
def requests() -> None:
    """List, approve and decline requests for a key.

    Strangers ask for one at /request-key, if the server runs with --key-requests on. Nobody has
    looked whether they are who they say. The requester's page shows what was decided, and then the
    key, once.
    """


@requests.command("list")
@json_option
@with_store
async def list_requests(store: Store, now_ms: int, as_json: bool) -> None:
    """List those that wait, then those that are decided."""
    found = await store.key_requests.all(now_ms)
    if as_json:
        show_json([_json(request) for request in found])
        return
    rows = [_row(request) for request in found]
    show_table(TITLES, rows, wrapped=TITLES[3:], empty="Nobody has asked for a key.")


@requests.command()
@click.argument("request")
@click.argument("partner")
@click.option("--known", is_flag=True,
              help="PARTNER exists already: the key gives access to all its data.")  # fmt: skip
@rate_options
@click.option("--for", "lasts_ms", type=DURATION,
              help="How long the key works, from when it is claimed: 90d, 12h.  [default: until "
              "it is revoked]")  # fmt: skip
@test_option
@with_store
async def approve(
    store: Store,
    now_ms: int,
    *,
    request: str,
    partner: str,
    known: bool,
    rate: Rate,
    burst: int | None,
    lasts_ms: int | None,
    test: bool,
) -> None:
    """Let REQUEST have a key of PARTNER.

    REQUEST is its id, or the beginning of it. Makes the partner. The requester claims the key
    within 14 days: it is made then, and nobody else sees it.
    """
    limits = Limits(rate, burst or rate.requests, lasts_ms or None, test)
    found = await key_requests.find(store, now_ms, request)
    made = await key_requests.approve(store, now_ms, found, partner, limits, is_known=known)
    say(f"Approved: the requester's page now gives a key of {made.name}.")


@requests.command()
@click.argument("request", nargs=-1, required=True)
@with_store
async def decline(store: Store, now_ms: int, request: tuple[str, ...]) -> None:
    """Decline each REQUEST, named by its id or the beginning of it."""
    for beginning in request:
        found = await key_requests.find(store, now_ms, beginning)
        await key_requests.decline(store, now_ms, found)
        say(f"Declined {found.id} of {found.form.organisation}.")


def _json(request: KeyRequest) -> dict[str, object]:
    """The request for scripts; docs/operations.md describes the members."""
    return {
        "id": request.id,
        "state": request.state,
        **request.form._asdict(),
        "from": request.client,
        "partner": request.partner_name,
        "createdAt": format_instant(request.created_ms),
        "decidedAt": format_optional_instant(request.decided_ms),
        "claimedAt": format_optional_instant(request.claimed_ms),
        "expiresAt": format_instant(request.expires_ms),
    }


def _row(request: KeyRequest) -> tuple[str, ...]:
    organisation, email, purpose, fleet = request.form
    asked = format_minute(request.created_ms)
    return request.id, request.state, asked, organisation, email, fleet, purpose
