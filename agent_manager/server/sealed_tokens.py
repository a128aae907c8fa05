"""Sealed texts: what a client keeps and sends back, but may neither read nor change.

Positions are numbers of the whole log, so two of them tell how much all tenants wrote in between. Callers without the
scope ``audit`` are given them sealed, and so are the cursors of searches, which hold a position.

The key is stored in the database: every process of a store opens what another one sealed, also after a restart. Whom
a text is for is part of what is authenticated: a position is for all of a tenant, so that one caller can wait for what
another has written; a cursor is for one caller.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from eventstore import Caller, EventStore
from eventstore.database.queries import query

_KEY_NAME, _KEY_BYTES = "seal", 64
_NONCE_BYTES = 16
_BLOCK_BYTES = 64
"""Texts are padded to a multiple of this, so that their length does not tell how many digits a position has."""

_READ = query("agent_manager.server", "shared_secret")
_SHARE = query("agent_manager.server", "share_secret")


class TokenSealer:
    """Seals and opens texts of callers."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def seal_position(self, tenant: str, position: int) -> str:
        """Return a position as a text: always the same one, so that answers are the same while nothing changes."""
        return _encoded(self._cipher.encrypt(position.to_bytes(8), _position_of(tenant)))

    def open_position(self, tenant: str, sealed: str) -> int | None:
        """Return the position that was sealed for the tenant; None if the text is anything else."""
        try:
            return int.from_bytes(self._cipher.decrypt(_decoded(sealed), _position_of(tenant)))
        except (ValueError, InvalidTag):
            return None

    def seal_cursor(self, caller: Caller, cursor: str) -> str:
        """Return a cursor as a text that is different every time: a repeated request does not tell whether it moved."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = cursor.encode() + b"\0"
        text += bytes(-len(text) % _BLOCK_BYTES)
        return _encoded(nonce + self._cipher.encrypt(text, [*_cursor_of(caller), nonce]))

    def open_cursor(self, caller: Caller, sealed: str) -> str | None:
        """Return the cursor that was sealed for the caller; None if the text is anything else."""
        try:
            whole = _decoded(sealed)
            nonce = whole[:_NONCE_BYTES]
            text = self._cipher.decrypt(whole[_NONCE_BYTES:], [*_cursor_of(caller), nonce])
        except (ValueError, InvalidTag):
            return None
        return text.partition(b"\0")[0].decode()


async def open_sealer(store: EventStore) -> TokenSealer:
    """Return what seals with the key that the store's processes share; make the key if there is none."""
    rows = await store.pool.fetch(_READ, {"name": _KEY_NAME})
    if not rows:
        await store.pool.fetch(_SHARE, {"name": _KEY_NAME, "secret": secrets.token_bytes(_KEY_BYTES)})
        rows = await store.pool.fetch(_READ, {"name": _KEY_NAME})
    return TokenSealer(bytes(rows[0][0]))


def _position_of(tenant: str) -> list[bytes]:
    # The cipher authenticates a list of texts, not their concatenation: no two of them are the same.
    return [b"position", tenant.encode()]


def _cursor_of(caller: Caller) -> list[bytes]:
    scope = b"tenant" if caller.user is None else b"user:" + caller.user.encode()
    return [b"cursor", caller.tenant.encode(), scope]


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
