"""Backups and erasures: what was erased is in no new backup, and no old one brings it back."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from support.commandline import Eventstore
from support.servers import DatabaseServer

from agent_manager.auth import Directory
from agent_manager.backup import Archive, Retention, create_backup, open_target, prune, restore_backup, verify_backups
from agent_manager.backup import create as creating
from agent_manager.backup.erasures import write_erasures
from agent_manager.settings import ServerSettings
from eventstore import ConversationCreated, EventStore, MessageAdded, Settings
from eventstore.errors import InputError
from projections import Reader, catch_up, verify

SECRET = "pomegranate"


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
    monkeypatch.setattr(creating, "SEGMENT_EVENTS", 4)


async def fill(store: EventStore) -> UUID:
    """Append a conversation with a secret among others; return its id."""
    conversation = uuid4()
    for number in range(4):
        text = SECRET if number == 1 else f"message {number}"
        target = conversation if number == 1 else uuid4()
        await store.append(
            target, [ConversationCreated(name=text), MessageAdded(role="user", content=text)], user="ana"
        )
    return conversation


def text_of(archive: Archive, backup_id: str) -> str:
    """All that the files of a backup hold."""
    return "\n".join(
        zlib.decompress(b"".join(archive.target.read(part.name)), 16 + zlib.MAX_WBITS).decode(errors="replace")
        for part in archive.manifest(backup_id).parts
    )


async def test_a_new_backup_does_not_hold_what_was_erased(store: EventStore, archive: Archive) -> None:
    conversation = await fill(store)
    old = await create_backup(store, archive)
    await store.erase(conversation)
    new = await create_backup(store, archive)
    assert SECRET in text_of(archive, old.id)
    assert SECRET not in text_of(archive, new.id)
    shared = {part.name for part in old.segments} & {part.name for part in new.segments}
    assert shared  # only the segments with erased events are written anew
    again = await create_backup(store, archive)
    assert again.segments[: len(new.segments) - 1] == new.segments[:-1]
    assert verify_backups(archive)[1] == []
    prune(archive, Retention(0, 0, 0))
    assert SECRET not in text_of(archive, archive.ids()[-1])
    assert len(archive.erasures()) == 1


async def test_an_old_backup_is_restored_without_what_was_erased_since(
    store: EventStore, archive: Archive, other: Settings
) -> None:
    conversation = await fill(store)
    old = await create_backup(store, archive)
    await store.append(conversation, [MessageAdded(role="user", content=SECRET)])
    await store.erase(conversation, reason="asked", actor="clerk")
    assert await write_erasures(store, archive) == 1
    assert await write_erasures(store, archive) == 0
    restored = await restore_backup(other, archive, old)
    assert (restored.events, restored.erased_again) == (8, 1)
    async with EventStore(other) as store:
        *events, receipt = [event async for event in store.read(conversation)]
        assert [event.is_erased for event in events] == [True, True]
        assert (receipt.event_type, receipt.content["reason"]) == ("conversation.erased", "asked")
        assert [message.content for message in await Reader(store).messages(conversation)] == [""]
        assert [row for found in await verify(store) for row in found.rows] == []
        # What follows in the restored log is not what was erased in the other one.
        new = await store.append(conversation, [MessageAdded(role="user", content="new")])
        third = await create_backup(store, archive, is_full=True)
        assert new.version == 4
    assert SECRET not in text_of(archive, third.id)


async def test_a_restored_log_that_was_erased_already_gets_no_second_receipt(
    store: EventStore, archive: Archive, other: Settings
) -> None:
    conversation = await fill(store)
    await store.erase(conversation)
    restored = await restore_backup(other, archive, await create_backup(store, archive))
    assert (restored.events, restored.erased_again) == (9, 0)


async def test_an_erased_user_is_not_restored(
    server: DatabaseServer, store: EventStore, archive: Archive, other: Settings
) -> None:
    directory = Directory(store)
    for user in ("ana", "ben"):
        await directory.add_user("default", user, name=user.title())
        await directory.add_key("default", "key", user=user)
    await fill(store)
    await catch_up(store)
    old = await create_backup(store, archive)
    assert [erasure.events async for erasure in store.erase_user("ana")] == [2, 2, 2, 2, 2]
    assert [user.id for user in await directory.users("default")] == ["ben"]
    await create_backup(store, archive)
    await restore_backup(other, archive, old)
    async with EventStore(other) as restored:
        assert [user.id for user in await Directory(restored).users("default")] == ["ben"]
        events = [event async for event in restored.read_log()]
        assert "ana" not in str([(event.actor, event.content, event.raw_metadata) for event in events])
        await Directory(restored).add_user("default", "ana")  # another person, or the same one again
        await create_backup(restored, archive, is_full=True)


async def test_a_database_that_was_restored_by_other_means_is_erased_again(
    store: EventStore, archive: Archive, other: Settings, eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await fill(store)
    old = await create_backup(store, archive)
    await restore_backup(other, archive, old)  # nothing is erased yet
    await store.erase(conversation)
    await write_erasures(store, archive)
    monkeypatch.setenv("DATABASE_URL", other.server_url() or "")
    done = await asyncio.to_thread(eventstore, "erase", "apply", str(archive.target))
    assert (done.code, done.lines) == (0, ["1 receipts: events of 1 conversation(s) were erased again"])
    async with EventStore(other) as restored:
        assert [event.is_erased async for event in restored.read(conversation)] == [True, True, False]


async def test_a_damaged_receipt_stops_a_restore(store: EventStore, archive: Archive, other: Settings) -> None:
    conversation = await fill(store)
    old = await create_backup(store, archive)
    await store.erase(conversation)
    await write_erasures(store, archive)
    [name] = archive.target.files("erasures")
    text = b"".join(archive.target.read(name))
    archive.target.write(name, iter((text.replace(b"true", b"false"),)))
    with pytest.raises(InputError, match="is not the receipt of an erasure that was written"):
        await restore_backup(other, archive, old)
