"""What every adapter reads of a conversation that others have rewound, deleted, erased or forked."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias
from uuid import UUID

import pytest

from eventstore import (
    ConversationDeleted,
    ConversationReactivated,
    ConversationRewound,
    EventStore,
    conversation_uuid,
)
from eventstore.errors import ConversationIsDeleted

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

ANN = "ann"


class Adapter(Protocol):
    """One conversation of a framework, written and read as its users do; each instance is another process's."""

    given_id: str

    def __init__(self, store: EventStore, name: str = "c") -> None: ...

    async def write(self, text: str) -> None:
        """Add a text to the conversation; begin it if it does not exist."""

    async def texts(self) -> list[str]:
        """Return the texts of the conversation, the oldest first."""


class OpenAI:
    def __init__(self, store: EventStore, name: str = "c") -> None:
        from agent_manager.adapters.openai_agents import EventStoreSession

        self.given_id = name
        self.session = EventStoreSession(name, store, user=ANN)

    async def write(self, text: str) -> None:
        await self.session.add_items([{"role": "user", "content": text}])

    async def texts(self) -> list[str]:
        items: list[Any] = await self.session.get_items()
        return [item["content"] for item in items]


class AgentFramework:
    def __init__(self, store: EventStore, name: str = "c") -> None:
        from agent_manager.adapters.agent_framework import EventStoreHistoryProvider

        self.given_id = name
        self.history = EventStoreHistoryProvider(store, user=ANN)

    async def write(self, text: str) -> None:
        from agent_framework import Message

        await self.history.save_messages(self.given_id, [Message("user", [text])])

    async def texts(self) -> list[str]:
        return [message.text for message in await self.history.get_messages(self.given_id)]


class GoogleADK:
    def __init__(self, store: EventStore, name: str = "c") -> None:
        from agent_manager.adapters.google_adk import EventStoreSessionService
        from agent_manager.adapters.google_adk_events import conversation_name

        self.names = {"app_name": "app", "user_id": ANN, "session_id": name}
        self.given_id = conversation_name(**self.names)
        self.service = EventStoreSessionService(store)

    async def write(self, text: str) -> None:
        from google.adk.events.event import Event
        from google.genai.types import Content, Part

        session = await self.service.get_session(**self.names) or await self.service.create_session(**self.names)
        content = Content(role="user", parts=[Part(text=text)])
        await self.service.append_event(session, Event(author="user", content=content))

    async def texts(self) -> list[str]:
        from google.adk.sessions.base_session_service import GetSessionConfig

        session = await self.service.get_session(**self.names)
        recent = await self.service.get_session(**self.names, config=GetSessionConfig(num_recent_events=10))
        assert recent == session
        if session is None:
            return []
        listed = (await self.service.list_sessions(app_name="app")).sessions
        assert [each.last_update_time for each in listed] in ([], [session.last_update_time])
        contents = [event.content for event in session.events]
        return [part.text or "" for content in contents if content for part in content.parts or ()]


class LangGraph:
    def __init__(self, store: EventStore, name: str = "c") -> None:
        from langgraph.graph import START, MessagesState, StateGraph

        from agent_manager.adapters.langgraph import EventStoreSaver

        self.given_id = name
        builder: Any = StateGraph(MessagesState).add_node("answer", lambda state: {}).add_edge(START, "answer")
        self.graph = builder.compile(checkpointer=EventStoreSaver(store, user=ANN))
        self.config: Any = {"configurable": {"thread_id": name}}

    async def write(self, text: str) -> None:
        await self.graph.ainvoke({"messages": [("user", text)]}, self.config)

    async def texts(self) -> list[str]:
        state = await self.graph.aget_state(self.config)
        return [message.content for message in state.values.get("messages", [])]


class PydanticAI:
    def __init__(self, store: EventStore, name: str = "c") -> None:
        from agent_manager.adapters.pydantic_ai import EventStoreConversationStore

        self.given_id = name
        self.conversations = EventStoreConversationStore(store, user=ANN)

    async def write(self, text: str) -> None:
        from pydantic_ai import Agent
        from pydantic_ai.conversation import Conversation
        from pydantic_ai.models.test import TestModel

        conversation = await self.conversations.load(self.given_id) or Conversation(conversation_id=self.given_id)
        agent = Agent(TestModel(custom_output_text="ok"))
        await self.conversations.save(await agent.run(text, conversation=conversation))

    async def texts(self) -> list[str]:
        loaded = await self.conversations.load(self.given_id)
        messages = [] if loaded is None else loaded.messages
        parts = [part for message in messages for part in message.parts]
        return [str(part.content) for part in parts if part.part_kind == "user-prompt"]


