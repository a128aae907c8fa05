"""Static keys: ``es_<id>_<secret>``. The id is public; the secret is shown once and stored as a hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

from pydantic import SecretStr

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 12
_SECRET_BYTES = 32
_PREFIX = re.compile(rf"es_([a-z0-9]{{{_ID_LENGTH}}})_")
_KEY = re.compile(rf"es_([a-z0-9]{{{_ID_LENGTH}}})_([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class StaticKey:
    """A static key without its secret.

    Attributes:
        id: names the key in lists and logs.
        hash: the SHA-256 of the secret.
    """

    id: str
    hash: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> tuple[Self, SecretStr]:
        """Return a new key, and its text, which is stored nowhere."""
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        return cls(key_id, _hash(secret)), SecretStr(f"es_{key_id}_{secret}")

    @classmethod
    def parse(cls, token: SecretStr) -> Self | None:
        """Return the key in a token; None if the token does not have the form of a key."""
        match = _KEY.fullmatch(token.get_secret_value())
        return None if match is None else cls(match[1], _hash(match[2]))

    def equals(self, other: StaticKey) -> bool:
        """Return whether id and secret are the same, in a time that does not depend on where they differ."""
        same_id = secrets.compare_digest(self.id, other.id)
        return secrets.compare_digest(self.hash, other.hash) and same_id


def id_in_key(text: str) -> str | None:
    """Return the id in a text that begins like a key, complete or cut; None if it does not."""
    match = _PREFIX.match(text)
    return None if match is None else match[1]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
