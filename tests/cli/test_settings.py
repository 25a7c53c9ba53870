"""Settings in unusual forms are understood, or refused with a reason."""

import httpx
import pytest

from tests.api.helpers import ON_ONE_ENGINE
from tests.commands import Command
from tests.conftest import Server
from tether.domain.errors import SetupError
from tether.server.databases import is_postgres, sqlite_path

NO_PATH = "The database is no path: give a file's path"
UNKNOWN = "is not a database that Tether knows"
SECRET = "s3cret"
DATABASES = {
    f"host=db port=5432 dbname=tether user=t password={SECRET}:": NO_PATH,
    f"dbname=tether password={SECRET}": NO_PATH,
    "service=tether": NO_PATH,
    f"Server=db;Database=tether;User Id=t;Password={SECRET}": NO_PATH,
    f"tether:{SECRET}@db/tether": NO_PATH,
    f"{SECRET}@db/tether": NO_PATH,
    f"postgresql+asyncpg://t:{SECRET}@db/tether": UNKNOWN,
    f"postgresql+psycopg://t:{SECRET}@db/tether": UNKNOWN,
    f"jdbc:postgresql://db/tether?password={SECRET}": UNKNOWN,
    f"mysql://t:{SECRET}@db/tether": UNKNOWN,
    f"mongodb://t:{SECRET}@db/tether": UNKNOWN,
    f"POSTGRESQL://t:{SECRET}@db/tether": UNKNOWN,
    f"postgresql:/t:{SECRET}@db/tether": UNKNOWN,
    "sqlite:/tether.db": UNKNOWN,
    "sqlite+aiosqlite:///tether.db": UNKNOWN,
    "file:tether.db": UNKNOWN,
    ":memory:": UNKNOWN,
    "sqlite:///:memory:": "names no file alone",
    "sqlite:///tether.db?mode=ro": "names no file alone",
    "sqlite://tether.db": "names no file",
    "$HOME/tether.db": "has a variable in it",
    "${DATA}/tether.db": "has a variable in it",
    "sqlite:///$HOME/tether.db": "has a variable in it",
    "data/$(hostname).db": "has a variable in it",
    "%APPDATA%/tether.db": "has a variable in it",
    "~nobody-of-this-name/tether.db": "begins with a user who is not known",
    '"tether.db"': "has quotes around its name",
    f"'postgresql://t:{SECRET}@db/tether'": "has quotes around its name",
}


@pytest.mark.parametrize("given", DATABASES)
def test_what_is_no_file_s_name_is_none(given: str) -> None:
    assert not is_postgres(given)
    with pytest.raises(SetupError) as caught:
        sqlite_path(given)
    assert DATABASES[given] in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("given", list(DATABASES)[::9])
def test_what_is_no_file_s_name_makes_no_file(tether: Command, given: str) -> None:
    for words, variables in (
        (("migrate", "--database", given), {}),
        (("keys", "create", "acme"), {"TETHER_DATABASE": given}),
    ):
        sentence = tether.refused(*words, status=2, **variables)
        assert DATABASES[given] in sentence
        assert SECRET not in sentence
    assert [file.name for file in tether.folder.iterdir() if file.name != "home"] == []


def test_the_user_s_folder_is_found_where_no_shell_does_it(tether: Command) -> None:
    home = tether.folder / "home"
    home.mkdir()
    assert "Created" in tether.ok("migrate", TETHER_DATABASE="~/one.db")
    assert "Created" in tether.ok("migrate", "--database=sqlite:///~/two.db")
    assert "up to date" in tether.ok("migrate", "--database", str(home / "one.db"))
    tether.ok("backup", "~/copy.db", "--database=~/one.db")
    assert {"one.db", "two.db", "copy.db"} <= {file.name for file in home.iterdir()}
    assert not (tether.folder / "~").exists()
    tether.refused("backup", "~nobody-of-this-name/x", "--database=~/one.db", status=2)


def test_a_name_that_looks_like_something_else_is_a_file_behind_a_dot(tether: Command) -> None:
    for name in ("host=a.db", "a:b.db", "a@b.db"):
        tether.ok("migrate", "--database", f"./{name}")
        assert (tether.folder / name).exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TETHER_PORT", '"8000"'),
        ("TETHER_WORKERS", "'2'"),
        ("TETHER_HOST", '"127.0.0.1"'),
        ("TETHER_METRICS", '"on"'),
        ("TETHER_LOG_LEVEL", '"info"'),
        ("TETHER_CORS_ORIGINS", '"https://app.example.com"'),
        ("TETHER_REDIS", '"redis://localhost"'),
        ("TETHER_DATABASE", '"tether.db"'),
    ],
)
def test_quotes_that_no_shell_took_away_are_named(
    tether: Command, variable: str, value: str
) -> None:
    """As in a file of variables that no shell reads, such as `docker --env-file`."""
    done = tether("serve", **{variable: value})
    assert done.returncode in (1, 2)
    assert f"{variable} has quotes around its value: leave them out." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_quotes_in_an_option_and_around_a_key_are_named(tether: Command) -> None:
    done = tether("serve", "--port='8000'")
    assert "--port has quotes around its value: leave them out." in done.stderr
    said = tether.refused("chargers", "list", TETHER_API_KEY='"ttr_live_0000000000"')
    assert "The API key has quotes around it" in said
    said = tether.refused("chargers", "list", TETHER_API_KEY="x", TETHER_URL="'http://localhost'")
    assert "TETHER_URL has quotes around its value" in said


@pytest.mark.parametrize(
    "path",
    [
        "//", "//chargers", "///chargers", "//chargers/C1", "//events", "//events/bulk", "//health",
        "//docs", "//metrics", "//openapi.json", "//static/docs.js", "/chargers//C1", "/chargers/",
        "/chargers/C1/", "/chargers/C1//state", "/chargers/C1/state/", "/events//bulk",
        "/events/bulk/", "/sessions/", "/capacity/", "/capacity//", "/stream/", "/health/",
        "/health//", "/metrics/", "/openapi.json/", "/chargers/C1/state/x", "/chargers;x",
        "/static//docs.js",
    ],
)  # fmt: skip
@ON_ONE_ENGINE
def test_a_path_has_one_form(server: Server, path: str) -> None:
    with server.client(server.key()) as client:
        for method in ("GET", "HEAD", "DELETE", "PROPFIND"):
            answer = client.request(method, httpx.URL(server.url + path))
            assert answer.status_code in (404, 405), method
            assert answer.status_code == 404 or not path.startswith("//")
