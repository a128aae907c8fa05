"""Dual writes: differences are found, counted and reported, and missed events are appended later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.agents import agent, user_message

from agent_manager import default_classes
from agent_manager.dual_write import Differences, DualWriteLog, copy_log
from agent_manager.factory import application_manager
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import ServerLog
from eventstore import ANY, AppendResult, ConversationCreated, Event, EventStore, ExpectedVersion, NewEvent, Settings
from eventstore.errors import ServerUnreachable

OWN = SimpleNamespace(Message=default_classes.Message, Task=default_classes.Task, AgentCard=default_classes.AgentCard)


def message(text: str, message_id: str = "m", context_id: str | None = None) -> default_classes.Message:
    return default_classes.Message(**user_message(text, message_id, context_id))


class Failing(MemoryLog):
    """A log that is unavailable for a while."""

    is_away = False

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        if self.is_away:
            raise ServerUnreachable("the server is away")
        return await super().append(conversation_id, events, expected)


@pytest.mark.parametrize("side", ["memory", "postgres"])
def test_an_append_of_another_process_is_a_difference(settings: Settings, side: Any) -> None:
    with application_manager(
        settings.model_copy(update={"read_from": side}), storage="both", answer=agent, types=OWN
    ) as both:
        both.send_message("c", message("hello", "m1", "c"))
        assert both.get_messages("c")
        assert both.differences.count == 0
        with application_manager(settings, types=OWN) as other:
            other.save_message(message("from elsewhere", "m2", "c"))
            other.sanitize_message(message("from elsewhere", "m3", "d"))
        assert len(both.get_messages("c")) == (2 if side == "memory" else 3)
        assert both.differences.differing["events"] == 1
        assert len(both.conversations) == (1 if side == "memory" else 2)
        assert both.differences.differing["conversations"] == 1
        assert len(both.get_pending_messages()) == (0 if side == "memory" else 1)
        report = both.differences.report()
        assert report["differing"]["pending"] == 1
        assert report["differences"] == both.differences.count == len(report["latest"])
        assert "from elsewhere" in str(both.differences)


def test_existing_conversations_are_in_both_logs(settings: Settings) -> None:
    with application_manager(settings, answer=agent, types=OWN) as before:
        for text in ("task T", "hello", "ask U"):
            before.send_message("c", message(text, text))
        before.register_agent({"url": "http://a"})  # type: ignore[arg-type]
        before.sanitize_message(message("waits", "w", "d"))
        shown = [before.conversations, before.tasks, before.get_pending_messages(), before.agents, before.events]
    with application_manager(settings.model_copy(update={"read_from": "memory"}), storage="both", types=OWN) as both:
        assert [both.conversations, both.tasks, both.get_pending_messages(), both.agents, both.events] == shown
        both.save_message(message("more", "more", "c"))
        assert both.differences.count == 0, both.differences
        assert both.differences.compared["events"] > 0


async def test_missed_events_are_appended_before_later_ones() -> None:
    main, other, differences = MemoryLog(), Failing(), Differences()
    manager = Manager(DualWriteLog(main, other, differences), agent)
    await manager.send_message("c", user_message("one", "m1"))
    other.is_away = True
    await manager.send_message("c", user_message("two", "m2"))
    assert differences.differing["append"] == 3
    assert "the server is away" in str(differences)
    other.is_away = False
    await manager.send_message("c", user_message("three", "m3"))
    assert await Manager(other).messages("c") == await Manager(main).messages("c") == await manager.messages("c")
    assert differences.count == 3


async def test_events_still_missing_at_the_end_are_appended() -> None:
    main, other, differences = MemoryLog(), Failing(), Differences()
    log = DualWriteLog(main, other, differences)
    other.is_away = True
    await Manager(log, agent).send_message("c", user_message("one", "m1"))
    other.is_away = False
    await log.append_all_missing()
    assert await Manager(other).messages("c") == await Manager(main).messages("c")


async def test_concurrent_reads_and_writes_cause_no_false_difference(store: EventStore) -> None:
    server, memory, differences = ServerLog(store), MemoryLog(), Differences()
    manager = Manager(DualWriteLog(server, memory, differences), agent)

    async def write(number: int) -> None:
        await manager.send_message(f"c{number % 3}", user_message(f"{number}", f"m{number}"))

    async def read() -> None:
        for _ in range(20):
            await manager.conversations()
            await manager.messages("c1")
            await manager.pending()

    await asyncio.gather(*map(write, range(30)), read())
    assert differences.count == 0, differences
    await manager.conversations()
    assert differences.compared["conversations"] > 0
    assert differences.count == 0


async def test_a_copy_equals_its_source() -> None:
    source, target = MemoryLog(), MemoryLog()
    manager = Manager(source, agent)
    for number in range(3):
        await manager.send_message(f"c{number}", user_message("task T", "m1"))
    await copy_log(source, target)
    copied = Manager(target)
    assert await copied.tasks() == await manager.tasks()
    assert [(each.messages, each.created_at) for each in await copied.conversations()] == [
        (each.messages, each.created_at) for each in await manager.conversations()
    ]


async def test_a_read_during_a_write_is_not_compared() -> None:
    stored, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryLog):
        async def append(self, *given: Any, **named: Any) -> AppendResult:
            result = await super().append(*given, **named)
            stored.set()
            await go_on.wait()
            return result

        async def events_of(self, versions: Mapping[UUID, int], limit: int = 1000) -> list[Event]:
            begun.append(asyncio.create_task(log.append(conversation, [NewEvent(ConversationCreated())])))
            await stored.wait()
            return await super().events_of(versions, limit)

    begun: list[asyncio.Task[AppendResult]] = []
    differences, conversation = Differences(), uuid4()
    log = DualWriteLog(MemoryLog(), Slow(), differences)
    assert await log.events_of({conversation: 0}) == []
    assert differences.count == 0
    assert differences.not_compared["events"] == 1
    go_on.set()
    await begun[0]
