"""A backup has the sealed log, and its events are restored only if they are those that were sealed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.sealing import RECOMPUTE, append, create_keys, seal, sealing_settings, tampering, verified
from support.servers import DatabaseServer

from agent_manager.audit.notes import KeyFile
from agent_manager.audit.proofs import prove
from agent_manager.backup import Archive, Manifest, create_backup, open_target, restore_backup, verify_backups
from agent_manager.backup import create as creating
from agent_manager.backup.archive import BackupDamaged
from agent_manager.settings import ServerSettings
from eventstore import EventStore

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(settings: ServerSettings, tmp_path: Path) -> ServerSettings:
    return sealing_settings(settings, tmp_path)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(open_target(str(tmp_path / "backups")))


@pytest.fixture
def other(server: DatabaseServer, settings: ServerSettings, tmp_path: Path) -> Iterator[ServerSettings]:
    """The settings of an empty database, with the same keys."""
    name = server.create_database(migrated=False)
    yield sealing_settings(ServerSettings(database_url=server.url(name)), tmp_path)
    server.drop_database(name)


@pytest.fixture
def keys(settings: ServerSettings) -> KeyFile:
    assert settings.audit_key is not None
    return KeyFile.read(settings.audit_key)


def sealed_rows(server: DatabaseServer, settings: ServerSettings) -> list[list[Any]]:
    url = settings.server_url()
    assert url is not None
    with psycopg.connect(server.superuser_url_of(url.rpartition("/")[2].partition("?")[0])) as connection:
        statements = (f"SELECT * FROM {table} ORDER BY 1, 2" for table in ("audit_tiles", "audit_checkpoints"))
        return [connection.execute(statement.encode()).fetchall() for statement in statements]


def parts(manifest: Manifest, table: str) -> list[int]:
    return [part.rows for part in manifest.sealed if part.table == table]


async def test_tiles_and_checkpoints_are_restored_and_sealing_continues(
    server: DatabaseServer,
    settings: ServerSettings,
    store: EventStore,
    archive: Archive,
    other: ServerSettings,
    keys: KeyFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(creating, "SEGMENT_EVENTS", 2)
    for number in (300, 300, 100):
        await append(store, number)
        await seal(store)
        manifest = await create_backup(store, archive)
    assert (parts(manifest, "audit_tiles"), parts(manifest, "audit_checkpoints")) == ([1, 1], [1, 1, 1])
    assert verify_backups(archive)[1] == []
    await restore_backup(other, archive, manifest)
    assert sealed_rows(server, other) == sealed_rows(server, settings)
    async with EventStore(other) as restored:
        await append(restored, 100)
        assert await seal(restored) == 801  # with the act of the restore
        found = await verified(restored, keys)
        assert (found.faults, found.checkpoints) == ([], 4)
        (await prove(restored, 650)).check()


async def test_a_backup_without_new_checkpoints_has_the_files_of_the_one_before(
    settings: ServerSettings, store: EventStore, archive: Archive
) -> None:
    await append(store, 300)
    await seal(store)
    first = await create_backup(store, archive)
    second = await create_backup(store, archive)
    assert second.sealed == first.sealed
    whole = await create_backup(store, archive, is_full=True)
    assert [part.name for part in whole.sealed] == [part.name for part in first.sealed]


async def test_what_was_sealed_later_than_the_restored_events_is_left_out(
    settings: ServerSettings, store: EventStore, archive: Archive, other: ServerSettings, keys: KeyFile
) -> None:
    for number in (300, 300):
        await append(store, number)
        await seal(store)
    manifest = await create_backup(store, archive)
    await restore_backup(other, archive, manifest, position=400)
    async with EventStore(other) as restored:
        found = await verified(restored, keys)
        assert (found.faults, found.sealed, found.unsealed) == ([], 300, 101)  # with the act of the restore


async def test_events_that_were_changed_before_the_backup_are_not_restored(
    settings: ServerSettings, store: EventStore, archive: Archive, other: ServerSettings, superuser_url: str
) -> None:
    await append(store, 300)
    await seal(store)
    with tampering(superuser_url) as superuser:
        superuser.execute("UPDATE events SET actor = 'nobody' WHERE position = 42")
        superuser.execute(RECOMPUTE.encode())
    manifest = await create_backup(store, archive)
    assert verify_backups(archive)[1] == []
    with pytest.raises(BackupDamaged, match=r"the event at position 42 .* was changed since it was sealed"):
        await restore_backup(other, archive, manifest)


async def test_a_checkpoint_that_the_log_has_not_signed_is_not_restored(
    settings: ServerSettings, store: EventStore, archive: Archive, other: ServerSettings, tmp_path: Path
) -> None:
    await append(store, 3)
    await seal(store)
    manifest = await create_backup(store, archive)
    create_keys(tmp_path / "others.key")
    trusting = other.model_copy(update={"audit_key": tmp_path / "others.key"})
    with pytest.raises(BackupDamaged, match="not by a key that is trusted"):
        await restore_backup(trusting, archive, manifest)
    unsigned = other.model_copy(update={"audit_key": None})  # without a key, the roots count
    assert (await restore_backup(unsigned, archive, manifest)).events == 3
