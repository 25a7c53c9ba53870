"""Webhooks: endpoints, their messages, signatures and the retry policy.

Messages and signatures follow Standard Webhooks 1.0. Instants are in milliseconds since 1970 here,
and in seconds in the headers of a message.
"""

import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from secrets import token_bytes
from typing import NamedTuple

import msgspec

from tether.domain.models import Event, Withdrawal, to_json
from tether.domain.timestamps import DAY_MS, HOUR_MS, format_instant

MAX_ENDPOINTS = 20  # of a partner
MAX_BODY_BYTES = 20_000
MAX_IN_BATCH = 100
TRIES_BEFORE_PARKING = 4
RETRIES_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.1  # of a pause, to either side
STOPS_AFTER_MS = 120 * HOUR_MS  # of failing
WARNINGS = (50, 70, 90)  # per cent of that
RETRY_AFTER_S = (1, 3_600)  # an endpoint can ask for a pause within these bounds
OVERLAP_MS = DAY_MS  # how long an old secret signs too, by default
LONGEST_OVERLAP_MS = 7 * OVERLAP_MS
MAX_OLD_SECRETS = 4  # that sign too
TOLERANCE_S = 300  # between the clocks of the sender and the receiver
SECRET, PRIVATE_KEY, PUBLIC_KEY = "whsec_", "whsk_", "whpk_"


class MessageType(StrEnum):
    """The types of messages."""

    EVENT_CREATED = "event.created"
    EVENT_WITHDRAWN = "event.withdrawn"
    VEHICLE_STATE_CHANGED = "vehicle.state.changed"
    CHARGER_STATE_CHANGED = "charger.state.changed"
    SESSION_STARTED = "session.started"
    SESSION_UPDATED = "session.updated"
    SESSION_ENDED = "session.ended"
    SESSION_REMOVED = "session.removed"


ALL_TYPES = tuple(MessageType)
OF_EVENTS = {MessageType.EVENT_CREATED, MessageType.EVENT_WITHDRAWN}
"""These follow the order of the events, all others the order of the changes of sessions."""
TEST_TYPE = "webhook.test"
BATCH_TYPE = "batch"


class SignatureKind(StrEnum):
    """How messages are signed: with a shared secret, or with a private key of the server."""

    HMAC = "v1"
    ED25519 = "v1a"


class Status(StrEnum):
    """The status of an endpoint."""

    ACTIVE = "active"
    DISABLED = "disabled"
    """Its owner has switched it off."""
    FAILING = "failing"
    """Its last requests failed. They are tried again."""
    STOPPED = "stopped"
    """It failed for 120 hours. It keeps its position, and continues after a successful test."""
    GONE = "gone"
    """It answered 410: it wants no more messages."""


def status_of(stopped: str, *, enabled: bool, failing: bool) -> Status:
    """The status of an endpoint; `stopped` is empty, or the Status that it is stopped with."""
    if stopped:
        return Status(stopped)
    if not enabled:
        return Status.DISABLED
    return Status.FAILING if failing else Status.ACTIVE


class LogPosition(NamedTuple):
    """The position of an endpoint in the partner's log.

    It has received all entries up to `seq`, and all changes of sessions up to `session_id` in
    `session_ms`, and of the next change the messages with the ids `sent`. It has received every
    session that existed at `caught_up_ms`. It may have missed states of later sessions, which
    changed again before it reached them.
    """

    seq: int = 0
    session_ms: int = 0
    session_id: str = ""
    sent: tuple[str, ...] = ()
    caught_up_ms: int = 0

    def after_event(self, seq: int) -> "LogPosition":
        """The position after an event or a withdrawal."""
        return self._replace(seq=max(self.seq, seq))

    def after_session(self, at_ms: int, session_id: str) -> "LogPosition":
        """The position after a change of a session."""
        if (at_ms, session_id) < (self.session_ms, self.session_id):
            return self  # the session changed after the end of the log was read
        return self._replace(session_ms=at_ms, session_id=session_id, sent=())

    def after_message(self, message_id: str) -> "LogPosition":
        """The position after a message, if more messages of the same change follow."""
        return self._replace(sent=(*self.sent, message_id))

    def caught_up(self, at_ms: int) -> "LogPosition":
        """The position after all changes of sessions up to this instant."""
        position = self._replace(caught_up_ms=max(self.caught_up_ms, at_ms))
        return position.after_session(at_ms, LAST_ID)


