"""`tether console`: prints a sign-in link for the operator."""

import click

from tether.cli.display.output import counted, note, say
from tether.cli.options import WholeNumber
from tether.cli.servers import connect_host
from tether.cli.stores import with_store
from tether.server import admin
from tether.server.store import Store


@click.command()
@click.option("--url", envvar="TETHER_URL", show_envvar=True, metavar="URL",
              help="Where browsers reach the server, such as https://tether.example.com.  "
              "[default: --host and --port]")  # fmt: skip
@click.option("--host", default="127.0.0.1", envvar="TETHER_HOST", show_default=True,
              show_envvar=True, metavar="HOST", help="The address that it listens on.")  # fmt: skip
@click.option("--port", default=8000, type=WholeNumber(1, 65535), envvar="TETHER_PORT",
              show_default=True, show_envvar=True, metavar="PORT",
              help="The port that it listens on.")  # fmt: skip
@click.option("--sign-out", is_flag=True,
              help="Print none: end all sessions of the operator, and unused links.")  # fmt: skip
@with_store
async def console(
    store: Store, now_ms: int, url: str | None, host: str, port: int, sign_out: bool
) -> None:
    """Print a link that opens the web console as the operator.

    It is good once, and for ten minutes. Partners sign in with an API key.

    \b
    Requests   which calls were refused, and why; found by their X-Request-Id
    Start      the first calls of a partner, ticked as they arrive
    Keys       which work, what they did, how near they are to their rate
    Partners   who is silent for longer than usual, who waits to be derived
    """
    if sign_out:
        ended = await store.console_sessions.end_operators()
        say(f"Ended {counted(ended, 'session')} of the operator.")
        return
    path = await admin.console_link(store, now_ms)
    note("Open this in a browser within ten minutes. It signs in once, as the operator:")
    click.echo(f"{_address(url, host, port)}{path}")


def _address(url: str | None, host: str, port: int) -> str:
    if url:
        return url.rstrip("/")
    here = connect_host(host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
