"""`tether webhooks listen`: posts messages to a program on this machine."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tether.cli.access import Access
from tether.cli.display.output import note, say
from tether.cli.following import stopped_by_signals
from tether.domain.errors import SetupError
from tether.domain.models import Event, Withdrawal
from tether.domain.timestamps import parse_instant
from tether.domain.views import Session, SessionStatus
from tether.domain.webhooks import (
    Message,
    MessageId,
    MessageType,
    event_message,
    hmac_signature,
    message_of,
    new_secret,
)

if TYPE_CHECKING:
    from tether.client import Client

TIMEOUT_S = 20.0
POLL_S = 0.2


def forward_messages(access: Access, url: str, secret: str | None, types: Sequence[str]) -> None:
    """Posts each new message to the URL and prints the result, until Ctrl-C."""
    from httpx2 import Client as Http
    from httpx2 import HTTPError

    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SetupError("--forward must be a URL such as http://localhost:3000/hook.")
    secret = _checked_secret(secret or new_secret())
    wanted = set(types or MessageType)
    messages: queue.Queue[Message | Exception] = queue.Queue(maxsize=1000)
    with (
        access.client(patient=True) as client,
        stopped_by_signals() as stop,
        Http(timeout=TIMEOUT_S, trust_env=False) as http,
    ):
        note(f"Forwarding to {url}. Ctrl-C ends it. The secret is:")
        say(secret)
        for follow in (_events, _withdrawals, _sessions):
            threading.Thread(
                target=_enqueue, args=(messages, follow, client, stop), daemon=True
            ).start()
        while not stop.is_set():
            try:
                message = messages.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if isinstance(message, Exception):
                raise message
            if message.type not in wanted:
                continue
            body, at_s = message.body, int(time())
            headers = {
                "content-type": "application/json",
                "webhook-id": message.id,
                "webhook-timestamp": str(at_s),
                "webhook-signature": hmac_signature(secret, message.id, at_s, body),
            }
            try:
                result = str(http.post(url, content=body, headers=headers).status_code)
            except (HTTPError, ValueError) as error:
                result = " ".join(str(error).split()) or type(error).__name__
            say(f"{datetime.now(UTC):%H:%M:%S}  {message.type}  {message.id}  {result}")


def _checked_secret(secret: str) -> str:
    try:
        hmac_signature(secret, "", 0, b"")
    except ValueError:
        raise SetupError("A secret is whsec_ and Base64.") from None
    return secret


def _enqueue(
    messages: "queue.Queue[Message | Exception]",
    follow: "Callable[[Client, threading.Event], Iterator[Message]]",
    client: "Client",
    stop: threading.Event,
) -> None:
    try:
        for message in follow(client, stop):
            messages.put(message)
    except Exception as error:
        messages.put(error)


def _events(client: "Client", stop: threading.Event) -> Iterator[Message]:
    for number, event in enumerate(client.events.follow(client.events.now(), stop=stop), 1):
        assert isinstance(event, Event)
        yield event_message(MessageType.EVENT_CREATED, event, number, event.at_ms, event)


def _withdrawals(client: "Client", stop: threading.Event) -> Iterator[Message]:
    following = client.events.follow_withdrawn(client.events.now(), stop=stop)
    for number, withdrawal in enumerate(following, 1):
        assert isinstance(withdrawal, Withdrawal)
        at_ms = parse_instant(withdrawal.withdrawn_at)
        yield event_message(MessageType.EVENT_WITHDRAWN, withdrawal, number, at_ms, withdrawal)


_TYPE_OF_STATUS = {
    SessionStatus.ACTIVE: MessageType.SESSION_UPDATED,
    SessionStatus.ENDED: MessageType.SESSION_ENDED,
    SessionStatus.REMOVED: MessageType.SESSION_REMOVED,
}


def _sessions(client: "Client", stop: threading.Event) -> Iterator[Message]:
    for session in client.sessions.changes(updated_from=datetime.now(UTC), stop=stop):
        if session.version == 1:
            yield _session_message(MessageType.SESSION_STARTED, session)
        if session.version > 1 or session.status is not SessionStatus.ACTIVE:
            yield _session_message(_TYPE_OF_STATUS[session.status], session)


def _session_message(kind: MessageType, session: Session) -> Message:
    ids = {
        "sessionId": session.id, "chargerId": session.charger_id,
        "vehicleId": session.vehicle_id, "version": session.version,
    }  # fmt: skip
    id = str(MessageId(kind, session.id, session.version))
    return message_of(kind, id, parse_instant(session.updated_at), ids, session)
