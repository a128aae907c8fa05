"""A migration imports everything as it was, repeated only what is new, and reports every difference."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.demoapp import AgentCard, Application, Manager, Message

from agent_manager.importers import import_backup, migrate
from agent_manager.importers.a2a_demo import EndpointSource, ManagerSource
from agent_manager.importers.backup import BackupMismatch, BackupSource, open_backup
from agent_manager.importers.migration import MigrationReport, SourceContradictsStore
from agent_manager.importers.verify import verify_backup
from eventstore import (
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationRenamed,
    EventStore,
    MessageAdded,
    TaskCreated,
    TaskStatusChanged,
    conversation_uuid,
)
from projections import Reader

pytestmark = pytest.mark.shared_database


async def migrated(manager: Manager, store: EventStore, backups: Path) -> MigrationReport:
    return await migrate(ManagerSource(manager), store, backups=backups)


async def sent_messages(store: EventStore, conversation: str) -> list[dict[str, Any]]:
    """Return the messages of a conversation as they were sent, in the order of the log."""
    messages = await Reader(store).messages(conversation_uuid(store.tenant, conversation))
    return [message.sent for message in messages]


async def test_everything_is_imported_as_it_was(manager: Manager, store: EventStore, backups: Path) -> None:
    report = await migrated(manager, store, backups)
    assert report.is_clean
    assert (report.verified.conversations, report.verified.messages, report.verified.tasks) == (2, 10, 4)
    for conversation in manager.conversations:
        read = [Message.model_validate(message) for message in await sent_messages(store, conversation.conversation_id)]
        assert read == conversation.messages
    assert (await sent_messages(store, "first"))[0]["metadata"] == {"nothing": None, "one": 1.0, "yes": True}
    second = await Reader(store).conversation("second")
    assert (second.given_id, second.name, second.is_active, second.message_count) == ("second", "Second", False, 5)


async def test_a_message_keeps_the_time_of_its_event(manager: Manager, store: EventStore, backups: Path) -> None:
    report = await migrated(manager, store, backups)
    assert report.is_clean
    messages = await Reader(store).messages(conversation_uuid(store.tenant, "second"))
    times = {event.content.message_id: event.timestamp for event in manager.events}
    replies = [message for message in messages if message.role == "assistant"]
    assert [reply.created_at for reply in replies] == [
        datetime.fromtimestamp(times[str(reply.given_id)], UTC) for reply in replies
    ]


async def test_a_second_migration_imports_only_what_is_new(manager: Manager, store: EventStore, backups: Path) -> None:
    assert (await migrated(manager, store, backups)).new_events > 0
    assert (await migrated(manager, store, backups)).new_events == 0
    manager.add_message(
        {"role": "user", "messageId": "m0", "contextId": "first", "parts": [{"kind": "text", "text": "again"}]}
    )
    manager.create_conversation("third")
    manager.tasks[0].status |= {"state": "failed"}
    (manager.tasks[1].artifacts or []).append({"artifactId": "more", "parts": []})
    manager.conversations[0].name = "First"
    manager.conversations[1].is_active = True
    manager.agents.append(AgentCard(name="a", url="http://a"))
    report = await migrated(manager, store, backups)
    assert report.is_clean
    kinds = [event.event_type async for event in store.read_log()][-report.new_events :]
    assert sorted(set(kinds)) == [
        "agent.registered", "conversation.created", "conversation.reactivated", "conversation.renamed", "message.added",
        "task.artifact_added", "task.status_changed",
    ]  # fmt: skip
    assert kinds.count("message.added") == 1
    assert [one["parts"][0]["text"] for one in await sent_messages(store, "first")].count("again") == 2


async def test_a_migration_over_http_equals_one_from_memory(
    manager: Manager, url: str, store: EventStore, backups: Path
) -> None:
    async with EndpointSource(url) as source:
        report = await migrate(source, store, backups=backups)
    assert report.is_clean
    assert (await migrated(manager, store, backups)).new_events == 0


async def test_files_that_the_server_stored_separately_are_fetched(
    manager: Manager, url: str, store: EventStore, backups: Path
) -> None:
    async with EndpointSource(url) as source:
        await source.call("message/list", "first")
        report = await migrate(source, store, backups=backups)
    assert report.is_clean
    parts = [part for message in await sent_messages(store, "first") for part in message["parts"] if "file" in part]
    assert {part["file"]["bytes"] for part in parts} == {"//777w=="}
    assert all(part["file"]["mimeType"] == "image/png" for part in parts)


async def test_files_that_are_stored_separately_later_make_no_new_messages(
    manager: Manager, url: str, store: EventStore, backups: Path
) -> None:
    await migrated(manager, store, backups)
    async with EndpointSource(url) as source:
        await source.call("message/list", "first")
        report = await migrate(source, store, backups=backups)
    assert report.is_clean
    assert report.new_events == 0


async def test_a_file_that_only_the_server_has_is_reported(manager: Manager, store: EventStore, backups: Path) -> None:
    application = Application(manager)
    application.result("message/list", "first")
    report = await migrated(manager, store, backups)
    assert {problem.conversation for problem in report.problems} == {"first"}
    assert "files=" in report.problems[0].reason
    parts = {key: {"file": file} for key, file in application.files.items()}
    report = await migrate(ManagerSource(manager, parts), store, backups=backups, tenant="another")
    assert report.is_clean


async def test_messages_of_unknown_contexts_and_tasks_without_context_are_imported(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    manager.reply_to(manager.add_message({"role": "user", "messageId": "s", "contextId": "nowhere", "parts": []}))
    manager.reply_to(manager.add_message({"role": "user", "messageId": "t", "contextId": "", "parts": []}))
    report = await migrated(manager, store, backups)
    assert report.is_clean
    assert report.verified.conversations == 4
    assert (await sent_messages(store, "nowhere"))[0]["messageId"] == "s"
    assert (await sent_messages(store, "without-context"))[0]["messageId"] == "t"


async def test_a_task_that_changed_completely_is_imported_completely(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    await migrated(manager, store, backups)
    manager.tasks[0] = manager.tasks[0].model_copy(
        update={"status": {"state": "odd"}, "history": None, "artifacts": []}
    )
    assert (await migrated(manager, store, backups)).is_clean
    assert (await migrated(manager, store, backups)).new_events == 0


async def test_two_artifacts_with_the_same_id_are_both_kept(manager: Manager, store: EventStore, backups: Path) -> None:
    artifacts = [{"artifactId": "a", "parts": [{"kind": "text", "text": text}]} for text in ("one", "two")]
    manager.tasks[0].artifacts = artifacts
    assert (await migrated(manager, store, backups)).is_clean
    assert (await migrated(manager, store, backups)).new_events == 0


async def test_a_long_name_is_kept_whole(manager: Manager, store: EventStore, backups: Path) -> None:
    manager.conversations[0].name = "n" * 300
    assert (await migrated(manager, store, backups)).is_clean
    row = await Reader(store).conversation("first")
    assert row.name == "n" * 255
    assert row.metadata == {"name": "n" * 300}


async def test_changes_by_users_of_the_store_are_not_overwritten(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    await migrated(manager, store, backups)
    first, second = (conversation_uuid(store.tenant, name) for name in ("first", "second"))
    task = next(iter(await Reader(store).tasks(first))).id
    await store.append(first, [ConversationRenamed(name="Local"), TaskStatusChanged(task_id=task, status="failed")])
    await store.append(first, [ConversationArchived()])
    await store.append(second, [MessageAdded(role="user", content="local", given_id="m9")])
    report = await migrated(manager, store, backups)
    assert report.is_clean
    assert report.new_events == 0
    assert list(report.verified.changed) == ["first"]
    assert (await Reader(store).conversation("first")).name == "Local"


async def test_a_conversation_with_a_message_that_cannot_be_stored_is_reported_and_skipped(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    manager.add_message({"role": "user", "messageId": "x", "contextId": "first", "parts": [{"text": "a\0b"}]})
    report = await migrated(manager, store, backups)
    assert not report.is_clean
    assert [problem.conversation for problem in report.problems] == ["first"]
    assert "NUL" in report.problems[0].reason
    assert report.verified.differing == ["first"]
    assert len(await sent_messages(store, "second")) == 5


async def test_reserved_ids_are_rejected(manager: Manager, store: EventStore, backups: Path) -> None:
    manager.create_conversation("eventstore:agents")
    report = await migrated(manager, store, backups)
    assert [problem.conversation for problem in report.problems] == ["eventstore:agents"]


async def test_messages_that_await_an_answer_are_counted(manager: Manager, store: EventStore, backups: Path) -> None:
    manager.pending = [("m0", ""), ("m1", "")]
    report = await migrated(manager, store, backups)
    assert any("2 message(s) awaited an answer" in line for line in report.lines())


async def test_a_backup_can_be_imported_again(manager: Manager, store: EventStore, backups: Path) -> None:
    other_tenant = f"not {store.tenant}"
    first = await migrated(manager, store, backups)
    backup = open_backup(first.backup.path)
    assert (await import_backup(backup, store)).new_events == 0
    with pytest.raises(BackupMismatch, match=f"of tenant {store.tenant!r} from Manager, not of {other_tenant!r}"):
        await import_backup(backup, store, tenant=other_tenant)
    report = await migrate(BackupSource(backup), store, backups=backups, tenant=other_tenant)
    assert report.is_clean
    assert report.new_events == first.new_events
    assert (report.backup.tenant, report.backup.source) == (other_tenant, "Manager")


@pytest.mark.parametrize("place", [0, 2], ids=["the first", "a later one"])
async def test_if_a_message_was_edited_nothing_is_written(
    manager: Manager, store: EventStore, backups: Path, place: int
) -> None:
    before = await migrated(manager, store, backups)
    manager.create_conversation("third")
    manager.conversations[0].messages[place].role = "system"
    with pytest.raises(SourceContradictsStore, match="'first' is another in the store"):
        await migrated(manager, store, backups)
    assert sum([1 async for _ in store.read_log()]) == before.new_events
    assert (await import_backup(before.backup, store)).is_clean


async def test_a_conversation_that_users_of_the_store_deleted_is_not_continued(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    await migrated(manager, store, backups)
    await store.append(conversation_uuid(store.tenant, "first"), [ConversationDeleted()])
    manager.add_message({"role": "user", "messageId": "m9", "contextId": "first", "parts": []})
    report = await migrated(manager, store, backups)
    assert (report.is_clean, report.new_events, report.verified.hidden) == (True, 0, {"first"})


async def test_messages_that_memory_has_dropped_stay_in_the_store(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    await migrated(manager, store, backups)
    manager.remove_messages(manager.conversations[0].messages[:2])
    manager.add_message({"role": "user", "messageId": "m9", "contextId": "first", "parts": []})
    report = await migrated(manager, store, backups)
    assert (report.is_clean, report.new_events) == (True, 1)


async def test_a_conversation_that_was_not_imported_is_not_continued(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    local = [ConversationCreated(given_id="second"), MessageAdded(role="user", content="local", given_id="o")]
    await store.append(conversation_uuid(store.tenant, "second"), local)
    with pytest.raises(SourceContradictsStore, match="it begins with message 'm0', there with message"):
        await migrated(manager, store, backups)
    assert sum([1 async for _ in store.read_log()]) == 2


async def test_first_messages_by_users_of_the_store_are_no_contradiction(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    manager.create_conversation("third")
    await migrated(manager, store, backups)
    await store.append(conversation_uuid(store.tenant, "third"), [MessageAdded(role="user", content="local")])
    manager.add_message({"role": "user", "messageId": "remote", "contextId": "third", "parts": []})
    assert (await migrated(manager, store, backups)).is_clean


async def test_a_uuid_and_the_text_that_it_is_made_from_are_two_conversations(store: EventStore, backups: Path) -> None:
    as_text, as_uuid, as_both = Manager(), Manager(), Manager()
    for manager in (as_text, as_both):
        manager.create_conversation("first")
    for manager in (as_uuid, as_both):
        manager.create_conversation(str(conversation_uuid(store.tenant, "first")))
    with pytest.raises(SourceContradictsStore, match="are one in the store"):
        await migrated(as_both, store, backups)
    await migrated(as_text, store, backups)
    with pytest.raises(SourceContradictsStore, match="there its id is 'first'"):
        await migrated(as_uuid, store, backups)


async def test_messages_without_context_of_two_sources_are_not_mixed(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    other = Manager()
    for each in (manager, other):
        each.add_message({"role": "user", "messageId": f"m{id(each)}", "contextId": "", "parts": []})
    await migrated(manager, store, backups)
    with pytest.raises(SourceContradictsStore, match="'without-context' is another"):
        await migrated(other, store, backups)


async def test_times_of_tasks_without_an_offset_are_in_the_given_zone(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    manager.tasks[0].status["timestamp"] = "2026-01-02T00:04:00"
    source = ManagerSource(manager)
    report = await migrate(source, store, backups=backups, time_zone="America/Sao_Paulo")
    assert report.backup.time_zone == "America/Sao_Paulo"
    tasks = await Reader(store).tasks(conversation_uuid(store.tenant, "first"))
    assert datetime(2026, 1, 2, 3, 4, tzinfo=UTC) in [task.created_at for task in tasks]


async def test_rows_lost_from_the_read_tables_are_reported(
    manager: Manager, store: EventStore, backups: Path, superuser_url: str
) -> None:
    report = await migrated(manager, store, backups)
    with psycopg.connect(superuser_url) as connection:
        connection.execute("DELETE FROM messages WHERE given_id = 'm1'")
        connection.execute("UPDATE messages SET parts = '[]' WHERE version = 2")
        connection.execute("UPDATE conversations SET name = 'x' WHERE given_id = 'second'")
    verified = await verify_backup(store, store.tenant, report.backup)
    assert verified.differing == ["first", "second"]
    places = {difference.place for difference in verified.differences if difference.conversation == "second"}
    assert {"name", "messages[0].parts", "messages[2]"} <= places


def test_the_test_application_writes_messages_as_a2a_does() -> None:
    wire = Message(role="user", parts=[], message_id="a").model_dump(mode="json", by_alias=True)
    assert wire["messageId"] == "a"
    assert wire["metadata"] is None


async def test_a_task_that_the_store_created_is_not_created_again(
    manager: Manager, store: EventStore, backups: Path
) -> None:
    await migrated(manager, store, backups)
    first = conversation_uuid(store.tenant, "first")
    await store.append(first, [TaskCreated(task_id=first, given_id="local", status="pending")])
    assert (await migrated(manager, store, backups)).new_events == 0
