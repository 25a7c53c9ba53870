"""The checks of `tether check`: settings, database, machine and server. They change nothing."""

import enum
import os
import platform
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import click

from tether.cli import stores
from tether.cli.commands.database import epoch_text
from tether.cli.commands.serve import serve
from tether.cli.display.output import counted
from tether.cli.servers import get, is_healthy, is_ready
from tether.cli.times import format_day, format_duration
from tether.domain import timestamps
from tether.domain.errors import SetupError, TetherError
from tether.domain.keys import Key
from tether.domain.timestamps import DAY_MS
from tether.domain.webhooks import Status as WebhookStatus
from tether.server.databases import database_of
from tether.server.secret_box import key_file, keys_in, keys_in_file, place_of_key
from tether.server.settings import metrics_address
from tether.server.store import Store
from tether.storage.database import Database, ServerReport

LITTLE_SPACE, TOO_LITTLE_SPACE = 1_000_000_000, 100_000_000  # bytes
FEW_CONNECTIONS = 5
KEY_SOON_MS = 7 * DAY_MS
CERTIFICATE_SOON_MS = 30 * DAY_MS
SLOW_CLOCK_MS, WRONG_CLOCK_MS = 2_000, 60_000
TIMEOUT_S = 5.0  # of a request to a server that should run
PORT_TIMEOUT_S = 2.0  # of a request to an unknown program on the port
MAX_BYTES = 4_000_000  # of the page of metrics
_SEE_HELP = "tether serve --help lists the settings."
OTHER_VARIABLES = {"TETHER_URL", "TETHER_API_KEY"}  # of the commands for a partner's data
_METRIC = re.compile(r"^(tether_[a-z_]+)(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


class Status(enum.IntEnum):
    """The result of a check, from good to bad."""

    OK = 0
    WARNING = 1
    PROBLEM = 2


class Finding(NamedTuple):
    """The result of one check; `advice` says what to do."""

    check: str
    status: Status
    message: str
    advice: str = ""


def ok(check: str, message: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, Status.OK, message)


def warning(check: str, message: str, advice: str) -> Finding:
    """It works, but the operator should know."""
    return Finding(check, Status.WARNING, message, advice)


def problem(check: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check, Status.PROBLEM, message, advice)


def run_checks(given: Mapping[str, str | None], *, full: bool, live: bool) -> Iterator[Finding]:
    """All findings.

    `given` are settings as text, not checked yet. The other settings have their defaults. `live`:
    asks only the running server, which costs little.
    """
    yield ok("python", f"Python {platform.python_version()}")
    findings, settings = _settings(given)
    yield from findings
    if live:
        if {"host", "port", "metrics"} <= settings.keys():
            yield from _live_server(settings)
        return
    yield _temporary_files()
    if settings.get("redis"):
        yield _redis(settings["redis"])
    is_unserved = False
    if (database := settings.get("database")) is not None:
        try:
            found = database_of(database)
            yield ok("engine", found.version())
            yield from _database(found, database, settings, full=full)
            is_unserved = found.file is not None and not found.is_served()
        except TetherError as error:
            yield problem("database", error.message, "")
    if "host" in settings and "port" in settings:
        yield _port(settings["host"], settings["port"], is_unserved=is_unserved)


# Settings -----------------------------------------------------------------------------------------


def _settings(given: Mapping[str, str | None]) -> tuple[list[Finding], dict[str, Any]]:
    """The problems of the settings, and the values of the valid settings."""
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
            name = f"{option.opts[0]} ({option.envvar})"
            findings.append(problem("settings", f"{name}: {error.message}", _SEE_HELP))
    known = {str(option.envvar) for option in serve.params} | OTHER_VARIABLES
    for name in sorted({name for name in os.environ if name.startswith("TETHER_")} - known):
        close = get_close_matches(name, known, 1)
        advice = f"Did you mean {close[0]}?" if close else _SEE_HELP
        findings.append(warning("settings", f"{name} is not a setting.", advice))
    if not findings:
        given_text = f"{used} given, the others have their defaults."
        findings.append(ok("settings", given_text if used else "All at their defaults."))
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
        yield from _file(found.file)
    if pending:
        yield problem("schema", f"{counted(pending, 'step')} missing.", "Run tether migrate.")
    else:
        yield ok("schema", "Up to date.")
    if (postgres := found.server_report()) is not None:
        yield from _server_report(postgres, pending)
    elif damages := found.damages(full=full):
        yield problem("integrity", f"Damaged: {damages[0]}",
                      "Stop the server and restore the last backup.")  # fmt: skip
    else:
        yield ok("integrity", "No damage found.")
    yield from _certificates(found)
    if not pending:
        yield _clock(found)
        yield ok("epoch", epoch_text(found.epoch()))
        keys, webhooks, secrets = stores.in_store(name, _read, announce=False)
        yield _keys(keys)
        try:
            yield _webhooks(webhooks, secrets, _secret_keys(found, settings.get("secret_key")))
        except SetupError as error:
            yield problem("webhooks", error.message, "")


async def _read(store: Store, now_ms: int) -> tuple[list[Key], dict[WebhookStatus, int], list[str]]:
    webhooks = store.webhooks
    return await store.keys.all(), await webhooks.counts(), await webhooks.secrets()


def _secret_keys(found: Database, given: str | None) -> list[str] | None:
    """The keys that decrypt secrets; None if the server would have none. Raises SetupError."""
    if given:
        return keys_in(given)
    if found.file is None:
        return None
    file = key_file(found.file)
    return keys_in_file(file) if file.exists() else []


def _folder(folder: Path) -> Iterator[Finding]:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # the server creates missing folders
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
        yield warning("disk", text, "A million events take up to 0.9 GB.")
    else:
        yield ok("disk", text)


def _file(file: Path) -> Iterator[Finding]:
    mode = file.stat().st_mode & 0o777
    if not os.access(file, os.R_OK | os.W_OK):
        yield problem("permissions", f"{file.name} is not yours to read and write.",
                      "Run as the server's user.")  # fmt: skip
    elif mode & 0o007:
        yield warning("permissions", f"Every user of this machine can open it (mode {mode:o}).",
                      f"chmod 600 {file}")  # fmt: skip
    else:
        yield ok("permissions", f"Not open to everybody (mode {mode:o}).")
    if file.stat().st_nlink > 1:
        yield warning("names", f"{file.name} has another name, too (a hard link).",
                      "A program that opens it by that name damages it: remove it.")  # fmt: skip


def _server_report(found: ServerReport, pending: int) -> Iterator[Finding]:
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
    free = found.free_connections
    text = f"{max(free, 0):,} of PostgreSQL's {found.max_connections:,} connections are free."
    if free < FEW_CONNECTIONS:
        yield warning("connections", text,
                      "Raise max_connections, lower --pool-size, or use a pooler.")  # fmt: skip
    else:
        yield ok("connections", text)


def _webhooks(
    counts: dict[WebhookStatus, int], secrets: list[str], keys: list[str] | None
) -> Finding:
    total, failing = sum(counts.values()), counts[WebhookStatus.FAILING]
    stopped = counts[WebhookStatus.STOPPED]
    if keys is None:
        text = f"{counted(total, 'webhook')}, and no key for their secrets: none can be made."
        advice = "Set TETHER_SECRET_KEY, the same on all nodes, if partners want webhooks."
        return (problem if total else warning)("webhooks", text, advice)
    places = [place_of_key(secret, keys) for secret in secrets]
    if lost := places.count(None):
        text = f"The secrets of {counted(lost, 'webhook')} cannot be decrypted."
        advice = "Set TETHER_SECRET_KEY as the server has it, with the earlier key behind a comma."
        return problem("webhooks", text, advice)
    text = f"{counted(total, 'webhook')}: {failing:,} failing, {stopped:,} stopped."
    if older := sum(map(bool, places)):
        text += f" {counted(older, 'secret')} of an earlier key."
    if failing or stopped:
        advice = "GET /webhooks/{id}/attempts, or the console, says why. Tell the partners."
        return warning("webhooks", text, advice)
    return ok("webhooks", text if total else "None.")


def _keys(keys: list[Key]) -> Finding:
    now_ms = timestamps.now_ms()
    active = [key for key in keys if key.works_at(now_ms)]
    if not active:
        return warning("keys", "No key works: nobody can call the API.",
                       "tether keys create PARTNER")  # fmt: skip
    partners = {key.partner for key in active}
    lasting = {key.partner for key in active if key.works_at(now_ms + KEY_SOON_MS)}
    text = f"{len(active):,} active of {counted(len(partners), 'partner')}."
    if partners == lasting:
        return ok("keys", text)
    ending = sorted({key.partner_name for key in active if key.partner not in lasting})
    others = f" and {len(ending) - 1:,} more" if len(ending) > 1 else ""
    return warning(
        "keys", f"{text} All keys of {ending[0]}{others} end within a week.",
        "tether keys list says when; tether keys rotate makes new ones.",
    )  # fmt: skip


# The machine and the server -----------------------------------------------------------------------


def _temporary_files() -> Finding:
    """Whether the server can buffer large bodies in temporary files."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 65_536)
            file.flush()
        return ok("temporary", f"{tempfile.gettempdir()} is writable.")
    except OSError as error:
        return problem(
            "temporary", f"No temporary file can be written: {error.strerror}.",
            "Bodies above 64 KiB are answered 503: name a folder with TMPDIR.",
        )  # fmt: skip


def _clock(database: Database) -> Finding:
    """Compares this machine's clock with the database's, or with the newest data in it."""
    ahead_ms = database.clock_ahead_ms()
    if ahead_ms is None:
        return ok("clock", "Nothing to compare it with yet.")
    advice = "Let the machine take its time from NTP: keys and stamps of events go by its clock."
    of = "PostgreSQL's" if database.file is None else "what was written last"
    if abs(ahead_ms) < SLOW_CLOCK_MS:
        return ok("clock", f"As {of}." if database.file is None else f"Not behind {of}.")
    text = (
        f"{format_duration(abs(ahead_ms) // 1000)} {'ahead of' if ahead_ms > 0 else 'behind'} {of}."
    )
    return (warning if abs(ahead_ms) < WRONG_CLOCK_MS else problem)("clock", text, advice)


def _redis(url: str) -> Finding:
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as redis:
            version = redis.info("server")["redis_version"]
    except (RedisError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return problem(
            "redis", f"Redis does not answer: {reason}.",
            "Until it answers each worker allows its share of the rates: start it, or mend "
            "--redis (TETHER_REDIS).",
        )  # fmt: skip
    return ok("redis", f"It answers (version {version}).")


def _certificates(database: Database) -> Iterator[Finding]:
    """Whether the certificates of a connection to PostgreSQL end soon."""
    now_ms = timestamps.now_ms()
    for name, ends_ms in database.certificates():
        if ends_ms <= now_ms:
            yield problem("certificate", f"{name}: ended {format_day(ends_ms)}.", "Renew it.")
        elif ends_ms <= now_ms + CERTIFICATE_SOON_MS:
            yield warning("certificate", f"{name}: until {format_day(ends_ms)}.", "Renew it soon.")
        else:
            yield ok("certificate", f"{name}: until {format_day(ends_ms)}.")


def _live_server(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """What the running server reports."""
    host: str = settings["host"]
    port: int = settings["port"]
    at = f"{host} port {port}"
    if not is_healthy(host, port, TIMEOUT_S):
        yield problem("server", f"No Tether server answers on {at}.", "Start it, or see its log.")
        return
    if not is_ready(host, port, TIMEOUT_S):
        yield problem("server", f"The server on {at} is not ready.", "Its log says why.")
        return
    yield ok("server", f"A Tether server answers on {at}, and is ready.")
    address = (host, port) if settings["metrics"] == "on" else metrics_address(settings["metrics"])
    page = get(*address, "/metrics", TIMEOUT_S, MAX_BYTES) if address else None
    if page is None or page.status != 200:
        yield warning("metrics", "The server tells no numbers.",
                      "Whether its workers reach Redis and have temporary files is not known: see "
                      "--metrics (TETHER_METRICS).")  # fmt: skip
        return
    numbers: dict[str, float] = {}
    for name, number in _METRIC.findall(page.body):
        numbers[name] = numbers.get(name, 0.0) + float(number)
    yield from _workers(numbers, uses_redis=bool(settings.get("redis")))


def _workers(numbers: dict[str, float], *, uses_redis: bool) -> Iterator[Finding]:
    workers = int(numbers.get("tether_workers", 0))
    usable = int(numbers.get("tether_temporary_files_usable", workers))
    if usable < workers:
        yield problem("workers", f"{workers - usable} of {workers} have no temporary files.",
                      "Bodies above 64 KiB are answered 503: see its TMPDIR.")  # fmt: skip
    else:
        yield ok("workers", f"{workers}, all with temporary files.")
    lost = workers - int(numbers.get("tether_redis_in_use", 0)) if uses_redis else 0
    if lost:
        yield warning("redis", f"{lost} of {workers} workers do not reach it.",
                      "They allow their share of the rates until they do.")  # fmt: skip
    elif uses_redis:
        yield ok("redis", "All workers use it.")
    if failures := int(numbers.get("tether_derivation_failures_total", 0)):
        yield warning("derivation", f"{failures} portions of events could not be derived.",
                      "The log line `derivation failed` has the trace.")  # fmt: skip


def _port(host: str, port: int, *, is_unserved: bool) -> Finding:
    """`is_unserved`: surely no server uses the database."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        return problem("port", f"{host} is no address of this machine: {error}",
                       "Choose another with --host (TETHER_HOST).")  # fmt: skip
    try:
        socket.create_server(address, family=family).close()
    except OSError as error:
        if not is_healthy(host, port, PORT_TIMEOUT_S):
            reason = os.strerror(error.errno) if error.errno else error
            return problem("port", f"{host} port {port}: {reason}.",
                           "Choose another with --port (TETHER_PORT).")  # fmt: skip
        if not is_ready(host, port, PORT_TIMEOUT_S):
            return problem("port", f"A Tether server answers on {port} but is not ready.",
                           "Its log says why.")  # fmt: skip
        if is_unserved:
            return warning("port", f"A Tether server answers on {port}, but not on this database.",
                           "Name the server's database with --database (TETHER_DATABASE), or "
                           "another --port (TETHER_PORT).")  # fmt: skip
        return ok("port", f"A Tether server answers on {port}, and is ready.")
    return ok("port", f"{port} on {host} is free." if port else "Any free one.")
