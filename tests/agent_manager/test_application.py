"""The synchronous manager, called as the servers of A2A applications call it, and by its documented interface."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import agent, text_of, user_message
from support.environment import child_environment
from support.waiting import until

from agent_manager import default_classes
from agent_manager.accepted_messages import INSTANCE_BYTES, Accepted, AcceptedMessages
from agent_manager.agents.agent import Context
from agent_manager.application import ApplicationManager
from agent_manager.errors import AnswerFailed, ManagerClosed
from agent_manager.factory import application_manager
from eventstore import Settings
from eventstore.errors import InputError, SettingsError

pytestmark = pytest.mark.shared_database

OWN = SimpleNamespace(Message=default_classes.Message, Task=default_classes.Task, AgentCard=default_classes.AgentCard)


def message(text: str, message_id: str = "m", context_id: str | None = None) -> default_classes.Message:
    return default_classes.Message(**user_message(text, message_id, context_id))


@pytest.fixture(params=["memory", "postgres", "both", "both, memory"])
def make(request: pytest.FixtureRequest, settings: Settings) -> Callable[..., ApplicationManager]:
    """A function that returns managers of one kind, on the same database if there is one."""

    def open_manager(answer: Any = agent) -> ApplicationManager:
        storage, _, read_from = request.param.partition(", ")
        chosen = settings.model_copy(update={"read_from": read_from}) if read_from else settings
        return application_manager(chosen, storage=storage, answer=answer, types=OWN)

    return open_manager


@pytest.fixture
def manager(make: Callable[..., ApplicationManager]) -> Iterator[ApplicationManager]:
    with make() as manager:
        yield manager
        assert manager.differences.count == 0, manager.differences


def test_the_calls_of_application_servers(manager: ApplicationManager) -> None:
    async def server() -> list[Any]:
        conversation = await manager.create_conversation()
        assert isinstance(conversation, default_classes.Conversation)
        given = message("task T", "m1", conversation.conversation_id)
        accepted = manager.sanitize_message(given)  # on the event loop
        assert accepted is given
        assert manager.get_pending_messages() == [("m1", "")]
        thread = threading.Thread(target=lambda: asyncio.run(manager.process_message(accepted)))
        thread.start()
        await asyncio.to_thread(thread.join)
        listed = await asyncio.gather(
            *(asyncio.to_thread(getattr, manager, name) for name in ("conversations", "tasks", "events", "agents"))
        )
        return [conversation.conversation_id, *listed]

    conversation_id, conversations, tasks, events, agents = asyncio.run(server())
    assert [(each.conversation_id, each.name, each.task_ids) for each in conversations] == [
        (conversation_id, "task T", ["T"])
    ]
    assert [task.id for task in tasks] == ["T"]
    assert len(events) == 7
    assert agents == []
    assert manager.get_pending_messages() == []
    assert manager.get_conversation(conversation_id) == conversations[0]
    assert manager.get_conversation("") is manager.get_conversation(None) is manager.get_conversation("nobody") is None


def test_the_interface_of_the_plan(manager: ApplicationManager) -> None:
    async def awaited() -> None:
        await manager.initialize()
        conversation = await manager.create_conversation("Trip")
        stored = await manager.save_message(message("hello", "m1", conversation.conversation_id))
        assert stored == (await manager.get_messages(conversation.conversation_id))[0]
        assert (await manager.get_conversation(conversation.conversation_id)).name == "Trip"
        with pytest.raises(InputError, match=r"would block the event loop .* async_manager"):
            manager.send_message(conversation.conversation_id, message("hello", "m2"))
        reply = await asyncio.to_thread(manager.send_message, conversation.conversation_id, message("hello", "m2"))
        assert text_of(reply.model_dump()) == "echo: hello"
        assert type(reply) is default_classes.Message
        assert len(manager.get_messages(conversation.conversation_id)) == 3

    asyncio.run(awaited())
    conversation = manager.create_conversation("Other")
    reply = manager.send_message(conversation.conversation_id, message("task T", "m1"))
    assert text_of(reply.model_dump()) == "one two"
    assert [text_of(each.model_dump()) for each in manager.get_messages(conversation.conversation_id)] == [
        "task T",
        "one two",
    ]
    assert [each.name for each in manager.list_conversations()] == ["Trip", "Other"]
    manager.rename_conversation(conversation.conversation_id, "New")
    manager.archive_conversation(conversation.conversation_id)
    assert [each.name for each in manager.list_conversations(include_archived=False)] == ["Trip"]
    manager.reactivate_conversation(conversation.conversation_id)
    assert manager.delete_conversation(conversation.conversation_id).name == "New"
    assert [each.name for each in manager.conversations] == ["Trip"]


def test_a_message_gets_the_open_task_of_its_conversation(manager: ApplicationManager) -> None:
    manager.send_message("c", message("ask T", "m1", "c"))
    further = manager.sanitize_message(message("more", "m2", "c"))
    assert further.task_id == "T"
    assert manager.get_messages("c")[-1] == further
    without = manager.sanitize_message(message("hello", "m3"))
    assert manager.get_messages(without.context_id) == [without]


def test_a_message_accepted_once_is_answered_once_and_a_copy_of_it_too(manager: ApplicationManager) -> None:
    accepted = manager.sanitize_message(message("hello", "m1", "c"))
    copy = accepted.model_copy()
    manager.sanitize_message(message("hello", "m1", "c"))
    for each in (accepted, accepted, copy, accepted):
        asyncio.run(manager.process_message(each))
    assert [text_of(each.model_dump()) for each in manager.get_messages("c")] == ["hello", "echo: hello"]
    asyncio.run(manager.process_message(message("hello", "m1", "c")))  # not accepted before: a client's repetition
    assert len(manager.get_messages("c")) == 2
    asyncio.run(manager.process_message(message("another", "m1", "c")))
    assert len(manager.get_messages("c")) == 4


def test_a_failing_agent_leaves_nothing_pending(manager: ApplicationManager, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(manager.process_message(message("fail T", "m1", "c")))
    assert "the agent broke off" in caplog.text
    assert manager.get_pending_messages() == []
    assert [task.status["state"] for task in manager.tasks] == ["failed"]
    with pytest.raises(AnswerFailed, match="the agent broke off"):
        manager.send_message("c", message("fail U", "m2"))


def test_an_agent_that_blocks_its_thread_blocks_no_other_call(make: Callable[..., ApplicationManager]) -> None:
    go_on = threading.Event()

    async def blocking(given: dict[str, Any], context: Context) -> Any:
        async for update in agent(user_message("ask T"), context):
            yield update
            go_on.wait(30)

    with make(blocking) as manager:
        accepted = manager.sanitize_message(message("hello", "m1", "c"))
        thread = threading.Thread(target=lambda: asyncio.run(manager.process_message(accepted)))
        thread.start()
        until(lambda: [task.id for task in manager.tasks] == ["T"], "its task is listed")
        assert manager.sanitize_message(message("hello", "m2", "d")).context_id == "d"
        assert [each[0] for each in manager.get_pending_messages()] == ["m1", "m2"]
        go_on.set()
        thread.join()
        assert manager.get_pending_messages() == [("m2", "")]


def test_an_agent_may_call_the_manager(make: Callable[..., ApplicationManager]) -> None:
    managers: list[ApplicationManager] = []

    async def asking(given: dict[str, Any], context: Context) -> Any:
        known = managers[0].get_messages(context.conversation_id)
        assert [each.to_wire() if hasattr(each, "to_wire") else each.message_id for each in known] == ["m1"]
        assert [each["messageId"] for each in await context.history()] == ["m1"]
        async for update in agent(given, context):
            yield update

    with make(asking) as manager:
        managers.append(manager)
        assert manager.send_message("c", message("hello", "m1")) is not None


@pytest.mark.slow
def test_hundreds_of_calls_at_once_from_threads_with_loops_of_their_own(manager: ApplicationManager) -> None:
    conversations = [manager.create_conversation().conversation_id for _ in range(20)]

    def client(number: int) -> None:
        conversation = conversations[number % 20]

        async def own_loop() -> None:
            accepted = manager.sanitize_message(message(f"{number}", f"m{number}", conversation))
            await manager.process_message(accepted)
            assert any(each.message_id == f"m{number}" for each in manager.get_messages(conversation))

        asyncio.run(own_loop())

    with ThreadPoolExecutor(100) as threads:
        for done in [threads.submit(client, number) for number in range(300)]:
            done.result()
    assert manager.get_pending_messages() == []
    for place, conversation in enumerate(manager.conversations):
        texts = [text_of(each.model_dump()) for each in conversation.messages]
        numbers = [str(number) for number in range(place, 300, 20)]
        assert sorted(texts) == sorted([*numbers, *(f"echo: {number}" for number in numbers)])


def test_an_invalid_message_is_rejected_on_acceptance(manager: ApplicationManager) -> None:
    with pytest.raises(InputError, match=r"is a int|a int is not a message"):
        manager.sanitize_message(5)
    with pytest.raises(InputError, match="NUL"):
        manager.sanitize_message(message("\x00"))
    assert manager.conversations == []


def test_after_a_restart_pending_messages_are_logged_and_answered(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    card = {"name": "a", "url": "http://a"}
    with application_manager(settings, types=OWN) as before:
        before.sanitize_message(message("hello", "m1", "c"))
        before.register_agent(card)  # type: ignore[arg-type]
    assert "await an answer" not in caplog.text
    with application_manager(settings, answer=agent, types=OWN) as manager:
        assert "1 message(s) await an answer" in caplog.text
        assert manager.get_pending_messages() == [("m1", "")]
        assert asyncio.run(manager.answer_pending()) == 1
        assert manager.get_pending_messages() == []
        assert [each.url for each in manager.agents] == ["http://a"]
        manager.unregister_agent("http://a/")
        assert manager.agents == []


def test_one_setting_chooses_the_storage(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    url = settings.database_url
    assert url is not None
    monkeypatch.setenv("DATABASE_URL", url.get_secret_value())
    for storage, existing in (("memory", 0), ("postgres", 0), ("both", 1), ("memory", 0)):
        monkeypatch.setenv("EVENTSTORE_STORAGE", storage)
        with application_manager(answer="echo", types=OWN) as manager:
            assert len(manager.conversations) == existing
            assert text_of(manager.send_message("c", message("hello")).model_dump()) == "hello"
            assert bool(manager.differences.compared) is (storage == "both")
    monkeypatch.setenv("EVENTSTORE_STORAGE", "disk")
    with pytest.raises(SettingsError, match="EVENTSTORE_STORAGE"):
        application_manager()
    with pytest.raises(SettingsError, match=r"storage: 'disk' is unknown"):
        application_manager(settings, storage="disk")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="a int is given"):
        application_manager(5)  # type: ignore[arg-type]


def test_a_message_equal_to_one_that_was_sent_is_a_further_one(manager: ApplicationManager) -> None:
    sent = default_classes.Message(role="user", parts=[{"kind": "text", "text": "hello"}], context_id="c")
    manager.send_message("c", sent)
    asyncio.run(manager.process_message(sent))
    asyncio.run(manager.process_message(sent.model_copy()))
    texts = [text_of(each.model_dump()) for each in manager.get_messages("c")]
    assert texts == ["hello", "echo: hello"] * 3
    assert manager.get_pending_messages() == []


def test_another_message_in_the_same_instance_is_stored(manager: ApplicationManager) -> None:
    given = manager.sanitize_message(
        default_classes.Message(role="user", parts=[{"kind": "text", "text": "one"}], context_id="c")
    )
    asyncio.run(manager.process_message(given))
    given.parts = [{"kind": "text", "text": "two"}]
    asyncio.run(manager.process_message(given))
    texts = [text_of(each.model_dump()) for each in manager.get_messages("c")]
    assert texts == ["one", "echo: one", "two", "echo: two"]


@pytest.mark.parametrize("changes", [lambda m: m, lambda m: m.model_copy(deep=True)], ids=["instance", "copy"])
def test_an_accepted_message_is_found_however_many_came_after_it(changes: Any) -> None:
    with application_manager(storage="memory", answer=agent, types=OWN) as manager:
        first = manager.sanitize_message(message("first", "m1", "c"))
        for number in range(20):  # 20 MB
            manager.sanitize_message(message(f"{number}" + "x" * 1_000_000, "m", "large"))
        asyncio.run(manager.process_message(changes(first)))
        assert [text_of(each.model_dump()) for each in manager.get_messages("c")] == ["first", "echo: first"]


def test_accepted_messages_are_not_held_in_memory() -> None:
    accepted = AcceptedMessages()
    instances = []
    for number in range(30):
        given = message(f"{number}" + "x" * 1_000_000, f"m{number}")
        stored = Accepted("c", UUID(int=1), UUID(int=number), given.model_dump(by_alias=True), number)
        accepted.add(given, stored)
        instances.append(weakref.ref(given))
    del given, stored
    assert sum(each() is not None for each in instances) <= INSTANCE_BYTES // 1_000_000
    again = message("0" + "x" * 1_000_000, "m0").model_dump(by_alias=True)
    assert accepted.take(object(), again) == (UUID(int=1), UUID(int=0))
    assert accepted.take(object(), again) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["accept", "process", "copy"])), max_size=40))
def test_accepted_messages_behave_like_a_model(steps: list[tuple[int, str]]) -> None:
    instances = [message("a", "m"), message("a", "m"), message("b", "m"), message("b", "m")]
    accepted = AcceptedMessages()
    waiting: list[tuple[int, int]] = []  # instance, number
    latest: dict[int, int] = {}
    for number, (index, step) in enumerate(steps):
        sent = instances[index].model_dump(by_alias=True)
        if step == "accept":
            accepted.add(instances[index], Accepted("c", UUID(int=1), UUID(int=number), sent, number))
            waiting.append((index, number))
            latest[index] = number
            continue
        given = instances[index] if step == "process" else instances[index].model_copy()
        own = [entry for entry in waiting if entry[0] == index and step == "process"]
        equal = (
            [] if step == "process" and index in latest else [entry for entry in waiting if entry[0] // 2 == index // 2]
        )
        found = next(iter(own or equal), None)
        if found is not None:
            waiting.remove(found)
        expected = found[1] if found else latest.get(index) if step == "process" else None
        key = accepted.take(given, sent)
        assert (None if key is None else key[1].int) == expected


def test_a_closed_manager_rejects_every_call_until_it_is_reopened(settings: Settings) -> None:
    manager = application_manager(settings, types=OWN)
    conversation = manager.create_conversation("Trip")
    manager.close()
    manager.close()
    calls: list[Callable[[], Any]] = [
        manager.create_conversation,
        lambda: manager.conversations,
        lambda: manager.send_message("c", message("hello")),
        lambda: manager.sanitize_message(message("hello")),
        lambda: asyncio.run(manager.process_message(message("hello"))),
        lambda: asyncio.run(manager.answer_pending()),
        manager.get_pending_messages,
    ]
    for call in calls:
        with pytest.raises(ManagerClosed, match="initialize"):
            call()
    manager.initialize()
    assert manager.get_conversation(conversation.conversation_id).name == "Trip"
    manager.close()


def test_a_forked_process_opens_the_manager_again(settings: Settings) -> None:
    assert settings.database_url is not None
    url, tenant = settings.database_url.get_secret_value(), settings.tenant
    subprocess.run(
        [sys.executable, "-m", "support.forking"],
        env=child_environment(DATABASE_URL=url, EVENTSTORE_TENANT=tenant),
        check=True,
        timeout=90,
    )
