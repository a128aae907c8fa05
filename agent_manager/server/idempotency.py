"""Requests that clients may repeat: the header ``Idempotency-Key`` of draft-ietf-httpapi-idempotency-key-header.

Every POST that changes something takes the header; :class:`~agent_manager.server.authorization.AuthorizedRoute` sees to
it, so no endpoint can forget it. A key belongs to its tenant, its caller and the address of the request: nobody else
can take it first, or learn of it.

1. The key is claimed in the database, with a digest of the request, before anything is done. The same key with another
   request is refused (422).
2. The request is carried out. What it writes has ids that are derived from the key (:attr:`Claim.uuid`), so the log
   itself refuses to take it twice. A repetition while the first is under way, or after a crash between what was
   written and the answer, does the same again and finds it done.
3. The answer is kept, and is the answer to every repetition. If the request was refused, nothing was written, and the
   key is free again, so that a client can correct the request. If it failed otherwise, the claim stays.

Within one process, a repetition waits for the first, so that both get the very same answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.auth import Identity
from agent_manager.server.errors import Rejected, status_of
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, InputError, printable
from eventstore.ids import derived_uuid

HEADER = "Idempotency-Key"
KEPT_DAYS = 7
"""A key is forgotten after so many days. A later repetition is carried out again, and still writes nothing twice."""
_LONGEST = 255
_FORGOTTEN_MEMBERS = ("id", "jsonrpc")
"""Members of a JSON-RPC call that a repetition may have otherwise."""

PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST},
    "description": "Makes the request repeatable: a repetition with the same key changes nothing and gets the answer "
    f"of the first; another request with the same key is refused (422). A key is kept for {KEPT_DAYS} days.",
}

_CLAIM = query("agent_manager.server", "claim_key")
_KEEP = query("agent_manager.server", "keep_answer")
_RELEASE = query("agent_manager.server", "release_key")


class IdempotencyKeyReused(InputError):
    """A key was sent again with another request. Nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"{HEADER} {printable(key, 80)!r} was sent before with another request: repeat that one unchanged, "
            "or make a new key for this one; nothing was written"
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """A request under a key."""

    key: str
    tenant: str
    id: UUID

    def uuid(self, *names: str | int) -> UUID:
        """The id of something that the request makes: the same for every repetition."""
        return derived_uuid("made under an idempotency key", str(self.id), *names)


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer that was given to the first request of a key."""

    status: int
    media_type: str | None
    location: str | None
    body: bytes

    def response(self) -> Response:
        """The same answer."""
        headers = {} if self.location is None else {"Location": self.location}
        return Response(self.body, self.status, headers, self.media_type)


class Idempotency:
    """The idempotency keys of one server's clients."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def once(
        self, request: Request, identity: Identity, handle: Callable[[], Awaitable[Response]]
    ) -> Response | Kept:
        """The answer to a request, which is carried out unless the first of its key was; its claim is in its state.

        Raises:
            InputError: the key is empty, too long, or sent twice.
            IdempotencyKeyReused: it was sent before with another request.
        """
        key = _key_of(request)
        if key is None:
            return await handle()
        path = request.url.path
        caller = (identity.caller.user or "", identity.actor)
        claim = Claim(key, identity.tenant, derived_uuid("idempotency key", identity.tenant, *caller, path, key))
        given = {"tenant": claim.tenant, "id": claim.id}
        async with self._locks.setdefault(claim.id, asyncio.Lock()):
            digest = sha256(f"{path}?{request.url.query}\n".encode() + comparable(await request.body())).digest()
            claiming = given | {"request": digest, "kept": f"{KEPT_DAYS} days"}
            [(first, status, *answer)] = await self._store.pool.fetch(_CLAIM, claiming)
            if bytes(first) != digest:
                raise IdempotencyKeyReused(key)
            if status is not None:
                return Kept(status, *answer)
            request.state.claim = claim
            try:
                response = await handle()
            except (EventStoreError, Rejected, HTTPException, RequestValidationError) as error:
                if _is_refusal(error):
                    await self._store.pool.fetch(_RELEASE, given)
                raise
            if response.status_code < 300:
                kept = {
                    "status": response.status_code,
                    "media_type": response.media_type,
                    "location": response.headers.get("location"),
                    "body": response.body,
                }
                with suppress(EventStoreError):  # it is done; a repetition finds it so
                    await self._store.pool.fetch(_KEEP, given | kept)
            return response


def comparable(body: bytes) -> bytes:
    """What a repetition of a request must have in common with the first: its JSON, however that is written."""
    try:
        value = json.loads(body)
        if isinstance(value, dict) and "jsonrpc" in value:
            value = {name: member for name, member in value.items() if name not in _FORGOTTEN_MEMBERS}
        return json.dumps(value, sort_keys=True).encode()
    except (ValueError, RecursionError):
        return body


def _is_refusal(error: EventStoreError | Rejected | HTTPException | RequestValidationError) -> bool:
    """Return whether the error guarantees that nothing was written."""
    if isinstance(error, HTTPException):
        return error.status_code < 500
    return not isinstance(error, EventStoreError) or status_of(error) < 500


def _key_of(request: Request) -> str | None:
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or not 1 <= len(keys[0]) <= _LONGEST:
        raise InputError(f"{HEADER}: send it once, with 1 to {_LONGEST} characters")
    return keys[0]
