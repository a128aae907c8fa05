"""The manager forks conversations, edits their messages and answers them again, on PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.agents import text_of, user_message

from agent_manager import application_manager
from agent_manager.agents.agent import Context, Reply
from agent_manager.agents.local import from_callable
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import Log, ServerLog
from eventstore import NewEvent, Settings, TaskCreated, TaskStatusChanged
from eventstore.errors import ConversationIsDeleted, InputError, NotFound

pytestmark = pytest.mark.shared_database


async def count(message: object, context: Context) -> Reply:
    """Answer with the number of messages that the conversation holds."""
    return f"{len(await context.history())} messages"


@pytest.fixture(params=["postgresql", "memory"])
def log(request: pytest.FixtureRequest) -> Log:
    """The storage of a manager."""
    return MemoryLog() if request.param == "memory" else ServerLog(request.getfixturevalue("store"))


@pytest.fixture
async def counting(log: Log) -> AsyncIterator[Manager]:
    """A manager whose agent counts the messages."""
    async with Manager(log, from_callable(count)) as manager:
        yield manager


async def texts(manager: Manager, conversation_id: str) -> list[str]:
    return [text_of(message) for message in await manager.messages(conversation_id)]


async def test_a_fork_continues_the_conversation(counting: Manager) -> None:
    await counting.send_message("trip", user_message("one"))
    await counting.rename_conversation("trip", "Trip")
    fork = await counting.fork_conversation("trip")
    assert (fork.name, [text_of(message) for message in fork.messages]) == ("Trip", ["one", "1 messages"])
    await counting.send_message("trip", user_message("two"))
    reply = await counting.send_message(fork.conversation_id, user_message("other"))
    assert reply is not None
    assert await texts(counting, fork.conversation_id) == ["one", "1 messages", "other", "3 messages"]
    assert await texts(counting, "trip") == ["one", "1 messages", "two", "3 messages"]
    assert reply["contextId"] == fork.conversation_id
    of_fork = await counting.fork_conversation(fork.conversation_id, version=fork.version, name="last")
    assert (of_fork.name, len(of_fork.messages)) == ("last", 2)
    assert {len(each.messages) for each in await counting.conversations()} == {2, 4}


async def test_a_message_is_edited_and_answered_again(counting: Manager) -> None:
    for text in ("one", "two"):
        await counting.send_message("trip", user_message(text))
    trip = await counting.get_conversation("trip")
    assert trip is not None
    edited = await counting.edit_message("trip", trip.event_ids[2], user_message("zwei"))
    await counting.answer(edited)
    assert await texts(counting, edited.conversation_id) == ["one", "1 messages", "zwei", "3 messages"]
    again = await counting.edit_message(edited.conversation_id, trip.event_ids[0])
    await counting.answer(again)
    assert await texts(counting, again.conversation_id) == ["one", "1 messages"]
    assert await texts(counting, "trip") == ["one", "1 messages", "two", "3 messages"]


async def test_a_fork_that_cannot_be_made_says_why(counting: Manager) -> None:
    view = await counting.create_conversation("Trip", "trip")
    with pytest.raises(NotFound, match="no version 9"):
        await counting.fork_conversation("trip", version=9)
    with pytest.raises(NotFound, match="has no message"):
        await counting.edit_message("trip", view.id)
    with pytest.raises(InputError, match="one of them"):
        await counting.fork_conversation("trip", version=1, before=view.id)
    with pytest.raises(InputError, match="version"):
        await counting.fork_conversation("trip", version=-1)
    with pytest.raises(NotFound):
        await counting.fork_conversation("nothing")
    fork = await counting.fork_conversation("trip")
    await counting.delete_conversation("trip")
    with pytest.raises(ConversationIsDeleted):
        await counting.fork_conversation("trip")
    assert (await counting.fork_conversation(fork.conversation_id)).messages == ()


async def test_a_fork_has_the_tasks_that_it_shares_as_they_were(counting: Manager, log: Log) -> None:
    task = (await counting.create_conversation("Trip", "trip")).id
    await log.append(task, [NewEvent(TaskCreated(task_id=task))])
    fork = await counting.fork_conversation("trip")
    await log.append(task, [NewEvent(TaskStatusChanged(task_id=task, status="completed"))])
    states = [[each["status"]["state"] for each in await counting.tasks(one)] for one in ("trip", fork.conversation_id)]
    assert states == [["completed"], ["submitted"]]


def test_synchronous_applications_fork_and_edit(settings: Settings) -> None:
    with application_manager(settings, storage="memory", answer=from_callable(count)) as manager:
        manager.send_message("trip", user_message("one", "m1"))
        fork = manager.fork_conversation("trip", name="Other")
        assert len(manager.get_messages(fork.conversation_id)) == 2
        reply = manager.edit_message("trip", "m1", user_message("eins", "m2"))
        edited = manager.get_conversation(reply.context_id if hasattr(reply, "context_id") else reply.contextId)
        assert [len(one.messages) for one in (manager.get_conversation("trip"), edited)] == [2, 2]
