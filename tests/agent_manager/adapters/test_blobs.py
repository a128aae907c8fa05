"""Large files of messages: stored once for a tenant, under their hash, and shared by the events that refer to them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hashlib import sha256
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.tenants import TenantStore

from agent_manager.adapters.blobs import (
    CHUNK_BYTES,
    INLINE_BYTES,
    MAX_BLOB_BYTES,
    BlobDamaged,
    BlobTooLarge,
    load_blob,
    load_files,
    store_blob,
    store_files,
)
from eventstore import Caller, EventStore, MessageAdded, NewEvent
from eventstore.errors import InputError, NotFound, PermissionDenied

pytestmark = pytest.mark.shared_database


CONVERSATION, ANOTHER = uuid4(), uuid4()


def file_part(content: bytes, **metadata: Any) -> dict[str, Any]:
    part = {"kind": "file", "file": {"name": "a.png", "bytes": b64encode(content).decode(), "mimeType": "image/png"}}
    return part | ({"metadata": metadata} if metadata else {})


async def rows(store: EventStore, table: str, user: str | None = None) -> int:
    """Return the number of rows that a caller of the tenant sees."""
    [(count,)] = await store.tables(Caller(store.tenant, user)).fetch(f"SELECT count(*) FROM {table}")
    return int(count)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
async def test_a_file_reads_back_equal(store: EventStore, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    digest = await store_blob(store, content, CONVERSATION)
    assert digest == sha256(content).digest()
    assert await load_blob(store, digest, CONVERSATION) == content
    assert await rows(store, "blob_chunks") == max(1, -(-size // CHUNK_BYTES))


async def test_a_file_is_stored_once_however_many_store_it_at_the_same_time(store: EventStore) -> None:
    content = b"x" * (CHUNK_BYTES + 1)
    digests = await asyncio.gather(*(store_blob(store, content, CONVERSATION) for _ in range(8)))
    assert len(set(digests)) == 1
    assert await rows(store, "blobs") == 1
    assert await rows(store, "blob_chunks") == 2


async def test_a_file_belongs_to_its_tenant(store: EventStore, module_store: EventStore) -> None:
    digest = await store_blob(store, b"private", CONVERSATION)
    other = TenantStore(module_store, f"{store.tenant}-other")
    with pytest.raises(NotFound, match=digest.hex()):
        await load_blob(other, digest, CONVERSATION)
    assert await rows(other, "blobs") == 0
    assert await rows(store, "blob_chunks") == 1
    assert await rows(store, "blob_chunks", user="ana") == 0


async def test_conversations_share_the_bytes_of_a_file_and_each_reads_only_its_own(store: EventStore) -> None:
    content = b"x" * (2 * CHUNK_BYTES + 1)
    digest = await store_blob(store, content, CONVERSATION)
    with pytest.raises(NotFound, match=str(ANOTHER)):
        await load_blob(store, digest, ANOTHER)
    for _ in range(2):
        assert await store_blob(store, content, ANOTHER) == digest
    assert await load_blob(store, digest, ANOTHER) == content
    assert await rows(store, "blobs") == 2
    assert await rows(store, "blob_chunks") == 3


async def test_an_event_that_refers_to_a_file_of_another_conversation_does_not_open_it(store: EventStore) -> None:
    [part] = await store_files(store, [file_part(b"secret" * INLINE_BYTES)], CONVERSATION)
    forged = NewEvent(MessageAdded(role="user", parts=[part]))
    await store.append(ANOTHER, [forged], user="eve")
    [event] = [event async for event in store.read(ANOTHER, user="eve")]
    with pytest.raises(NotFound):
        await load_files(store, [event.content["parts"]], event.conversation_id)


async def test_a_user_sees_which_files_their_conversations_have(store: EventStore) -> None:
    await store.append(CONVERSATION, [MessageAdded(role="user", content="mine")], user="ana")
    await store_blob(store, b"of ana", CONVERSATION)
    assert [await rows(store, "blobs", user) for user in (None, "ana", "bob")] == [1, 1, 0]


async def test_a_session_cannot_store_a_file_for_another_tenant(store: EventStore) -> None:
    statement = "SELECT store_blob_chunk('somebody', gen_random_uuid(), sha256('x'::bytea), 0, 'x'::bytea, true)"
    with pytest.raises(PermissionDenied):
        await store.pool.fetch(statement, caller=Caller(store.tenant))


async def test_bytes_are_not_stored_under_the_hash_of_others(store: EventStore) -> None:
    statement = "SELECT store_blob_chunk(%(tenant)s, gen_random_uuid(), sha256('one'::bytea), 0, 'two'::bytea, true)"
    with pytest.raises(InputError, match="the file has the SHA-256"):
        await store.pool.fetch(statement, {"tenant": store.tenant}, caller=Caller(store.tenant))
    assert await rows(store, "blob_chunks") == 0


async def test_a_damaged_file_is_not_returned(store: EventStore, superuser_url: str) -> None:
    digest = await store_blob(store, b"as it was", CONVERSATION)
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute("UPDATE blob_chunks SET content = 'changed' WHERE sha256 = %s", [digest])
    with pytest.raises(BlobDamaged, match=digest.hex()):
        await load_blob(store, digest, CONVERSATION)


async def test_a_file_above_the_limit_is_refused(store: EventStore) -> None:
    with pytest.raises(BlobTooLarge, match=r"67,108,865 bytes: the limit is 67,108,864"):
        await store_blob(store, bytes(MAX_BLOB_BYTES + 1), CONVERSATION)


async def test_large_files_leave_the_parts_and_come_back(store: EventStore) -> None:
    large = b"\0\xff" * INLINE_BYTES
    parts = [
        {"kind": "text", "text": "look"},
        file_part(b"small"),
        file_part(large),
        file_part(large, shown=True),
        {"kind": "file", "file": {"uri": "https://example.com/a.png"}},
    ]
    stored = await store_files(store, parts, CONVERSATION)
    assert stored[:2] + stored[4:] == parts[:2] + parts[4:]
    assert len(str(stored)) < INLINE_BYTES
    assert await rows(store, "blobs") == 1
    await load_files(store, [stored], CONVERSATION)
    assert stored == parts
    assert [list(part["file"]) for part in stored[1:]] == [list(part["file"]) for part in parts[1:]]


async def test_large_files_in_parts_of_a2a_1_leave_the_parts_and_come_back(store: EventStore) -> None:
    large = b64encode(b"\0\xff" * INLINE_BYTES).decode()
    parts: list[Any] = [
        {"raw": "QQ==", "mediaType": "image/png"},
        {"raw": large, "mediaType": "image/png", "filename": "a.png"},
        {"metadata": {"shown": True}, "raw": large},
        {"url": "https://example.com/a.png"},
        {"text": large},
    ]
    stored = await store_files(store, parts, CONVERSATION)
    assert [part == kept for part, kept in zip(parts, stored, strict=True)] == [True, False, False, True, True]
    assert stored[1]["url"] == stored[2]["url"]
    await load_files(store, [stored], CONVERSATION)
    assert stored == parts
    assert [list(part) for part in stored] == [list(part) for part in parts]


@pytest.mark.parametrize("metadata", [{}, [], "text"])
async def test_a_part_whose_metadata_has_no_place_for_a_reference_keeps_its_file(
    store: EventStore, metadata: Any
) -> None:
    parts = [file_part(bytes(INLINE_BYTES + 1)) | {"metadata": metadata}]
    assert await store_files(store, parts, CONVERSATION) == parts


async def test_bytes_that_are_not_base64_stay_in_the_part(store: EventStore) -> None:
    parts = [{"kind": "file", "file": {"bytes": text}} for text in ("~" * 99_999, "QQ==\n" * 9_999, "QR==" * 9_999)]
    assert await store_files(store, parts, CONVERSATION) == parts


async def test_a_sender_cannot_refer_to_a_stored_file(store: EventStore) -> None:
    stored = await store_files(store, [file_part(bytes(INLINE_BYTES + 1))], CONVERSATION)
    with pytest.raises(InputError, match="send the bytes"):
        await store_files(store, stored, CONVERSATION)
    with pytest.raises(NotFound):
        await load_files(store, [[stored[0] | {"file": {"uri": "eventstore-blob:" + "0" * 64}}]], CONVERSATION)
