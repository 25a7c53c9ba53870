"""The operations of partners on their webhooks, for the API and the console."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from uuid_utils import uuid7

from tether.domain.audit import Actor
from tether.domain.errors import (
    Code,
    Conflict,
    Invalid,
    NotFound,
    Refusal,
    SetupError,
    TooManyAtOnce,
    Unavailable,
)
from tether.domain.models import to_json, with_plain_ids
from tether.domain.timestamps import format_instant
from tether.domain.webhook_validation import Replay, literal_address
from tether.domain.webhooks import (
    MAX_ENDPOINTS,
    MAX_OLD_SECRETS,
    PRIVATE_KEY,
    PUBLIC_KEY,
    TEST_TYPE,
    Attempt,
    Endpoint,
    LogPosition,
    Message,
    MessageType,
    Outcome,
    SignatureKind,
    Status,
    new_secret,
)
from tether.server.secret_box import SecretBox, new_signing_key, verifying_key
from tether.storage.audit import audit_entry
from tether.storage.engine import Statement
from tether.storage.turns import Turns
from tether.storage.webhooks import MAX_PARKED, Parked, Webhooks

TESTS_AT_ONCE, TESTS_OF_EACH = 32, 2
_NO_FAILURES: dict[str, Any] = {
    "stopped": "", "head": "", "tries": 0, "due_ms": 0, "failing_since_ms": None,
}  # fmt: skip


class Sender(Protocol):
    """Sends messages to endpoints."""

    allow_http: bool

    async def send(self, endpoint: Endpoint, message: Message) -> Outcome:
        """Sends the message once."""

    def check_address(self, text: str) -> None:
        """Raises OSError if no request may go to this IP address."""


def attempt_of(webhook: Endpoint, message: Message, outcome: Outcome, messages: int = 1) -> Attempt:
    """The record of a request. Ids are plain in it, so that an erasure finds them."""
    return Attempt(
        webhook.partner, webhook.id, str(uuid7()), outcome.at_ms, message.id, message.type,
        messages, outcome.status, outcome.taken_ms, with_plain_ids(outcome.error),
        with_plain_ids(outcome.answer).replace("\0", "\N{REPLACEMENT CHARACTER}"),
    )  # fmt: skip


class WebhookService:
    """Creates, changes, tests and replays the endpoints of partners. Raises Unavailable."""

    def __init__(
        self,
        stored: Webhooks,
        find_message: Callable[[Endpoint, str], Awaitable[Message | None]],
        box: SecretBox,
        sender: Sender,
        now_ms: Callable[[], int],
    ) -> None:
        """`find_message` returns the message with an id, if it can be sent to the endpoint."""
        self._stored = stored
        self._find_message = find_message
        self._box = box
        self._sender = sender
        self._now_ms = now_ms
        self._tests = Turns(TESTS_AT_ONCE, TESTS_OF_EACH)

    @property
    def allow_http(self) -> bool:
        """Whether endpoints may use HTTP without encryption."""
        return self._sender.allow_http

    async def create(
        self, partner: int, fields: dict[str, Any], start: str | int, by: Actor
    ) -> tuple[Endpoint, str]:
        """Creates an endpoint. Also returns the secret or public key that verifies its messages.

        `start` is `now`, `start`, or the number of the event after which it begins. Raises Invalid
        and Conflict.
        """
        self._check_address(fields["url"])
        verifier, sealed = self._new_secret(fields["signature"])
        webhook = Endpoint(
            partner=partner, id=str(uuid7()), **fields, secret=sealed, old_secret="",
            old_until_ms=0, created_ms=self._now_ms(),
            position=await self._position(partner, start),
            head="", tries=0, due_ms=0, failing_since_ms=None, stopped="", success_ms=None,
        )  # fmt: skip
        entry = self._entry(webhook, by, "webhook.create", after=_audited(fields, start))
        if not await self._stored.add(webhook, entry):
            why = f"There are {MAX_ENDPOINTS} webhooks already: delete one first."
            raise Conflict(Refusal(Code.TOO_MANY_WEBHOOKS, why))
        return webhook, verifier

    async def change(
        self,
        partner: int,
        webhook_id: str,
        fields: dict[str, Any],
        start: str | int | None,
        by: Actor,
    ) -> None:
        """Changes these fields, and the position if a start is given. Raises Invalid, NotFound."""
        webhook = await self._stored.get(partner, webhook_id)
        if "url" in fields:
            self._check_address(fields["url"])
        changes = {name: new for name, new in fields.items() if new != getattr(webhook, name)}
        if start is not None:
            changes["position"] = await self._position(partner, start)
        elif "types" in fields:
            position = await self._position_for(webhook, fields["types"])
            if position != webhook.position:  # otherwise the deliverer moves it meanwhile
                changes["position"] = position
        # It did not fail while it was disabled, so that time does not count.
        is_enabled_again = fields.get("enabled") and (webhook.stopped or not webhook.enabled)
        if start is not None or "url" in fields or is_enabled_again:
            changes |= _NO_FAILURES
        if changes:
            before = _audited({name: getattr(webhook, name) for name in fields})
            entry = self._entry(webhook, by, "webhook.change", before, _audited(fields, start))
            await self._stored.change(partner, webhook_id, changes, entry)

    def _entry(
        self,
        webhook: Endpoint,
        by: Actor,
        action: str,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> Statement:
        return audit_entry(
            webhook.partner, self._now_ms(), by, action, webhook.id, before=before, after=after
        )

    async def _position_for(self, webhook: Endpoint, types: tuple[MessageType, ...]) -> LogPosition:
        """The position with new types. If these are the first ones on events, or on sessions, the
        endpoint gets events, or changes of sessions, from now on.
        """
        changed, position = replace(webhook, types=types), webhook.position
        now = await self._position(webhook.partner, "now")
        if changed.wants_events and not webhook.wants_events:
            position = position._replace(seq=now.seq)
        if changed.wants_sessions and not webhook.wants_sessions:
            position = now._replace(seq=position.seq)
        return position

    async def delete(self, partner: int, webhook_id: str, by: Actor) -> None:
        """Deletes an endpoint. Raises NotFound."""
        webhook = await self._stored.get(partner, webhook_id)
        entry = self._entry(webhook, by, "webhook.delete")
        await self._stored.delete(partner, webhook_id, entry)

    async def rotate(
        self, partner: int, webhook_id: str, overlap_ms: int, by: Actor
    ) -> tuple[Endpoint, str]:
        """Replaces the secret. The old one also signs until the overlap ends, with those before it
        whose overlap has not ended: perhaps the owner got no answer and asks again.

        Raises NotFound.
        """
        while True:
            webhook, now_ms = await self._stored.get(partner, webhook_id), self._now_ms()
            verifier, sealed = self._new_secret(webhook.signature)
            before = webhook.old_secrets if webhook.old_until_ms > now_ms else []
            old = [webhook.secret, *before][:MAX_OLD_SECRETS] if overlap_ms else []
            rotated = replace(
                webhook, secret=sealed, old_secret=" ".join(old), old_until_ms=now_ms + overlap_ms
            )
            entry = self._entry(webhook, by, "webhook.rotate_secret")
            if await self._stored.rotate(webhook, rotated, entry):  # no other one was faster
                return rotated, verifier

    async def test(self, partner: int, webhook_id: str) -> Outcome:
        """Sends a test message now. If that succeeds, an endpoint that failed continues.

        Raises NotFound, and RateLimited if too many tests run at once.
        """
        webhook = await self._stored.get(partner, webhook_id)
        now_ms = self._now_ms()
        data = to_json({"webhookId": webhook.id, "sentAt": format_instant(now_ms)})
        message = Message(f"test_{uuid7()}", TEST_TYPE, now_ms, data)
        async with self._tests.of(partner):
            outcome = await self._sender.send(webhook, message)
        await self._stored.add_attempt(attempt_of(webhook, message, outcome))
        if not outcome.error and webhook.status in (Status.FAILING, Status.STOPPED, Status.GONE):
            await self._stored.change(partner, webhook_id, _NO_FAILURES)
        return outcome

    async def replay(
        self,
        partner: int,
        webhook_id: str,
        replay: Replay,
        start: str | int | None,
        by: Actor,
    ) -> int:
        """Sends messages again; returns how many, or 0 for all messages after a start.

        Raises NotFound, also if there is no such message any more, and TooManyAtOnce if too many
        messages are parked.
        """
        webhook = await self._stored.get(partner, webhook_id)
        now_ms = self._now_ms()
        start_again = None if start is None else {"from": start}
        entry = self._entry(webhook, by, "webhook.replay", after=start_again)
        if replay.message_id is not None:
            if webhook.parked >= MAX_PARKED:
                raise TooManyAtOnce(60)
            if await self._find_message(webhook, replay.message_id) is None:
                raise NotFound
            parked = Parked(partner, webhook.id, replay.message_id, 0, now_ms, now_ms)
            await self._stored.park(parked, entry)
            return 1
        if start is None:
            since_ms = replay.failed_since_ms or 0
            return await self._stored.retry_failed(partner, webhook_id, now_ms, since_ms, entry)
        changes = {"position": await self._position(partner, start), **_NO_FAILURES}
        await self._stored.change(partner, webhook_id, changes, entry)
        return 0

    def _check_address(self, url: str) -> None:
        """Raises Invalid if the URL names an IP address to which no request may go."""
        if (address := literal_address(url)) is None:
            return
        try:
            self._sender.check_address(address)
        except OSError as error:
            raise Invalid("url", str(error)) from None

    async def _position(self, partner: int, start: str | int) -> LogPosition:
        if start == "start":
            return LogPosition()
        if start == "now":
            return await self._stored.end_of_log(partner)
        assert isinstance(start, int)
        event_id = await self._stored.event_at(partner, start)
        # The endpoint also gets the changes of sessions since that event was received.
        at_ms = 0 if event_id is None else int(event_id.replace("-", "")[:12], 16)
        return LogPosition(start, at_ms, caught_up_ms=max(0, at_ms - 1))

    def _new_secret(self, kind: SignatureKind) -> tuple[str, str]:
        """The secret or public key for the owner, and what is stored. Raises Unavailable."""
        try:
            if kind is SignatureKind.HMAC:
                secret = new_secret()
                return secret, self._box.seal(secret)
            key = new_signing_key()
            return PUBLIC_KEY + verifying_key(key), self._box.seal(PRIVATE_KEY + key)
        except SetupError as error:
            raise Unavailable(60, f"Webhooks are not set up here. {error.message}") from error


def _audited(fields: dict[str, Any], start: str | int | None = None) -> dict[str, Any]:
    """The fields for the audit trail: no charger, no vehicle, and only the host of an address."""
    audited: dict[str, Any] = {
        shown: fields[name]
        for name, shown in (("types", "types"), ("enabled", "enabled"), ("max_batch", "maxBatch"))
        if name in fields
    }
    if "rate_mhz" in fields:
        rate_mhz = fields["rate_mhz"]
        audited["ratePerSecond"] = None if rate_mhz is None else rate_mhz / 1000
    if "url" in fields:
        audited["host"] = urlsplit(fields["url"]).hostname
    if start is not None:
        audited["from"] = start
    return audited
