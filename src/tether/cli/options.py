"""Options and kinds of values that several commands share."""

import os
import re
from ipaddress import ip_network
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from tether.cli.times import parse_duration, parse_when
from tether.domain.errors import SetupError
from tether.domain.keys import Rate, parse_rate
from tether.domain.partners import DAY_MS
from tether.domain.timestamps import now_ms
from tether.files.csv_form import SEPARATORS
from tether.server.settings import checked_database, default_database, parse_address


class DatabaseType(click.ParamType[str]):
    """A file's path, sqlite:///path or a PostgreSQL URL."""

    name = "url"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = str(value).strip()
        if not text:
            self.fail("it names no database.", param, ctx)
        try:
            return checked_database(text)
        except SetupError as error:
            self.fail(error.message, param, ctx)


class FilePath(click.Path):
    """A path; `~` is the user's folder also where the shell leaves it, as in `--output=~/x`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        path = os.path.expanduser(value)
        if path.startswith("~"):
            self.fail(f"{path} begins with a user who is not known here.", param, ctx)
        return super().convert(path, param, ctx)


class ZoneType(click.ParamType[ZoneInfo]):
    """A time zone, by its name in the IANA's list."""

    name = "zone"

    def convert(self, value: Any, param: Any, ctx: Any) -> ZoneInfo:
        if isinstance(value, ZoneInfo):
            return value
        try:
            return ZoneInfo(value.strip())
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone such as Europe/Berlin.", param, ctx)


class SeparatorType(click.ParamType[str]):
    """What separates the cells of a CSV."""

    name = "character"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        names = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
        found = names.get(str(value).lower(), str(value))
        if found not in SEPARATORS:
            self.fail(f"{value!r} is none of , ; | and tab.", param, ctx)
        return found


class WholeNumber(click.IntRange):
    """A whole number within limits; click's own calls itself an integer range."""

    name = "whole number"


class RateType(click.ParamType[Rate]):
    """How many requests in how much time."""

    name = "rate"

    def convert(self, value: Any, param: Any, ctx: Any) -> Rate:
        try:
            return value if isinstance(value, Rate) else parse_rate(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class WhenType(click.ParamType[int]):
    """A point in time, in ms since 1970."""

    name = "when"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return parse_when(value, now_ms())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SinceType(click.ParamType[int]):
    """A point in time, in ms since 1970; a duration is that long ago."""

    name = "since"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return now_ms() - parse_duration(value)
        except ValueError:
            pass
        try:
            return parse_when(value, now_ms())
        except ValueError as error:
            self.fail(str(error), param, ctx)


NEVER = -1  # ms since 1970, of what has no end


class WhenOrNeverType(WhenType):
    """A point in time, or `never`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        return NEVER if str(value).strip() == "never" else super().convert(value, param, ctx)


class DurationType(click.ParamType[int]):
    """A length of time, in ms."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


AS_SERVER_SAYS = -1  # ms, of what has no age of its own


class AgeType(DurationType):
    """For how long something is kept, in ms: a day at least, `forever` (0) or `default`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        text = str(value).strip().lower()
        if text in ("forever", "default"):
            return 0 if text == "forever" else AS_SERVER_SAYS
        age_ms = super().convert(value, param, ctx)
        if age_ms < DAY_MS:
            self.fail("It must be a day at least, forever or default.", param, ctx)
        return age_ms


class MetricsType(click.ParamType[str]):
    """Where the metrics are: on, off or HOST:PORT."""

    name = "on|off|HOST:PORT"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = str(value).strip()
        if text in ("on", "off"):
            return text
        try:
            parse_address(text)
        except SetupError:
            self.fail(f"{text!r} is none of on, off and HOST:PORT.", param, ctx)
        return text


class OriginsType(click.ParamType[tuple[str, ...]]):
    """Web origins, between commas."""

    name = "ORIGIN,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        origins = tuple(filter(None, map(str.strip, value.split(","))))
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin):
                self.fail(
                    f"{origin!r} is not an origin: write https://app.example.com, without a path, "
                    "or * for all.",
                    param,
                    ctx,
                )
        return origins


class TilesType(click.ParamType[str]):
    """Where tiles of maps are."""

    name = "URL"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        from tether.server.settings import origin_of

        if value:
            try:
                origin_of(value)
            except SetupError as error:
                self.fail(error.message, param, ctx)
        return str(value)


class NetworksType(click.ParamType[tuple[str, ...]]):
    """Addresses and networks, between commas."""

    name = "ADDRESS,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        networks = []
        for text in filter(None, map(str.strip, value.split(","))):
            try:
                networks.append(str(ip_network(text, strict=False)))
            except ValueError:
                self.fail(
                    f"{text!r} is no address or network: write 127.0.0.1, 10.0.0.0/8 or fd00::/8.",
                    param,
                    ctx,
                )
        return tuple(networks)


class RedisType(click.ParamType[str]):
    """A Redis URL, or nothing."""

    name = "url"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = str(value).strip()
        if text and not text.startswith(("redis://", "rediss://", "unix://")):
            # What was given may hold a password.
            self.fail("it must begin with redis://, rediss:// or unix://.", param, ctx)
        return text


database_option = click.option(
    "--database",
    type=DatabaseType(),
    default=default_database,
    envvar="TETHER_DATABASE",
    show_envvar=True,
    metavar="URL",
    help="A file's path, sqlite:///path or postgresql://user:password@host/name.  "
    "[default: a file in your data folder]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
