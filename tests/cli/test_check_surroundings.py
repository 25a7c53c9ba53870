"""`tether check` finds problems around the database, and asks a running server with --live."""

import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import Command
from tests.conftest import TETHER, Server
from tests.services import free_port, make_certificate, running_redis
from tether.storage.postgres.database import PostgresDatabase

SHIFTED = Path(__file__).parents[1] / "abuse" / "shifted_clock.py"
Found = dict[str, tuple[str, str]]


def checks(tether: Command, *words: str, **variables: str) -> Found:
    """Status and message of each check."""
    done = tether("check", "--json", *words, **variables)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert done.returncode == (not report["ok"])
    return {one["check"]: (one["status"], one["message"]) for one in report["checks"]}


def test_live_asks_the_server_and_what_its_workers_have(
    new_server: Callable[..., Server], tether: Command, tmp_path: Path
) -> None:
    port = {"TETHER_PORT": str(free_port())}
    assert checks(tether, "--live", **port)["server"][0] == "problem"

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with running_redis() as redis:
        server = new_server("--redis", redis.url, TMPDIR=str(temporary))
        port["TETHER_PORT"] = server.url.rpartition(":")[2]
        deadline = time.monotonic() + 120
        while "warning" in (found := checks(tether, "--live", TETHER_REDIS=redis.url, **port)).get(
            "redis", ("warning",)
        ):
            assert time.monotonic() < deadline, found  # a worker finds Redis with its first request
            server.client().get("/chargers")
        assert {status for status, _ in found.values()} == {"ok"}, found
        assert found["workers"] == ("ok", "1, all with temporary files.")
    temporary.rmdir()
    deadline = time.monotonic() + 120
    while checks(tether, "--live", **port)["workers"][0] == "ok":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    server.kill()
    assert checks(tether, "--live", **port)["server"][0] == "problem"


@pytest.mark.parametrize("host", ["..", "a b", "x" * 80])
def test_live_says_of_a_host_that_is_no_name_that_no_server_answers(
    tether: Command, host: str
) -> None:
    status, message = checks(tether, "--live", "--host", host)["server"]
    assert (status, message.partition(" port")[0]) == (
        "problem", f"No Tether server answers on {host}",
    )  # fmt: skip


def test_redis_that_does_not_answer_is_a_problem(tether: Command) -> None:
    port = {"TETHER_PORT": "0"}
    with running_redis() as redis:
        url = redis.url.replace("redis://", "redis://user:s3cret@")
        assert checks(tether, TETHER_REDIS=redis.url, **port)["redis"][0] == "ok"
        status, said = checks(tether, TETHER_REDIS=url, **port)["redis"]
        assert status == "problem"
        assert "s3cret" not in said
    status, said = checks(tether, TETHER_REDIS=url, **port)["redis"]
    assert (status, "refused" in said, "s3cret" in said) == ("problem", True, False)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_clock_that_is_slow_is_a_problem(
    tether_on: Callable[[str], Command],
    new_postgres_database: Callable[[], str],
    tmp_path: Path,
    engine: str,
) -> None:
    database = new_postgres_database() if engine == "postgres" else str(tmp_path / "tether.db")
    tether = tether_on(database)
    tether.ok("migrate")
    tether.ok("keys", "create", "acme")
    assert checks(tether, TETHER_PORT="0")["clock"][0] == "ok"
    for days, status in ((-2, "problem"), (2, "problem" if engine == "postgres" else "ok")):
        (tmp_path / "offset").write_text(str(days * 86_400))
        done = subprocess.run(
            [sys.executable, SHIFTED, tmp_path / "offset", "check", "--json", "--port", "0",
             "--database", database],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        (clock,) = (one for one in json.loads(done.stdout)["checks"] if one["check"] == "clock")
        assert clock["status"] == status, clock
        assert ("2 d" in clock["message"] or "47 h" in clock["message"]) == (status == "problem")


def no_file_may_be_written() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_no_folder_for_temporary_files_is_a_problem(tmp_path: Path) -> None:
    done = subprocess.run(
        [TETHER, "check", "--json", "--port", "0", "--database", tmp_path / "tether.db"],
        capture_output=True, text=True, check=False, preexec_fn=no_file_may_be_written,
    )  # fmt: skip
    found = {one["check"]: one["status"] for one in json.loads(done.stdout)["checks"]}
    assert (done.returncode, found["temporary"]) == (1, "problem")


# Certificates -------------------------------------------------------------------------------------


@contextmanager
def server_with(cert: Path, key: Path) -> Iterator[int]:
    """A server that begins TLS as PostgreSQL does; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(8) == bytes.fromhex("0000000804d2162f")
                connection.sendall(b"S")
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize("days", [1, 40_000])
def test_the_ends_of_certificates_are_known(tmp_path: Path, days: int) -> None:
    cert, key = make_certificate(tmp_path, days=days)
    own, _ = make_certificate(tmp_path, days=10, name="own")
    now_s = time.time()
    with server_with(cert, key) as port:
        found = dict(
            PostgresDatabase(f"postgresql://u@127.0.0.1:{port}/x?sslcert={own}").certificates()
        )
    assert found.keys() == {"own.pem", f"127.0.0.1:{port}"}
    for name, length in (("own.pem", 10), (f"127.0.0.1:{port}", days)):
        assert abs(found[name] / 1000 - now_s - length * 86_400) < 120


def test_check_names_certificates_that_end(
    tether_on: Callable[[str], Command], new_postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    soon, _ = make_certificate(tmp_path, days=3, name="soon")
    database = f"{new_postgres_database()}?sslrootcert={soon}"
    tether = tether_on(database)
    tether.ok("migrate")
    assert checks(tether, TETHER_PORT="0")["certificate"][0] == "warning"
    (tmp_path / "offset").write_text(str(5 * 86_400))
    done = subprocess.run(
        [sys.executable, SHIFTED, tmp_path / "offset", "check", "--json", "--port", "0",
         "--database", database],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    found = {one["check"]: one["message"] for one in json.loads(done.stdout)["checks"]}
    assert found["certificate"].startswith("soon.pem: ended ")