LAST_ID = "~"
"""Sorts after every id. A position with it is after all changes of a millisecond."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint, and its position in the log."""

    partner: int
    id: str
    url: str
    types: tuple[MessageType, ...]
    charger_id: str | None
    vehicle_id: str | None
    description: str
    enabled: bool
    max_batch: int
    rate_mhz: int | None
    """The most requests in a thousand seconds; None for no bound."""
    signature: SignatureKind
    secret: str
    """Encrypted, as is `old_secret`, which may be several, the newest first."""
    old_secret: str
    old_until_ms: int
    created_ms: int
    position: LogPosition
    head: str
    """The id of the next message if it failed; otherwise empty."""
    tries: int
    """How often the next message failed."""
    due_ms: int
    failing_since_ms: int | None
    stopped: str
    """Empty, or the Status that the endpoint is stopped with."""
    success_ms: int | None
    parked: int = 0
    """The number of messages that failed while others succeeded: they are tried separately."""
    lease_ms: int = 0
    """When the lease of the process that delivers to it ends; 0 if there is no lease."""
    fence: int = 0
    """Changes when a process claims the lease, and when its owner changes the endpoint."""

    @property
    def status(self) -> Status:
        failing = self.failing_since_ms is not None
        return status_of(self.stopped, enabled=self.enabled, failing=failing)

    @property
    def old_secrets(self) -> list[str]:
        """Encrypted, the newest first."""
        return self.old_secret.split()

    @property
    def wants_events(self) -> bool:
        """Whether it wants messages on events."""
        return any(kind in OF_EVENTS for kind in self.types)

    @property
    def wants_sessions(self) -> bool:
        """Whether it wants messages on changes of sessions."""
        return any(kind not in OF_EVENTS for kind in self.types)


class Message(NamedTuple):
    """A message. Its id stays the same, however often it is sent."""

    id: str
    type: str
    at_ms: int
    data: bytes
    """JSON."""

    @property
    def body(self) -> bytes:
        """The body of a request with only this message."""
        at = format_instant(self.at_ms)
        return b'{"type":"%b","timestamp":"%b","data":%b}' % (
            self.type.encode(), at.encode(), self.data,
        )  # fmt: skip


def batch_of(messages: Sequence[Message], now_ms: int) -> Message:
    """Several messages as one message. Its data are the messages, each with its id."""
    parts = (
        b'{"id":"%b",%b' % (message.id.encode(), message.body.removeprefix(b"{"))
        for message in messages
    )
    id = f"batch_{len(messages)}_{messages[0].id}"
    return Message(id, BATCH_TYPE, now_ms, b"[%b]" % b",".join(parts))


def message_of(
    kind: MessageType, id: str, at_ms: int, ids: Mapping[str, object], shown: object
) -> Message:
    """The message on an object as the API shows it.

    If it is too large, it lacks the longest list of the object, and says that it is `truncated`.
    """
    name = _OBJECT[kind]
    data = to_json({**ids, name: shown})
    if len(data) > MAX_BODY_BYTES - 200 and (list_name := _LARGE.get(name)):
        assert isinstance(shown, msgspec.Struct)
        short = msgspec.structs.replace(shown, **{list_name: ()})
        data = to_json({**ids, "truncated": True, name: short})
    return Message(id, kind, at_ms, data)


