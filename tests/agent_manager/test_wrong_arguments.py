"""Public calls with arbitrary arguments raise only the store's own errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import agent
from support.examples import examples

from agent_manager import ApplicationManager, AsyncManager, default_classes
from agent_manager.factory import application_manager
from eventstore import EventStore, Settings
from eventstore.errors import EventStoreError
from eventstore.sync import Portal

TEXTS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        ["", "\x00", "\ud800", "x" * 300, "x" * 5000, "c", "eventstore:agents", "http://[", "http://127.0.0.1:1"]
    ),
)
VALUES = st.recursive(
    st.one_of(
        TEXTS, st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=3),
        st.sampled_from([object(), {1}, default_classes.Message(role="user"), asyncio.sleep, ConnectionError()]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        name: VALUES | st.sampled_from(["user", "agent", "ROLE_USER", "m", "c", [{"kind": "text", "text": "task T"}]])
        for name in ("role", "parts", "messageId", "contextId", "taskId", "metadata", "kind", "content")
    },
)
ARGUMENTS = st.one_of(TEXTS, MESSAGES, MESSAGES.map(lambda m: default_classes.Message.model_construct(**m)), VALUES)

SYNCHRONOUS = (
    "create_conversation", "get_conversation", "rename_conversation", "archive_conversation", "reactivate_conversation",
    "delete_conversation", "sanitize_message", "send_message", "save_message", "get_messages", "register_agent",
    "unregister_agent", "process_message",
)  # fmt: skip
ASYNCHRONOUS = (
    "create_conversation", "get_conversation", "rename_conversation", "archive_conversation", "reactivate_conversation",
    "delete_conversation", "messages", "accept", "send_message", "save_message", "tasks", "register_agent",
    "unregister_agent",
)  # fmt: skip


@pytest.fixture(scope="module")
def memory() -> Iterator[ApplicationManager]:
    with application_manager(storage="memory", answer=agent) as manager:
        yield manager


@examples(300)
@given(name=st.sampled_from(SYNCHRONOUS), arguments=st.lists(ARGUMENTS, min_size=1, max_size=2))
def test_the_synchronous_manager(memory: ApplicationManager, name: str, arguments: list[Any]) -> None:
    call = getattr(memory, name)
    with suppress(EventStoreError):
        result = call(*_fitting(name, arguments))
        if name == "process_message":
            asyncio.run(result)
    for listed in ("conversations", "tasks", "events", "agents"):
        getattr(memory, listed)
    memory.get_pending_messages()


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


def test_the_asynchronous_manager(settings: Settings, portal: Portal) -> None:
    async def opened() -> AsyncManager:
        store = EventStore(settings)
        await store.open()
        return await AsyncManager(store, answer=agent, runs_worker=False).__aenter__()

    manager = portal.call(opened())

    @examples(300)
    @given(name=st.sampled_from(ASYNCHRONOUS), arguments=st.lists(ARGUMENTS, min_size=1, max_size=2))
    def fuzzed(name: str, arguments: list[Any]) -> None:
        async def call() -> None:
            with suppress(EventStoreError):
                await getattr(manager, name)(*_fitting(name, arguments))
            await manager.conversations(include_deleted=True)
            await manager.tasks()
            await manager.events(limit=50)

        portal.call(call())

    try:
        fuzzed()
    finally:
        portal.call(manager.__aexit__())
        portal.call(manager.store.close())


def _fitting(name: str, arguments: list[Any]) -> list[Any]:
    """Return as many arguments as the method takes."""
    if name in ("rename_conversation", "send_message"):
        return [*arguments, "x"][:2]
    return arguments if name in ("save_message", "accept") else arguments[:1]
