"""Signing in to the console: the tokens of sessions and of links, and how long they last.

A token is 176 random bits. What is stored is its SHA-256, never the token.
"""

import re
import secrets
from hashlib import sha256

SESSION_MS = 12 * 3_600_000
LINK_MS = 10 * 60_000

_TOKEN = re.compile(r"[A-Za-z0-9_-]{30}")


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(22)


def is_token(text: str) -> bool:
    """Whether this can be a token at all."""
    return _TOKEN.fullmatch(text) is not None


def digest_of_token(token: str) -> str:
    """The SHA-256 of the token, in hexadecimal: what is stored in its place."""
    return sha256(token.encode()).hexdigest()
