"""The authenticator, which turns bearer tokens into identities.

Static keys and the users of JWT are looked up in the database at most every half second for each token. Lookups that
arrive while a query runs are batched, so that guessing tokens costs a bounded number of queries.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, Self, TypeVar

from cachetools import LRUCache, TTLCache
from pydantic import SecretStr

from agent_manager.auth.directory import KEY_ACTOR
from agent_manager.auth.identity import Identity, TokenScope, Unauthorized
from agent_manager.auth.jwt import LEEWAY_SECONDS, InvalidToken, jwt_reader
from agent_manager.auth.keys import StaticKey
from agent_manager.settings import server_settings
from eventstore import EventStore, Settings
from eventstore.concurrency import independent_task
from eventstore.database.queries import query
from eventstore.errors import EventStoreError

CACHE_SECONDS = 0.5
"""The time for which a token stays accepted, or rejected, without a new lookup: half of what a revocation may take."""
MAX_TOKEN_LENGTH = 8192
_CACHED_TOKENS = 10_000
_KEYS_BY_HASH = query("agent_manager.auth", "keys_by_hash")
_ADMITTED_USERS = query("agent_manager.auth", "admitted_users")
_RECORD_USES = query("agent_manager.auth", "record_uses")

_log = logging.getLogger(__name__)


class _CachedIdentity(NamedTuple):
    identity: Identity
    until: float
    """The time of the monotonic clock until which it is valid without another lookup."""


class _ValidKey(NamedTuple):
    key: StaticKey
    identity: Identity
    seconds_left: float


class Authenticator:
    """Authenticates bearer tokens, for the coroutines of one event loop.

    Use it as a context manager within that of the store::

        async with EventStore(settings) as store, Authenticator(store, settings) as authenticator:
            identity = await authenticator.identify(token)

    Raises:
        SettingsError: an ``EVENTSTORE_JWT_…`` setting cannot be used.
    """

    def __init__(self, store: EventStore, settings: Settings) -> None:
        self._store = store
        self._jwt = jwt_reader(server_settings(settings))
        # Separate caches, so that a flood of rejected tokens does not evict the accepted ones.
        self._accepted: LRUCache[bytes, _CachedIdentity] = LRUCache(_CACHED_TOKENS)
        self._rejected: TTLCache[bytes, None] = TTLCache(_CACHED_TOKENS, CACHE_SECONDS)
        self._keys = QueryBatcher(self._fetch_keys)
        self._users = QueryBatcher(self._fetch_users)
        self._last_used = LastUsed(self._record_uses)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for running queries, and record the last uses that were not recorded yet."""
        await asyncio.gather(self._keys.close(), self._users.close(), self._last_used.close())

    def has_admitted(self, token: str) -> bool:
        """Return whether the token was valid when it was last looked up."""
        return _digest(token) in self._accepted

    async def identify(self, token: str) -> Identity:
        """Return the identity of the bearer of a token.

        Raises:
            Unauthorized: the token is not valid, or not any more.
            ServerError: that cannot be determined now, because PostgreSQL or the issuer of JWT is unreachable.
        """
        digest = _digest(token)
        cached = self._accepted.get(digest)
        if cached is None or cached.until <= time.monotonic():
            secret = SecretStr(token)
            del token  # so that no traceback shows it
            if digest in self._rejected:
                raise Unauthorized
            if (cached := await self._look_up(secret)) is None:
                self._rejected[digest] = None
                self._accepted.pop(digest, None)
                raise Unauthorized
            self._accepted[digest] = cached
            if cached.identity.key is not None:
                self._last_used.add(cached.identity.key)
        return cached.identity

    async def _look_up(self, token: SecretStr) -> _CachedIdentity | None:
        now = time.monotonic()  # before the lookup, so that it does not prolong the validity
        if len(token.get_secret_value()) > MAX_TOKEN_LENGTH:
            return None
        key = StaticKey.parse(token)
        found = await (self._look_up_jwt(token) if key is None else self._look_up_key(key))
        if found is None:
            return None
        identity, seconds_left = found
        return _CachedIdentity(identity, now + min(CACHE_SECONDS, seconds_left))

    async def _look_up_key(self, key: StaticKey) -> tuple[Identity, float] | None:
        valid = await self._keys.get(key.hash)
        return valid[1:] if valid is not None and valid.key.equals(key) else None

    async def _look_up_jwt(self, token: SecretStr) -> tuple[Identity, float] | None:
        if self._jwt is None:
            return None
        read = await self._jwt.read(token)
        if isinstance(read, InvalidToken):
            reason = read.reason
        elif await self._users.get((read.identity.tenant, read.identity.actor)) is None:
            reason = "its tenant is unknown or suspended, or its user disabled"
        else:
            return read.identity, read.expires_at + LEEWAY_SECONDS - time.time()
        _log.info("a JWT was rejected: %s", reason, extra={"event": "jwt_rejected"})
        return None

    async def _fetch_keys(self, hashes: list[bytes]) -> dict[bytes, _ValidKey]:
        rows = await self._store.pool.fetch(_KEYS_BY_HASH, {"hashes": hashes})
        return {
            hash_: _ValidKey(
                StaticKey(key_id, hash_),
                Identity(tenant, user, user or KEY_ACTOR + name, frozenset(map(TokenScope, scopes)), key_id),
                CACHE_SECONDS if seconds_left is None else seconds_left,
            )
            for hash_, key_id, tenant, user, name, scopes, seconds_left in rows
        }

    async def _fetch_users(self, users: list[tuple[str, str]]) -> dict[tuple[str, str], bool]:
        tenants, names = zip(*users, strict=True)
        rows = await self._store.pool.fetch(_ADMITTED_USERS, {"tenants": list(tenants), "users": list(names)})
        return dict.fromkeys(rows, True)

    async def _record_uses(self, keys: list[str]) -> None:
        await self._store.pool.fetch(_RECORD_USES, {"ids": keys})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_BATCH = 500
