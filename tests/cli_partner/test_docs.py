"""The examples in docs/cli.md print what the document says."""

import os
import pty
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from tests.cli_partner.conftest import Site
from tests.conftest import TETHER
from tether.__main__ import cli

CLI = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
PLAIN = re.compile(r"tether [^|<>&;$`*]+")
PARTNER_COMMANDS = (
    "chargers", "vehicles", "events", "state", "sessions", "capacity", "watch", "import", "export",
    "simulate",
)  # fmt: skip


class Block(NamedTuple):
    """A block of code: its language, the note behind the language, its text."""

    language: str
    note: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", CLI, re.DOTALL | re.MULTILINE)
    return [Block(*block) for block in found]


def without_what_varies(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"[\d,]+ bytes", "BYTES", text)
    text = re.sub(r"[\d.,]+( s\b|/s|(?= rows/s))", "N", text)
    text = re.sub(r"Changed .* version", "Changed", text)
    # How long ago it was makes columns wider, too.
    return re.sub(r" +", " ", re.sub(r"[\d,]+ (min|[hd])\b", "AGE", text)).replace("─", "")


def test_the_examples_print_what_the_document_says(partner: Site) -> None:
    compared = 0
    printed = ""
    for block in blocks():
        if block.language == "csv":
            (partner.folder / block.note).write_text(block.text)
        elif block.language == "sh":
            printed = run(partner, block.text)
            in_terminal_of = block.text
        elif block.language == "text":
            if block.note == "terminal":
                printed = run_in_terminal(partner, in_terminal_of)
            assert without_what_varies(printed) == without_what_varies(block.text)
            compared += 1
    assert compared >= 8


def environment(partner: Site) -> dict[str, str]:
    return partner.variables(PATH=f"{TETHER.parent}:{os.environ['PATH']}", COLUMNS="80")


def commands_of(script: str) -> list[list[str]]:
    """Its lines, if all are `tether` with plain words, because they start faster than a shell."""
    lines = script.replace("\\\n", "").splitlines()
    if all(PLAIN.fullmatch(line) for line in lines):
        return [[str(TETHER), *shlex.split(line)[1:]] for line in lines]
    return [["sh", "-c", script]]


def run(partner: Site, script: str) -> str:
    said = ""
    for command in commands_of(script):
        done = subprocess.run(
            command, cwd=partner.folder, env=environment(partner), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
        )  # fmt: skip
        said += done.stdout
    return said


def run_in_terminal(partner: Site, script: str) -> str:
    leader, follower = pty.openpty()
    variables = {**environment(partner), "TERM": "dumb"}
    (command,) = commands_of(script)
    with subprocess.Popen(command, cwd=partner.folder, env=variables, stdout=follower) as process:
        os.close(follower)
        seen = b"".join(chunks(leader))
        assert process.wait(timeout=180) == 0
    os.close(leader)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def chunks(leader: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(leader, 65_536)
        except OSError:  # Linux says so when nobody writes any more
            return
        if not chunk:
            return
        yield chunk


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from leaves(found, f"{path} {name}")
    else:
        yield path, command


def test_no_command_has_two_options_of_one_name() -> None:
    for path, command in leaves(cli, "tether"):
        names = [name for option in command.params for name in option.opts]
        assert len(names) == len(set(names)), path


def test_every_command_of_partners_is_in_the_document_and_has_help() -> None:
    for name in PARTNER_COMMANDS:
        top = cli.get_command(click.Context(cli), name)
        assert top is not None
        assert "Examples:" in (top.epilog or "")
        for path, command in leaves(top, name):
            assert path.split()[-1] in CLI, f"tether {path} is not in docs/cli.md"
            text = command.get_help(click.Context(command, info_name=f"tether {path}"))
            assert max(map(len, text.splitlines())) <= 80, text
            assert command.help
