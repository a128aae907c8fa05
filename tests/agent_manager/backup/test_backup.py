"""Backups hold all that was committed before they began, and are restored exactly, or not at all."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw import append_raw
from support.servers import DatabaseServer
from support.waiting import until_async

from agent_manager.adapters.blobs import CHUNK_BYTES, store_blob
from agent_manager.auth import Directory as Identities
from agent_manager.backup import (
    Archive,
    Manifest,
    Retention,
    create_backup,
    open_target,
    restore_backup,
    verify_backups,
)
from agent_manager.backup import create as creating
from agent_manager.backup import restore as restoring
from agent_manager.backup.archive import BackupDamaged, prune
from agent_manager.backup.create import BackupMismatch, BackupRunning
from agent_manager.backup.drill import DrillFailed, DrillRunning, drill, last_drill
from agent_manager.backup.manifest import EVENT_COLUMNS, TABLES
from agent_manager.backup.restore import DatabaseNotEmpty
from agent_manager.backup.targets import TargetFailed
from agent_manager.settings import ServerSettings
from eventstore import ConversationCreated, ConversationShared, EventStore, MessageAdded, NewEvent, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.database.queries import query
from eventstore.errors import NotFound, SchemaTooOld, ServerUnreachable
from projections import Reader, Worker, catch_up

STRANGE = "tab\t line\n return\r back\\slash \\N \\. é 東京 \u2028 \x01\x7f \b\f\v"
EVENTS = "SELECT * FROM events WHERE tenant_id <> 'eventstore:system' ORDER BY position"
READ_TABLES = (
    "SELECT * FROM conversation_members ORDER BY tenant_id, conversation_id, user_id",
    "SELECT * FROM identity_tenants ORDER BY id",
    "SELECT * FROM identity_users ORDER BY tenant_id, id",
    "SELECT * FROM identity_keys ORDER BY id",
    "SELECT * FROM blobs ORDER BY tenant_id, conversation_id, sha256",
    "SELECT * FROM blob_chunks ORDER BY tenant_id, sha256, number",
    "SELECT * FROM conversations ORDER BY id",
    "SELECT * FROM messages ORDER BY conversation_id, version",
)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(open_target(str(tmp_path / "backups")))


@pytest.fixture
def other(server: DatabaseServer, clean_environment: None) -> Iterator[Settings]:
    """The settings of an empty database without a schema."""
    name = server.create_database(migrated=False)
    yield ServerSettings(database_url=server.url(name))
    server.drop_database(name)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creating, "SEGMENT_EVENTS", 10)


async def say(store: EventStore, number: int = 1, conversation: UUID | None = None, **options: Any) -> int:
    """Append messages; return the last position."""
    messages = [NewEvent(MessageAdded(role="user", content=f"{STRANGE} {n}"), actor=STRANGE) for n in range(number)]
    return (await store.append(conversation or uuid4(), messages, **options)).position


async def fill(store: EventStore) -> None:
    """Append to several tenants, with owners and members, and add tenants, users, keys and files."""
    identities = Identities(store)
    await identities.add_tenant("acme", STRANGE.replace("\x01", ""))
    for tenant in ("default", "acme"):
        await identities.add_user(tenant, "ana", name="Ana")
        await identities.add_key(tenant, "first", user="ana")
        shared = uuid4()
        await store.append(shared, [ConversationCreated(name="trip")], tenant=tenant, user="ana")
        await store.append(shared, [ConversationShared(user="bob", access="read")], tenant=tenant, user="ana")
        await say(store, 12, tenant=tenant)
        await store_blob(store, bytes(range(256)) * (CHUNK_BYTES // 200), UUID(int=7), tenant=tenant)
    await catch_up(store)


def rows(server: DatabaseServer, settings: Settings, *statements: str) -> list[list[Any]]:
    """Return the rows of a database as its superuser sees them."""
    url = settings.server_url()
    assert url is not None
    with psycopg.connect(server.superuser_url_of(url.rpartition("/")[2].partition("?")[0])) as connection:
        return [connection.execute(statement.encode()).fetchall() for statement in statements]


async def test_a_restored_database_equals_the_first_one_and_continues_it(
    server: DatabaseServer, settings: Settings, store: EventStore, archive: Archive, other: Settings
) -> None:
    await fill(store)
    manifest = await create_backup(store, archive)
    restored = await restore_backup(other, archive, manifest)
    assert restored.events == manifest.events == 33
    assert rows(server, other, EVENTS, *READ_TABLES) == rows(server, settings, EVENTS, *READ_TABLES)
    async with EventStore(other) as continued:
        assert await say(continued) > restored.position
        assert len([event async for event in continued.read_log(all_tenants=True)]) == 35, "with the restore"


async def test_a_backup_writes_only_what_is_new(store: EventStore, archive: Archive) -> None:
    await say(store, 10)
    await say(store, 7)
    first = await create_backup(store, archive)
    assert [segment.rows for segment in first.segments] == [10, 7]
    await say(store, 1)
    second = await create_backup(store, archive)
    assert second.segments[:2] == first.segments
    assert [segment.rows for segment in second.segments] == [10, 7, 1]
    await say(store, 1)
    third = await create_backup(store, archive)
    assert third.segments[:2] == first.segments
    assert [segment.rows for segment in third.segments] == [10, 7, 2], "a small segment is written anew"
    assert (await create_backup(store, archive)).segments == third.segments
    assert len(archive.ids()) == 4


async def test_an_interrupted_backup_is_continued(
    store: EventStore, archive: Archive, other: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(store, 35)

    def interrupt(manifest: Manifest) -> None:
        if len(manifest.segments) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await create_backup(store, archive, on_progress=interrupt)
    assert archive.ids() == []
    written: list[int] = []
    manifest = await create_backup(store, archive, on_progress=lambda now: written.append(len(now.segments)))
    assert written == [3, 4]
    assert verify_backups(archive) == ([manifest], [])
    assert (await restore_backup(other, archive, manifest)).events == 35


@pytest.mark.slow
async def test_all_that_was_acknowledged_before_a_backup_is_in_it_whatever_is_written_meanwhile(
    server: DatabaseServer, store: EventStore, archive: Archive, other: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating, "SEGMENT_EVENTS", 300)
    acknowledged: list[int] = []

    async def write() -> None:
        conversation = uuid4()
        while True:
            acknowledged.append(await say(store, 3, conversation))

    async def more_than(number: int) -> bool:
        return len(acknowledged) > number

    writers = [asyncio.create_task(write()) for _ in range(8)]
    try:
        for _ in range(5):
            before = len(acknowledged)
            await until_async(partial(more_than, before + 50), "further appends")
            at_least = max(acknowledged)
            manifest = await create_backup(store, archive)
            assert manifest.position >= at_least
    finally:
        await cancel_and_wait(writers)
    await restore_backup(other, archive, manifest)
    up_to = f"SELECT * FROM events WHERE position <= {manifest.position} ORDER BY position"
    assert rows(server, other, EVENTS) == rows(server, store.settings, up_to)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup gives up waiting for appends in flight at once."""
    monkeypatch.setattr(creating, "HORIZON_SECONDS", 0.0)


