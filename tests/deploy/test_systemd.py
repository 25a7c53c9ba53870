"""The systemd units: the server can work with their rights, and they do what they promise."""

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.debian import program
from tests.deploy.files import DEPLOY, INSTALLED, USER_ID, Machine, settings_of
from tests.fleet import put_fleet
from tests.services import create_database, free_port, postgres_programs

UNITS = DEPLOY / "systemd"
SERVER, BACKUP = "systemd/tether.service", "systemd/tether-backup.service"
STATE, BACKUPS = "/var/lib/tether", "/var/backups/tether"


def lines_of(unit: str) -> set[str]:
    return set((DEPLOY / unit).read_text().splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with the rights of the unit, and the settings of `tether.env`."""
    for unit in (SERVER, BACKUP):
        promised = {
            "User=tether",
            "StateDirectory=tether",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "ProtectProc=invisible",
        }
        assert promised <= lines_of(unit)
    assert f"ReadWritePaths={BACKUPS}" in lines_of(BACKUP)
    environment = settings_of("systemd/tether.env")
    environment |= {
        "PATH": "/usr/bin:/bin",
        "TETHER_PORT": str(free_port()),
        "TETHER_METRICS": f"127.0.0.1:{free_port()}",
    }
    return Machine(tmp_path, {STATE: tmp_path / "state"}, environment)


def backing_up(machine: Machine) -> Machine:
    """The same for the unit that makes backups."""
    writable = {**machine.writable, BACKUPS: machine.folder / "backups"}
    return Machine(machine.folder, writable, machine.environment)


def command_of(unit: str) -> list[str]:
    return settings_of(unit)["ExecStart"].split()


def test_systemd_takes_the_units(machine: Machine, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    units = [str(path) for path in sorted(UNITS.glob("tether*.[st]*e*")) if path.suffix != ".env"]
    assert len(units) == 3
    machine.writable["/run"] = tmp_path / "run"
    done = machine.run(analyze, "verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", [SERVER, BACKUP])
def test_the_units_are_hardened(unit: str) -> None:
    """The exposure that systemd computes, in tenths: 0 is none, 96 is a unit without limits."""
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager",
         "--threshold=15", DEPLOY / unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_server_runs_and_is_backed_up_with_the_rights_of_its_units(
    machine: Machine, tmp_path: Path
) -> None:
    tether = f"{INSTALLED}/bin/tether"
    with machine.serving(*command_of(SERVER)) as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if os.geteuid() == 0:
            assert f"Uid:\t{USER_ID}\t{USER_ID}" in status
            assert "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status

        key = machine.run(tether, "keys", "create", "acme").stdout.strip()
        address = f"http://127.0.0.1:{machine.environment['TETHER_PORT']}"
        with httpx.Client(base_url=address, headers={"x-api-key": key}) as client:
            put_fleet(client)
            events = [
                {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1",
                 "timestamp": f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z"}
                for n in range(1_000)
            ]  # fmt: skip
            bulk = client.post("/events/bulk", json=events)  # goes through a file in /tmp
            assert {one["status"] for one in bulk.json()} == {201}
        numbers = httpx.get(f"http://{machine.environment['TETHER_METRICS']}/metrics").text
        assert 'route="/events/bulk",status="200"' in numbers
        for told in (
            "process_start_time_seconds",
            "process_open_fds",
            "tether_database_free_bytes",
        ):
            assert f"\n{told}" in numbers

        folder = tmp_path / "backups"
        folder.mkdir()
        old = [f"tether-20{year}-01-01T023000Z.db" for year in range(10, 25)]
        others = ["tether-2010-01-01T023000Z.dump", "notes-of-tether.db"]
        for name in (*old, *others):
            (folder / name).touch()
        done = backing_up(machine).run(*command_of(BACKUP))
        assert done.returncode == 0, done.stderr
        made = Path(done.stdout.splitlines()[-1]).name
        kept = sorted([*old, made])[-14:]
        assert sorted(path.name for path in folder.iterdir()) == sorted([*kept, *others])
        shown = backing_up(machine).run(
            tether, "partners", "show", "acme", "--json", "--database", f"{BACKUPS}/{made}"
        )
        assert '"events":1000' in shown.stdout.replace(" ", ""), shown.stderr


def test_a_user_without_a_home_is_asked_for_the_database(machine: Machine) -> None:
    del machine.environment["TETHER_DATABASE"]
    for words in (["keys", "list"], ["serve"]):
        done = machine.run(f"{INSTALLED}/bin/tether", *words)
        assert done.returncode == 1
        assert "You have no home folder here" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_a_backup_that_fails_removes_none(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    for year in range(20):
        (tmp_path / "backups" / f"tether-20{year:02}-01-01T023000Z.db").touch()
    done = backing_up(machine).run(*command_of(BACKUP))
    assert done.returncode != 0
    assert "There is no database" in done.stderr
    assert len(list((tmp_path / "backups").iterdir())) == 20
    machine.environment["BACKUP_KEEP"] = "0"
    assert "must be 1 or more" in backing_up(machine).run(*command_of(BACKUP)).stderr


def test_a_backup_of_postgresql_can_be_restored(
    machine: Machine, postgres: str, tmp_path: Path
) -> None:
    source, target = create_database(postgres), create_database(postgres)
    machine.environment |= {
        "PATH": f"{postgres_programs()}:/usr/bin:/bin",
        "TETHER_DATABASE": "postgresql://nobody@127.0.0.1:1/pooled",
        "BACKUP_DATABASE": source,
    }
    tether = f"{INSTALLED}/bin/tether"
    for words in (["migrate"], ["keys", "create", "acme"]):
        done = machine.run(tether, *words, "--database", source)
        assert done.returncode == 0, done.stderr
    done = backing_up(machine).run(*command_of(BACKUP))
    assert done.returncode == 0, done.stderr
    (dump,) = (tmp_path / "backups").iterdir()
    restored = subprocess.run(
        [postgres_programs() / "pg_restore", "--exit-on-error", "--no-owner", "--dbname", target,
         dump], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert restored.returncode == 0, restored.stderr
    assert "acme" in machine.run(tether, "partners", "list", "--database", target).stdout
