"""`tether` and `python -m tether`: the command line. It finds the command, and prints errors."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from keyword import iskeyword
from typing import TextIO

try:
    import click

    from tether.cli.display.output import note, plain
except ModuleNotFoundError as error:  # without the extra `cli`, only the SDK is installed
    if (error.name or "").startswith("tether"):
        raise
    sys.exit(
        f"tether: The command line needs {error.name}: pip install '.[cli]' in Tether's folder"
    )
from tether.domain.errors import TetherError, Unavailable
from tether.domain.keys import without_keys

INTERRUPTED = 130
_UTF8_MODE = ["-X", "utf8"]

_EPILOG = """\b
Examples:
  tether demo                      try it: a server, a key, what to paste
  KEY=$(tether keys create acme)   a partner and its key
  tether serve --port 8000         serve the API
  tether console                   the fleet, refused calls, keys in a browser
  tether check                     is everything as it should be?
  tether events follow             your events, as they come in

\b
Commands for servers and keys follow TETHER_DATABASE; every option of serve
has a variable such as TETHER_PORT: docs/operations.md, docs/configuration.md.
Those for your data follow TETHER_URL and TETHER_API_KEY: docs/cli.md.
"""


SECTIONS = {
    "Server": ("serve", "demo", "migrate", "check", "rebuild", "backup", "restore",
               "copy", "epoch"),
    "Keys and partners": ("keys", "partners", "console", "audit"),
    "Your data": (
        "chargers", "vehicles", "events", "state", "sessions", "energy", "capacity", "watch",
        "webhooks", "import", "export", "simulate", "replay",
    ),
}  # fmt: skip
"""Each command is in the module with its name, or in the module that _MODULES names."""

_MODULES = {
    "migrate": "database",
    "backup": "database",
    "restore": "database",
    "copy": "database",
    "epoch": "database",
    "chargers": "entities",
    "vehicles": "entities",
    "import": "importing",
    "export": "exporting",
}


class SectionedGroup(click.Group):
    """The root group. It imports a command only when the command is called or shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"tether.cli.commands.{_MODULES.get(cmd_name, cmd_name)}")
        # A command whose name is a Python keyword has an underscore: `import_`.
        command = getattr(module, cmd_name + "_" * iskeyword(cmd_name))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:  # Click would suggest only what is imported
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.list_commands(ctx), 1)
            advice = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(error.message + advice, error.ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{name:{width}}", self._summary(ctx, name)) for name in names]
                )

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=64) if command else ""


@click.group(
    cls=SectionedGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False,
              callback=lambda ctx, _, wanted: _show_version(ctx) if wanted else None,
              help="Show the version and its commit, and exit.")  # fmt: skip
def cli() -> None:
    """Tether: the chargers, vehicles and charging events of your partners."""


def _show_version(ctx: click.Context) -> None:
    from tether.version import version

    click.echo(f"tether, version {version()}")
    ctx.exit()


def main() -> None:
    """Runs the command line. An expected error ends it with one sentence."""
    _use_utf8_mode()
    _make_standard_files_usable()
    logging.lastResort = _Log()
    warnings.showwarning = _show_warning
    try:
        status = cli.main(prog_name="tether", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # a damaged module, which Click takes for Ctrl-D
            raise
        status = INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = error.exit_code
    except click.ClickException as error:
        _show_usage(error)
        status = _fail(error.format_message(), error.exit_code)
    except Unavailable as error:
        status = _fail(f"The database cannot do this now: {error.__cause__ or error}.")
    except TetherError as error:
        status = _fail(plain(error.message))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tether"):
            raise
        extra = "cli" if error.name in {"rich", "platformdirs"} else "server"
        status = _fail(
            f"This command needs {error.name}: pip install '.[{extra}]' in Tether's folder"
        )
    except UnicodeEncodeError:
        wrong = next((word for word in sys.argv if not _is_text(word)), None)
        if wrong is None:
            raise
        status = _fail(f"{wrong!a} is not valid UTF-8.")
    except BrokenPipeError:  # the reader of our output has ended
        status = 1
        _forget_output()
    except OSError as error:
        _forget_output()
        what = error.filename or "The output"
        status = _fail(f"{what} cannot be used: {error.strerror or error}.")
    sys.exit(status)


def _use_utf8_mode() -> None:
    """Starts Python again in its UTF-8 mode if the locale has another encoding.

    Then arguments, variables, file names and all text are UTF-8. Python decodes the arguments
    before any of our code runs, so only a new start helps.
    """
    is_utf8 = sys.getfilesystemencoding() == "utf-8" or sys.orig_argv[1:3] == _UTF8_MODE
    if not is_utf8 and sys.executable and os.name == "posix":
        program: list[str | bytes] = [sys.executable, *_UTF8_MODE, *_arguments()]
        os.execv(sys.executable, program)  # noqa: S606


def _arguments() -> list[bytes]:
    """Python's arguments in bytes. Some encodings cannot encode every text that they decode."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            return file.read().split(b"\0")[1:-1]
    except OSError:
        return [os.fsencode(argument) for argument in sys.orig_argv[1:]]


def _make_standard_files_usable() -> None:
    """Replaces closed standard files by /dev/null, and makes all of them UTF-8, whatever
    PYTHONIOENCODING says. Invalid bytes do not end a command.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            # Take this number. Otherwise the next file gets it, and our output goes into that file.
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number)
            os.set_inheritable(number, True)  # for workers
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]


def _is_text(word: str) -> bool:
    """Whether an argument was UTF-8. Python decodes invalid bytes as surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Log(logging.StreamHandler[TextIO]):
    """Prints what the SDK logs, such as outages, if no other log handler is set."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record), keep="\n")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Prints warnings of the SDK, for example about wrong units."""
    note(f"Warning: {plain(str(message))}")


def _show_usage(error: click.ClickException) -> None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        path = error.ctx.command_path
        click.echo(f"{error.ctx.get_usage()}\nMore: {path} --help\n", err=True)


def _forget_output() -> None:
    """Keeps Python from writing the rest of the output again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(sentence: str, status: int = 1) -> int:
    for name in _quoted():
        sentence += f" {name} has quotes around its value: leave them out."
    note(f"tether: {without_keys(sentence)}")
    return status


def _quoted() -> Iterator[str]:
    """The variables and options whose values still have quotes, as from a file of variables."""
    options = (word.partition("=")[::2] for word in sys.argv if word.startswith("--"))
    variables = (pair for pair in os.environ.items() if pair[0].startswith("TETHER_"))
    for name, value in (*variables, *options):
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            yield name


if __name__ == "__main__":
    main()
