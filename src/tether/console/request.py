"""What a request contains: its user, partner and addresses, the parameters and the form."""

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, unquote

from falcon.asgi import Request

from tether.domain.audit import Actor
from tether.domain.errors import Forbidden, Invalid, TetherError, TooLarge
from tether.domain.keys import Key
from tether.domain.partners import Partner
from tether.storage.console_sessions import ConsoleSession

HOME = "/console"
LABELS = {
    "from": "From", "to": "To", "zone": "Time zone of days", "status": "Status",
    "q": "Contains", "action": "Action", "url": "Address",
    "chargerId": "Only of the charger", "vehicleId": "Only of the vehicle",
}  # fmt: skip
"""The labels of fields whose names are those of parameters."""
MAX_FORM_BYTES = 8_192
MAX_FIELDS = 50
MAX_VALUE_LENGTH = 2_000
_MAX_PATH_LENGTH = 1_000
_LOCAL_PATH = re.compile(r"/console(?:/[A-Za-z0-9._~*+@:%-]+)*(?:\?[A-Za-z0-9._~*+@:%=&-]*)?")
_NUL = str.maketrans({"\0": "\N{REPLACEMENT CHARACTER}"})  # PostgreSQL's text cannot contain NUL


# The user and the partner, after the checks of the middleware -------------------------------------


def user_of(req: Request) -> ConsoleSession:
    """The session of the signed-in user."""
    user: ConsoleSession = req.context.user
    return user


def partner_of(req: Request) -> Partner:
    """The partner whose page this is."""
    partner: Partner = req.context.partner
    return partner


def actor_of(req: Request) -> Actor:
    """The user, as the audit trail stores it."""
    return actor_with(req, req.context.user and req.context.user.key)


def actor_with(req: Request, key: Key | None) -> Actor:
    """The owner of this key, or the operator, as the audit trail stores it."""
    kind, prefix = ("key", key.prefix) if key else ("operator", "")
    return Actor(kind, prefix, req.context.request_id, req.context.client or "")


def require_change(req: Request) -> None:
    """Raises Forbidden if the user may only read."""
    if not user_of(req).may_change:
        raise Forbidden(read_only=True)


# Addresses ----------------------------------------------------------------------------------------


def base_of(req: Request) -> str:
    """The path under which a proxy serves us; it stands before our paths in a browser."""
    base: str = req.context.base
    return base


def url_of(req: Request) -> str:
    """The URL of the server as the browser knows it, to be pasted into a shell."""
    host = req.get_header("Host") or ""
    plain = host.replace("[", "").replace("]", "").replace(":", "").replace("-", "")
    if not plain.replace(".", "").isalnum() or not host.isascii():
        host = "127.0.0.1:8000"
    scheme = "https" if req.forwarded_scheme == "https" else "http"
    return f"{scheme}://{host}{base_of(req)}"


def path_of(req: Request) -> str:
    """The path and query of the request."""
    return f"{req.path}?{req.query_string}" if req.query_string else req.path


def local_path(text: str | None) -> str:
    """The path if it is a page of the console, otherwise `/console`. Prevents open redirects."""
    if text is None or len(text) > _MAX_PATH_LENGTH or not _LOCAL_PATH.fullmatch(text):
        return HOME
    return HOME if "/." in unquote(text) else text  # browsers resolve "/.." to another page


# Parameters and forms -----------------------------------------------------------------------------


async def read_form(req: Request) -> dict[str, str]:
    """The fields of the form. The last of fields with the same name counts. Raises TooLarge and
    Invalid.
    """
    body = await req.stream.read(MAX_FORM_BYTES + 1)
    if len(body) > MAX_FORM_BYTES:
        raise TooLarge(MAX_FORM_BYTES, what="a form")
    return _pairs(body.decode("utf-8", "replace"), "form")


def query_of(req: Request) -> dict[str, str]:
    """The parameters of the query. Raises Invalid."""
    return _pairs(req.query_string, "query")


def choice(
    fields: Mapping[str, str], name: str, choices: Collection[str], default: str = ""
) -> str:
    """The value of this field, which must be one of the choices. Raises Invalid."""
    value = fields.get(name) or default
    if value not in choices:
        raise Invalid(name, f"It must be one of {', '.join(filter(None, choices))}.")
    return value


def problem_of(error: TetherError) -> str:
    """The message of an error for the reader of a page, who knows fields and no parameters."""
    if isinstance(error, Invalid):
        return f"{LABELS.get(error.parameter, error.parameter)}: {error.hint}"
    return error.message


def position(
    fields: Mapping[str, str], name: str, pattern: re.Pattern[str]
) -> tuple[int, str] | None:
    """The position after which a page of a list begins: an instant and an id; None at the start.

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
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Invalid(name, f"It has at most {MAX_FIELDS} fields.") from None
    return {key: value.strip()[:MAX_VALUE_LENGTH].translate(_NUL) for key, value in pairs}
