"""Sends one request to an endpoint, signed according to Standard Webhooks 1.0."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING

from tether import __version__
from tether.domain.errors import SetupError
from tether.domain.webhooks import (
    PRIVATE_KEY,
    Endpoint,
    Message,
    Outcome,
    SignatureKind,
    hmac_signature,
    signed_text,
)
from tether.server.secret_box import SecretBox, ed25519_signature
from tether.webhooks.addresses import AddressRules, Network

if TYPE_CHECKING:
    from tether.webhooks.http_client import HttpClient

TIMEOUT_S = 20.0  # of a whole attempt
LONGEST_ANSWER = 1_000  # characters that are stored


class Sender:
    """Signs and sends messages."""

    def __init__(
        self,
        box: SecretBox,
        now_ms: Callable[[], int],
        *,
        allowed: Sequence[Network],
        allow_http: bool,
    ) -> None:
        self._box = box
        self._now_ms = now_ms
        self._rules = AddressRules(allowed)
        self.allow_http = allow_http
        self._client: HttpClient | None = None

    async def send(self, endpoint: Endpoint, message: Message) -> Outcome:
        """Sends the message once."""
        now_ms, began = self._now_ms(), monotonic()
        outcome = await self._send(endpoint, message, now_ms)
        taken_ms = round((monotonic() - began) * 1000)
        return outcome._replace(at_ms=now_ms, taken_ms=taken_ms)

    def check_address(self, text: str) -> None:
        """Raises ForbiddenAddress if no request may go to this IP address."""
        self._rules.check(text)

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._client is not None:
            await self._client.close()

    async def _send(self, endpoint: Endpoint, message: Message, now_ms: int) -> Outcome:
        # bootstrap.py imports it after the start, which it would slow down.
        from tether.webhooks.http_client import HttpClient, RequestFailed  # noqa: PLC0415

        if endpoint.url.startswith("http:") and not self.allow_http:
            return Outcome(error="The address is not https.")
        body = message.body
        try:
            headers = self._headers(endpoint, message.id, now_ms, body)
        except (SetupError, ValueError) as error:
            return Outcome(error=f"The message cannot be signed. {error}")
        if self._client is None:
            self._client = HttpClient(self._rules)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.post(endpoint.url, headers, body)
        except TimeoutError:
            return Outcome(error=f"There was no answer within {TIMEOUT_S:.0f} s.")
        except RequestFailed as error:
            return Outcome(error=str(error))
        return Outcome(
            answer.status,
            _error_of(answer.status),
            answer.body.decode("utf-8", "replace")[:LONGEST_ANSWER],
            _retry_after_s(answer.retry_after, now_ms),
        )

    def _headers(
        self, endpoint: Endpoint, message_id: str, now_ms: int, body: bytes
    ) -> dict[str, str]:
        at_s = now_ms // 1000
        secrets = [self._box.open(endpoint.secret)]
        for old in endpoint.old_secrets if endpoint.old_until_ms > now_ms else ():
            with suppress(SetupError):  # the key is lost: perhaps it was rotated for this reason
                secrets.append(self._box.open(old))
        signatures = [
            _signature(endpoint.signature, secret, message_id, at_s, body) for secret in secrets
        ]
        return {
            "content-type": "application/json",
            "user-agent": f"Tether/{__version__} (webhooks)",
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(signatures),
        }


def _signature(kind: SignatureKind, secret: str, message_id: str, at_s: int, body: bytes) -> str:
    if kind is SignatureKind.HMAC:
        return hmac_signature(secret, message_id, at_s, body)
    text = signed_text(message_id, at_s, body)
    return f"{kind},{ed25519_signature(secret.removeprefix(PRIVATE_KEY), text)}"


def _error_of(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"The answer was {status}: redirects are not followed."
    return f"The answer was {status}."


def _retry_after_s(text: str | None, now_ms: int) -> int | None:
    """The seconds that a Retry-After header asks for, as a number or by a future date."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    try:
        at = parsedate_to_datetime(text)
        # One of the three forms has no zone, and means UTC as the others do.
        wait_s = round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now_ms / 1000)
    except (ValueError, OverflowError):  # it is neither
        return None
    return wait_s if wait_s > 0 else None
