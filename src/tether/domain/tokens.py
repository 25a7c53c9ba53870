"""Tokens: random secrets of console sessions, sign-in links and key requests.

A token has 176 random bits. Only its SHA-256 is stored (`digest_of` in `keys.py`).
"""

import re
import secrets

SESSION_MS = 12 * 3_600_000
LINK_MS = 10 * 60_000

_TOKEN = re.compile(r"[A-Za-z0-9_-]{30}")


def new_token() -> str:
    """A new random token."""
    return secrets.token_urlsafe(22)


def is_token(text: str) -> bool:
    """Whether the text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None
