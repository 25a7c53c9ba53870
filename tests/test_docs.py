"""The documents are right: links work, commands exist, examples give what they print."""

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from tests.conftest import Server
from tether.__main__ import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("bench/*.md"),
        *ROOT.glob("deploy/*.md"),
    ]
)
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
README = (ROOT / "README.md").read_text()
TEST_SETTINGS = {"TETHER_TEST_POSTGRES"}  # of the tests, not of the command
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)


def shell(text: str) -> str:
    """The text of all code blocks for a shell."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return "\n".join(code for language, code in blocks if language in ("", "sh", "bash", "console"))


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


# Links -------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """The fragment that links to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = unquote(target).partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), f"{target} leads nowhere"
        assert linked.is_relative_to(ROOT)
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{target} leads to no heading"


def test_the_index_leads_to_every_document() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert "](docs/README.md)" in README
    for document in {*ROOT.glob("docs/**/*.md")} - {ROOT / "docs/README.md"}:
        assert f"]({document.relative_to(ROOT / 'docs')})" in index


@each_document
def test_no_document_names_a_place_on_somebodys_machine(document: Path) -> None:
    assert not re.search(r"(?<![\w.])/(work|root|home|Users)/", document.read_text())


# Commands, options, settings, targets ------------------------------------------------------------


COMMAND = re.compile(r"(?:^ *|\$\(|[;&|] |/bin/|[A-Z]=\S+ )tether (.*)")


def command_lines(text: str) -> Iterator[list[str]]:
    """The words after `tether` in every command line of blocks of code and of `quoted` text."""
    quoted = re.findall(r"`((?:[A-Z_]+=\S+ )*tether [^`]+)`", prose(text))
    for line in [*shell(text).replace("\\\n", " ").splitlines(), *quoted]:
        for rest in COMMAND.findall(line):
            words = shlex.shlex(rest, posix=True, punctuation_chars=True)
            yield list(takewhile(lambda word: not set(word) <= set("();<>|&"), words))


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and the words that are its arguments."""
    command: click.Command = cli
    context = click.Context(cli, info_name="tether")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no {context.command_path} {words[0]}"
        command, context, words = found, click.Context(found, context, found.name), words[1:]
    return command, words


@each_document
def test_commands_and_their_options_exist(document: Path) -> None:
    for words in command_lines(document.read_text()):
        command, arguments = find_command(words)
        context = click.Context(command, help_option_names=["-h", "--help"])
        options = {name for option in command.get_params(context) for name in option.opts}
        for argument in arguments:
            if argument.startswith("--") and argument not in ("--help", "--version"):
                assert argument.partition("=")[0] in options, f"{words} has no {argument}"


def settings(command: click.Command) -> Iterator[str]:
    """The environment variables of a command and those below it."""
    context = click.Context(command)
    for parameter in command.get_params(context):
        names = getattr(parameter, "envvar", None) or []
        yield from [names] if isinstance(names, str) else names
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from settings(found)


@each_document
def test_environment_variables_exist(document: Path) -> None:
    named = set(re.findall(r"TETHER_[A-Z_]+", document.read_text()))
    assert named <= {*settings(cli), *TEST_SETTINGS}


@each_document
def test_make_targets_exist(document: Path) -> None:
    text = document.read_text()
    code = "\n".join([shell(text), *re.findall(r"`([^`\n]+)`", prose(text))])
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^(?:[A-Z]+=\S+ )*make ([a-z]+)", code, re.MULTILINE)) <= targets


@each_document
def test_files_of_ours_exist(document: Path) -> None:
    for name in re.findall(
        r"`((?:src|tests|bench|docs|deploy)/\w[\w./-]*)`", prose(document.read_text())
    ):
        assert (ROOT / name).exists() or "NNNN" in name, f"there is no {name}"


ROOMS = "|".join(path.name for path in (ROOT / "src" / "tether").iterdir() if path.is_dir())


@each_document
def test_modules_of_ours_exist(document: Path) -> None:
    for name in re.findall(rf"`((?:{ROOMS})/[\w/.-]*\w\.\w+)`", document.read_text()):
        found = [ROOT / folder / name for folder in ("src/tether", "tests")]
        assert any(path.exists() for path in found) or "NNNN" in name, f"there is no {name}"


def test_each_promise_has_its_test() -> None:
    rows = re.findall(r"^\| (?!promise \||---).*$", (ROOT / "docs/promises.md").read_text(), re.M)
    folders = [ROOT, ROOT / "tests", ROOT / "tests/abuse"]
    for row in rows:
        names = re.findall(r"`([\w/]*test_\w+\.py)`", row)
        assert names, row
        for name in names:
            assert any((folder / name).exists() for folder in folders), name
    assert len(rows) >= 60


# The README's examples ---------------------------------------------------------------------------

CALL_AND_ANSWER = re.compile(r"^```sh\n(curl .*?)^```\n```json\n(.*?)^```$", re.DOTALL | re.M)
UPDATED_AT = re.compile(r'"updatedAt":"[^"]+"')
EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_the_readmes_calls_give_the_answers_that_it_prints(server: Server) -> None:
    calls = CALL_AND_ANSWER.findall(README)
    assert len(calls) == len(re.findall(r"^curl ", README, re.MULTILINE)) >= 3
    environment = {**os.environ, "KEY": server.key()}
    ids: dict[str, str] = {}  # printed ids by the real ids
    for call, printed in calls:
        assert "http://127.0.0.1:8000/" in call
        done = subprocess.run(
            ["sh", "-ec", call.replace("http://127.0.0.1:8000", server.url)],
            env=environment, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        came = EVENT_ID.findall(done.stdout)
        ids.update(zip(came, EVENT_ID.findall(printed), strict=True))
        answer = EVENT_ID.sub(lambda found: ids[found[0]], done.stdout)
        assert UPDATED_AT.sub("", answer) == UPDATED_AT.sub("", printed.rstrip("\n"))


def test_the_readme_tells_what_replay_says() -> None:
    assert "2 chargers, 1,878 vehicles, 9,390 events, 60.4 MWh" in README.replace("\n", " ")


def test_every_data_set_is_described_and_has_its_licence_beside_it() -> None:
    described = (ROOT / "docs" / "data.md").read_text()
    for table in (ROOT / "src" / "tether" / "simulator" / "data").glob("*.csv"):
        assert f"(../src/tether/simulator/data/{table.name})" in described
        assert "Permission is hereby granted" in table.with_suffix(".LICENSE").read_text()


# The lock ----------------------------------------------------------------------------------------


LOCKS = {"requirements.txt": ["server", "dev"], "requirements-run.txt": ["server"]}


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_has_hashes_and_no_addresses(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert not re.search(r"https?:|file:|/|-url|-links|--(?!hash=)", lock)  # nor options
    pins = re.split(r"\n(?=[a-z])", lock)[1:]
    assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_pins_what_the_project_needs(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["optional-dependencies"][extra] for extra in LOCKS[name]]
    wanted = {
        re.split(r"[^\w.-]", need)[0].lower()
        for group in [project["dependencies"], *groups]
        for need in group
    }
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / name).read_text(), re.MULTILINE))
    assert wanted - {project["name"]} <= pinned  # extras that include others name it


def test_both_locks_pin_the_same_versions() -> None:
    everything, running = (
        set(re.findall(r"^[\w.-]+==\S+", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS
    )
    assert running < everything
