"""Validates webhooks: turns the members of a request into the fields of an endpoint."""

import re
from decimal import Decimal
from functools import partial
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tether.domain.errors import Invalid, Missing
from tether.domain.validation import (
    Document,
    Member,
    check_entity_id,
    check_instant,
    check_number,
    checked_members,
)
from tether.domain.webhooks import (
    ALL_TYPES,
    LONGEST_OVERLAP_MS,
    MAX_IN_BATCH,
    OVERLAP_MS,
    MessageType,
    SignatureKind,
    message_id_in,
)

LONGEST_URL = 2_000
LONGEST_DESCRIPTION = 200
MAX_PER_SECOND = Decimal(1_000)
MIN_PER_SECOND = Decimal("0.001")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]")


class WebhookFields(NamedTuple):
    """The fields of an endpoint in a request, and where in the log the endpoint begins."""

    fields: dict[str, Any]
    start: str | None
    """`now`, `start` or a cursor; None if it is not given."""


def _fault_in_url(url: str, *, allow_http: bool) -> str | None:
    """What is wrong with the URL of an endpoint, in a sentence; None if it is valid."""
    schemes = ("https", "http") if allow_http else ("https",)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "It must be an address such as https://example.com/hook."
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.removesuffix(":")
    faults = {
        f"It must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}.":
            not url.startswith(tuple(f"{scheme}://" for scheme in schemes)),
        "It must have only characters of ASCII, others as %xx, and no blank.":
            not url.isascii() or not url.isprintable() or " " in url or "\\" in url,
        "It must have no name and password.": "@" in parts.netloc,
        "It must have no fragment (#…).": "#" in url,
        "It must have a host name or an address, and a port from 1 to 65535 if any.":
            port == 0 or not _HOST.fullmatch(host),
    }  # fmt: skip
    return next((fault for fault, holds in faults.items() if holds), None)


def literal_address(url: str) -> str | None:
    """The IP address in the URL; None if it has a host name."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _url(name: str, value: Any, *, allow_http: bool) -> str:
    if not isinstance(value, str):
        raise Invalid(name, "It must be text: an address such as https://example.com/hook.")
    if len(value) > LONGEST_URL:
        raise Invalid(name, f"It must have at most {LONGEST_URL:,} characters.")
    if fault := _fault_in_url(value, allow_http=allow_http):
        raise Invalid(name, fault)
    return value


def _types(name: str, value: Any) -> tuple[MessageType, ...]:
    named = value if isinstance(value, list) and len(value) <= 100 else []
    if not named or any(kind not in ALL_TYPES for kind in named):
        raise Invalid(name, f"It must be an array with some of {', '.join(ALL_TYPES)}.")
    return tuple(kind for kind in ALL_TYPES if kind in named)


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid(name, "It must be true or false, without quotes.")
    return value


def _batch(name: str, value: Any) -> int:
    number = check_number(name, value, low=Decimal(1), high=Decimal(MAX_IN_BATCH))
    if number != number.to_integral_value():
        raise Invalid(name, "It must be a whole number.")
    return int(number)


def _rate(name: str, value: Any) -> int:
    number = check_number(
        name, value, low=MIN_PER_SECOND, high=MAX_PER_SECOND, unit=" of requests per second"
    )
    return int(number * 1000)


def _description(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_DESCRIPTION or not value.isprintable():
        raise Invalid(name, f"It must be text of up to {LONGEST_DESCRIPTION} printable characters.")
    return value


def _start(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise Invalid(name, START_RULE)
    return value


def _signature(name: str, value: Any) -> SignatureKind:
    if value not in tuple(SignatureKind):
        raise Invalid(name, f"It must be one of {', '.join(SignatureKind)}.")
    return SignatureKind(value)


START_RULE = "It must be now, start, or a cursor of /events or /stream."

_MEMBERS = {
    "types": Member("types", _types),
    "chargerId": Member("charger_id", check_entity_id),
    "vehicleId": Member("vehicle_id", check_entity_id),
    "from": Member("start", _start),
    "enabled": Member("enabled", _boolean),
    "maxBatch": Member("max_batch", _batch),
    "ratePerSecond": Member("rate_mhz", _rate),
    "description": Member("description", _description),
    "signature": Member("signature", _signature),
}
_DEFAULTS = {
    "types": ALL_TYPES, "charger_id": None, "vehicle_id": None, "enabled": True, "max_batch": 1,
    "rate_mhz": None, "description": "", "signature": SignatureKind.HMAC,
}  # fmt: skip
_OWNER = "webhook"


def _members(*, allow_http: bool) -> dict[str, Member]:
    return {"url": Member("url", partial(_url, allow_http=allow_http)), **_MEMBERS}


def new_webhook(document: Document, *, allow_http: bool) -> WebhookFields:
    """The endpoint of a POST request. Raises Invalid."""
    if "url" not in document:
        raise Missing("url")
    fields = {**_DEFAULTS, **checked_members(document, _members(allow_http=allow_http), _OWNER)}
    return WebhookFields(fields, fields.pop("start", "now"))


def changes_of_webhook(document: Document, *, allow_http: bool) -> WebhookFields:
    """The changes of a PATCH request; null sets a member to its default. Raises Invalid."""
    fields = checked_members(document, _members(allow_http=allow_http), _OWNER, null_removes=True)
    if "signature" in fields:
        raise Invalid("signature", "It cannot be changed: make a new one.")
    if "url" in fields and fields["url"] is None:
        raise Invalid("url", "It is required.")
    start = fields.pop("start", None)
    fields = {
        name: _DEFAULTS.get(name) if value is None else value for name, value in fields.items()
    }
    return WebhookFields(fields, start)


class Replay(NamedTuple):
    """Which messages to send again; exactly one field is given."""

    message_id: str | None
    failed_since_ms: int | None
    start: str | None


def replay_of(document: Document) -> Replay:
    """The replay that a POST request asks for. Raises Invalid."""
    values = checked_members(document, _REPLAY, "replay")
    if len(values) != 1:
        raise Invalid("messageId", "Exactly one of messageId, failedSince and from must be given.")
    return Replay(values.get("message_id"), values.get("failed_since_ms"), values.get("start"))


def _message_id(name: str, value: Any) -> str:
    if not isinstance(value, str) or message_id_in(value) is None:
        raise Invalid(name, "It must be the id of a message: what the header webhook-id said.")
    return value


def overlap_of(document: Document) -> int:
    """For how many milliseconds the old secret signs too. Raises Invalid."""
    overlap_ms: int = checked_members(document, _ROTATION, "rotation").get("overlap", OVERLAP_MS)
    return overlap_ms


def _overlap(name: str, value: Any) -> int:
    most = Decimal(LONGEST_OVERLAP_MS // 1000)
    return int(check_number(name, value, low=Decimal(0), high=most, unit=" (seconds)") * 1000)


_REPLAY = {
    "messageId": Member("message_id", _message_id),
    "failedSince": Member("failed_since_ms", check_instant),
    "from": Member("start", _start),
}
_ROTATION = {"overlap": Member("overlap", _overlap)}
