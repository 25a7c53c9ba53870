"""What `tether check` looks at: each check yields one finding, and none changes anything."""

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from tether.cli import stores
from tether.cli.commands import surroundings
from tether.cli.commands.epoch import described
from tether.cli.commands.findings import Finding, ok, problem, warning
from tether.cli.commands.serve import serve
from tether.cli.display.output import counted
from tether.cli.servers import is_healthy, is_ready
from tether.domain.errors import TetherError
from tether.domain.keys import Key
from tether.domain.webhooks import Status as WebhookStatus
from tether.server.store import Store
from tether.storage.database import Database, Surroundings

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE = 1_000_000_000
TOO_LITTLE_SPACE = 100_000_000
FEW_CONNECTIONS = 5
SOON_MS = 7 * 86_400_000
TIMEOUT_S = 2.0
_SEE_HELP = "tether serve --help lists the settings."
OTHER_VARIABLES = {"TETHER_URL", "TETHER_API_KEY"}  # of the commands for a partner's data


def inspect(given: Mapping[str, str | None], *, full: bool, live: bool) -> Iterator[Finding]:
    """All findings. `given` are settings as text, unchecked; those not given have defaults.

    `live`: only what a running server says of itself, which takes little of anybody.
    """
    from tether.server.bootstrap import database_of

    yield _python()
    findings, settings = _settings(given)
    yield from findings
    if live:
        if {"host", "port", "metrics"} <= settings.keys():
            yield from surroundings.live(
                settings["host"], settings["port"], settings["metrics"],
                shares=bool(settings.get("redis")),
            )  # fmt: skip
        return
    yield surroundings.temporary()
    if settings.get("redis"):
        yield surroundings.redis(settings["redis"])
    database = settings.get("database")
    if database is not None:
        try:
            found = database_of(database)
            yield ok("engine", found.version())
            yield from _database(found, database, settings, full=full)
        except TetherError as error:
            yield problem("database", error.message, "")
    if "host" in settings and "port" in settings:
        yield _port(settings["host"], settings["port"])


def _python() -> Finding:
    found = f"Python {platform.python_version()}"
    if sys.version_info < OLDEST_PYTHON:
        return problem("python", f"{found} is too old.", "Tether needs Python 3.11 or newer.")
    return ok("python", found)


# Settings -----------------------------------------------------------------------------------------


def _settings(given: Mapping[str, str | None]) -> tuple[list[Finding], dict[str, Any]]:
    """What is wrong with the settings, and those that are right."""
    findings: list[Finding] = []
    settings: dict[str, Any] = {}
    context = click.Context(serve, info_name="serve")
    used = 0
    for option in serve.params:
        assert option.name is not None
        text = given.get(option.name) or os.environ.get(str(option.envvar)) or None
        used += text is not None
        try:
            value = option.get_default(context) if text is None else text
            settings[option.name] = option.process_value(context, value)
        except click.BadParameter as error:
            named = f"{option.opts[0]} ({option.envvar})"
            findings.append(problem("settings", f"{named}: {error.message}", _SEE_HELP))
    known = {str(option.envvar) for option in serve.params} | OTHER_VARIABLES
    for name in sorted(set(filter(lambda name: name.startswith("TETHER_"), os.environ)) - known):
        close = get_close_matches(name, known, 1)
        advice = f"Did you mean {close[0]}?" if close else _SEE_HELP
        findings.append(warning("settings", f"{name} is not a setting.", advice))
    if not findings:
        text = (
            f"{used} given, the others have their defaults." if used else "All at their defaults."
        )
        findings.append(ok("settings", text))
    return findings, settings


# Database -----------------------------------------------------------------------------------------


def _database(
    found: Database, name: str, settings: Mapping[str, Any], *, full: bool
) -> Iterator[Finding]:
    if found.file is not None:
        yield from _folder(found.file.absolute().parent)
    if not found.exists():
        yield warning("database", f"{found.describe()} does not exist yet.",
                      "tether serve makes it.")  # fmt: skip
        return
    pending = found.pending_steps()
    yield ok("database", found.describe())
    if found.file is not None:
        yield from _permissions(found.file)
        yield from _names(found.file)
    if pending:
        yield problem("schema", f"{counted(pending, 'step')} missing.", "Run tether migrate.")
    else:
        yield ok("schema", "Up to date.")
    if (around := found.surroundings()) is not None:
        yield from _surroundings(around, pending)
    else:
        yield _integrity(found.damages(full=full))  # a server does it when it reads a page
    yield from surroundings.certificates(found)
    if not pending:
        yield surroundings.clock(found)
        yield ok("epoch", described(found.epoch()))
        yield _keys(*stores.in_store(name, _all_keys, tell=False))
        yield _webhooks(
            stores.in_store(name, _webhook_counts, tell=False),
            can_sign=bool(settings.get("secret_key")) or found.file is not None,
        )


def _folder(folder: Path) -> Iterator[Finding]:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # what is missing would be made here
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield ok("folder", f"{folder} is writable.")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield problem(
            "folder", f"{folder} is not writable: {error.strerror}.",
            "SQLite writes beside its file: let the server's user write there.",
        )  # fmt: skip
        return
    text = f"{free / 1e9:,.1f} GB free."
    if free < TOO_LITTLE_SPACE:
        yield problem("disk", text, "Writes will fail soon: make room.")
    elif free < LITTLE_SPACE:
        yield warning("disk", text, "A million events take about 0.5 GB.")
    else:
        yield ok("disk", text)


def _names(file: Path) -> Iterator[Finding]:
    if file.stat().st_nlink > 1:
        yield warning("names", f"{file.name} has another name, too (a hard link).",
                      "Whoever opens it by that one damages it: remove it.")  # fmt: skip


