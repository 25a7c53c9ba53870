"""Tokens of the console: for sessions and for sign-in links.

A token is 176 random bits. Only its SHA-256 is stored.
"""

import re
import secrets
from hashlib import sha256

SESSION_MS = 12 * 3_600_000
LINK_MS = 10 * 60_000

_TOKEN = re.compile(r"[A-Za-z0-9_-]{30}")


def new_token() -> str:
    """A new random token."""
    return secrets.token_urlsafe(22)


def is_token(text: str) -> bool:
    """Whether the text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def digest_of_token(token: str) -> str:
    """The SHA-256 of the token, in hexadecimal, for storage."""
    return sha256(token.encode()).hexdigest()
