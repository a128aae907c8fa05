"""The authenticator: from a bearer token to an identity, cached for half a second."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from cachetools import LRUCache, TTLCache
from pydantic import SecretStr

from agent_manager.auth.directory import KEY_ACTOR
from agent_manager.auth.identity import Identity, Scope, Unauthorized
from agent_manager.auth.jwt import LEEWAY_SECONDS, InvalidToken, jwt_reader
from agent_manager.auth.keys import StaticKey
from agent_manager.settings import server_settings
from eventstore import EventStore, Settings
from eventstore.database.queries import query
from eventstore.errors import EventStoreError

# Questions that come while an answer is under way are asked together: one query at a time, however many ask

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")

MOST_AT_ONCE = 500
PAUSE_SECONDS = 0.02
"""Between a query that did not find all and the next: so many guesses a second cost at most fifty queries."""


class QueryBatcher(Generic[Question, Answer]):
    """Asks for many at a time, so that a flood of questions to which there is no answer costs few queries.

    How long somebody waits depends on what others asked before, never on their own question.

    Args:
        ask: the answers to some questions; what is missing in them has none. It is awaited by one task at a time.
    """

    def __init__(self, ask: Callable[[list[Question]], Awaitable[dict[Question, Answer]]]) -> None:
        self._ask = ask
        self._waiting: dict[Question, asyncio.Future[Answer | None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def answer(self, question: Question) -> Answer | None:
        """The answer; None where there is none. The question is asked after the call, never before.

        Raises:
            Exception: whatever asking raised, to everybody who waited for it.
        """
        future = self._waiting.get(question)
        if future is None:
            future = self._waiting[question] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await asyncio.shield(future)  # somebody else may wait for it too

    async def close(self) -> None:
        """Waits for what is being asked."""
        if self._asking is not None:
            await self._asking

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                if (pause := self._next_at - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                questions = list(self._waiting)[:MOST_AT_ONCE]
                futures = [self._waiting.pop(question) for question in questions]
                try:
                    answers = await self._ask(questions)
                except Exception as error:
                    for future in futures:
                        future.set_exception(error)
                        future.exception()  # seen, also where nobody waits any more
                else:
                    if len(answers) < len(questions):
                        self._next_at = time.monotonic() + PAUSE_SECONDS
                    for question, future in zip(questions, futures, strict=True):
                        future.set_result(answers.get(question))
        finally:
            self._asking = None


# When keys were last used: noted at most once a minute for each, and off the path of whoever uses them

_log = logging.getLogger(__name__)

# A second more than the server's minute, so that what is due here is due there.
_SECONDS = 61.0
_KEYS = 10_000


class LastUsed:
    """Collects the ids of keys that were used, and writes them down in a task of its own.

    Args:
        write: notes that these keys were used just now.
    """

    def __init__(self, write: Callable[[list[str]], Awaitable[None]]) -> None:
        self._write = write
        self._noted: TTLCache[str, None] = TTLCache(_KEYS, _SECONDS)
        self._due: set[str] = set()
        self._writing: asyncio.Task[None] | None = None

    def note(self, key: str) -> None:
        """The key was used just now."""
        if key in self._noted:
            return
        self._noted[key] = None
        self._due.add(key)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Waits until all is written."""
        if self._writing is not None:
            await self._writing

    async def _write_all(self) -> None:
        try:
            while self._due:
                due, self._due = sorted(self._due), set()
                try:
                    await self._write(due)
                except EventStoreError as error:  # those keys say so again in a minute
                    _log.warning("the last use of %d key(s) could not be noted: %s", len(due), error)
        finally:
            self._writing = None


# From a bearer token to who calls: static keys and JWT, remembered for half a second

REMEMBERED_SECONDS = 0.5
"""How long a token is let in, or refused, without looking again. Half of what a revocation may take."""
LONGEST_TOKEN = 8192
_TOKENS = 10_000
_BEARERS = query("agent_manager.auth", "bearers")
_ADMITTED = query("agent_manager.auth", "admitted")
_NOTE_USES = query("agent_manager.auth", "note_uses")


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


class Authenticator:
    """Tells who calls, for the coroutines of one event loop.

    Use it as a context manager within that of the store::

        async with EventStore(settings) as store, Gatekeeper(store, settings) as gatekeeper:
            identity = await gatekeeper.identify(token)

    Raises:
        SettingsError: an ``EVENTSTORE_JWT_…`` setting cannot be used.
    """

    def __init__(self, store: EventStore, settings: Settings) -> None:
        self._store = store
        self._jwt = jwt_reader(server_settings(settings))
        # Two, so that a flood of what is refused does not push out who was let in.
        self._known: LRUCache[bytes, _Known] = LRUCache(_TOKENS)
        self._refused: TTLCache[bytes, None] = TTLCache(_TOKENS, REMEMBERED_SECONDS)
        self._keys = QueryBatcher(self._look_up_keys)
        self._users = QueryBatcher(self._look_up_users)
        self._uses = LastUsed(self._note_uses)

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
        if isinstance(named, InvalidToken):
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
