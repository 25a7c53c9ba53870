"""Webhooks: their members as JSON, and the signature of a message."""

import base64
import hmac
from collections.abc import Iterable, Mapping
from time import time
from typing import Any, Protocol, TypedDict

import msgspec

from tether.client.conversion import api_name
from tether.client.errors import invalid
from tether.client.models import Number
from tether.domain.models import to_json
from tether.domain.webhooks import (
    PUBLIC_KEY,
    TOLERANCE_S,
    SignatureKind,
    hmac_signature,
    signed_text,
)


class WebhookMembers(TypedDict, total=False):
    """The members of a webhook: the types of its messages, their charger or vehicle, the start in
    the log (now, start, or a cursor of events or of the stream), whether it is enabled, the
    maximum of messages in a request, and of requests per second.
    """

    types: Iterable[str] | None
    charger_id: str | None
    vehicle_id: str | None
    from_: str
    enabled: bool | None
    max_batch: int | None
    rate_per_second: Number | None
    description: str | None


class WebhookChanges(WebhookMembers, total=False):
    """The members of a webhook that can be changed; None sets the default."""

    url: str


class Headers(Protocol):
    """Headers of a request, as a dict or of any web framework, `http.server` included."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Their names and values."""


_KNOWN = {"signature", *WebhookChanges.__annotations__}


def webhook_body(members: Mapping[str, Any]) -> bytes:
    """The members as JSON. Raises TypeError for an unknown member."""
    if unknown := members.keys() - _KNOWN:
        raise TypeError(f"A webhook has no {', '.join(sorted(unknown))}.")
    body = {api_name(name): value for name, value in members.items()}
    types = body.get("types")
    if isinstance(types, str):
        raise invalid("types", "It must be several types, such as ['session.ended'].")
    if types is not None:
        body["types"] = list(types)
    return to_json(body)


def verify_webhook(
    headers: Headers, body: bytes | str, secret: str, *, tolerance_s: int = TOLERANCE_S
) -> dict[str, Any]:
    """The message in the body of a request. Raises ValueError unless it was signed by this secret
    (`whsec_…`), or by the private key to this public one (`whpk_…`), within the tolerance of now.

    `body` must be the bytes as they were received. Public keys need the package cryptography.
    """
    content = body.encode() if isinstance(body, str) else body
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, at = given["webhook-id"], given["webhook-timestamp"]
        signatures = given["webhook-signature"].split()
    except KeyError as missing:
        raise ValueError(f"The message has no header {missing}.") from None
    if not (at.isascii() and at.isdigit() and len(at) < 16):
        raise ValueError("The header webhook-timestamp is no number of seconds.")
    if abs(time() - int(at)) > tolerance_s:
        raise ValueError(f"The message was sent over {tolerance_s} s ago, or has yet to be.")
    if not any(
        _is_valid(signature, secret, message_id, int(at), content) for signature in signatures
    ):
        raise ValueError("The message was not signed by this secret.")
    found: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    return found


def _is_valid(signature: str, secret: str, message_id: str, at_s: int, body: bytes) -> bool:
    kind, _, text = signature.partition(",")
    if secret.startswith(PUBLIC_KEY):
        return kind == SignatureKind.ED25519 and _is_signed_with(
            secret, text, signed_text(message_id, at_s, body)
        )
    wanted = hmac_signature(secret, message_id, at_s, body)
    return hmac.compare_digest(signature.encode(), wanted.encode())


def _is_signed_with(public_key: str, signature: str, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    key = Ed25519PublicKey.from_public_bytes(
        base64.b64decode(public_key.removeprefix(PUBLIC_KEY), validate=True)
    )
    try:
        key.verify(base64.b64decode(signature, validate=True), signed)
    except (InvalidSignature, ValueError):
        return False
    return True
