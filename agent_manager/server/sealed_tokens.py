"""Sealed tokens: encrypted and authenticated texts that clients keep and send back, but cannot read or change.

Positions number the events of all tenants, so two of them reveal how much all tenants wrote in between. Callers without
the scope ``audit`` get them sealed. The same holds for the cursors of searches, which contain a position.

The key is stored in the database, so every process of a store opens what another one sealed, also after a restart. The
recipient is authenticated with the text: a position is for all callers of a tenant, so that one caller can wait for
what another has written; a cursor is for one caller.
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
"""Cursors are padded to a multiple of this, so that their length does not tell how many digits a position has."""

_READ = query("agent_manager.server", "read_secret")
_STORE = query("agent_manager.server", "store_secret")


class TokenSealer:
    """Seals and opens positions and cursors."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def seal_position(self, tenant: str, position: int) -> str:
        """Return a sealed position. It is deterministic, so that responses stay the same while nothing changes."""
        return _encoded(self._cipher.encrypt(position.to_bytes(8), _position_of(tenant)))

    def open_position(self, tenant: str, sealed: str) -> int | None:
        """Return the position that was sealed for the tenant; None if the text is not one."""
        try:
            return int.from_bytes(self._cipher.decrypt(_decoded(sealed), _position_of(tenant)))
        except (ValueError, InvalidTag):
            return None

    def seal_cursor(self, caller: Caller, cursor: str) -> str:
        """Return a sealed cursor. It differs each time, so repeated requests do not tell whether the cursor moved."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = cursor.encode() + b"\0"
        text += bytes(-len(text) % _BLOCK_BYTES)
        return _encoded(nonce + self._cipher.encrypt(text, [*_cursor_of(caller), nonce]))

    def open_cursor(self, caller: Caller, sealed: str) -> str | None:
        """Return the cursor that was sealed for the caller; None if the text is not one."""
        try:
            decoded = _decoded(sealed)
            nonce = decoded[:_NONCE_BYTES]
            text = self._cipher.decrypt(decoded[_NONCE_BYTES:], [*_cursor_of(caller), nonce])
        except (ValueError, InvalidTag):
            return None
        return text.partition(b"\0")[0].decode()

    def tag(self, purpose: str, data: bytes) -> str:
        """Return a text that proves that this store made it for some data; the same each time."""
        return _encoded(self._cipher.encrypt(b"\0", [purpose.encode(), data]))


async def open_sealer(store: EventStore) -> TokenSealer:
    """Return a sealer with the key that the processes of the store share; create the key if there is none."""
    rows = await store.pool.fetch(_READ, {"name": _KEY_NAME})
    if not rows:
        await store.pool.fetch(_STORE, {"name": _KEY_NAME, "secret": secrets.token_bytes(_KEY_BYTES)})
        rows = await store.pool.fetch(_READ, {"name": _KEY_NAME})
    return TokenSealer(bytes(rows[0][0]))


def _position_of(tenant: str) -> list[bytes]:
    # The cipher authenticates a list, not the concatenation of its members, so no two recipients are confused.
    return [b"position", tenant.encode()]


def _cursor_of(caller: Caller) -> list[bytes]:
    scope = b"tenant" if caller.user is None else b"user:" + caller.user.encode()
    return [b"cursor", caller.tenant.encode(), scope]


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