class A2A:
    def __init__(self, store: EventStore, name: str = "c") -> None:
        from a2a.auth.user import User
        from a2a.server.context import ServerCallContext

        from agent_manager.adapters.a2a_sdk import EventStoreTaskStore

        class Ann(User):
            is_authenticated = True
            user_name = ANN

        self.name, self.given_id = name, f"{ANN}/{name}"
        self.tasks, self.context = EventStoreTaskStore(store), ServerCallContext(user=Ann())

    async def write(self, text: str) -> None:
        from a2a.types import a2a_pb2 as pb

        status = pb.TaskStatus(state=pb.TASK_STATE_WORKING)
        task = await self.tasks.get("t", self.context) or pb.Task(id="t", context_id=self.name, status=status)
        task.history.append(pb.Message(message_id=text, role=pb.ROLE_USER, parts=[pb.Part(text=text)]))
        await self.tasks.save(task, self.context)

    async def texts(self) -> list[str]:
        from a2a.types import a2a_pb2 as pb

        task = await self.tasks.get("t", self.context)
        listed = (await self.tasks.list(pb.ListTasksRequest(), self.context)).tasks
        assert listed == ([] if task is None else [task])
        return [] if task is None else [part.text for message in task.history for part in message.parts]


class ADKArtifacts:
    """Versions of one artifact."""

    def __init__(self, store: EventStore, name: str = "c") -> None:
        from agent_manager.adapters.google_adk import EventStoreArtifactService

        self.names = {"app_name": "app", "user_id": ANN, "session_id": name, "filename": "f"}
        self.given_id = f"app/{ANN}/artifacts/session/{name}"
        self.service = EventStoreArtifactService(store, owned_by_user=True)

    async def write(self, text: str) -> None:
        from google.genai.types import Part

        await self.service.save_artifact(**self.names, artifact=Part(text=text))

    async def texts(self) -> list[str]:
        versions = await self.service.list_versions(**self.names)
        parts = [await self.service.load_artifact(**self.names, version=version) for version in versions]
        return [part.text or "" for part in parts if part is not None]


class WorkflowCheckpoints:
    """Checkpoints of the Agent Framework, each of which has a text as its id."""

    def __init__(self, store: EventStore, name: str = "c") -> None:
        from agent_manager.adapters.agent_framework import EventStoreCheckpointStorage

        self.given_id = name
        self.storage = EventStoreCheckpointStorage(store, name=name, user=ANN)

    async def write(self, text: str) -> None:
        from agent_framework import WorkflowCheckpoint

        await self.storage.save(WorkflowCheckpoint(workflow_name="w", graph_signature_hash="h", checkpoint_id=text))

    async def texts(self) -> list[str]:
        listed = await self.storage.list_checkpoint_ids(workflow_name="w")
        assert [each.checkpoint_id for each in await self.storage.list_checkpoints(workflow_name="w")] == listed
        assert [(await self.storage.load(each)).checkpoint_id for each in listed] == listed
        return listed


Kind: TypeAlias = type[Adapter]

ADAPTERS: dict[Kind, str] = {
    OpenAI: "agents", AgentFramework: "agent_framework", GoogleADK: "google.adk", LangGraph: "langgraph",
    PydanticAI: "pydantic_ai", A2A: "a2a.server.cluster", ADKArtifacts: "google.adk",
    WorkflowCheckpoints: "agent_framework",
}  # fmt: skip


@pytest.fixture(params=ADAPTERS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest, works: bool) -> Kind:
    chosen: Kind = request.param
    pytest.importorskip(ADAPTERS[chosen])
    return chosen


async def begun(store: EventStore, kind: Kind) -> tuple[Adapter, UUID, int]:
    """Return an adapter that has written "one" and "two", the conversation, and its version between them."""
    adapter = kind(store)
    await adapter.write("one")
    conversation = conversation_uuid(store.tenant, adapter.given_id)
    version = [event.version async for event in store.read(conversation)][-1]
    await adapter.write("two")
    return adapter, conversation, version