PAUSE_SECONDS = 0.02
"""The pause after a query that did not find every key: guesses cost at most fifty queries a second."""


class QueryBatcher(Generic[Key, Value]):
    """Looks up many keys with each query, so that a flood of unknown keys costs few queries.

    The time of a lookup depends on what others looked up before, never on its own key.

    Args:
        fetch: returns the values of the keys that exist. One task at a time awaits it.
    """

    def __init__(self, fetch: Callable[[list[Key]], Awaitable[dict[Key, Value]]]) -> None:
        self._fetch = fetch
        self._waiting: dict[Key, asyncio.Future[Value | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def get(self, key: Key) -> Value | None:
        """Return the value of a key, None if there is none. The query begins after the call, never before.

        Raises:
            Exception: what the query raised.
        """
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = independent_task(self._run())
        return await asyncio.shield(future)  # other callers may await it, too

    async def close(self) -> None:
        """Wait for the queries that are waited for."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._waiting:
                if (pause := self._next_at - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                keys = list(self._waiting)[:MAX_BATCH]
                futures = [self._waiting.pop(key) for key in keys]
                try:
                    values = await self._fetch(keys)
                except Exception as error:
                    for future in futures:
                        future.set_exception(error)
                        future.exception()  # marks it as retrieved, for callers that were cancelled
                else:
                    if len(values) < len(keys):
                        self._next_at = time.monotonic() + PAUSE_SECONDS
                    for key, future in zip(keys, futures, strict=True):
                        future.set_result(values.get(key))
        finally:
            self._task = None


# A second more than the minute of the query, so that what is due here is due there.
_RECORD_SECONDS = 61.0
_RECORDED_KEYS = 10_000


class LastUsed:
    """Records when keys were used, at most once a minute for each, in a task of its own."""

    def __init__(self, write: Callable[[list[str]], Awaitable[None]]) -> None:
        self._write = write
        self._recent: TTLCache[str, None] = TTLCache(_RECORDED_KEYS, _RECORD_SECONDS)
        self._due: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, key: str) -> None:
        """Record that a key was used just now."""
        if key in self._recent:
            return
        self._recent[key] = None
        self._due.add(key)
        if self._task is None:
            self._task = independent_task(self._run())

    async def close(self) -> None:
        """Wait until everything is recorded."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._due:
                due, self._due = sorted(self._due), set()
                try:
                    await self._write(due)
                except EventStoreError as error:  # these keys are recorded again in a minute
                    text = "the last use of %d key(s) could not be recorded: %s"
                    _log.warning(text, len(due), error, extra={"event": "key_uses_unrecorded"})
        finally:
            self._task = None
