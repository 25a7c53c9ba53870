"""Encrypts the secrets in the database, with a key outside of it; and Ed25519 signatures."""

import base64
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import TYPE_CHECKING

from tether.domain.errors import SetupError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

MIN_KEY_LENGTH = 32
MAX_CACHED = 2_000  # decrypted secrets
HINT = "Set TETHER_SECRET_KEY to 32 or more random characters, the same on all nodes."


class SecretBox:
    """Encrypts and decrypts. `keys` is called on first use.

    The first key encrypts, and all keys decrypt. So keys can be rotated while servers run. Every
    method raises SetupError.
    """

    def __init__(self, keys: Callable[[], list[str]]) -> None:
        self._keys = keys
        self._fernet: MultiFernet | None = None
        self.open = lru_cache(MAX_CACHED)(self._open)  # each message needs one

    def seal(self, secret: str) -> str:
        """Encrypts a secret."""
        return self._cipher().encrypt(secret.encode()).decode()

    def _open(self, sealed: str) -> str:
        """Decrypts a secret."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            return self._cipher().decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise SetupError(
                "The secret was encrypted by another key than the server has now: give it that one "
                "too, behind a comma in TETHER_SECRET_KEY, or rotate the secret."
            ) from None

    def _cipher(self) -> "MultiFernet":
        if self._fernet is None:
            # bootstrap.py imports it after the start, which it would slow down.
            from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415

            digests = [sha256(key.encode()).digest() for key in self._keys()]
            self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in digests])
        return self._fernet


def keys_in(text: str) -> list[str]:
    """The keys of a setting, separated by commas. Raises SetupError."""
    keys = [key.strip() for key in text.split(",")]
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise SetupError(
            f"TETHER_SECRET_KEY has a key of under {MIN_KEY_LENGTH} characters. {HINT}"
        )
    return keys


def keys_in_file(path: Path) -> list[str]:
    """The keys in this file. Creates it if it is missing. Raises SetupError."""
    try:
        if not path.exists():
            _create_key(path)
        return keys_in(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise SetupError(f"{path}, the key of secrets, cannot be used: {error}") from error


def _create_key(path: Path) -> None:
    """Creates a file with a new key, as a whole or not at all. Never replaces an existing file."""
    new = path.with_name(f"{path.name}.{token_hex(8)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


def key_file(database: Path) -> Path:
    """The file with the key, beside a SQLite database."""
    return database.with_name(f"{database.name}.secret-key")


def place_of_key(sealed: str, keys: Sequence[str]) -> int | None:
    """Which of the keys decrypts this secret; None if none does."""
    for place, key in enumerate(keys):
        with suppress(SetupError):
            SecretBox([key].copy).open(sealed)
            return place
    return None


def no_keys() -> list[str]:
    """For databases without a place for a key file. Raises SetupError."""
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
