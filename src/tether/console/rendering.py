"""Templates of pages, and the formats of their values."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import quote, urlencode

import jinja2
from falcon.asgi import Request, Response

from tether import __version__
from tether.console.request import base_of
from tether.domain.keys import Rate
from tether.domain.partners import Partner
from tether.domain.timestamps import format_instant, moment_of
from tether.storage.turns import map_in_steps

NOTHING = "\N{EN DASH}"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders templates, in time slices, so that other requests do not wait."""

    now_ms: Callable[[], int]
    takes_key_requests: bool
    """Whether anybody may request a key."""
    map_tiles: str = ""

    async def render(
        self, req: Request, resp: Response, name: str, *, status: int = 200, **values: object
    ) -> None:
        """Answers with the page of this template."""
        context = req.context
        base = base_of(req)
        pieces = _templates[name].generate(
            base=base,
            console=f"{base}/console",
            user=context.user,
            partner=context.partner,
            path=req.path,
            now_ms=self.now_ms(),
            takes_key_requests=self.takes_key_requests,
            request_id=context.request_id,
            map_tiles=self.map_tiles,
            **values,
        )
        resp.data = "".join(await map_in_steps(str, pieces)).encode()
        resp.status = status
        resp.content_type = HTML


def address(partner: Partner, *path: str, query: Mapping[str, object] | None = None) -> str:
    """The path of a page of this partner, without the prefix of a proxy."""
    text = "/".join(("/console/p", str(partner.id), *(quote(part, safe="") for part in path)))
    given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
    return f"{text}?{urlencode(given)}" if given else text


# Filters of templates -----------------------------------------------------------------------------


def number(value: Decimal | float | None, digits: int = 1) -> str:
    """The number with thousands separated, or a dash."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def reading(value: Decimal) -> str:
    """The number as it was reported, with at most three places after the point."""
    return f"{min(value, round(value, 3), key=lambda one: len(str(one))):,f}"


def rate(value: Rate) -> str:
    """The rate with thousands separated."""
    return str(value).replace(str(value.requests), count(value.requests), 1)


def count(value: int | None) -> str:
    """The whole number with thousands separated, or a dash."""
    return NOTHING if value is None else f"{value:,}"


def ago(at_ms: int | None, now_ms: int) -> str:
    """How long ago it was, in one or two units."""
    return NOTHING if at_ms is None else f"{duration(max(0, now_ms - at_ms))} ago"


def degrees(text: str, positive: str, negative: str) -> str:
    """The degrees of latitude or longitude, with the hemisphere."""
    return f"{text.removeprefix('-')}° {negative if text.startswith('-') else positive}"


def duration(length_ms: float | Decimal | None) -> str:
    """The length of time, in one or two units."""
    if length_ms is None:
        return NOTHING
    seconds = int(length_ms // 1000)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400:,} d"


def moment(at_ms: int | None) -> str:
    """The instant in UTC, to the second."""
    return NOTHING if at_ms is None else moment_of(at_ms).strftime("%Y-%m-%d %H:%M:%S")


_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]"
)


def visible(text: str) -> str:
    """The text, with control characters and characters for the writing direction as numbers."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _load_templates() -> dict[str, jinja2.Template]:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tether.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(version=__version__, address=address, iso=format_instant)
    environment.filters.update(
        number=number, reading=reading, rate=rate, count=count, ago=ago, duration=duration,
        degrees=degrees, moment=moment,
        segment=lambda text: quote(text, safe=""), visible=visible,
    )  # fmt: skip
    return {name: environment.get_template(name) for name in environment.list_templates()}


_templates = _load_templates()  # slow, but a thread imports this module