@pytest.fixture
def held(database_url: str, store: EventStore) -> Iterator[psycopg.Connection[Any]]:
    """A connection on which appends stay in an open transaction."""
    with psycopg.connect(database_url) as connection:
        yield connection


async def test_an_append_that_was_in_flight_during_a_backup_is_in_the_next_one(
    server: DatabaseServer, store: EventStore, archive: Archive, other: Settings, short_wait: None,
    held: psycopg.Connection[Any],
) -> None:  # fmt: skip
    before = await say(store, 15)
    append_raw(held, 1)
    later = [await say(store) for _ in range(12)]
    manifest = await create_backup(store, archive)
    assert manifest.position == before
    assert manifest.events == 15
    [[[first_later]]] = rows(server, store.settings, f"SELECT timestamp FROM events WHERE position = {later[0]}")
    assert manifest.complete_to == first_later < manifest.created_at, "what was committed since is not in it"
    held.commit()
    second = await create_backup(store, archive)
    assert second.complete_to == second.created_at
    assert second.events == 28
    await restore_backup(other, archive, second)
    assert rows(server, other, EVENTS) == rows(server, store.settings, EVENTS)


async def test_a_backup_waits_for_an_append_that_ends_soon(
    store: EventStore, archive: Archive, held: psycopg.Connection[Any], superuser_url: str
) -> None:
    append_raw(held, 1)
    later = await say(store)
    making = asyncio.create_task(create_backup(store, archive))

    async def waits() -> bool:
        with psycopg.connect(superuser_url) as other:
            row = other.execute(query("agent_manager.backup", "lock"), {"kind": 0}).fetchone()
        return row == (False,)

    await until_async(waits, "the backup has begun")
    held.commit()
    manifest = await making
    assert manifest.events == 2
    assert manifest.position >= later
    assert manifest.complete_to == manifest.created_at


