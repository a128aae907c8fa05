"""Large files of messages: stored once for a tenant, under their hash, and shared by the events that refer to them."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable
from hashlib import sha256
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.tenants import TenantStore
from support.waiting import until_async

from agent_manager.adapters.blobs import (
    CHUNK_BYTES,
    FILES,
    INLINE_BYTES,
    MAX_BLOB_BYTES,
    BlobDamaged,
    BlobTooLarge,
    load_blob,
    load_files,
    referring,
    store_blob,
    store_files,
)
from agent_manager.adapters.conversation_history import HistoryAccess
from eventstore import (
    AppendResult,
    ApplicationEvent,
    Caller,
    Event,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
)
from eventstore.errors import FileDeleted, InputError, NotFound, PermissionDenied

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


# Files that no event refers to


async def append_file(store: EventStore, content: bytes, conversation: str = "with a file") -> Event:
    """Append a message with a file as adapters do, and return its event."""
    access = HistoryAccess(store)
    await access.extend(conversation, [NewEvent(MessageAdded(role="user", parts=[file_part(content)]))], None)
    return [event async for event in store.read(access.conversation_id(conversation), types=["message.added"])][-1]


async def stored_long_ago(store: EventStore, superuser_url: str) -> None:
    """Have the files of the tenant be two days old."""
    async with await psycopg.AsyncConnection.connect(superuser_url) as superuser:
        await superuser.execute(
            "UPDATE blobs SET created_at = created_at - interval '2 days' WHERE tenant_id = %s", [store.tenant]
        )


async def collect(store: EventStore) -> int:
    """Delete unreferenced files; return how many of the tenant."""
    rows = await store.pool.fetch("SELECT tenant_id, deleted FROM delete_orphaned_files(1000)")
    return sum(deleted for tenant, deleted in rows if tenant == store.tenant)


async def test_an_event_names_the_files_that_it_refers_to(store: EventStore) -> None:
    content = b"\1" * (INLINE_BYTES + 1)
    event = await append_file(store, content)
    assert event.raw_metadata[FILES] == [sha256(content).hexdigest()]


async def test_only_old_files_that_no_event_refers_to_are_collected(store: EventStore, superuser_url: str) -> None:
    referred = b"\2" * (INLINE_BYTES + 1)
    event = await append_file(store, referred)
    unreferred = await store_blob(store, b"left by an interrupted upload", CONVERSATION)
    assert await collect(store) == 0
    await stored_long_ago(store, superuser_url)
    young = await store_blob(store, b"its event is on its way", CONVERSATION)
    assert await collect(store) == 1
    with pytest.raises(NotFound):
        await load_blob(store, unreferred, CONVERSATION)
    assert await rows(store, "blob_chunks") == 2
    assert await load_blob(store, young, CONVERSATION)
    assert await load_blob(store, sha256(referred).digest(), event.conversation_id) == referred


async def test_an_erasure_deletes_files_of_its_conversation_and_their_bytes_with_the_last(store: EventStore) -> None:
    content = b"\4" * (INLINE_BYTES + 1)
    digest = sha256(content).digest()
    first, _, other = [await append_file(store, content, name) for name in ("one", "one", "two")]
    await store.erase(first.conversation_id, [first.id])
    assert await load_blob(store, digest, first.conversation_id) == content, "another event of it has the file"
    await store.erase(first.conversation_id)
    with pytest.raises(NotFound):
        await load_blob(store, digest, first.conversation_id)
    assert await load_blob(store, digest, other.conversation_id) == content
    await store.erase(other.conversation_id)
    assert (await rows(store, "blobs"), await rows(store, "blob_chunks")) == (0, 0)


async def test_a_file_whose_bytes_are_being_deleted_is_stored_as_a_whole(store: EventStore, superuser_url: str) -> None:
    content = b"\5" * (2 * CHUNK_BYTES + 1)
    digest = await store_blob(store, content, CONVERSATION)
    await stored_long_ago(store, superuser_url)
    async with await store.connect("eventstore_app") as connection, connection.transaction():
        await connection.execute("SELECT set_config('eventstore.tenant', %s, true)", [store.tenant])
        await connection.execute("SELECT * FROM delete_orphaned_files(1000)")
        storing = asyncio.create_task(store_blob(store, content, ANOTHER))  # which sees that the tenant has its bytes
        async with await psycopg.AsyncConnection.connect(superuser_url, autocommit=True) as superuser:

            async def waits() -> bool:
                statement = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                return await (await superuser.execute(statement)).fetchone() != (0,)

            await until_async(waits, "the upload waits")
    await storing
    assert await load_blob(store, digest, ANOTHER) == content


async def test_an_event_whose_file_was_deleted_is_refused_and_no_other(store: EventStore, superuser_url: str) -> None:
    conversation = uuid4()
    digest = await store_blob(store, b"to be deleted", conversation)
    await stored_long_ago(store, superuser_url)
    assert await collect(store) == 1

    def append(metadata: Metadata) -> Awaitable[AppendResult]:
        return store.append(conversation, [NewEvent(ApplicationEvent("with.file"), metadata=metadata)])

    appends = [append(referring(Metadata(), [digest])), append(Metadata()), append(Metadata())]
    refused, *others = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(refused, FileDeleted)
    assert digest.hex() in str(refused)
    assert [each.events[0].is_new for each in others if isinstance(each, AppendResult)] == [True, True]
    await store_blob(store, b"to be deleted", uuid4())
    with pytest.raises(FileDeleted):  # which is a file of another conversation
        await append(referring(Metadata(), [digest]))
    await store_blob(store, b"to be deleted", conversation)
    assert (await append(referring(Metadata(), [digest]))).events[0].is_new


async def test_a_file_that_an_append_in_flight_refers_to_stays(store: EventStore, superuser_url: str) -> None:
    digest = await store_blob(store, b"about to be referred to", CONVERSATION)
    await stored_long_ago(store, superuser_url)
    statement = """SELECT * FROM append_events(%s, %s, '{-2}', '{1}', %s, '{with.file}', '{1}', '{""}',
                                               ARRAY['{}'::jsonb], %s::jsonb[])"""
    metadata = json.dumps({FILES: [digest.hex()]})
    async with await store.connect() as connection, connection.transaction():
        await connection.execute("SELECT set_config('eventstore.tenant', %s, true)", [store.tenant])
        await connection.execute(statement, [[store.tenant], [CONVERSATION], [uuid4()], [metadata]])
        assert await collect(store) == 0
    assert await collect(store) == 0
    assert await load_blob(store, digest, CONVERSATION) == b"about to be referred to"


async def test_no_acknowledged_event_loses_its_file_to_a_concurrent_collection(
    store: EventStore, superuser_url: str
) -> None:
    content = b"\3" * (INLINE_BYTES + 1)
    refused, written = 0, asyncio.Event()

    async def write(number: int) -> None:
        nonlocal refused
        for turn in range(5):
            try:
                await append_file(store, content + bytes([turn // 2]), f"{number}")
            except FileDeleted:
                refused += 1

    async def age_and_collect() -> None:
        while not written.is_set():
            await stored_long_ago(store, superuser_url)
            await collect(store)

    collecting = asyncio.create_task(age_and_collect())
    await asyncio.gather(*map(write, range(6)))
    written.set()
    await collecting
    access, messages = HistoryAccess(store), 0
    for number in range(6):
        async for event in access.events(f"{number}", None):
            messages += event.event_type == "message.added"
    assert messages == 30 - refused  # and each was read with its file
