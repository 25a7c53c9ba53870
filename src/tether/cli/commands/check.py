"""`tether check`: looks for problems of a setup, and shows the findings."""

import sys
from collections.abc import Iterator

import click

from tether.cli.commands.checks import Finding, Status, run_checks
from tether.cli.display.output import Cell, counted, plain, say, show_json
from tether.cli.options import json_option

_MARKS = {
    Status.OK: Cell("✓", "green"),
    Status.WARNING: Cell("!", "bold yellow"),
    Status.PROBLEM: Cell("✗", "bold red"),
}


@click.command()
@click.option("--full", is_flag=True, help="Compare every index with its table: takes longer.")
@click.option("--live", is_flag=True,
              help="Ask the server that runs on --host and --port, and look at nothing else.",
              )  # fmt: skip
@json_option
@click.option("--database", envvar="TETHER_DATABASE", show_envvar=True, metavar="URL",
              help="As for tether serve.")  # fmt: skip
@click.option("--host", envvar="TETHER_HOST", show_envvar=True, help="As for tether serve.")
@click.option("--port", envvar="TETHER_PORT", show_envvar=True, help="As for tether serve.")
@click.pass_context
def check(
    ctx: click.Context, /, full: bool, live: bool, as_json: bool, **given: str | None
) -> None:
    """Say what is wrong with this setup.

    Looks at settings, versions, folders, Redis, database, disk, clock, certificates, keys and port,
    and changes nothing. With --live it asks the running server instead: is it there, is it ready,
    have its workers what they need? The exit status is 1 if there is a problem.
    """
    findings = _with_spinner(run_checks(given, full=full, live=live))
    worst = max(finding.status for finding in findings)
    if as_json:
        show_json(
            {
                "ok": worst is not Status.PROBLEM,
                "checks": [
                    finding._asdict() | {"status": finding.status.name.lower()}
                    for finding in findings
                ],
            }
        )
    elif sys.stdout.isatty():
        _show_rich(findings)
    else:
        _show_plain(findings)
    if worst is Status.PROBLEM:
        ctx.exit(1)


def _with_spinner(findings: Iterator[Finding]) -> list[Finding]:
    """All findings. A terminal shows a spinner meanwhile."""
    if not sys.stderr.isatty():
        return list(findings)
    from rich.console import Console

    with Console(stderr=True).status("Checking …"):
        return list(findings)


def _show_rich(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark = _MARKS[finding.status]
        text = Text(plain(finding.message))
        if finding.advice:
            text.append(f"\n{plain(finding.advice)}", style="" if finding.status else "dim")
        table.add_row(Text(mark, mark.style), Text(finding.check, "bold"), text)
    console = Console(highlight=False)
    console.print(table)
    console.print()
    console.print(Text(_summary(findings), style="bold"))


def _show_plain(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        text = " ".join(filter(None, (finding.message, finding.advice)))
        say(f"{finding.status.name.lower():8} {finding.check:{width}}  {plain(text)}")
    click.echo(_summary(findings))


def _summary(findings: list[Finding]) -> str:
    problems = sum(finding.status is Status.PROBLEM for finding in findings)
    warnings = sum(finding.status is Status.WARNING for finding in findings)
    if not problems and not warnings:
        return "Everything is as it should be."
    counts = [counted(problems, "problem")] * bool(problems)
    counts += [counted(warnings, "warning")] * bool(warnings)
    return ", ".join(counts) + "."
