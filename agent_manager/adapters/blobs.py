"""Large files of messages, stored once for a tenant under their SHA-256, beside the log.

A file in a part of a message is Base64 text in the event. Above :data:`INLINE_BYTES` it is stored in the tables
``blobs`` and ``blob_chunks`` instead, and the part refers to it; any number of events share it. A file is stored before
the event that refers to it, so that an event never refers to a file that does not exist; if the process ends between
the two, the file is there for the next attempt. Adapters pass the parts of messages through :func:`store_files` when
they write, and through :func:`load_files` when they read.

An event names the files that it refers to in its metadata (:func:`referring`). A file that no event of its conversation
names is deleted: together with the last event that named it, when that is erased, or a day after it was stored. An
append locks the files that its events name, so none of them is deleted meanwhile; if one was deleted between its upload
and the append, the append is refused (:class:`~eventstore.errors.FileDeleted`), and succeeds when the whole call is
repeated.

A user who may see an event may see its files: the event is read for the user, and its files for the tenant. A file is
read as one of the event's conversation, for which it was stored. So an event that somebody has written by other means,
with a reference to a file of another conversation whose hash they know, does not open that file.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

from agent_manager.a2a import Json
from eventstore import EventStore, Metadata
from eventstore.database.queries import query
from eventstore.errors import FileDeleted, InputError, NotFound, ServerError, translated
from eventstore.read import RawRows

INLINE_BYTES = 16 * 1024
"""A file of at most this size stays in its event. To look it up elsewhere would cost each reader another statement,
which takes longer than to read so many bytes with the event."""
CHUNK_BYTES = 1024 * 1024
"""The bytes of a statement and of a row: few beside the buffers of a connection, many beside a row's own cost."""
MAX_BLOB_BYTES = 64 * 1024 * 1024
"""The largest file. The server computes the hash of all its bytes at once when it stores them, and readers hold them in
memory with their Base64 text; larger ones belong into an object store, with their URL in the message."""

SCHEME = "eventstore-blob:"
"""The scheme of a reference to a file: it is followed by the SHA-256 in hexadecimal."""
_URI = re.compile(SCHEME + "([0-9a-f]{64})")
_SIZE = "eventstore_blob_size"
"""The member of a part's metadata that makes it a reference, whatever URLs clients send."""
FILES = "eventstore.files"
"""The member of an event's metadata with the SHA-256 of the files that it refers to, in hexadecimal."""


class BlobTooLarge(InputError):
    """A file is larger than :data:`MAX_BLOB_BYTES`.

    Attributes:
        size: its bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(
            f"a file of {size:,} bytes: the limit is {MAX_BLOB_BYTES:,}: store it elsewhere, and send its URL"
        )
        self.size = size


class BlobDamaged(ServerError):
    """The bytes of a stored file do not have its hash."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(
            f"the stored file {digest.hex()} has other bytes than were stored: "
            "restore the tables blobs and blob_chunks from a backup"
        )


async def store_blob(store: EventStore, content: bytes, conversation_id: UUID, *, tenant: str | None = None) -> bytes:
    """Store a file of a conversation durably, unless the tenant has its bytes already, and return its SHA-256.

    Raises:
        BlobTooLarge: it is larger than :data:`MAX_BLOB_BYTES`.
    """
    caller = store.caller(tenant)
    if len(content) > MAX_BLOB_BYTES:
        raise BlobTooLarge(len(content))
    digest = (await asyncio.to_thread(sha256, content)).digest()
    key = {"tenant": caller.tenant, "conversation_id": conversation_id, "sha256": digest}
    [(has_conversation, has_tenant)] = await store.tables(caller, on_primary=True).fetch(_HAS_BLOB, key)
    if has_conversation:
        return digest
    try:
        await _store_chunks(store, content, key, only_last=has_tenant)
    except FileDeleted:  # the chunks that were there were deleted meanwhile
        await _store_chunks(store, content, key, only_last=False)
    return digest


async def _store_chunks(store: EventStore, content: bytes, key: dict[str, Any], *, only_last: bool) -> None:
    starts = range(0, len(content) or 1, CHUNK_BYTES)
    with translated():
        async with store.pool.transaction(store.caller(key["tenant"])) as connection:
            for number in range(len(starts) - 1 if only_last else 0, len(starts)):
                chunk = content[starts[number] : starts[number] + CHUNK_BYTES]
                given = key | {"number": number, "content": chunk, "is_last": number == len(starts) - 1}
                await connection.execute(_STORE_BLOB_CHUNK, given)


async def load_blob(store: EventStore, digest: bytes, conversation_id: UUID, *, tenant: str | None = None) -> bytes:
    """Return the bytes of a file of a conversation, which the caller must be allowed to read.

    Raises:
        NotFound: the conversation has no file with this SHA-256.
        BlobDamaged: its bytes do not have this hash.
    """
    caller = store.caller(tenant)
    key = {"tenant": caller.tenant, "conversation_id": conversation_id, "sha256": digest}
    rows = await store.tables(caller, on_primary=True).fetch(_BLOB, key, cursor=RawRows)
    if not rows:
        raise NotFound(f"the conversation {conversation_id} has no file with the SHA-256 {digest.hex()}")
    content = b"".join(chunk for (chunk,) in rows)
    if (await asyncio.to_thread(sha256, content)).digest() != digest:
        raise BlobDamaged(digest)
    return content