def _permissions(file: Path) -> Iterator[Finding]:
    mode = file.stat().st_mode & 0o777
    if not os.access(file, os.R_OK | os.W_OK):
        yield problem("permissions", f"{file.name} is not yours to read and write.",
                      "Run as the server's user.")  # fmt: skip
    elif mode & 0o007:
        yield warning("permissions", f"Every user of this machine can open it (mode {mode:o}).",
                      f"chmod 600 {file}")  # fmt: skip
    else:
        yield ok("permissions", f"Not open to everybody (mode {mode:o}).")


def _surroundings(found: Surroundings, pending: int) -> Iterator[Finding]:
    if found.risks:
        yield warning("durability", f"The server runs with {', '.join(found.risks)}.",
                      "Switch it on: what was acknowledged may be lost.")  # fmt: skip
    else:
        yield ok("durability", "Commits are on disk before they are answered.")
    if found.missing_rights:
        yield problem("rights", f"The role lacks {'; '.join(found.missing_rights)}.",
                      "Requests that need it are answered 503: GRANT it.")  # fmt: skip
    elif not pending:
        yield ok("rights", "The role may read and write all that it has to.")
    if found.is_replica:
        yield warning("writes", "This server is a replica: reads only.",
                      "target_session_attrs=read-write in the URL finds the primary.")  # fmt: skip
    elif found.read_only:
        yield problem("writes", "default_transaction_read_only = on: writes are answered 503.",
                      "ALTER ROLE or ALTER DATABASE … RESET it.")  # fmt: skip
    if found.encoding != "UTF8":
        yield problem("encoding", f"The database has the encoding {found.encoding}, not UTF8.",
                      "Make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and "
                      "move the data there with pg_dump and pg_restore.")  # fmt: skip
    if found.settings:
        advice = "Tether sets what it needs on each of its connections."
        if not found.direct:
            advice = "Behind a pooler Tether sets nothing: ALTER ROLE or ALTER DATABASE … RESET it."
        yield warning("settings", f"PostgreSQL has {', '.join(found.settings)}.", advice)
    text = f"{max(found.free, 0):,} of PostgreSQL's {found.most:,} connections are free."
    if found.free < FEW_CONNECTIONS:
        yield warning("connections", text,
                      "Raise max_connections, lower --pool-size, or use a pooler.")  # fmt: skip
    else:
        yield ok("connections", text)


def _integrity(damages: list[str]) -> Finding:
    if not damages:
        return ok("integrity", "No damage found.")
    return problem(
        "integrity", f"Damaged: {damages[0]}", "Stop the server and restore the last backup."
    )


async def _webhook_counts(store: Store, now_ms: int) -> dict[WebhookStatus, int]:
    return await store.webhooks.counts()


def _webhooks(counts: dict[WebhookStatus, int], *, can_sign: bool) -> Finding:
    total, failing = sum(counts.values()), counts[WebhookStatus.FAILING]
    stopped = counts[WebhookStatus.STOPPED]
    if not can_sign:
        text = f"{counted(total, 'webhook')}, and no key for their secrets: none can be made."
        advice = "Set TETHER_SECRET_KEY, the same on all nodes, if partners want webhooks."
        return (problem if total else warning)("webhooks", text, advice)
    text = f"{counted(total, 'webhook')}: {failing:,} failing, {stopped:,} stopped."
    if failing or stopped:
        advice = "GET /webhooks/{id}/attempts, or the console, says why. Tell the partners."
        return warning("webhooks", text, advice)
    return ok("webhooks", text if total else "None.")


async def _all_keys(store: Store, now_ms: int) -> tuple[list[Key], int]:
    return await store.keys.all(), now_ms


def _keys(keys: list[Key], now_ms: int) -> Finding:
    active = [key for key in keys if key.works_at(now_ms)]
    if not active:
        return warning("keys", "No key works: nobody can call the API.",
                       "tether keys create PARTNER")  # fmt: skip
    partners = {key.partner for key in active}
    lasting = {key.partner for key in active if key.works_at(now_ms + SOON_MS)}
    text = f"{len(active):,} active of {counted(len(partners), 'partner')}."
    if partners == lasting:
        return ok("keys", text)
    ending = sorted({key.partner_name for key in active if key.partner not in lasting})
    others = f" and {len(ending) - 1:,} more" if len(ending) > 1 else ""
    return warning(
        "keys", f"{text} All keys of {ending[0]}{others} end within a week.",
        "tether keys list says when; tether keys rotate makes new ones.",
    )  # fmt: skip


# Port ---------------------------------------------------------------------------------------------


def _port(host: str, port: int) -> Finding:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        return problem("port", f"{host} is no address of this machine: {error}",
                       "Choose another with --host (TETHER_HOST).")  # fmt: skip
    try:
        socket.create_server(address, family=family).close()
    except OSError as error:
        answer = _who_answers(host, port)
        if answer is None:
            return problem("port", f"{host} port {port}: {_reason(error)}.",
                           "Choose another with --port (TETHER_PORT).")  # fmt: skip
        return answer
    return ok("port", f"{port} on {host} is free." if port else "Any free one.")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _who_answers(host: str, port: int) -> Finding | None:
    """What to say if a Tether server answers there."""
    if not is_healthy(host, port, TIMEOUT_S):
        return None
    if not is_ready(host, port, TIMEOUT_S):
        return problem("port", f"A Tether server answers on {port} but is not ready.",
                       "Its log says why.")  # fmt: skip
    return ok("port", f"A Tether server answers on {port}, and is ready.")
