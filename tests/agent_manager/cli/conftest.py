"""The command line, called in the tests' own process, on a database with an example of everything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.commandline import EVERYTHING, STRANGE, TASK, Eventstore
from support.environment import clear_settings
from support.servers import DatabaseServer

from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    EventStore,
    MessageAdded,
    Settings,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskStatusChanged,
    UnknownEvent,
    conversation_uuid,
)
from projections import catch_up


@pytest.fixture(scope="session")
def library_url(server: DatabaseServer) -> Iterator[str]:
    """A database with a little of everything, which tests only read."""
    name = server.create_database()
    with pytest.MonkeyPatch.context() as patch:
        clear_settings(patch)
        asyncio.run(_fill(Settings(_env_file=None, database_url=server.url(name))))
    yield server.url(name)
    server.drop_database(name)


async def _fill(settings: Settings) -> None:
    async with EventStore(settings) as store:
        conversation = conversation_uuid(store.tenant, EVERYTHING)
        other = conversation_uuid(store.tenant, "other")
        await store.append(conversation, [
            ConversationCreated(name="Trip", given_id=EVERYTHING, metadata={"language": "português"}),
            MessageAdded(role="user", content="Olá, até já — 你好"),
            MessageAdded(role="assistant", extra={"tool_calls": [{"id": "c"}], "content": None}),
            MessageAdded(role="tool", content=STRANGE),
            MessageAdded(role="assistant", parts=[{"text": "one"}, {"text": "two"}]),
            ConversationRenamed(name=f"Journey {STRANGE}"),
            TaskCreated(task_id=TASK, description=f"look {STRANGE}"),
            TaskStatusChanged(task_id=TASK, status="completed", message={"text": "done"}),
            TaskDescribed(task_id=TASK, description="looked it up"),
            TaskArtifactAdded(task_id=TASK, artifact_id="result", parts=[{"text": "1"}], last_chunk=False),
            TaskArtifactExtended(task_id=TASK, artifact_id="result", parts=[{"text": "2"}]),
            ConversationArchived(), ConversationReactivated(),
            ConversationForked(source_conversation_id=other, source_version=3),
            ApplicationEvent("order.placed", {"total": 3, "note": STRANGE}),
            UnknownEvent(event_type="conversation.merged", content={"later": True}, schema_version=2),
        ], actor=f"ana {STRANGE}")  # fmt: skip
        await store.append(other, [ConversationCreated(name="Other", given_id="other"), ConversationArchived()])
        hidden = conversation_uuid(store.tenant, "hidden")
        await store.append(hidden, [ConversationCreated(name="Hidden", given_id="hidden"), ConversationDeleted()])
        await store.append(conversation, [ConversationCreated(name="Theirs")], tenant="another")
        await catch_up(store)


@pytest.fixture
def library(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, library_url: str) -> Eventstore:
    """The command line on a database with a little of everything, which tests only read."""
    monkeypatch.setenv("DATABASE_URL", library_url)
    return eventstore
