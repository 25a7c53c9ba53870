"""What `tether check` looks at around the database: clocks, folders, Redis, a running server."""

import re
import tempfile
import time
from collections.abc import Iterator

from tether.cli.commands.findings import Finding, ok, problem, warning
from tether.cli.servers import get, is_healthy, is_ready
from tether.cli.times import day, duration
from tether.domain.errors import SetupError
from tether.server.settings import metrics_address
from tether.storage.database import Database

TIMEOUT_S = 5.0
MOST_BYTES = 4_000_000
SLOW_CLOCK_MS, WRONG_CLOCK_MS = 2_000, 60_000
SOON_MS = 30 * 86_400_000
_METRIC = re.compile(r"^(tether_[a-z_]+)(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


def temporary() -> Finding:
    """Whether large bodies can be put aside while they arrive."""
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


def clock(database: Database) -> Finding:
    """This machine's clock against the database's, and against what was written to it."""
    ahead_ms = database.clock_ahead_ms()
    if ahead_ms is None:
        return ok("clock", "Nothing to compare it with yet.")
    advice = "Let the machine take its time from NTP: keys and stamps of events go by its clock."
    of = "PostgreSQL's" if database.file is None else "what was written last"
    if abs(ahead_ms) < SLOW_CLOCK_MS:
        return ok("clock", f"As {of}." if database.file is None else f"Not behind {of}.")
    text = f"{duration(abs(ahead_ms))} {'ahead of' if ahead_ms > 0 else 'behind'} {of}."
    if abs(ahead_ms) < WRONG_CLOCK_MS:
        return warning("clock", text, advice)
    return problem("clock", text, advice)


def redis(url: str) -> Finding:
    """Whether Redis answers."""
    from tether.server import maintenance

    try:
        version = maintenance.redis_version(url)
    except SetupError as error:
        return problem(
            "redis", error.message,
            "Until it answers each worker allows its share of the rates: start it, or mend "
            "--redis (TETHER_REDIS).",
        )  # fmt: skip
    return ok("redis", f"It answers (version {version}).")


def certificates(database: Database) -> Iterator[Finding]:
    """Whether those of a connection to PostgreSQL are to end soon."""
    now_ms = time.time_ns() // 1_000_000
    for name, ends_ms in database.certificates():
        text = f"{name}: until {day(ends_ms)}."
        if ends_ms <= now_ms:
            yield problem("certificate", f"{name}: ended {day(ends_ms)}.", "Renew it.")
        elif ends_ms <= now_ms + SOON_MS:
            yield warning("certificate", text, "Renew it soon.")
        else:
            yield ok("certificate", text)


# A running server ---------------------------------------------------------------------------------


def live(host: str, port: int, metrics: str, *, shares: bool) -> Iterator[Finding]:
    """What a running server says of itself. `shares`: its rate limits are to be in Redis."""
    at = f"{host} port {port}"
    if not is_healthy(host, port, TIMEOUT_S):
        yield problem("server", f"No Tether server answers on {at}.", "Start it, or see its log.")
        return
    if not is_ready(host, port, TIMEOUT_S):
        yield problem("server", f"The server on {at} is not ready.", "Its log says why.")
        return
    yield ok("server", f"A Tether server answers on {at}, and is ready.")
    address = (host, port) if metrics == "on" else metrics_address(metrics)
    page = get(*address, "/metrics", TIMEOUT_S, MOST_BYTES) if address else None
    if page is None or page.status != 200:
        yield warning("metrics", "The server tells no numbers.",
                      "Whether its workers reach Redis and have temporary files is not known: see "
                      "--metrics (TETHER_METRICS).")  # fmt: skip
        return
    numbers: dict[str, float] = {}
    for name, number in _METRIC.findall(page.body):
        numbers[name] = numbers.get(name, 0.0) + float(number)
    yield from _workers(numbers, shares=shares)


def _workers(numbers: dict[str, float], *, shares: bool) -> Iterator[Finding]:
    workers = int(numbers.get("tether_workers", 0))
    usable = int(numbers.get("tether_temporary_files_usable", workers))
    if usable < workers:
        yield problem("workers", f"{workers - usable} of {workers} have no temporary files.",
                      "Bodies above 64 KiB are answered 503: see its TMPDIR.")  # fmt: skip
    else:
        yield ok("workers", f"{workers}, all with temporary files.")
    lost = workers - int(numbers.get("tether_redis_in_use", 0)) if shares else 0
    if lost:
        yield warning("redis", f"{lost} of {workers} workers do not reach it.",
                      "They allow their share of the rates until they do.")  # fmt: skip
    elif shares:
        yield ok("redis", "All workers use it.")
    if failures := int(numbers.get("tether_derivation_failures_total", 0)):
        yield warning("derivation", f"{failures} portions of events could not be derived.",
                      "The log line `derivation failed` has the trace.")  # fmt: skip
