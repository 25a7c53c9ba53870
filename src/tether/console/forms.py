"""What pages send: the fields of a form, and what an address asks for."""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

from falcon.asgi import Request

from tether.domain.errors import Invalid, TooLarge

T = TypeVar("T")

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


def change_of(form: dict[str, str], changes: Mapping[str, T]) -> T:
    """The one of these changes that the form's button names. Raises Invalid."""
    if form.get("do") not in changes:
        raise Invalid("do", f"It must be one of {', '.join(changes)}.")
    return changes[form["do"]]


def query_of(req: Request) -> dict[str, str]:
    """The parameters of the address. Raises Invalid."""
    return _pairs(req.query_string, "query")


def _pairs(text: str, name: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Invalid(name, f"It has at most {MOST_FIELDS} fields.") from None
    return {key: value.strip()[:LONGEST].translate(_NUL) for key, value in pairs}
