"""Locales of any encoding: all text is read and written as UTF-8."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import TETHER, Server

NAME = "Energie & Söhne Łódź 東京"  # a partner, and a folder
NO_COERCION = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LOCALES = {
    "zh_CN.gbk": "GBK",  # a part of GB18030, because localedef needs half a minute for all of it
    "de_DE.iso88591": "ISO-8859-1",
    "ja_JP.eucjp": "EUC-JP",
}
ENCODINGS = ["C", "zh_CN.gbk", "ja_JP.eucjp", "latin-1 in and out"]
MORE_ENCODINGS = ["POSIX", "de_DE.iso88591", "UTF-16 in and out"]


@pytest.fixture(scope="module")
def variables(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment variables for the encoding of the parameter."""
    name = request.param
    if name.endswith(" in and out"):
        return {"PYTHONIOENCODING": name.partition(" ")[0], "LC_ALL": "C.UTF-8"}
    if name not in LOCALES:
        return {"LC_ALL": name, **NO_COERCION}
    folder = tmp_path_factory.mktemp("locales")
    # localedef also returns a status for warnings.
    subprocess.run(
        ["localedef", "--no-archive", "-c", "-i", "POSIX", "-f", LOCALES[name], str(folder / name)],
        capture_output=True,
        check=False,
    )
    assert (folder / name / "LC_CTYPE").exists(), f"localedef could not make {name}"
    return {"LC_ALL": name, "LOCPATH": str(folder), **NO_COERCION}


in_each = pytest.mark.parametrize("variables", ENCODINGS, indirect=True)


def run_tether(
    variables: dict[str, str], *words: str | bytes, stdin: str = "", folder: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Runs `tether` in that encoding; it must not print a traceback."""
    done = subprocess.run(
        [TETHER, *words],
        input=stdin.encode(),
        capture_output=True,
        env={**os.environ, **variables},
        cwd=folder,
        check=False,
        timeout=240,
    )
    assert b"Traceback" not in done.stderr
    done.stderr.decode()
    return done


def tether(variables: dict[str, str], *words: str) -> str:
    """What `tether` prints in that encoding, which must succeed."""
    done = run_tether(variables, *words)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("variables", [*ENCODINGS, *MORE_ENCODINGS], indirect=True)
def test_the_encodings_are_not_utf8(variables: dict[str, str]) -> None:
    code = "import sys; print(sys.getfilesystemencoding(), sys.stdout.encoding)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True,
        env={**os.environ, **variables},
    )  # fmt: skip
    said = done.stdout.replace(b"\0", b"").lower()
    assert b"utf-8 utf-8" not in said


@in_each
def test_server_and_commands_speak_utf8(variables: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    server = Server(str(folder / "tether.db"), environment=variables)
    server.start()
    try:
        key = tether(
            variables, "keys", "create", NAME, "--name", "für 東京", "--database", server.database
        ).strip()
        listed = tether(variables, "keys", "list", "--json", "--database", server.database)
        assert [(one["partner"], one["name"]) for one in json.loads(listed)] == [(NAME, "für 東京")]
        assert NAME in tether(variables, "partners", "list", "--database", server.database)
        assert (folder / "tether.db").exists()

        access = ("--url", server.url, "--api-key", key)
        source = folder / "Ladesäulen.csv"
        source.write_text("id,chargePowers\nC1,11;22\nSäule 東京,11\n", "utf-8")
        refused = run_tether(variables, "import", str(source), *access)
        assert refused.returncode == 1
        report = (folder / "Ladesäulen.refused.csv").read_text("utf-8")
        assert "Säule 東京" in report
        target = folder / "Säulen 東京.ndjson"
        tether(variables, "export", "chargers", "--output", str(target), *access)
        assert json.loads(target.read_text("utf-8"))["id"] == "C1"
        assert '"C1"' in tether(variables, "export", "chargers", *access)
        bad = '{"id": "Säule 東京", "chargePowers": [11]}'
        refused = run_tether(variables, "import", "-", *access, stdin=bad, folder=folder)
        assert refused.returncode == 1
        assert httpx.get(f"{server.url}/chargers", headers={"x-api-key": key}).status_code == 200
    finally:
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log]
    assert any(line.get("partner") == NAME for line in lines)
    assert "Traceback" not in "".join(server.log)
    assert sorted(one.name for one in tmp_path.iterdir()) == [NAME]


@pytest.mark.parametrize("variables", MORE_ENCODINGS, indirect=True)
def test_help_and_check_are_whole(variables: dict[str, str], tmp_path: Path) -> None:
    assert "…" in tether(variables, "serve", "--help")
    database = str(tmp_path / "ö.db")
    tether(variables, "migrate", "--database", database)
    assert "ö.db" in tether(variables, "check", "--database", database, "--port", "0")
    assert (tmp_path / "ö.db").exists()


@pytest.mark.parametrize("variables", ["zh_CN.gbk"], indirect=True)
def test_several_workers_speak_utf8(
    variables: dict[str, str],
    new_server: Callable[..., Server],
    new_postgres_database: Callable[[], str],
) -> None:
    server = new_server("--workers", "2", database=new_postgres_database(), **variables)
    key = server.key(NAME)
    with server.client(key) as client:
        assert client.get("/openapi.json").status_code == 200
        assert client.get("/chargers").status_code == 200
    assert server.stop() == 0
    assert any(json.loads(line).get("partner") == NAME for line in server.log)


@pytest.mark.parametrize("variables", ["C", "zh_CN.gbk"], indirect=True)
def test_the_sdk_does_without_a_locale(
    variables: dict[str, str], server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    code = """
import os
from tether.client import Charger, Client
os.chdir(os.environb[b"FOLDER"])
with Client(os.environ["URL"], os.environ["KEY"]) as client:
    client.chargers.put(Charger(id="C1", charge_powers=[11]))
    assert [one.id for one in client.chargers.list()] == ["C1"]
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={
            **os.environ, **variables,
            "URL": server.url, "KEY": server.key(), "FOLDER": str(folder),
        },
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def test_a_name_that_is_no_utf8_is_refused_in_a_sentence(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    words: list[list[str | bytes]] = [
        ["migrate", "--database", b"\xff\xfe.db"],
        ["migrate", "--database", b"sqlite:///\xff\xfe.db"],
        ["keys", "create", b"\xff\xfe"],
    ]
    for one in words:
        done = run_tether(home, *one, folder=tmp_path)
        assert done.returncode in (1, 2)
        assert done.stderr.splitlines()[-1].startswith(b"tether: ")
