"""The contestants: Tether, its variants for the benchmark, and the peers.

Each is prepared on an empty database (schema, a key, the same 1,000 chargers
and 1,000 vehicles) and then started on it.
"""

import hashlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.databases import Database, Engine
from bench.install import FASTAPI_VENV, PEERS, install_fastapi_peer, install_node_peer
from bench.processes import (
    CORES,
    SERVER_CORES,
    StartError,
    free_port,
    spawn,
    stop,
    wait_until_answering,
)

THINGS = 1000  # chargers, and vehicles; wrk/post.lua names the same
CHARGERS = [f"C{n:04d}" for n in range(THINGS)]
VEHICLES = [f"V{n:04d}" for n in range(THINGS)]
PEER_KEY = "the-benchmark-key-of-the-peers-32-letters-and"
TETHER = Path(sys.executable).with_name("tether")
VARIANT = (sys.executable, "-m", "bench.variants")
PUT_EVERY_S = 0.01
POOL = "20"  # connections of each peer that has a pool; 10 and 64 were within the noise


@dataclass(frozen=True)
class Server:
    """A server that answers requests."""

    url: str
    port: int
    key: str
    pid: int
    database: Database
    log: Path
    seconds_to_first_answer: float


@dataclass(frozen=True)
class Contestant:
    """How one contestant is prepared and started."""

    name: str
    engine: Engine
    install: Callable[[], None]
    prepare: Callable[[Database], str]  # an empty database in, the key out
    command: Callable[[Database, int], list[str]]
    stores: bool = True  # whether a 201 means a row in its database
    is_tether: bool = False
    cwd: Path | None = None
    cores: Sequence[int] = tuple(SERVER_CORES)

    @contextmanager
    def running(self, database: Database, key: str, log: Path) -> Iterator[Server]:
        """Run it on a prepared database."""
        port = free_port()
        process = spawn(
            self.command(database, port),
            log,
            cores=self.cores,
            cwd=self.cwd,
            env={"DATABASE": database.url, "PORT": str(port), "POOL": POOL},
        )
        seconds = wait_until_answering(process, port, key, log)
        url = f"http://127.0.0.1:{port}"
        try:
            yield Server(url, port, key, process.pid, database, log, seconds)
        finally:
            stop(process)


# Tether --------------------------------------------------------------------


def tether(engine: Engine, workers: int = 1) -> Contestant:
    """The product as `tether serve` runs it."""
    name = "Tether" if workers == 1 else f"Tether, {workers} workers"
    options = [] if workers == 1 else ["--workers", str(workers)]
    return _tether(name, engine, [str(TETHER), "serve", *options], workers=workers)


def without_storage(engine: Engine) -> Contestant:
    """The product whose storage answers POST /events at once."""
    return _tether("Tether, storage replaced", engine, [*VARIANT, "storage", "serve"], stores=False)


def with_constant(engine: Engine) -> Contestant:
    """The product whose GET /chargers/{id} answers a constant."""
    return _tether("Tether, constant answer", engine, [*VARIANT, "constant", "serve"], stores=False)


def without_derivation(engine: Engine) -> Contestant:
    """The product, which stores events but does not derive anything."""
    return _tether("Tether, nothing derived", engine, [*VARIANT, "derivation", "serve"])


def run_tether(*arguments: str) -> str:
    """Runs the command; returns its standard output. Raises StartError."""
    done = subprocess.run([TETHER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"tether {arguments[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def _tether(
    name: str, engine: Engine, serve: Sequence[str], *, stores: bool = True, workers: int = 1
) -> Contestant:
    return Contestant(
        name,
        engine,
        install=lambda: None,
        prepare=_prepare_tether,
        command=lambda database, port: [
            *(*serve, "--host", "127.0.0.1", "--port", str(port), "--database", database.url)
        ],
        stores=stores,
        is_tether=True,
        cores=tuple(CORES[:workers]),
    )


def _prepare_tether(database: Database) -> str:
    if database.engine == "postgres":  # a file is made by whoever comes first, not this
        run_tether("migrate", "--database", database.url)
    limits = ("--rate", "1000000", "--burst", "1000000")
    return run_tether("keys", "create", "bench", *limits, "--database", database.url)


def seed(server: Server) -> None:
    """PUT the chargers and vehicles."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for identifier in CHARGERS:
        _put(connection, server.key, f"/chargers/{identifier}", _charger(identifier))
    for identifier in VEHICLES:
        _put(connection, server.key, f"/vehicles/{identifier}", _vehicle(identifier))
    connection.close()


@contextmanager
def being_written(server: Server) -> Iterator[None]:
    """Meanwhile a client puts a vehicle a hundred times a second: no cached row stays valid."""
    over = threading.Event()

    def put_again() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        while not over.wait(PUT_EVERY_S):
            _put(connection, server.key, f"/vehicles/{VEHICLES[0]}", _vehicle(VEHICLES[0]))
        connection.close()

    writer = threading.Thread(target=put_again, daemon=True)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def _put(
    connection: http.client.HTTPConnection, key: str, path: str, body: dict[str, object]
) -> None:
    connection.request("PUT", path, json.dumps(body), {"x-api-key": key})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status not in (200, 201):
        raise StartError(f"PUT {path}: {answer.status} {text}")


def _charger(identifier: str) -> dict[str, object]:
    place = {"latitude": 62.268302, "longitude": 17.448415}
    return {"id": identifier, "chargePowers": [11, 22], **place}


def _vehicle(identifier: str) -> dict[str, object]:
    return {"id": identifier, "chargeCapacity": 74.8, "chargePowers": [11]}


# Peers ---------------------------------------------------------------------


def fastify_sqlite() -> Contestant:
    """The peer on Node.js with an embedded database."""
    return _fastify("Fastify + better-sqlite3", "sqlite", PEERS / "fastify-sqlite")


def fastify_postgres() -> Contestant:
    """The peer on Node.js with PostgreSQL."""
    return _fastify("Fastify + pg", "postgres", PEERS / "fastify-pg")


def _fastify(name: str, engine: Engine, folder: Path) -> Contestant:
    return Contestant(
        name,
        engine,
        install=lambda: install_node_peer(folder),
        prepare=_prepare_peer,
        command=lambda _database, _port: ["node", "server.js"],
        cwd=folder,
    )


def fastapi() -> Contestant:
    """The peer on FastAPI, in one uvicorn process with uvloop and httptools."""
    uvicorn = str(FASTAPI_VENV / "bin" / "uvicorn")
    options = ["--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools"]
    options += ["--no-access-log", "--no-proxy-headers"]
    return Contestant(
        "FastAPI + SQLModel + PostgreSQL",
        "postgres",
        install=install_fastapi_peer,
        prepare=_prepare_peer,
        command=lambda _database, port: [uvicorn, "app:app", *options, "--port", str(port)],
        cwd=PEERS / "fastapi-sqlmodel",
    )


def _prepare_peer(database: Database) -> str:
    digest = hashlib.sha256(PEER_KEY.encode()).hexdigest()
    script = [(PEERS / f"schema.{database.engine}.sql").read_text()]
    script.append(f"INSERT INTO api_keys VALUES ('{digest}', 'bench');")
    for table, bodies in (
        ("chargers", map(_charger, CHARGERS)),
        ("vehicles", map(_vehicle, VEHICLES)),
    ):
        rows = ",".join(f"('bench', '{body['id']}', '{json.dumps(body)}')" for body in bodies)
        script.append(f"INSERT INTO {table} VALUES {rows};")
    database.run("\n".join(script))
    return PEER_KEY
