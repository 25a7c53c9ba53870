"""`tether demo`: a server to try, with a key and commands to paste. `make run` calls it."""

import errno
import os
import sys
from pathlib import Path

import click

from tether.cli import stores
from tether.cli.display.output import note
from tether.cli.options import FilePath, WholeNumber
from tether.cli.writing import FOR_OWNER, replacing
from tether.domain.errors import SetupError
from tether.domain.keys import Rate, digest_of, is_well_formed
from tether.server import admin
from tether.server.databases import database_of
from tether.server.settings import Settings
from tether.server.store import Store

PARTNER = "demo"
RATE = Rate(10_000, 1)
HOST = "127.0.0.1"


@click.command()
@click.option("--port", default=8000, type=WholeNumber(0, 65535), envvar="TETHER_PORT",
              show_default=True, show_envvar=True, help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--data", "folder", default=".tether", show_default=True, metavar="DIR",
              type=FilePath(file_okay=False, path_type=Path),
              help="Where the database and the key are kept.")  # fmt: skip
def demo(port: int, folder: Path) -> None:
    """Try it: serve here, with a key and commands to paste.

    Run again, it keeps data and key.
    """
    from tether.server import logging
    from tether.server.launch import launch

    database, file = str(folder / "tether.db"), folder / "demo.key"
    key, link = _key_and_link(database, file)
    settings = Settings(
        database=database,
        host=HOST,
        port=port,
        log_format="auto",
        demo_key=str(file),
        key_requests="on",
    )
    try:
        launch(settings, lambda url: _welcome(url, key, link, folder))
    except SetupError as error:
        raise _with_advice(error, port, folder) from error
    logging.tell(f"\nStopped. Data and key stay in {folder}.", err=True)


def _key_and_link(database: str, file: Path) -> tuple[str, str]:
    """The key of the demo partner and the path of a link to the console.

    Keeps the key in the file if it still works, otherwise makes a new one.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{file.parent} cannot be made: {error.strerror}.") from error
    found = database_of(database)
    new = not found.exists()
    found.migrate()
    saved_key = file.read_text(encoding="ascii", errors="replace").strip() if file.exists() else ""

    async def find(store: Store, now_ms: int) -> tuple[str, str]:
        link = await admin.console_link(store, now_ms)
        known = await store.keys.find(digest_of(saved_key))
        if known is not None and is_well_formed(saved_key) and known.works_at(now_ms):
            return saved_key, link
        secret, _ = await admin.create_key(store, now_ms, PARTNER, name="demo", rate=RATE)
        return secret, link

    key, link = stores.in_store(database, find, announce=False)
    if key != saved_key:
        with replacing(file, FOR_OWNER) as new_file:
            new_file.write_text(f"{key}\n", encoding="ascii")
        if saved_key:
            note(f"The key in {file} does not work here: there is a new one now.")
        elif not new:
            note(f"The key in {file} was lost: there is a new one now.")
    return key, link


def _with_advice(error: SetupError, port: int, folder: Path) -> SetupError:
    other = port + 1 if port < 65535 else port - 1
    cause = error.__cause__ or error.__context__
    if isinstance(cause, BlockingIOError):  # the lock that a server has on its database
        return SetupError(
            f"A server runs on {folder} already: use that one, or stop it, or begin another with "
            f"tether demo --data DIR --port {other}"
        )
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
        return SetupError(f"Port {port} is in use; take another one: PORT={other} make run")
    return error


# Users paste these into a shell as they are.
_COMMANDS = """\
  Paste into another terminal: a charger, a vehicle, and it is plugged in.

curl -X PUT {url}/chargers/C1408 \\
  -H 'x-api-key: {key}' \\
  -d '{{"chargePowers": [11, 22], "latitude": 62.268, "longitude": 17.448}}'

curl -X PUT {url}/vehicles/V0313 \\
  -H 'x-api-key: {key}' \\
  -d '{{"chargeCapacity": 74.8, "chargePowers": [11]}}'

curl -X POST {url}/events \\
  -H 'x-api-key: {key}' \\
  -d '{{"type": "VEHICLE_CONNECTED", "chargerId": "C1408", "vehicleId": "V0313",
       "stateOfCharge": 22.0, "timestamp": "2023-05-11T22:06:40.738Z"}}'

  And here it is:

curl {url}/events \\
  -H 'x-api-key: {key}'
"""


def _welcome(url: str, key: str, link: str, folder: Path) -> None:
    from tether.server import logging

    facts = [
        ("Key", key),
        ("Console", f"{url}{link}"),
        ("", "(signs you in once, within ten minutes)"),
        ("Reference", f"{url}/docs"),
        ("Data", f"{folder / ''}{os.sep}  (Ctrl-C stops; data and key stay)"),
    ]
    lines = [f"  {click.style(name.ljust(9), dim=True)}  {text}" for name, text in facts]
    title = f"  Tether listens on {click.style(url, bold=True)}"
    commands = _COMMANDS.format(url=url, key=key)
    welcome = "\n".join(["", title, "", *lines, "", commands])
    logging.tell(welcome if sys.stdout.isatty() else click.unstyle(welcome))