def event_message(
    kind: MessageType, event: Event | Withdrawal, sequence: int, at_ms: int, shown: object
) -> Message:
    """The message on an event, or on its withdrawal."""
    assert event.id is not None
    ids = {
        "eventId": event.id, "chargerId": event.charger_id, "vehicleId": event.vehicle_id,
        "sequence": sequence,
    }  # fmt: skip
    return message_of(kind, str(MessageId(kind, event.id, 0)), at_ms, ids, shown)


_OBJECT = {
    kind: "event" if kind in OF_EVENTS else "state" if "state" in kind else "session"
    for kind in MessageType
}
_LARGE = {"session": "periods", "state": "vehicles"}


class MessageId(NamedTuple):
    """The parts of a message's id: its type, the id of the event or session, and its version."""

    type: MessageType
    object_id: str
    version: int

    def __str__(self) -> str:
        word = _word_of(self.type)
        version = "" if self.type in OF_EVENTS else f"_{self.version}"
        return f"{word}_{self.object_id}{version}"


def message_id_in(text: str) -> MessageId | None:
    """The parts of a message's id; None if it is not one of our ids."""
    match = _MESSAGE_ID.fullmatch(text)
    if match is None:
        return None
    found = MessageId(_BY_WORD[match[1]], match[2], int(match[3] or 0))
    return found if str(found) == text else None


def _word_of(kind: MessageType) -> str:
    return kind.removesuffix(".changed").replace(".", "_")


_BY_WORD = {_word_of(kind): kind for kind in MessageType}
_MESSAGE_ID = re.compile(rf"({'|'.join(_BY_WORD)})_([0-9a-f-]{{36}})(?:_([0-9]{{1,18}}))?")


class Outcome(NamedTuple):
    """The result of a request to an endpoint. `error` is empty if it succeeded."""

    status: int | None = None
    error: str = ""
    answer: str = ""
    retry_after_s: int | None = None
    at_ms: int = 0
    taken_ms: int = 0


class Attempt(msgspec.Struct, array_like=True, frozen=True):
    """A request to an endpoint, and its result. `error` is empty if it succeeded."""

    partner: int
    webhook: str
    id: str
    at_ms: int
    message_id: str
    type: str
    messages: int
    status: int | None
    taken_ms: int
    error: str
    answer: str


# Signatures ---------------------------------------------------------------------------------------


def new_secret() -> str:
    """A secret for signing messages."""
    return SECRET + base64.b64encode(token_bytes(32)).decode()


def signed_text(message_id: str, timestamp_s: int, body: bytes) -> bytes:
    """The text of a message that is signed."""
    return b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)


def hmac_signature(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The signature `v1,…` with a secret of the form `whsec_…`. Raises ValueError."""
    key = base64.b64decode(secret.removeprefix(SECRET), validate=True)
    if not key:  # a missing setting: anybody could sign with it
        raise ValueError("The secret is empty.")
    digest = hmac.digest(key, signed_text(message_id, timestamp_s, body), sha256)
    return f"{SignatureKind.HMAC},{base64.b64encode(digest).decode()}"


# Retry policy -------------------------------------------------------------------------------------


def pause_s(failures: int, chance: float) -> float:
    """The backoff after so many failures; `chance` is a random number from 0 to 1."""
    wait_s = RETRIES_S[min(failures, len(RETRIES_S)) - 1]
    return wait_s * (1 + JITTER * (2 * chance - 1))


def is_last_try(failures: int) -> bool:
    """Whether a parked message has failed too often to be tried again."""
    return failures > len(RETRIES_S)


def warning_of(failing_since_ms: int | None, now_ms: int) -> int | None:
    """The highest of WARNINGS that is reached; None if none is, or the endpoint does not fail."""
    if failing_since_ms is None:
        return None
    share = 100 * (now_ms - failing_since_ms) / STOPS_AFTER_MS
    return max((warning for warning in WARNINGS if share >= warning), default=None)