@pytest.mark.slow
async def test_a_held_append_that_is_rolled_back_leaves_a_gap_and_no_event(
    server: DatabaseServer, store: EventStore, archive: Archive, other: Settings, short_wait: None,
    held: psycopg.Connection[Any],
) -> None:  # fmt: skip
    append_raw(held, 1)
    await say(store)
    await create_backup(store, archive)
    held.rollback()
    manifest = await create_backup(store, archive)
    await restore_backup(other, archive, manifest)
    assert rows(server, other, EVENTS) == rows(server, store.settings, EVENTS)
    assert manifest.events == 1


@pytest.mark.slow
async def test_users_and_keys_that_are_added_meanwhile_have_their_tenants_in_the_backup(
    store: EventStore, archive: Archive, server: DatabaseServer
) -> None:
    identities = Identities(store)
    added = 0

    async def add() -> None:
        nonlocal added
        while True:
            tenant = f"tenant-{added}"
            await identities.add_tenant(tenant)
            await identities.add_user(tenant, "ana")
            await identities.add_key(tenant, "first", user="ana")
            added += 1

    async def more_than(number: int) -> bool:
        return added > number

    adding = asyncio.create_task(add())
    try:
        for _ in range(20):
            await until_async(partial(more_than, added), "a further tenant")
            manifest = await create_backup(store, archive)
            tables = {
                name: [line.split(b"\t") for line in b"".join(archive.read_part(part)).splitlines()]
                for name, part in manifest.tables.items()
            }
            tenants = {row[0] for row in tables["identity_tenants"]}
            assert {row[0] for row in tables["identity_users"]} <= tenants
            assert {row[1] for row in tables["identity_keys"]} <= {row[0] for row in tables["identity_users"]}
    finally:
        await cancel_and_wait([adding])


async def test_only_one_backup_is_made_at_a_time(store: EventStore, archive: Archive, superuser_url: str) -> None:
    with psycopg.connect(superuser_url) as other:
        other.execute(query("agent_manager.backup", "lock"), {"kind": 0})
        with pytest.raises(BackupRunning, match="wait until it has ended"):
            await create_backup(store, archive)
    await create_backup(store, archive)


async def test_backups_of_another_log_are_not_continued(
    server: DatabaseServer, store: EventStore, archive: Archive
) -> None:
    await say(store, 15)
    await create_backup(store, archive)
    name = server.create_database()
    try:
        async with EventStore(ServerSettings(database_url=server.url(name))) as another:
            await say(another, 30)
            with pytest.raises(BackupMismatch, match="another log"):
                await create_backup(another, archive)
    finally:
        server.drop_database(name)
    assert len(archive.ids()) == 1


@pytest.mark.slow
async def test_a_log_is_restored_up_to_a_position_or_a_time(
    server: DatabaseServer, store: EventStore, archive: Archive, other: Settings
) -> None:
    positions = [await say(store) for _ in range(25)]
    manifest = await create_backup(store, archive)
    [events] = rows(server, store.settings, EVENTS)
    time = events[16][1]
    expected = [event for event in events if event[1] <= time]
    restored = await restore_backup(other, archive, manifest, time=time)
    assert (restored.events, restored.position) == (17, positions[16])
    assert rows(server, other, EVENTS) == [expected]
    name = server.create_database(migrated=False)
    try:
        again = ServerSettings(database_url=server.url(name))
        restored = await restore_backup(again, archive, manifest, position=positions[4])
        assert (restored.events, restored.position) == (5, positions[4])
        async with EventStore(again) as continued:
            assert await say(continued) > positions[-1], "positions that were assigned are not assigned again"
        with pytest.raises(DatabaseNotEmpty):
            await restore_backup(again, archive, manifest)
    finally:
        server.drop_database(name)


