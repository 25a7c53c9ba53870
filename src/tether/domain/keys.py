"""API keys: their form, how they are made and recognised, and their limits. Also other secrets.

A key is `ttr_live_` or `ttr_test_`, 30 random base62 characters, and a checksum of 6 characters. So
a mistyped key is refused without a query, and a scanner can find leaked keys. Tether stores the
SHA-256 of a key and its first characters, never the key.
"""

import re
import secrets
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from math import inf
from zlib import crc32

from tether.domain.timestamps import HOUR_MS

LIVE, TEST = "ttr_live_", "ttr_test_"
PREFIX_LENGTH = len(LIVE) + 8
KEY_LENGTH = len(LIVE) + 36

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_IN_TEXT = re.compile(
    r"(ttr_(?:live|test)_[0-9A-Za-z]{8}|wh(?:sec|sk)_[0-9A-Za-z+/]{4})[0-9A-Za-z+/=]+"
)
_FORM = re.compile(r"(ttr_(?:live|test)_[0-9A-Za-z]{30})([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests a key may make: `requests` in every `window_s` seconds, on average."""

    requests: int
    window_s: int

    @property
    def per_second(self) -> float:
        return self.requests / self.window_s

    def __str__(self) -> str:
        return f"{self.requests}/s" if self.window_s == 1 else f"{self.requests}/{self.window_s}s"


DEFAULT_RATE = Rate(1000, 1)


@dataclass(frozen=True, slots=True)
class Key:
    """A stored key: everything but the key itself. Instants in ms since 1970."""

    digest: str
    prefix: str
    partner: int
    partner_name: str
    name: str
    rate: Rate
    burst: int
    read_only: bool
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    last_used_ms: int | None = None
    """Accurate to some seconds, by the clock of the server that answered."""
    last_used_from: str | None = None

    @property
    def works_until_ms(self) -> float:
        """The instant from which on the key is invalid; infinity if it has no end.

        A revoked key is always invalid, because another clock, which is ahead, may have set the
        time at which it was revoked.
        """
        if self.revoked_ms is not None:
            return -inf
        return inf if self.expires_ms is None else self.expires_ms

    def works_at(self, now_ms: int) -> bool:
        """Whether the key is valid at this instant."""
        return now_ms < self.works_until_ms

    def state_at(self, now_ms: int) -> str:
        """`active`, `expired` or `revoked`."""
        if self.works_at(now_ms):
            return "active"
        return "expired" if self.revoked_ms is None else "revoked"

    @property
    def is_test(self) -> bool:
        """Whether it begins with `ttr_test_`."""
        return self.prefix.startswith(TEST)


def new_key(*, test: bool = False) -> str:
    """A new key, in full. Only its owner keeps it."""
    start = (TEST if test else LIVE) + "".join(secrets.choice(_BASE62) for _ in range(30))
    return start + _checksum(start)


def is_well_formed(key: str) -> bool:
    """Whether the form and the checksum of the key are right."""
    match = _FORM.fullmatch(key)
    return match is not None and _checksum(match[1]) == match[2]


def digest_of(key: str) -> str:
    """The SHA-256 of the key, in hexadecimal, for storage."""
    return sha256(key.encode()).hexdigest()


@lru_cache(maxsize=1024)  # clients send the same key again and again, and hashing takes long
def digest_if_well_formed(key: str) -> str:
    """The same for a well-formed key. Raises ValueError for other texts, which are not cached."""
    if not is_well_formed(key):
        raise ValueError
    return digest_of(key)


def prefix_of(key: str) -> str:
    """The first characters of the key, with which people distinguish keys."""
    return key[:PREFIX_LENGTH]


def without_keys(text: str) -> str:
    """The text with every key and every secret of a webhook shortened to its first characters."""
    return _IN_TEXT.sub(r"\1…", text) if "ttr_" in text or "whs" in text else text


def _checksum(text: str) -> str:
    number, digits = crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


# Tokens -------------------------------------------------------------------------------------------

# Random secrets of console sessions, sign-in links and key requests, of 176 bits. Their SHA-256 is
# stored, too.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{30}")
SESSION_MS = 12 * HOUR_MS
LINK_MS = 10 * 60_000


def is_current(expires_ms: int, now_ms: int, lifetime_ms: int) -> bool:
    """Whether what has this lifetime has not expired. It has also expired if it would last longer,
    as it is of a clock that was ahead; clocks may differ by an hour.
    """
    return now_ms < expires_ms <= now_ms + lifetime_ms + HOUR_MS


def new_token() -> str:
    """A new random token."""
    return secrets.token_urlsafe(22)


def is_token(text: str) -> bool:
    """Whether the text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


# Rates --------------------------------------------------------------------------------------------

_UNITS_S = {
    "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600,
}  # fmt: skip


def parse_rate(text: str) -> Rate:
    """Parses a rate such as `100` or `100/s` (a second), `90/min`, `5000/h`, `0.5` or `100/30s`.

    Raises ValueError with a sentence.
    """
    amount, _, unit = text.strip().lower().partition("/")
    window = re.fullmatch(r"([0-9]*)([a-z]*)", unit.strip())
    try:
        requests = Fraction(Decimal(amount))
        seconds = int(window[1] or 1) * _UNITS_S[window[2] or "s"] if window else 0
    except (InvalidOperation, KeyError, OverflowError, ValueError):
        requests, seconds = Fraction(0), 0
    if not (0 < requests <= 10**9 and 0 < seconds <= 86_400):
        raise ValueError(f"{text!r} is not a rate: write 100 (a second), 90/min or 5000/h.")
    if requests.denominator > 1:
        requests, seconds = Fraction(requests.numerator), seconds * requests.denominator
    return Rate(int(requests), seconds)
