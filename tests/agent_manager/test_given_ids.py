"""The id of a conversation as its client gave it: every fold of the log yields the same one."""

from __future__ import annotations

from uuid import uuid4

from support.folding import fold, stored
from support.raw import insert_unchecked

from agent_manager.conversation_fold import ConversationFold
from agent_manager.importers.stored import read_stored
from agent_manager.storage import ServerLog
from eventstore import EventStore, TaskCreated, conversation_uuid
from projections import Reader, catch_up


async def test_every_fold_takes_the_first_id_that_is_the_conversations_own(
    store: EventStore, database_url: str, superuser_url: str
) -> None:
    conversation = conversation_uuid(store.tenant, "own")
    for given_id in ("foreign", str(uuid4()), None, str(conversation), "own", "foreign"):
        insert_unchecked(superuser_url, conversation, "conversation.created", {"name": "", "given_id": given_id})
    unnamed = uuid4()
    for given_id in ("foreign", str(unnamed)):
        insert_unchecked(superuser_url, unnamed, "conversation.created", {"name": "", "given_id": given_id})
    await catch_up(store)
    log = [event async for event in store.read_log()]
    assert stored(database_url, [store.tenant]) == fold(log)
    reader, server = Reader(store), ServerLog(store)
    for conversation_id, given_id in ((conversation, "own"), (unnamed, None)):
        assert (await reader.conversation(conversation_id)).given_id == given_id
        folded = ConversationFold(conversation_id)
        for event in log:
            if event.conversation_id == conversation_id:
                folded.apply(event)
        migrated = await read_stored(server, conversation_id)
        assert {folded.given_id, migrated.conversation.id} == {given_id or str(conversation_id)}


async def test_every_fold_takes_the_first_id_of_a_task(store: EventStore, database_url: str) -> None:
    conversation, task = uuid4(), uuid4()
    given = (None, "first", "second")
    await store.append(conversation, [TaskCreated(task_id=task, given_id=given_id) for given_id in given])
    await catch_up(store)
    log = [event async for event in store.read_log()]
    assert stored(database_url, [store.tenant]) == fold(log)
    folded = ConversationFold(conversation)
    for event in log:
        folded.apply(event)
    [row] = await Reader(store).tasks(conversation)
    assert {row.given_id, folded.tasks[task].given_id} == {"first"}