async def test_a_worker_on_the_restored_database_misses_nothing(
    server: DatabaseServer, settings: Settings, store: EventStore, archive: Archive
) -> None:
    await fill(store)
    manifest = await create_backup(store, archive)
    name = server.create_database()
    try:
        other = ServerSettings(database_url=server.url(name))
        async with EventStore(other) as running:
            worker = asyncio.create_task(Worker(running).run())
            try:
                await restore_backup(other, archive, manifest)
            finally:
                await cancel_and_wait([worker])
        assert rows(server, other, EVENTS, *READ_TABLES) == rows(server, settings, EVENTS, *READ_TABLES)
    finally:
        server.drop_database(name)


@pytest.mark.slow
async def test_a_backup_beyond_the_damage_or_before_it_is_restored(
    store: EventStore, archive: Archive, other: Settings
) -> None:
    positions = [await say(store) for _ in range(25)]
    manifest = await create_backup(store, archive)
    archive.target.delete(manifest.segments[2].name)
    with pytest.raises(BackupDamaged, match="is missing"):
        await restore_backup(other, archive, manifest)
    assert (await restore_backup(other, archive, manifest, position=positions[19])).events == 20


@pytest.mark.slow
@pytest.mark.parametrize("roles", ["created", "missing", "present"])
async def test_a_backup_is_restored_whatever_roles_the_server_has(
    server: DatabaseServer, store: EventStore, archive: Archive, own_server: EmbeddedServer, roles: str
) -> None:
    await fill(store)
    manifest = await create_backup(store, archive)
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute("CREATE ROLE theirs LOGIN; CREATE ROLE agents; GRANT agents TO theirs")
        if roles == "missing":
            superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
        if roles == "present":
            superuser.execute("CREATE DATABASE first OWNER eventstore TEMPLATE template0")
            url = own_server.url(database="first")
            Migrator(url, ServerSettings(database_url=url)).up()
            superuser.execute("GRANT eventstore_reader TO theirs")
    other = ServerSettings(database_url=own_server.url())
    await restore_backup(other, archive, manifest)
    with psycopg.connect(own_server.superuser_url) as superuser:
        restored = [superuser.execute(statement.encode()).fetchall() for statement in (EVENTS, *READ_TABLES)]
    assert restored == rows(server, store.settings, EVENTS, *READ_TABLES)
    findings = Migrator(own_server.url(), other).findings()
    assert bool(findings) == (roles == "missing")


@pytest.mark.slow
async def test_the_read_tables_of_a_large_log_are_rebuilt(
    server: DatabaseServer, store: EventStore, archive: Archive, other: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "REBUILD_EVENTS", 20)
    await fill(store)
    await restore_backup(other, archive, await create_backup(store, archive))
    assert rows(server, other, EVENTS, *READ_TABLES) == rows(server, store.settings, EVENTS, *READ_TABLES)


async def test_a_database_of_another_version_is_not_migrated_by_a_restore(
    store: EventStore, intact: Archive, server: DatabaseServer
) -> None:
    name = server.create_database()
    settings = ServerSettings(database_url=server.url(name))
    try:
        with psycopg.connect(server.url(name), autocommit=True) as connection:
            connection.execute(
                "DELETE FROM eventstore_migrations WHERE version = (SELECT max(version) FROM eventstore_migrations)"
            )
        with pytest.raises(SchemaTooOld, match="eventstore migrate up"):
            await restore_backup(settings, intact, intact.manifest())
    finally:
        server.drop_database(name)


def test_every_column_is_backed_up(server: DatabaseServer, settings: Settings) -> None:
    for table, columns in {"events": EVENT_COLUMNS, **TABLES}.items():
        of_table = f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
        [found] = rows(server, settings, f"{of_table} AND NOT attisdropped")
        assert {name for (name,) in found} == set(columns), table


@pytest.fixture
async def intact(store: EventStore, archive: Archive) -> Archive:
    await fill(store)
    await create_backup(store, archive)
    await say(store, 8)
    await create_backup(store, archive)
    return archive


