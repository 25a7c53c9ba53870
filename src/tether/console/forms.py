"""What pages send: the fields of a form, and what an address asks for."""

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from falcon.asgi import Request

from tether.domain.errors import Invalid, TooLarge

MOST_BYTES = 8_192
MOST_FIELDS = 50
LONGEST = 2_000
_NUL = str.maketrans({"\0": "\N{REPLACEMENT CHARACTER}"})  # which PostgreSQL's text cannot have


async def read_form(req: Request) -> dict[str, str]:
    """The fields of the form; of two with one name the last. Raises TooLarge and Invalid."""
    body = await req.stream.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise TooLarge(MOST_BYTES, what="a form")
    return _pairs(body.decode("utf-8", "replace"), "form")


def query_of(req: Request) -> dict[str, str]:
    """The parameters of the address. Raises Invalid."""
    return _pairs(req.query_string, "query")


def choice(
    fields: Mapping[str, str], name: str, choices: Collection[str], default: str = ""
) -> str:
    """The value of this field, which must be one of the choices. Raises Invalid."""
    value = fields.get(name) or default
    if value not in choices:
        raise Invalid(name, f"It must be one of {', '.join(filter(None, choices))}.")
    return value


def position(
    fields: Mapping[str, str], name: str, pattern: re.Pattern[str]
) -> tuple[int, str] | None:
    """The place in a list, an instant and an id, behind which a page begins; None for its start.

    The pattern has a group for each. Raises Invalid.
    """
    if not fields.get(name):
        return None
    found = pattern.fullmatch(fields[name])
    if found is None:
        raise Invalid(name, "It must be one that a page of this list gave.")
    return int(found[1]), found[2]


def _pairs(text: str, name: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Invalid(name, f"It has at most {MOST_FIELDS} fields.") from None
    return {key: value.strip()[:LONGEST].translate(_NUL) for key, value in pairs}
