"""The asynchronous manager on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from support.agents import agent, text_of, user_message
from support.waiting import SECONDS, until_async

from agent_manager import AnswerFailed, AsyncManager, ManagerClosed, async_manager
from agent_manager.a2a import parts_text
from agent_manager.agents.agent import Context, Reply
from agent_manager.agents.local import from_callable
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import ServerLog
from eventstore import EventStore, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import ConnectionLost, InputError, NotFound

pytestmark = pytest.mark.shared_database


async def texts(manager: Manager, conversation_id: str) -> list[str]:
    return [text_of(message) for message in await manager.messages(conversation_id)]


async def test_a_conversation_is_named_by_its_first_message_until_it_is_renamed(manager: AsyncManager) -> None:
    began = await manager.create_conversation()
    assert began.name == ""
    await manager.save_message(user_message("\n  A train to Lisbon?\nTomorrow.", context_id=began.conversation_id))
    await manager.save_message(user_message("another", context_id=began.conversation_id))
    found = await manager.get_conversation(began.conversation_id)
    assert found is not None
    assert found.name == "A train to Lisbon?"
    assert (await manager.rename_conversation(began.conversation_id, "Trip")).name == "Trip"
    long = await manager.send_message("long", user_message("x" * 300))
    assert long is not None
    assert [each.name for each in await manager.conversations()] == ["Trip", "x" * 255]


async def test_conversations_are_archived_deleted_and_reactivated(manager: AsyncManager) -> None:
    for name in ("a", "b", "c"):
        await manager.create_conversation(name, name)
    assert not (await manager.archive_conversation("a")).is_active
    assert (await manager.delete_conversation("b")).is_deleted
    assert [each.name for each in await manager.conversations()] == ["a", "c"]
    assert [each.name for each in await manager.conversations(include_archived=False)] == ["c"]
    assert [each.name for each in await manager.conversations(include_deleted=True)] == ["a", "b", "c"]
    hidden = await manager.get_conversation("b")
    assert hidden is not None
    back = await manager.reactivate_conversation("b")
    assert back.is_active
    assert not back.is_deleted
    with pytest.raises(NotFound, match="'nobody'"):
        await manager.archive_conversation("nobody")
    assert await manager.get_conversation("nobody") is None
    assert await manager.messages("nobody") == []


async def test_an_unknown_context_begins_a_conversation(manager: AsyncManager) -> None:
    accepted = await manager.accept(user_message("hello", context_id="any text at all"))
    assert accepted.conversation_id == "any text at all"
    without = await manager.accept(user_message("hello"))
    assert without.message["contextId"] == without.conversation_id
    assert [each.conversation_id for each in await manager.conversations()] == [
        "any text at all",
        without.conversation_id,
    ]


async def test_a_repeated_message_id_with_another_body_is_another_message(manager: AsyncManager) -> None:
    bodies = [user_message(f"{number}", "00000000-0000-4000-8000-000000000001", "c") for number in range(5)]
    accepted = [await manager.accept(body) for body in bodies]
    assert len({each.event_id for each in accepted}) == 5
    assert str(accepted[0].event_id) == bodies[0]["messageId"]
    assert await manager.messages("c") == bodies
    assert len(await manager.pending()) == 5
    assert [(await manager.accept(body)).event_id for body in bodies] == [each.event_id for each in accepted]
    assert await manager.messages("c") == bodies


async def test_a_message_is_pending_from_acceptance_to_answer(manager: AsyncManager) -> None:
    accepted = await manager.accept(user_message("hello", "m1", "c"))
    assert [(each.conversation_id, each.message_id, each.status) for each in await manager.pending()] == [
        ("c", "m1", "")
    ]
    await manager.answer(accepted)
    assert await manager.pending() == []
    assert await texts(manager, "c") == ["hello", "echo: hello"]


async def test_an_accepted_message_is_answered_once(manager: AsyncManager) -> None:
    accepted = await manager.accept(user_message("hello", "m1", "c"))
    replies = await asyncio.gather(*(manager.answer(accepted) for _ in range(5)))
    assert replies == [replies[0]] * 5
    assert await manager.answer(accepted) == replies[0]
    assert await texts(manager, "c") == ["hello", "echo: hello"]


async def test_of_two_processes_that_answer_a_message_one_stores_the_outcome(
    manager: AsyncManager, store: EventStore
) -> None:
    accepted = await manager.accept(user_message("hello", "m1", "c"))
    second = Manager(ServerLog(store), agent)
    await asyncio.gather(manager.answer(accepted), second.answer(accepted))
    answered = [event async for event in store.read(accepted.conversation, types=["message.answered"])]
    assert len(answered) == 1
    assert await manager.pending() == await second.pending() == []


async def test_a_message_and_the_task_of_its_answer_refer_to_each_other(manager: AsyncManager) -> None:
    await manager.send_message("c", user_message("task T1", "m1", "c"))
    found = await manager.get_conversation("c")
    assert found is not None
    assert found.task_ids == ("T1",)
    [task] = await manager.tasks()
    assert task["id"] == "T1"
    assert task["contextId"] == "c"
    assert task["status"] == {"state": "completed"}
    assert task["artifacts"] == [
        {"artifactId": "a", "parts": [{"kind": "text", "text": "one "}, {"kind": "text", "text": "two"}]}
    ]
    assert [message["messageId"] for message in task["history"]] == ["m1", "reply to m1", "working on m1"]
    assert (await manager.messages("c"))[-1]["taskId"] == "T1"
    assert await manager.tasks("c") == [task]
    listed = [(event.actor, event.event_type) for event in await manager.events()]
    assert ("user", "message.added") in listed
    assert ("agent", "task.artifact_extended") in listed
    assert len(listed) == 7
    assert [event.position for event in await manager.events(limit=2)] == [
        event.position for event in await manager.events()
    ][-2:]


async def test_a_message_continues_the_task_that_the_last_one_belongs_to_while_it_is_open(
    manager: AsyncManager,
) -> None:
    await manager.send_message("c", user_message("ask T1", "m1", "c"))
    further = await manager.accept(user_message("task other", "m2", "c"))
    assert further.task_id == further.message["taskId"] == "T1"
    await manager.answer(further)
    [task] = await manager.tasks()
    assert task["status"]["state"] == "completed"
    assert (await manager.accept(user_message("more", "m3", "c"))).task_id is None


async def test_a_failure_is_recorded_and_the_message_is_no_longer_pending(
    manager: AsyncManager, store: EventStore
) -> None:
    with pytest.raises(AnswerFailed, match="RuntimeError: the agent broke off"):
        await manager.send_message("c", user_message("fail T1", "m1", "c"))
    assert await manager.pending() == []
    [task] = await manager.tasks()
    assert task["status"]["state"] == "failed"
    found = await manager.get_conversation("c")
    assert found is not None
    [answered] = [event async for event in store.read(found.id, types=["message.answered"])]
    assert answered.content["outcome"] == "failed"
    reason = "the agent raised RuntimeError; the log of the process that answered has the details"
    assert answered.content["error"] == parts_text(task["status"]["message"]["parts"]) == reason
    assert answered.content["task_id"]


async def test_a_note_replaces_a_part_that_cannot_be_stored(store: EventStore) -> None:
    async def broken(message: dict[str, Any], context: Context) -> Any:
        yield Reply({"role": "agent", "parts": [{"kind": "text", "text": "\x00"}, {"kind": "text", "text": "hello"}]})

    async with AsyncManager(store, answer=broken) as manager:
        await manager.send_message("c", user_message("hello", "m1", "c"))
        assert await manager.pending() == []
        [_, reply] = await manager.messages("c")
    assert "a NUL character" in reply["parts"][0]["text"]
    assert reply["parts"][1]["text"] == "hello"


async def test_a_value_that_is_not_an_update_fails_the_answer_and_the_rest_is_stored(store: EventStore) -> None:
    async def broken(message: dict[str, Any], context: Context) -> Any:
        yield Reply({"role": "agent"})
        yield Reply({"role": "agent", "parts": [{"kind": "text", "text": "hello"}]})

    async with AsyncManager(store, answer=broken) as manager:
        with pytest.raises(AnswerFailed, match="message whose parts are None"):
            await manager.send_message("c", user_message("hello", "m1", "c"))
        assert await manager.pending() == []
        assert len(await manager.messages("c")) == 2


async def test_updates_of_a_working_agent_are_visible_at_once(store: EventStore) -> None:
    go_on = asyncio.Event()

    async def slow(message: dict[str, Any], context: Context) -> Any:
        async for update in agent(user_message("ask T1"), context):
            yield update
            await go_on.wait()

    async with AsyncManager(store, answer=slow) as manager:
        accepted = await manager.accept(user_message("hello", "m1", "c"))
        answering = asyncio.create_task(manager.answer(accepted))

        async def has_task() -> bool:
            return [task["status"]["state"] for task in await manager.tasks()] == ["submitted"]

        await until_async(has_task, "the task is listed while the agent works")
        go_on.set()
        await answering
        [task] = await manager.tasks()
        assert task["status"]["state"] == "input-required"


async def test_another_manager_sees_everything_at_once_without_any_worker(store: EventStore) -> None:
    async with (
        AsyncManager(store, answer=agent, runs_worker=False) as first,
        AsyncManager(store, runs_worker=False) as second,
    ):
        for text in ("task T1", "hello", "ask T2"):
            await first.send_message("c", user_message(text, text, "c"))
        await first.accept(user_message("waits", "m9", "d"))
        assert await second.conversations() == await first.conversations()
        assert await second.tasks() == await first.tasks()
        assert await second.events() == await first.events()
        assert [row.message_id for row in await second.pending()] == ["m9"]


async def test_registered_agents_are_stored_in_an_unlisted_conversation(
    manager: AsyncManager, store: EventStore
) -> None:
    cards = [{"name": "a", "url": "http://a/"}, {"name": "b", "supportedInterfaces": [{"url": "http://b"}]}]
    for card in cards:
        await manager.register_agent(card)
    await manager.register_agent(cards[0] | {"version": "2"})
    restarted = Manager(ServerLog(store))
    assert await restarted.agents() == [cards[0] | {"version": "2"}, cards[1]]
    await restarted.unregister_agent("http://b")
    assert await manager.agents() == [cards[0] | {"version": "2"}]
    with pytest.raises(NotFound, match="http://b"):
        await restarted.unregister_agent("http://b")
    assert await manager.conversations() == []
    with pytest.raises(InputError, match="choose another"):
        await manager.accept(user_message("hello", "m1", "eventstore:agents"))


async def test_the_cards_of_registered_agents_have_a_limit(manager: AsyncManager) -> None:
    large = "x" * 500_000
    for number in range(16):
        await manager.register_agent({"url": f"http://a{number}", "description": large})
    with pytest.raises(InputError, match=r"'http://b': the cards .* would take .* the limit is 8,388,608: unregister"):
        await manager.register_agent({"url": "http://b", "description": large})
    await manager.register_agent({"url": "http://a0", "description": "smaller"})
    await manager.register_agent({"url": "http://b", "description": large})
    assert len(await manager.agents()) == 17


@pytest.mark.parametrize("message", [{}, {"role": 1}, [], {"role": "user", "messageId": 5}, {"role": "user\ud800"}])
async def test_an_invalid_message_is_rejected(manager: AsyncManager, message: Any) -> None:
    with pytest.raises(InputError):
        await manager.accept(message)
    assert await manager.conversations() == []


async def test_a_pending_message_of_an_earlier_process_is_answered_or_abandoned(store: EventStore) -> None:
    async with AsyncManager(store) as killed:
        await killed.accept(user_message("hello", "m1", "c"))
        await killed.accept(user_message("hello", "m2", "c"))
    async with AsyncManager(store, answer=agent) as manager:
        first, second = await manager.pending()
        await manager.answer(await manager.accepted(first))
        await manager.abandon(second)
        await manager.abandon(second)
        assert await manager.pending() == []
        assert len(await manager.messages("c")) == 3
        with pytest.raises(NotFound):
            await manager.accepted(second.__class__("x", second.event_id, second.event_id, "x", "", second.since, 1))


@pytest.mark.parametrize("storage", ["memory", "postgres", "both"])
async def test_the_event_loop_is_free_while_an_agent_works(settings: Settings, storage: Any) -> None:
    ticks = 0

    async def slow(message: dict[str, Any]) -> str:
        before = ticks

        async def has_ticked() -> bool:
            return ticks > before + 20

        await until_async(has_ticked, "the loop has gone on")
        return "done"

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with async_manager(settings, storage=storage, answer=slow) as manager:
        reply = await manager.send_message("c", user_message("hello", "m1", "c"))
        assert reply is not None
        assert text_of(reply) == "done"
        assert len(await manager.messages("c")) == 2
    ticking.cancel()


async def test_a_manager_that_was_exited_rejects_every_call_until_it_is_entered_again(store: EventStore) -> None:
    async with AsyncManager(store, answer=agent) as manager:
        accepted = await manager.accept(user_message("hello", "m1", "c"))
        [pending] = await manager.pending()
    calls: list[Callable[[], Awaitable[Any]]] = [
        manager.create_conversation,
        lambda: manager.rename_conversation("c", "x"),
        lambda: manager.get_conversation("c"),
        manager.conversations,
        lambda: manager.messages("c"),
        lambda: manager.accept(user_message("hello")),
        lambda: manager.answer(accepted),
        lambda: manager.send_message("c", user_message("hello")),
        lambda: manager.save_message(user_message("hello")),
        manager.pending,
        lambda: manager.accepted(pending),
        manager.answer_pending,
        lambda: manager.abandon(pending),
        manager.tasks,
        manager.events,
        lambda: manager.register_agent({"name": "a", "url": "http://a"}),
        lambda: manager.unregister_agent("http://a"),
        manager.agents,
        manager.position,
    ]
    for call in calls:
        with pytest.raises(ManagerClosed):
            await call()
    async with manager:
        assert len(await manager.answer_pending()) == 1


async def test_closing_a_manager_ends_running_calls_with_manager_closed() -> None:
    asked = asyncio.Event()

    async def never(message: dict[str, Any]) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with Manager(MemoryLog(), from_callable(never)) as manager:
        waiting = asyncio.create_task(manager.send_message("c", user_message("hello")))
        given_up = asyncio.create_task(manager.send_message("c", user_message("hello")))
        await asked.wait()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
    with pytest.raises(ManagerClosed):
        await waiting


async def test_the_position_changes_with_every_change_and_only_then(manager: AsyncManager) -> None:
    before = await manager.position()
    assert await manager.position() == before
    await manager.create_conversation()
    assert await manager.position() > before


@pytest.mark.slow
async def test_many_messages_for_one_conversation_at_once_are_all_stored(manager: AsyncManager) -> None:
    many = [user_message(f"{number}", "same", "c") for number in range(30)]
    accepted = await asyncio.gather(*map(manager.accept, many))
    assert len({each.event_id for each in accepted}) == 30
    assert sorted(await texts(manager, "c"), key=int) == [str(number) for number in range(30)]


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.slow
async def test_a_message_that_was_sent_to_a_server_that_died_may_be_stored(own_server: EmbeddedServer) -> None:
    settings = Settings(database_url=own_server.url(), connect_timeout=1, append_seconds=6)  # type: ignore[arg-type]
    await asyncio.to_thread(Migrator(own_server.url(), settings).up)
    async with EventStore(settings) as store, AsyncManager(store, runs_worker=False) as manager:
        await manager.create_conversation("trip")
        with suppress(psycopg.OperationalError), psycopg.connect(own_server.superuser_url) as holder:
            holder.execute("LOCK TABLE events IN EXCLUSIVE MODE")
            saving = asyncio.create_task(manager.save_message(user_message("hello", context_id="trip")))

            async def waiting_backend() -> list[int]:
                async with await store.connect(None) as observer:
                    query = "SELECT pid FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted"
                    return [pid for (pid,) in await (await observer.execute(query)).fetchall()]

            [backend] = await until_async(waiting_backend, "the message waits for the table")
            assert own_server.pid is not None
            os.kill(own_server.pid, signal.SIGKILL)
            os.kill(backend, signal.SIGKILL)  # or it may finish the append after the end of the postmaster
        with pytest.raises(ConnectionLost) as lost:
            async with asyncio.timeout(settings.append_seconds + SECONDS):
                await saving
        assert lost.value.event_ids
        assert all(str(event_id) in str(lost.value) for event_id in lost.value.event_ids)