async def texts(store: EventStore, adapter: Adapter, name: str = "c") -> list[str]:
    """Return the texts that an adapter reads, and one of another process as well; without those that were erased."""
    found = [text for text in await adapter.texts() if text]
    assert [text for text in await type(adapter)(store, name).texts() if text] == found
    return found


@pytest.mark.parametrize("is_whole", [False, True])
async def test_what_is_hidden_by_going_back_is_not_read(store: EventStore, kind: Kind, is_whole: bool) -> None:
    adapter, conversation, version = await begun(store, kind)
    assert await texts(store, adapter) == ["one", "two"]
    await store.append(conversation, [ConversationRewound(to_version=0 if is_whole else version)])
    remaining = [] if is_whole else ["one"]
    assert await texts(store, adapter) == remaining
    await adapter.write("three")
    assert await texts(store, adapter) == [*remaining, "three"]


async def test_a_deleted_conversation_is_empty_and_begins_anew(store: EventStore, kind: Kind) -> None:
    adapter, conversation, _ = await begun(store, kind)
    await store.append(conversation, [ConversationDeleted()])
    assert await texts(store, adapter) == []
    if kind is A2A:  # it is not the task that was deleted
        with pytest.raises(ConversationIsDeleted):
            await adapter.write("three")
        return
    await adapter.write("three")
    assert await texts(store, adapter) == ["three"]


async def test_a_reactivated_conversation_is_read_again(store: EventStore, kind: Kind) -> None:
    adapter, conversation, _ = await begun(store, kind)
    await store.append(conversation, [ConversationDeleted()])
    assert await texts(store, adapter) == []
    await store.append(conversation, [ConversationReactivated()])
    assert await texts(store, adapter) == ["one", "two"]
    await adapter.write("three")
    assert await texts(store, adapter) == ["one", "two", "three"]


async def test_of_an_erased_message_nothing_is_read_and_the_conversation_goes_on(store: EventStore, kind: Kind) -> None:
    adapter, conversation, _ = await begun(store, kind)
    types = ["message.added", "adk.artifact", "agent_framework.checkpoint"]
    events = [event async for event in store.read(conversation, types=types)]
    await store.erase(conversation, [events[0].id])
    assert await texts(store, adapter) == ["two"]
    await adapter.write("three")
    assert await texts(store, adapter) == ["two", "three"]


async def test_of_an_erased_conversation_nothing_is_read_and_it_goes_on(store: EventStore, kind: Kind) -> None:
    adapter, conversation, _ = await begun(store, kind)
    assert await texts(store, adapter) == ["one", "two"]
    await store.erase(conversation)
    assert await texts(store, adapter) == []
    await adapter.write("three")
    assert await texts(store, adapter) == ["three"]


async def test_of_an_erased_user_nothing_is_read(store: EventStore, kind: Kind) -> None:
    adapter, _, _ = await begun(store, kind)
    assert await texts(store, adapter) == ["one", "two"]
    assert [erasure async for erasure in store.erase_user(ANN)]
    assert await texts(store, adapter) == []


@pytest.mark.parametrize("kind", [OpenAI, AgentFramework], indirect=True)  # the others read their own events alone
async def test_a_fork_begins_with_what_it_shares(store: EventStore, kind: Kind) -> None:
    source, conversation, version = await begun(store, kind)
    fork = kind(store, "fork")
    fork_id = conversation_uuid(store.tenant, "fork")
    await store.fork(conversation, version, conversation_id=fork_id, user=ANN)
    assert await texts(store, fork, "fork") == ["one"]
    await fork.write("three")
    assert await texts(store, fork, "fork") == ["one", "three"]
    assert await texts(store, source) == ["one", "two"]
    if isinstance(fork, OpenAI):
        assert [await fork.session.pop_item() for _ in range(2)][1] == {"role": "user", "content": "one"}
        assert await texts(store, fork, "fork") == []
        await fork.write("four")
        assert await texts(store, fork, "fork") == ["four"]
    await store.append(conversation, [ConversationRewound(to_version=0)])
    assert "one" not in await texts(store, fork, "fork")


async def test_what_was_hidden_can_be_stored_again(store: EventStore, kind: Kind) -> None:
    adapter, conversation, version = await begun(store, kind)
    await store.append(conversation, [ConversationRewound(to_version=version)])
    await adapter.write("two")
    assert await texts(store, adapter) == ["one", "two"]