async def store_files(
    store: EventStore, parts: Sequence[Any], conversation_id: UUID, *, tenant: str | None = None
) -> list[Any]:
    """Store the large files in the parts of a message of a conversation; return the parts with references to them.

    Args:
        parts: in the form of A2A 0.3 or 1.x. Parts of other kinds stay as they are.

    Raises:
        BlobTooLarge: a file is larger than :data:`MAX_BLOB_BYTES`.
        InputError: a part refers to a stored file already: its sender need not be allowed to read that file.
    """
    for part in parts:
        if (digest := _reference(part)) is not None:
            raise InputError(f"a part refers to the stored file {digest.hex()}: send the bytes of the file")
    return [
        await _with_reference(store, part, conversation_id, tenant) if _has_large_file(part) else part for part in parts
    ]


def files_in(parts: Iterable[Any]) -> set[bytes]:
    """Return the hashes of the files that the parts of a message refer to."""
    return {digest for part in parts if (digest := _reference(part)) is not None}


def referring(metadata: Metadata, files: Iterable[bytes]) -> Metadata:
    """Return the metadata of an event that refers to files."""
    names = sorted(digest.hex() for digest in files)
    return metadata.model_copy(update={FILES: names}) if names else metadata


async def load_files(
    store: EventStore, messages: Iterable[list[Any]], conversation_id: UUID, *, tenant: str | None = None
) -> None:
    """Put the bytes of files into the parts of messages that refer to them, in place; each file is read once.

    Args:
        messages: the parts of messages of the conversation, which the caller must be allowed to read.

    Raises:
        NotFound: the conversation has no such file.
        BlobDamaged: the bytes of a file do not have its hash.
    """
    referring: dict[bytes, list[tuple[list[Any], int]]] = {}
    for parts in messages:
        for index, part in enumerate(parts):
            if (digest := _reference(part)) is not None:
                referring.setdefault(digest, []).append((parts, index))
    for digest, places in referring.items():
        text = b64encode(await load_blob(store, digest, conversation_id, tenant=tenant)).decode()
        for parts, index in places:
            parts[index] = _with_bytes(parts[index], text)


def reference(digest: bytes) -> str:
    """Return the text that stands for a file in an event."""
    return SCHEME + digest.hex()


def referred(text: str) -> bytes:
    """Return the SHA-256 in a text that :func:`reference` has made."""
    return bytes.fromhex(text.removeprefix(SCHEME))


def is_large(base64: str) -> bool:
    """Return whether a file with this Base64 text is stored apart from its event."""
    return len(base64) * 3 // 4 > INLINE_BYTES


def _file(part: Any) -> tuple[Json, str, str] | None:
    """Return the object of a part that holds a file, and its members with the bytes and the URL: of A2A 0.3 and 1.x."""
    if not isinstance(part, dict):
        return None
    if "file" in part:
        return (part["file"], "bytes", "uri") if isinstance(part["file"], dict) else None
    return part, "raw", "url"


def _has_large_file(part: Any) -> bool:
    file, data, url = _file(part) or ({}, "", "")
    text = file.get(data) if url not in file else None
    metadata = part.get("metadata") if isinstance(part, dict) else None
    has_place = metadata is None or (isinstance(metadata, dict) and metadata != {})  # an empty one would not come back
    return isinstance(text, str) and is_large(text) and has_place


async def _with_reference(store: EventStore, part: Json, conversation_id: UUID, tenant: str | None) -> Json:
    """Return a part with a reference to its file; the part itself if its bytes are not the plain Base64 of a file."""
    file, data, url = _file(part) or (part, "", "")
    text = file[data]
    try:
        content = b64decode(text, validate=True)
    except ValueError:
        return part
    if b64encode(content).decode() != text:
        return part
    digest = await store_blob(store, content, conversation_id, tenant=tenant)
    metadata = {**(part.get("metadata") or {}), _SIZE: len(content)}
    return {**_with_file(part, _exchanged(file, data, url, reference(digest))), "metadata": metadata}


def _reference(part: Any) -> bytes | None:
    """Return the hash of the file that a part refers to; None if it does not refer to one."""
    if not isinstance(part, dict) or not isinstance(metadata := part.get("metadata"), dict) or _SIZE not in metadata:
        return None
    file, _, url = _file(part) or ({}, "", "")
    match = _URI.fullmatch(str(file.get(url)))
    return None if match is None else bytes.fromhex(match[1])


def _with_bytes(part: Json, text: str) -> Json:
    file, data, url = _file(part) or (part, "", "")
    metadata = {name: value for name, value in part["metadata"].items() if name != _SIZE}
    restored = {**_with_file(part, _exchanged(file, url, data, text)), "metadata": metadata}
    if not metadata:
        del restored["metadata"]
    return restored


def _with_file(part: Json, file: Json) -> Json:
    return {**part, "file": file} if "file" in part else file


def _exchanged(members: Json, name: str, new_name: str, value: str) -> Json:
    """Return the members with one of them replaced, in its place."""
    return {
        new_name if member == name else member: value if member == name else kept for member, kept in members.items()
    }


_HAS_BLOB, _STORE_BLOB_CHUNK, _BLOB = (
    query("agent_manager.adapters", name) for name in ("has_blob", "store_blob_chunk", "blob")
)
