"""The container: its parts, and that the server can run in it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.debian import program
from tests.deploy.files import DEPLOY, INSTALLED, ROOT, Machine
from tests.services import free_port, running_redis
from tests.sql import query

FOLDER = DEPLOY / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


def instruction(name: str) -> list[str]:
    """The words of the last instruction of this name that has the form of a list."""
    return list(json.loads(re.findall(rf"^ *{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1]))


def variables() -> dict[str, str]:
    return dict(re.findall(r"(TETHER_[A-Z_]+)=(\S+)", DOCKERFILE))


def test_the_dockerfile_is_written_as_it_should_be() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), FOLDER / "Dockerfile"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert len(re.findall("^FROM ", DOCKERFILE, re.MULTILINE)) == 2  # no pip in the second stage


def test_it_copies_what_the_package_is_made_of_and_nothing_else() -> None:
    words = [line.split()[1:-1] for line in re.findall(r"^COPY [^-].*", DOCKERFILE, re.MULTILINE)]
    copied = {name for line in words for name in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    places = set(project["tool"]["setuptools"]["packages"]["find"]["where"])
    links = {"docs"}  # a link in the package leads there
    assert copied == files | places | links | {"pyproject.toml", "setup.py", "requirements-run.txt"}
    ignored = (ROOT / ".dockerignore").read_text()
    assert copied == set(re.findall(r"^!(.*)$", ignored, re.MULTILINE))
    assert "\n*\n" in ignored


def test_compose_takes_the_file() -> None:
    environment = {**os.environ, "POSTGRES_PASSWORD": "secret", "TETHER_SECRET_KEY": 40 * "s"}
    composed = subprocess.run(
        [program("docker-compose"), "--file", FOLDER / "compose.yaml", "config"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert composed.returncode == 0, composed.stderr
    services = yaml.safe_load(composed.stdout)["services"]
    assert services.keys() == {"postgres", "redis", "migrate", "tether"}
    for name in ("redis", "migrate", "tether"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    del environment["POSTGRES_PASSWORD"]
    without = subprocess.run(
        [program("docker-compose"), "--file", FOLDER / "compose.yaml", "config"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert without.returncode != 0
    assert "write it to .env" in without.stderr


def test_the_server_lives_as_its_first_process_without_rights_on_a_read_only_root(
    new_postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_postgres_database()
    service = COMPOSE["services"]["tether"]
    assert service["tmpfs"] == ["/tmp"]
    assert "USER 10001:10001" in DOCKERFILE
    settings = variables() | {name: str(value) for name, value in service["environment"].items()}
    assert settings["TETHER_DATABASE"].startswith("postgresql://tether@postgres/")
    port, metrics = free_port(), f"127.0.0.1:{free_port()}"
    with running_redis() as redis:
        settings |= {
            "PATH": f"{INSTALLED}/bin:{Path(sys.executable).parent}:/usr/bin:/bin",
            "TETHER_DATABASE": database,
            "TETHER_HOST": "127.0.0.1",
            "TETHER_PORT": str(port),
            "TETHER_METRICS": metrics,
            "TETHER_REDIS": redis.url,
        }
        machine = Machine(tmp_path, {}, settings)
        entry = instruction("ENTRYPOINT")
        migrated = machine.run(*entry, *COMPOSE["services"]["migrate"]["command"])
        assert migrated.returncode == 0, migrated.stderr
        assert machine.run(*health()).returncode != 0
        with machine.serving(*entry, *service["command"]):
            assert machine.run(*health()).returncode == 0
            key = machine.run(*entry, "keys", "create", "acme").stdout.strip()
            address = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=address, headers={"x-api-key": key}) as client:
                assert client.put("/chargers/C1", json={"chargePowers": [11]}).status_code == 201
                bulk = client.post("/events/bulk", content=b"[" + b" " * 2**20 + b"{}]")
                assert [one["status"] for one in bulk.json()] == [400]  # through /tmp
            assert "tether_redis_in_use 2.0" in httpx.get(f"http://{metrics}/metrics").text
    assert query(database, "SELECT id FROM chargers") == [("C1",)]


def health() -> list[str]:
    """The command of the HEALTHCHECK, which comes before those of entry and start."""
    (words,) = re.findall(r"^HEALTHCHECK (?:.*\\\n)* *CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return list(json.loads(words))
