"""Idempotent requests: the header ``Idempotency-Key`` of draft-ietf-httpapi-idempotency-key-header.

Every POST that writes takes the header; :class:`~agent_manager.server.authorization.AuthorizedRoute` handles it, so no
endpoint can forget it. A key belongs to its tenant, its caller and the path of the request: nobody else can claim it
first, or learn of it.

1. The key is claimed in the database, with a digest of the request, before anything else is done. The same key with
   another request is refused (422).
2. The request is carried out. The ids of what it writes are derived from the key (:func:`claimed_uuid`), so the log
   stores it only once. If the request is repeated while the first is running, or after a crash between the write and
   the response, it does the same again and finds it done.
3. The response is stored and sent to every repetition. If the request was refused, nothing was written, and the key is
   released, so that the client can correct the request. If it failed otherwise, the claim stays.

Within one process, a repetition waits for the first request, so that both get the same response.
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
from agent_manager.server.problems import Rejected, status_of
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, InputError, printable
from eventstore.ids import derived_uuid

HEADER = "Idempotency-Key"
KEPT_DAYS = 7
"""Keys are deleted after so many days. A later repetition is carried out again, and still writes nothing twice."""
_MAX_LENGTH = 255
_CALL_MEMBERS = ("id", "jsonrpc")
"""Members of a JSON-RPC call that may differ between a request and its repetition."""

PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_LENGTH},
    "description": "Makes the request idempotent: a repetition with the same key changes nothing and gets the first "
    f"response; a different request with the same key fails with 422. Keys are kept for {KEPT_DAYS} days.",
}
"""The header in the OpenAPI document."""

_CLAIM = query("agent_manager.server", "claim_key")
_STORE = query("agent_manager.server", "store_response")
_RELEASE = query("agent_manager.server", "release_key")


class IdempotencyKeyReused(InputError):
    """A key was sent again with another request. Nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"{HEADER} {printable(key, 80)!r} was sent before with another request: repeat that request unchanged, "
            "or use a new key for this one; nothing was written"
        )


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The stored response to the first request with a key."""

    status: int
    media_type: str | None
    location: str | None
    body: bytes

    def response(self) -> Response:
        """Return the same response."""
        headers = {} if self.location is None else {"Location": self.location}
        return Response(self.body, self.status, headers, self.media_type)


class Idempotency:
    """The idempotency keys of a server's clients."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def once(
        self, request: Request, identity: Identity, handle: Callable[[], Awaitable[Response]]
    ) -> Response | StoredResponse:
        """Carry out a request, or return the stored response if a request with its key was carried out before.

        While the request is carried out, its state holds the claim: an id that is derived from the key, its tenant, its
        caller and the path.

        Raises:
            InputError: The key is empty, too long, or sent twice.
            IdempotencyKeyReused: The key was sent before with another request.
        """
        key = _key_of(request)
        if key is None:
            return await handle()
        path = request.url.path
        caller = (identity.caller.user or "", identity.actor)
        claim = derived_uuid("idempotency key", identity.tenant, *caller, path, key)
        parameters = {"tenant": identity.tenant, "id": claim}
        async with self._locks.setdefault(claim, asyncio.Lock()):
            body = _comparable(await request.json())
            digest = sha256(f"{path}?{request.url.query}\n".encode() + body).digest()
            claiming = parameters | {"request": digest, "kept": f"{KEPT_DAYS} days"}
            [(first, status, *response_columns)] = await self._store.pool.fetch(_CLAIM, claiming)
            if bytes(first) != digest:
                raise IdempotencyKeyReused(key)
            if status is not None:
                return StoredResponse(status, *response_columns)
            request.state.claim = claim
            try:
                response = await handle()
            except (EventStoreError, Rejected, HTTPException, RequestValidationError) as error:
                if _is_refusal(error):
                    await self._store.pool.fetch(_RELEASE, parameters)
                raise
            if response.status_code < 300:
                kept = {
                    "status": response.status_code,
                    "media_type": response.media_type,
                    "location": response.headers.get("location"),
                    "body": response.body,
                }
                with suppress(EventStoreError):  # the request is carried out; a repetition finds that
                    await self._store.pool.fetch(_STORE, parameters | kept)
            return response


def claimed_uuid(claim: UUID, *names: str | int) -> UUID:
    """Return the id of something that a request with a claimed key creates: the same for every repetition."""
    return derived_uuid("made under an idempotency key", str(claim), *names)


def _comparable(value: Any) -> bytes:
    """Return what a request and its repetition must have in common: the JSON value, however it is written."""
    if isinstance(value, dict) and "jsonrpc" in value:
        value = {name: member for name, member in value.items() if name not in _CALL_MEMBERS}
    return json.dumps(value, sort_keys=True).encode()


def _is_refusal(error: EventStoreError | Rejected | HTTPException | RequestValidationError) -> bool:
    """Return whether the error guarantees that nothing was written."""
    if isinstance(error, HTTPException):
        return error.status_code < 500
    return not isinstance(error, EventStoreError) or status_of(error) < 500


def _key_of(request: Request) -> str | None:
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or not 1 <= len(keys[0]) <= _MAX_LENGTH:
        raise InputError(f"{HEADER}: send it once, with 1 to {_MAX_LENGTH} characters")
    return keys[0]
