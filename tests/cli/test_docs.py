"""The documents have every setting, command, option, metric and JSON member, and no others."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.commands import Command
from tether.__main__ import cli
from tether.cli.commands.serve import serve
from tether.server.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")


def test_the_table_of_settings_has_every_option_of_serve_and_no_other() -> None:
    rows = re.findall(r"^\| `(--[\w-]+)` \| `(TETHER_\w+)` \| (.+?) \| .", CONFIGURATION, re.M)
    documented = {option: (variable, default.strip("`")) for option, variable, default in rows}
    assert documented == {
        option.opts[0]: (option.envvar, _default(option)) for option in serve.params
    }


def _default(option: click.Parameter) -> str:
    default = option.get_default(click.Context(serve))
    return (
        {"": "none", "False": "off"}.get(str(default), str(default))
        if option.name != "database"
        else ("a file in your data folder")
    )


def test_every_setting_has_a_variable_named_like_its_option() -> None:
    for option in serve.params:
        assert option.envvar == "TETHER_" + option.opts[0].strip("-").replace("-", "_").upper()


def test_the_metrics_in_the_docs_are_those_of_the_server() -> None:
    documented = set(re.findall(r"^\| `(tether_\w+)` \|", OPERATIONS, re.M))
    served = {family.name for family in Metrics(by_partner=True).registry.collect()}
    assert documented == {name for name in served if name.startswith("tether_")}


def test_the_members_in_the_docs_are_those_of_the_json(tether: Command) -> None:
    tether.key("acme")
    section = OPERATIONS.partition("`--json` gives for each key:")[2].partition("###")[0]
    documented = {
        name
        for row in re.findall(r"^\| (`.+?) \|", section, re.M)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert documented == set(tether.json("keys", "list")[0])
    section = OPERATIONS.partition("`show` counts")[2].partition("`delete`")[0]
    documented = set(re.findall(r"`(\w+)`", section)) - {"list", "null"}
    (listed,) = tether.json("partners", "list")
    assert documented == {*tether.json("partners", "show", "acme"), *listed}


def _commands() -> Iterator[list[str]]:
    for text in (CONFIGURATION, OPERATIONS):
        code = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))
        code += "\n" + "\n".join(re.findall(r"`(tether [^`]+)`", text))
        for words in re.findall(r"(?:^|\()tether ([^\n)]+)", code, re.M):
            yield words.split()


@pytest.mark.parametrize("words", list(_commands()), ids=" ".join)
def test_commands_in_the_docs_exist_with_their_options(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    known = {name for option in command.params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known
