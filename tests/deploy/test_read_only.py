"""A read-only root, without a folder for temporary files."""

import json
from pathlib import Path

import httpx

from tests.deploy.files import INSTALLED, Machine
from tests.services import free_port
from tests.wire import metric


def test_only_large_bodies_in_bulk_need_a_folder_for_temporary_files(tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "PATH": f"{INSTALLED}/bin:/usr/bin:/bin",
        "TETHER_DATABASE": "/var/lib/tether/tether.db",
        "TETHER_PORT": str(port),
        "TETHER_LOG_FORMAT": "json",
    }
    machine = Machine(tmp_path, {"/var/lib/tether": tmp_path / "data"}, settings, scratch=False)
    with machine.serving("tether", "serve"):
        key = machine.run("tether", "keys", "create", "acme").stdout.strip()
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, headers={"x-api-key": key}) as client:
            assert client.put("/chargers/C1", json={"chargePowers": [11]}).status_code == 201
            small = client.post("/events/bulk", content=b"{}")
            assert [one["status"] for one in small.json()] == [400]
            large = client.post("/events/bulk", content=b"[" + b" " * 2**20 + b"{}]")
            assert (large.status_code, large.headers["retry-after"]) == (503, "1")
            page = client.get("/metrics").text
        assert metric(page, "tether_temporary_files_usable") == 0
        live = machine.run("tether", "check", "--live", "--json")
        report = machine.run("tether", "check", "--json", "--port", "0")
    problems = [
        [one["check"] for one in json.loads(found.stdout)["checks"] if one["status"] == "problem"]
        for found in (live, report)
    ]
    assert problems == [["workers"], ["temporary"]]
    lines = [json.loads(line) for line in machine.log]
    (cause,) = {line["cause"] for line in lines if line["event"] == "unavailable"}
    assert "No usable temporary directory" in cause
