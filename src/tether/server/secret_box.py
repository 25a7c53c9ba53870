"""Secrets that are kept in the database, encrypted by a key that is not in it."""

import base64
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import TYPE_CHECKING

from tether.domain.errors import SetupError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

SHORTEST_KEY = 32  # characters
MOST_REMEMBERED = 2_000  # secrets
HINT = "Set TETHER_SECRET_KEY to 32 or more random characters, the same on all nodes."


class SecretBox:
    """Encrypts and decrypts. The keys are read when they are first needed.

    The first key encrypts, and all of them decrypt: so a new one takes the place of an old one
    without a pause. Every method raises SetupError.
    """

    def __init__(self, keys: Callable[[], list[str]]) -> None:
        self._keys = keys
        self._made: MultiFernet | None = None
        self.open = lru_cache(MOST_REMEMBERED)(self._open)  # each message is signed by one

    def seal(self, secret: str) -> str:
        """The secret as it is stored."""
        return self._fernet().encrypt(secret.encode()).decode()

    def _open(self, sealed: str) -> str:
        """The secret that was stored so."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            return self._fernet().decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise SetupError(
                "The secret was encrypted by another key than the server has now: give it that one "
                "too, behind a comma in TETHER_SECRET_KEY, or rotate the secret."
            ) from None

    def _fernet(self) -> "MultiFernet":
        if self._made is None:
            # It takes 50 ms to load, and most servers never need it.
            from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415

            digests = [sha256(key.encode()).digest() for key in self._keys()]
            self._made = MultiFernet([Fernet(base64.urlsafe_b64encode(one)) for one in digests])
        return self._made


def keys_in(text: str) -> list[str]:
    """The keys of a setting, with commas between them. Raises SetupError."""
    keys = [key.strip() for key in text.split(",")]
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise SetupError(f"TETHER_SECRET_KEY has a key of under {SHORTEST_KEY} characters. {HINT}")
    return keys


def keys_in_file(path: Path) -> list[str]:
    """The key in this file, which is made if it is not there. Raises SetupError."""
    try:
        if not path.exists():
            _make_key(path)
        return keys_in(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise SetupError(f"{path}, the key of secrets, cannot be used: {error}") from error


def _make_key(path: Path) -> None:
    """A new key in this file, all at once: nobody sees it half written, also if the disk is full.
    What another process has put there meanwhile stays.
    """
    made = path.with_name(f"{path.name}.{token_hex(8)}")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(token_urlsafe(32) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink(missing_ok=True)


def no_keys() -> list[str]:
    """Raises SetupError: nobody has said where they are."""
    raise SetupError(f"There is no key with which secrets could be encrypted. {HINT}")


# Asymmetric signatures ----------------------------------------------------------------------------


def new_signing_key() -> str:
    """The 32 bytes of a private Ed25519 key, in Base64."""
    return base64.b64encode(os.urandom(32)).decode()


def verifying_key(signing_key: str) -> str:
    """The public key of a private one, both in Base64."""
    return base64.b64encode(_private(signing_key).public_key().public_bytes_raw()).decode()


def ed25519_signature(signing_key: str, text: bytes) -> str:
    """The signature of a text, in Base64."""
    return base64.b64encode(_private(signing_key).sign(text)).decode()


def _private(signing_key: str):  # type: ignore[no-untyped-def]  # the type would load the library
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(signing_key))
