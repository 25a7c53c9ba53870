"""Groups of commands whose help keeps our order and, at the top, has sections."""

from importlib import import_module
from keyword import iskeyword

import click

SECTIONS = {
    "Server": ("serve", "demo", "migrate", "check", "rebuild", "backup", "restore",
               "copy", "epoch"),
    "Keys and partners": ("keys", "partners", "console"),
    "Your data": (
        "chargers", "vehicles", "events", "state", "sessions", "energy", "capacity", "watch",
        "import", "export", "simulate", "replay",
    ),
}  # fmt: skip
"""Each command is in the module of its name, or in the one that _MODULES says."""

_MODULES = {
    "migrate": "database",
    "backup": "database",
    "restore": "database",
    "chargers": "entities",
    "vehicles": "entities",
    "import": "importing",
    "export": "exporting",
}


class OrderedGroup(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class SectionedGroup(click.Group):
    """The top of the command line: imports a command when it is called or shown, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"tether.cli.commands.{_MODULES.get(cmd_name, cmd_name)}")
        # A command that Python has a word for is named `import_` there.
        command = getattr(module, cmd_name + "_" * iskeyword(cmd_name))
        assert isinstance(command, click.Command)
        return command

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
