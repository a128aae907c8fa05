"""Static keys: ``es_<id>_<secret>``. The id may be shown anywhere; the secret is shown once and kept as a hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

from pydantic import SecretStr

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 12
_SECRET_BYTES = 32
_BEGINNING = re.compile(rf"es_([a-z0-9]{{{_ID_LENGTH}}})_")
_SHAPE = re.compile(rf"es_([a-z0-9]{{{_ID_LENGTH}}})_([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class StaticKey:
    """A static key as its bearer shows it.

    Attributes:
        id: names it in lists and logs.
        hash: SHA-256 of the secret, 32 bytes; all that is kept of it.
    """

    id: str
    hash: bytes = field(repr=False)

    @classmethod
    def made(cls) -> tuple[Self, SecretStr]:
        """A new one, and its text, which is nowhere else."""
        name = "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        return cls(name, _hash(secret)), SecretStr(f"es_{name}_{secret}")

    @classmethod
    def shown(cls, token: SecretStr) -> Self | None:
        """The one that a token is; None where it does not look like one."""
        found = _SHAPE.fullmatch(token.get_secret_value())
        return None if found is None else cls(found[1], _hash(found[2]))

    @staticmethod
    def named(text: str) -> str | None:
        """The id in what begins like the text of a key, whole or cut; None where it does not."""
        found = _BEGINNING.match(text)
        return None if found is None else found[1]

    def is_same(self, other: StaticKey) -> bool:
        """Whether id and secret are the same, in the same time wherever they differ."""
        same_id = secrets.compare_digest(self.id, other.id)
        return secrets.compare_digest(self.hash, other.hash) and same_id


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