def damaged(whole: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Yield the content of a file with a bit of each of these bytes changed; at some also white space, or an end."""
    for number, place in enumerate(places):
        before, byte, after = whole[:place], whole[place], whole[place + 1 :]
        others = {byte ^ (1 << place % 8)} | ({0x20, 0x0A, 0x0D} - {byte} if number % 16 == 0 else set())
        yield from (before + bytes([other]) + after for other in others)
        if len(others) > 1:
            yield from (before, before + after)
    yield from (whole + b"\0", whole + b"\n", b"\n" + whole, whole + whole)


@pytest.mark.parametrize(
    "every_byte", [pytest.param(True, marks=pytest.mark.slow, id="every byte"), pytest.param(False, id="some bytes")]
)
async def test_every_damaged_byte_is_found_and_the_database_is_not_touched(
    store: EventStore, archive: Archive, tmp_path: Path, every_byte: bool
) -> None:
    await Identities(store).add_key("default", "first")
    await say(store)
    await store_blob(store, b"a file", UUID(int=7))
    manifest = await create_backup(store, archive)
    folder = tmp_path / "backups"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 10
    assert verify_backups(archive)[1] == []
    nowhere = ServerSettings(database_url="postgresql://nobody@127.0.0.1:1/nowhere")
    with pytest.raises(ServerUnreachable):
        await restore_backup(nowhere, archive, manifest)
    rng = random.Random(5)
    for path in files:
        whole = path.read_bytes()
        places = range(len(whole)) if every_byte else rng.sample(range(len(whole)), 8)
        for number, content in enumerate(damaged(whole, places)):
            path.write_bytes(content)
            assert [fault.name for fault in verify_backups(archive)[1]] == [str(path.relative_to(folder))]
            if number % 8 == 0:
                with pytest.raises(BackupDamaged):
                    await restore_backup(nowhere, archive, archive.manifest())
        path.write_bytes(whole)
    for path, other in itertools.permutations(files, 2):
        whole = path.read_bytes()
        if other.read_bytes() == whole:  # both tables are empty
            continue
        path.write_bytes(other.read_bytes())
        assert str(path.relative_to(folder)) in [fault.name for fault in verify_backups(archive)[1]]
        path.write_bytes(whole)
    assert verify_backups(archive)[1] == []


async def test_missing_and_renamed_files_are_found(intact: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    manifests = [intact.manifest(each) for each in intact.ids()]
    for name in {part.name for manifest in manifests for part in manifest.parts}:
        (folder / name).rename(folder / "away")
        assert [(fault.name, fault.reason) for fault in verify_backups(intact)[1]] == [(name, "is missing")]
        (folder / "away").rename(folder / name)
    first, second = (f"manifests/{each}.json" for each in intact.ids())
    (folder / second).rename(folder / "away")
    assert set(intact.unnamed_files(verify_backups(intact)[0])) == {
        part.name for part in manifests[1].parts if part not in manifests[0].parts
    }
    shutil.copy(folder / first, folder / second)
    assert [fault.name for fault in verify_backups(intact)[1]] == [second]


async def test_no_manifest_is_taken_that_names_other_files_or_tables(intact: Archive, tmp_path: Path) -> None:
    manifest = intact.manifest()
    segment, tables = manifest.segments[0], manifest.tables
    for update in (
        {"segments": (segment.model_copy(update={"name": "../victim"}),)},
        {"segments": manifest.segments[::-1]},
        {"segments": (segment, segment)},
        {"segments": (segment.model_copy(update={"columns": ("position",)}),)},
        {"tables": {**tables, "bound_logins": tables["identity_keys"]}},
        {"tables": {**tables, "identity_keys": tables["identity_users"]}},
    ):
        intact.write_manifest(manifest.model_copy(update=update), is_complete=True)
        assert [fault.reason for fault in verify_backups(intact)[1]] == ["is not the manifest that was written"]
        with pytest.raises(BackupDamaged):
            prune(intact, Retention(1, 0, 0))


def forge(archive: Archive, manifest: Manifest, number: int, text: bytes) -> None:
    """Replace the text of a segment, and everything that the manifest holds of it."""
    content = gzip.compress(text)
    segment = manifest.segments[number]
    archive.target.write(segment.name, iter([content]))
    sha256 = hashlib.sha256(content).hexdigest()
    forged = segment.model_copy(update={"rows": text.count(b"\n"), "size": len(content), "sha256": sha256})
    segments = (*manifest.segments[:number], forged, *manifest.segments[number + 1 :])
    archive.write_manifest(manifest.model_copy(update={"segments": segments}), is_complete=True)


async def test_content_that_fits_a_changed_manifest_is_found_by_the_digests_of_the_events(
    intact: Archive, other: Settings
) -> None:
    manifest = intact.manifest()
    text = b"".join(intact.read_part(manifest.segments[0]))
    lines = text.splitlines(keepends=True)
    for forged in (
        text.replace(b"trip", b"trap", 1),
        b"".join([lines[1], lines[0], *lines[2:]]),
        b"".join(lines[:-1]),
        b"".join(lines[1:]),
        b"".join([*lines[:3], lines[3], *lines[3:]]),
        text.replace(b"\t", b" "),
        b"x" + text,
        text + b"no line feed",
        b"\n" * 10,
    ):
        assert forged != text
        forge(intact, manifest, 0, forged)
        assert {fault.name for fault in verify_backups(intact)[1]} == {manifest.segments[0].name}
    forge(intact, manifest, 0, text.replace(b"trip", b"trap", 1))
    with pytest.raises(BackupDamaged, match="has not the digest of its content"):
        await restore_backup(other, intact, intact.manifest())


@pytest.mark.slow
async def test_a_manifest_that_lacks_a_segment_is_not_restored(
    store: EventStore, archive: Archive, other: Settings, server: DatabaseServer
) -> None:
    conversation = uuid4()
    for _ in range(3):
        await say(store, 10, conversation)
    manifest = await create_backup(store, archive)
    assert len(manifest.segments) == 3
    without = manifest.model_copy(update={"segments": manifest.segments[::2]})
    with pytest.raises(BackupDamaged, match=f"the conversation {conversation} lacks events"):
        await restore_backup(other, archive, without)
    assert rows(server, other, EVENTS) == [[]]
    assert (await restore_backup(other, archive, manifest)).events == 30


async def test_an_event_that_was_changed_in_the_database_is_found_in_its_backup(
    server: DatabaseServer, store: EventStore, archive: Archive, superuser_url: str, other: Settings
) -> None:
    await say(store, 15)
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute("SET session_replication_role = replica")
        superuser.execute("ALTER TABLE events DISABLE TRIGGER ALL")
        superuser.execute('UPDATE events SET content = content || \'{"content": "forged"}\' WHERE position = 12')
        superuser.execute("ALTER TABLE events ENABLE ALWAYS TRIGGER events_are_append_only")
        superuser.execute("ALTER TABLE events ENABLE ALWAYS TRIGGER event_is_append_only")
    manifest = await create_backup(store, archive)
    [fault] = verify_backups(archive)[1]
    assert fault.reason == "the event at position 12 has not the digest of its content"
    with pytest.raises(BackupDamaged, match="position 12 has not the digest"):
        await restore_backup(other, archive, manifest)


@pytest.mark.slow
async def test_a_drill_restores_the_newest_backup_and_compares_it_with_the_live_log(
    store: EventStore, archive: Archive, superuser_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir(mode=0o755)
    with pytest.raises(NotFound, match="eventstore backup create"):
        await drill(store, archive)
    assert last_drill(archive) is None
    await say(store, 15)
    manifest = await create_backup(store, archive)
    await say(store, 4)
    done = await drill(store, archive)
    assert (done.backup_id, done.events, done.events_since) == (manifest.id, 15, 4)
    assert done.recovery_seconds > 0
    assert done.age_seconds >= 0
    assert last_drill(archive) == done
    assert list((tmp_path / "temporary").iterdir()) == []
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute("ALTER TABLE events DISABLE TRIGGER ALL")
        superuser.execute("UPDATE events SET digest = sha256('forged') WHERE position = 12")
    with pytest.raises(DrillFailed, match="positions 11 and 15"):
        await drill(store, archive)
    failed = last_drill(archive)
    assert failed is not None
    assert "positions 11 and 15" in failed.failure
    assert list((tmp_path / "temporary").iterdir()) == []


async def test_only_one_drill_is_made_at_a_time(store: EventStore, archive: Archive, superuser_url: str) -> None:
    with psycopg.connect(superuser_url) as other:
        other.execute(query("agent_manager.backup", "lock"), {"kind": 1})
        with pytest.raises(DrillRunning, match="wait until it has ended"):
            await drill(store, archive)
        await create_backup(store, archive)


def test_files_can_be_read_with_zcat_alone(intact: Archive, tmp_path: Path) -> None:
    segment = intact.manifest().segments[0]
    lines = gzip.decompress((tmp_path / "backups" / segment.name).read_bytes()).decode().splitlines()
    assert lines[0].split("\t")[0] == str(segment.first)


async def test_pruning_deletes_exactly_the_files_that_no_backup_needs(
    store: EventStore, archive: Archive, other: Settings, tmp_path: Path
) -> None:
    for _ in range(4):
        await say(store, 3)
        await create_backup(store, archive)
    ids = archive.ids()
    assert prune(archive, Retention(daily=1, weekly=1, monthly=1)) == ids[:3]
    assert archive.ids() == ids[3:]
    kept = {str(path.relative_to(tmp_path / "backups")) for path in (tmp_path / "backups").rglob("*.gz")}
    assert kept == {part.name for part in archive.manifest().parts}
    await say(store, 3)
    manifest = await create_backup(store, archive)
    assert (await restore_backup(other, archive, manifest)).events == 15


async def test_pruning_deletes_remnants_that_no_backup_names(intact: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    remnants = [folder / name for name in ("log/.part", "log/1-2.copy.gz", "identity/x.copy.gz", "manifests/.x.json.1")]
    for remnant in remnants:
        remnant.touch()
    assert prune(intact, Retention()) != []
    assert all(remnant.exists() for remnant in remnants), "another process may be writing them"
    for path in folder.rglob("*.*"):
        os.utime(path, (0, 0))
    assert prune(intact, Retention()) == []
    assert not any(remnant.exists() for remnant in remnants)
    assert verify_backups(intact)[1] == []


def test_a_target_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "backups").write_text("a file, not a folder")
    archive = Archive(open_target(str(tmp_path / "backups")))
    for use in (archive.ids, archive.incomplete, lambda: archive.write_drill(b"")):
        with pytest.raises(TargetFailed, match="name another directory or bucket"):
            use()


@given(st.lists(st.integers(0, 24 * 400), unique=True, min_size=1), st.tuples(*[st.integers(0, 5)] * 3))
def test_the_last_backup_of_each_period_is_kept(hours: list[int], numbers: tuple[int, int, int]) -> None:
    begin = datetime(2025, 12, 30, tzinfo=UTC)
    manifests = [
        Manifest(
            format=1,
            created_at=begin + timedelta(hours=hour),
            complete_to=begin,
            position=0,
            server_version="",
            segments=(),
            tables={},
        )
        for hour in hours
    ]
    times = sorted((begin + timedelta(hours=hour) for hour in hours), reverse=True)
    expected = {times[0]}
    for number, form in zip(numbers, ("%Y-%m-%d", "%G-%V", "%Y-%m"), strict=True):
        periods = sorted({time.strftime(form) for time in times}, reverse=True)[:number]
        expected |= {next(time for time in times if time.strftime(form) == period) for period in periods}
    kept = Retention(*numbers).kept(manifests)
    assert kept == {manifest.id for manifest in manifests if manifest.created_at in expected}


def test_a_target_is_written_for_its_user_alone(intact: Archive, tmp_path: Path) -> None:
    for path in (tmp_path / "backups").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    shutil.rmtree(tmp_path / "backups")
    assert intact.ids() == []


@pytest.mark.slow
async def test_a_restored_fork_shows_what_it_shares(store: EventStore, archive: Archive, other: Settings) -> None:
    trip = uuid4()
    await say(store, 3, conversation=trip)
    forked = await store.fork(trip, 2, events=[MessageAdded(role="user", content="own")])
    fork = forked.events[0].conversation_id
    await catch_up(store)
    await restore_backup(other, archive, await create_backup(store, archive))
    async with EventStore(other) as restored:
        shown = [await Reader(each).messages(fork) for each in (store, restored)]
    assert [len(messages) for messages in shown] == [3, 3]
    assert shown[0] == shown[1]
