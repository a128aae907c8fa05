"""The managers in memory and on PostgreSQL behave alike over the same calls, and like a simple model."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.agents import agent, text_of, user_message

from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import ServerLog
from eventstore import Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import EventStoreError
from eventstore.store import EventStore
from eventstore.sync import Portal
from projections import Worker

CONVERSATIONS = st.sampled_from(["c", "d", "00000000-0000-4000-8000-00000000000e"])
MESSAGES = st.builds(
    user_message,
    st.sampled_from(["hello", "task T", "ask T", "ask U", "fail T", ""]),
    st.sampled_from(["m", "n", "00000000-0000-4000-8000-00000000000f"]),
    CONVERSATIONS,
)
CALLS = st.one_of(
    st.tuples(st.just("create"), CONVERSATIONS, st.sampled_from(["", "Name"])),
    st.tuples(st.just("rename"), CONVERSATIONS, st.sampled_from(["Other", "x" * 256])),
    st.tuples(st.sampled_from(["archive", "reactivate", "delete"]), CONVERSATIONS),
    st.tuples(st.sampled_from(["send", "save", "accept"]), MESSAGES),
    st.tuples(st.sampled_from(["send", "accept"]), MESSAGES),
    st.tuples(st.just("answer oldest")),
    st.tuples(st.just("register"), st.sampled_from(["http://a", "http://b"])),
    st.tuples(st.just("unregister"), st.sampled_from(["http://a", "http://b"])),
)
_TENANTS = count(1)


async def perform(manager: Manager, call: tuple[Any, ...]) -> Any:
    word, *given = call
    match word:
        case "create":
            await manager.create_conversation(given[1], given[0])
        case "rename":
            await manager.rename_conversation(given[0], given[1])
        case "archive" | "reactivate" | "delete":
            await getattr(manager, f"{word}_conversation")(given[0])
        case "send":
            return await manager.send_message(given[0]["contextId"], given[0])
        case "save":
            return await manager.save_message(given[0])
        case "accept":
            return (await manager.accept(given[0])).message
        case "answer oldest":
            pending = await manager.pending()
            return await manager.answer(await manager.accepted(pending[0])) if pending else None
        case "register":
            return await manager.register_agent({"url": given[0]})
        case "unregister":
            await manager.unregister_agent(given[0])
    return None


async def shown(manager: Manager) -> dict[str, Any]:
    """Return everything that the manager returns, without times, positions and generated ids."""
    views = await manager.conversations(include_deleted=True)
    return {
        "conversations": [
            (v.conversation_id, v.is_active, v.is_deleted, v.name, v.task_ids, v.messages, v.version) for v in views
        ],
        "listed": [v.conversation_id for v in await manager.conversations(include_archived=False)],
        "each": [(await manager.get_conversation(v.conversation_id)) == v for v in views],
        "messages": [await manager.messages(v.conversation_id) for v in views],
        "pending": [(p.conversation_id, p.message_id, p.status) for p in await manager.pending()],
        "tasks": await manager.tasks(),
        "agents": await manager.agents(),
        "events": [
            (e.actor, e.event_type, e.conversation_id, e.content["parts"], e.content.get("taskId"))
            for e in await manager.events()
        ],
    }


async def outcome(manager: Manager, call: tuple[Any, ...]) -> Any:
    try:
        return await perform(manager, call)
    except EventStoreError as error:
        return type(error)


class Model:
    """A simple model of conversations."""

    def __init__(self) -> None:
        self.conversations: dict[str, dict[str, Any]] = {}
        self.waiting: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []

    def take(self, call: tuple[Any, ...]) -> None:
        word, *given = call
        match word:
            case "create":
                if given[0] not in self.conversations:
                    self._begun(given[0])["name"] = given[1]
            case "rename" | "archive" if self._is_deleted(given[0]):
                pass
            case "rename" if given[0] in self.conversations and len(given[1]) <= 255:
                self.conversations[given[0]]["name"] = given[1]
            case "archive" | "delete" | "reactivate" if given[0] in self.conversations:
                changed = {
                    "archive": {"active": False}, "delete": {"deleted": True},
                    "reactivate": {"active": True, "deleted": False},
                }  # fmt: skip
                self.conversations[given[0]] |= changed[word]
            case "send" if given[0] in self.waiting:
                self.waiting.remove(given[0])
                self._answer(given[0])
            case "send" | "accept" if given[0] in self.asked:
                pass
            case "send" | "save" | "accept" if not self._is_deleted(given[0]["contextId"]):
                self.asked += [given[0]] if word != "save" else []
                self._begun(given[0]["contextId"])["texts"].append(text_of(given[0]))
                if word == "send":
                    self._answer(given[0])
                elif word == "accept":
                    self.waiting.append(given[0])
            case "answer oldest" if self._listed():
                self._answer(self._listed()[0])
                self.waiting.remove(self._listed()[0])

    def _listed(self) -> list[dict[str, Any]]:
        return [message for message in self.waiting if not self._is_deleted(message["contextId"])]

    def _is_deleted(self, conversation: str) -> bool:
        return conversation in self.conversations and bool(self.conversations[conversation]["deleted"])

    def _begun(self, conversation: str) -> dict[str, Any]:
        new = {"name": "", "active": True, "deleted": False, "texts": []}
        return self.conversations.setdefault(conversation, new)

    def _answer(self, message: dict[str, Any]) -> None:
        if self._is_deleted(message["contextId"]):
            return
        word = text_of(message).partition(" ")[0]
        reply = {"task": ["one two"], "ask": ["one two"], "fail": []}.get(word, [f"echo: {text_of(message)}"])
        self.conversations[message["contextId"]]["texts"] += reply

    def agrees(self, seen: dict[str, Any]) -> None:
        texts = {each[0]: list(map(text_of, each[5])) for each in seen["conversations"]}
        assert texts == {name: one["texts"] for name, one in self.conversations.items()}
        assert {each[0]: (each[1], each[2]) for each in seen["conversations"]} == {
            name: (one["active"], one["deleted"]) for name, one in self.conversations.items()
        }
        assert {each[0]: each[3] for each in seen["conversations"]} == {
            name: one["name"] or next((text for text in one["texts"][:1]), "")
            for name, one in self.conversations.items()
        }
        assert [(each[0], each[1]) for each in seen["pending"]] == [
            (message["contextId"], message["messageId"]) for message in self._listed()
        ]


def test_memory_and_postgresql_behave_alike_and_as_the_model(settings: Settings) -> None:
    portal = Portal()
    store = EventStore(settings)
    portal.call(store.open())

    async def started() -> asyncio.Task[None]:
        return asyncio.create_task(Worker(store).run())

    worker = portal.call(started())

    async def compare(calls: list[tuple[Any, ...]]) -> None:
        tenant = f"tenant-{next(_TENANTS)}"
        server, memory, model = Manager(ServerLog(store, tenant), agent), Manager(MemoryLog(tenant), agent), Model()
        for call in calls:
            assert await outcome(server, call) == await outcome(memory, call), call
            model.take(call)
            seen = await shown(server)
            assert seen == await shown(memory), call
            model.agrees(seen)
        fresh = Manager(ServerLog(store, tenant), agent)  # with an empty cache
        assert await shown(fresh) == await shown(memory)

    @given(st.lists(CALLS, max_size=12))
    def run(calls: list[tuple[Any, ...]]) -> None:
        portal.call(compare(calls))

    try:
        run()
    finally:
        portal.call(cancel_and_wait([worker]))
        portal.call(store.close())
        portal.close()
