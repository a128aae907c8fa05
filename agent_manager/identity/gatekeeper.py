"""From a bearer token to who calls: static keys and JWT, remembered for half a second."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass
from typing import Self

from cachetools import LRUCache, TTLCache
from pydantic import SecretStr

from agent_manager.identity.errors import Unauthorized
from agent_manager.identity.identity import Identity, Scope
from agent_manager.identity.jsonwebtoken import LEEWAY_SECONDS, Refused, jwt_reader
from agent_manager.identity.key import StaticKey
from agent_manager.identity.names import KEY_ACTOR
from agent_manager.identity.together import Together
from agent_manager.identity.uses import Uses
from eventstore import EventStore, Settings
from eventstore.database.queries import query

_log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 0.5
"""How long a token is let in, or refused, without looking again. Half of what a revocation may take."""
LONGEST_TOKEN = 8192
_TOKENS = 10_000
_BEARERS = query("agent_manager.identity", "bearers")
_ADMITTED = query("agent_manager.identity", "admitted")
_NOTE_USES = query("agent_manager.identity", "note_uses")


@dataclass(frozen=True, slots=True)
class _Known:
    """Somebody who was let in.

    Attributes:
        until: by the monotonic clock; counted from before they were looked up.
    """

    identity: Identity
    until: float


@dataclass(frozen=True, slots=True)
class _Row:
    """A key that lets somebody in now."""

    key: StaticKey
    identity: Identity
    seconds_left: float | None


class Gatekeeper:
    """Tells who calls, for the coroutines of one event loop.

    Use it as a context manager within that of the store::

        async with EventStore(settings) as store, Gatekeeper(store, settings) as gatekeeper:
            identity = await gatekeeper.identify(token)

    Raises:
        SettingsError: an ``EVENTSTORE_JWT_…`` setting cannot be used.
    """

    def __init__(self, store: EventStore, settings: Settings) -> None:
        self._store = store
        self._jwt = jwt_reader(settings)
        # Two, so that a flood of what is refused does not push out who was let in.
        self._known: LRUCache[bytes, _Known] = LRUCache(_TOKENS)
        self._refused: TTLCache[bytes, None] = TTLCache(_TOKENS, REMEMBERED_SECONDS)
        self._keys = Together(self._look_up_keys)
        self._users = Together(self._look_up_users)
        self._uses = Uses(self._note_uses)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Notes the last uses that were not noted yet."""
        await asyncio.gather(self._keys.close(), self._users.close(), self._uses.close())

    def has_admitted(self, token: str) -> bool:
        """Return whether the token was valid when it was last looked up."""
        return _digest(token) in self._known

    async def identify(self, token: str) -> Identity:
        """Who bears the token.

        Raises:
            Unauthorized: nobody does, or not any more.
            ServerError: it cannot be said now, because PostgreSQL or the issuer of JWT is away.
        """
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None or known.until <= time.monotonic():
            shown = SecretStr(token)
            del token  # so that it stands in no frame of an error
            if digest in self._refused:
                raise Unauthorized
            if (known := await self._look(shown)) is None:
                self._refused[digest] = None
                self._known.pop(digest, None)
                raise Unauthorized
            self._known[digest] = known
            if known.identity.key is not None:
                self._uses.note(known.identity.key)
        return known.identity

    async def _look(self, token: SecretStr) -> _Known | None:
        now = time.monotonic()
        if len(token.get_secret_value()) > LONGEST_TOKEN:
            return None
        if (key := StaticKey.shown(token)) is not None:
            return await self._by_key(key, now)
        return await self._by_jwt(token, now)

    async def _by_key(self, key: StaticKey, now: float) -> _Known | None:
        row = await self._keys.answer(key.hash)
        if row is None or not row.key.is_same(key):
            return None
        left = REMEMBERED_SECONDS if row.seconds_left is None else row.seconds_left
        return _Known(row.identity, now + min(REMEMBERED_SECONDS, left))

    async def _by_jwt(self, token: SecretStr, now: float) -> _Known | None:
        if self._jwt is None:
            return None
        named = await self._jwt.read(token)
        if isinstance(named, Refused):
            _log.info("a JWT was refused: %s", named.why)
            return None
        if await self._users.answer((named.tenant, named.user)) is None:
            _log.info("a JWT was refused: its tenant is unknown or suspended, or its user disabled")
            return None
        identity = Identity(named.tenant, named.user, named.user, named.scopes)
        left = named.until + LEEWAY_SECONDS - time.time()
        return _Known(identity, now + min(REMEMBERED_SECONDS, left))

    async def _look_up_keys(self, hashes: list[bytes]) -> dict[bytes, _Row]:
        rows = await self._store.pool.fetch(_BEARERS, {"hashes": hashes})
        return {
            digest: _Row(
                StaticKey(key, digest),
                Identity(tenant, user, user or KEY_ACTOR + name, frozenset(map(Scope, scopes)), key),
                left,
            )
            for digest, key, tenant, user, name, scopes, left in rows
        }

    async def _look_up_users(self, users: list[tuple[str, str]]) -> dict[tuple[str, str], bool]:
        tenants, names = zip(*users, strict=True)
        rows = await self._store.pool.fetch(_ADMITTED, {"tenants": list(tenants), "users": list(names)})
        return dict.fromkeys(rows, True)

    async def _note_uses(self, keys: list[str]) -> None:
        await self._store.pool.fetch(_NOTE_USES, {"ids": keys})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
