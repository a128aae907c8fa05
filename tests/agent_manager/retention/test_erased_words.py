"""After an erasure nothing that was written is found anywhere: tables, files of the server, dumps, backups, HTTP.

Every word that is written contains :data:`MARK`. Each place is searched before the erasure, too: it must have the mark
then, otherwise the search proves nothing. Where PostgreSQL keeps old versions of rows for a while, and what an operator
does about that, is written down in docs/guides/retention.md.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.processes import run
from support.serving import Served, served

from agent_manager import AsyncManager
from agent_manager.adapters.blobs import INLINE_BYTES
from agent_manager.agents.agent_spec import agent_from_spec
from agent_manager.backup import Archive, create_backup, open_target, restore_backup
from agent_manager.settings import ServerSettings
from eventstore import (
    ApplicationEvent,
    ConversationCreated,
    ConversationRenamed,
    ConversationShared,
    EventStore,
    MessageAdded,
    MessageAnswered,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskPushNotificationSet,
    TaskStatusChanged,
    conversation_uuid,
)
from eventstore.database.embedded.embedded_server import EmbeddedServer
from projections import catch_up, load_projections

pytestmark = pytest.mark.slow

MARK = "qzxvkwjqzx"


def forms(mark: bytes) -> list[bytes]:
    """Return the forms in which a mark is stored: as it is, in hexadecimal, and within Base64 at any offset."""
    found = [mark, mark.hex().encode()]
    for offset in range(3):
        encoded = b64encode(bytes(offset) + mark)
        found.append(encoded[(offset * 8 + 5) // 6 :].rstrip(b"=")[:-1])
    return found


FORMS = forms(MARK.encode())


def is_marked(content: bytes) -> bool:
    return any(form in content for form in FORMS)


class Word:
    """A function that returns new words with a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, name: str = "") -> str:
        return f"{self._prefix}{name}{uuid4().hex[:6]}"


# What writes


async def write_events(store: EventStore, word: Word) -> None:
    """Append every kind of event that holds text, by a user whose name has the mark."""
    name, user, task = word(), word("user"), uuid4()
    conversation, message = conversation_uuid(store.tenant, name), NewEvent(MessageAdded(role="user", content=word()))
    events = [
        ConversationCreated(name=word(), metadata={word(): word()}, given_id=name),
        message,
        MessageAdded(
            role="assistant",
            parts=[{"kind": "text", "text": word()}, {"kind": "file", "file": {"name": word(), "uri": word()}}],
            extra={word(): word()},
            metadata={word(): word()},
        ),
        MessageAnswered(message_id=message.id, outcome="failed", error=word()),
        TaskCreated(task_id=task, description=word(), given_id=word(), metadata={"a": word()}),
        TaskStatusChanged(task_id=task, status="completed", message={"text": word()}, extra={"b": word()}),
        TaskDescribed(task_id=task, description=word(), history=[{"text": word()}]),
        TaskArtifactAdded(task_id=task, artifact_id=word(), parts=[{"text": word()}], name=word(), last_chunk=False),
        TaskArtifactExtended(task_id=task, artifact_id=word(), parts=[{"text": word()}]),
        TaskPushNotificationSet(task_id=task, config_id=word(), config={"url": f"https://{word()}.example"}),
        ConversationShared(user=word(), access="read"),
        ConversationRenamed(name=word()),
        NewEvent(ApplicationEvent("my.own", {"c": word()}), metadata=Metadata(correlation_id=word(), note=word())),
        # Longer than a page: its value is stored apart, and compressed.
        MessageAdded(role="user", content=" ".join(word() for _ in range(2000))),
    ]
    await store.append(conversation, events, actor=user, user=user)
    fork = await store.fork(conversation, 3, events=[MessageAdded(role="user", content=word())], name=word(), user=user)
    assert fork.events


async def write_with_manager(store: EventStore, word: Word) -> None:
    async with AsyncManager(store, answer=agent_from_spec("echo"), runs_worker=False) as manager:
        message = {
            "kind": "message",
            "messageId": word(),
            "role": "user",
            "parts": [{"kind": "text", "text": word()}],
            "metadata": {"d": word()},
        }
        await manager.send_message(word(), message)


async def write_with_openai_agents(store: EventStore, word: Word) -> None:
    pytest.importorskip("agents")
    from agent_manager.adapters.openai_agents import EventStoreSession

    file = b64encode(word("file").encode() * INLINE_BYTES).decode()
    content = [
        {"type": "input_text", "text": word()},
        {"type": "input_file", "filename": word(), "file_data": f"data:application/pdf;base64,{file}"},
    ]
    items: list[Any] = [
        {"role": "user", "content": content},
        {"call_id": "c", "name": "weather", "arguments": json.dumps({"city": word()}), "type": "function_call"},
        {"call_id": "c", "output": word(), "type": "function_call_output"},
    ]
    await EventStoreSession(word(), store).add_items(items)


async def write_with_google_adk(store: EventStore, word: Word) -> None:
    pytest.importorskip("google.adk")
    from google.adk.events.event import Event
    from google.adk.events.event_actions import EventActions
    from google.genai import types

    from agent_manager.adapters.google_adk import EventStoreArtifactService, EventStoreSessionService

    sessions, artifacts = EventStoreSessionService(store), EventStoreArtifactService(store)
    names: dict[str, Any] = {"app_name": word("app"), "user_id": word("user"), "session_id": word()}
    session = await sessions.create_session(**names, state={"e": word(), "user:f": word(), "app:g": word()})
    parts = [
        types.Part(text=word()),
        types.Part.from_bytes(data=word("file").encode() * INLINE_BYTES, mime_type="image/png"),
        types.Part.from_bytes(data=word("small").encode(), mime_type="image/png"),
    ]
    event = Event(author="user", content=types.Content(role="user", parts=parts))
    event.actions = EventActions(state_delta={"h": word()})
    await sessions.append_event(session, event)
    await sessions.append_event(session, Event(author=word(), actions=EventActions(state_delta={"i": word()})))
    await artifacts.save_artifact(**names, filename=word(), artifact=types.Part(text=word("artifact")))


async def write_with_langgraph(store: EventStore, word: Word) -> None:
    pytest.importorskip("langgraph.graph")
    from langchain_core.messages import HumanMessage
    from support.langgraph_agent import graph

    from agent_manager.adapters.langgraph import EventStoreSaver
    from agent_manager.adapters.langgraph_store import EventStoreStore

    thread = {"configurable": {"thread_id": word()}}
    file = b64encode(word("file").encode() * INLINE_BYTES).decode()
    image = {"type": "image", "base64": file, "mime_type": "image/png"}
    messages = [HumanMessage([{"type": "text", "text": word()}, image])]
    await graph(EventStoreSaver(store)).ainvoke({"messages": messages}, thread)
    async with EventStoreStore(store) as items:
        await items.aput((word(), "memories"), word(), {"j": word()})


async def write_with_a2a_sdk(store: EventStore, word: Word) -> None:
    pytest.importorskip("a2a.server.cluster")
    from a2a.server.context import ServerCallContext
    from a2a.types import a2a_pb2 as pb

    from agent_manager.adapters.a2a_sdk import EventStorePushNotificationConfigStore, EventStoreTaskStore

    message = pb.Message(message_id=word(), role=pb.ROLE_USER, parts=[pb.Part(text=word())])
    artifact = pb.Artifact(artifact_id="a", name=word(), parts=[pb.Part(raw=word("raw").encode() * INLINE_BYTES)])
    status = pb.TaskStatus(state=pb.TASK_STATE_COMPLETED)
    task = pb.Task(id=word(), context_id=word(), status=status, history=[message], artifacts=[artifact])
    task.metadata.update({"k": word()})
    await EventStoreTaskStore(store).save(task, ServerCallContext())
    config = pb.TaskPushNotificationConfig(id=word(), url=f"https://{word()}.example")
    await EventStorePushNotificationConfigStore(store).set_info(task.id, config, ServerCallContext())


async def write_with_pydantic_ai(store: EventStore, word: Word) -> None:
    pytest.importorskip("pydantic_ai.conversation_store")
    from pydantic_ai import Agent, BinaryContent
    from pydantic_ai.conversation import Conversation
    from pydantic_ai.models.test import TestModel

    from agent_manager.adapters.pydantic_ai import EventStoreConversationStore

    agent = Agent(TestModel(custom_output_text=word()))
    file = BinaryContent(word("file").encode() * INLINE_BYTES, media_type="image/png")
    result = await agent.run([word(), file], conversation=Conversation(conversation_id=word()))
    await EventStoreConversationStore(store).save(result, scope=word())


async def write_with_agent_framework(store: EventStore, word: Word) -> None:
    pytest.importorskip("agent_framework")
    from agent_framework import AgentSession, Content, Message, WorkflowCheckpoint

    from agent_manager.adapters.agent_framework import (
        EventStoreCheckpointStorage,
        EventStoreHistoryProvider,
        EventStoreSessionStore,
    )

    file = Content.from_data(word("file").encode() * INLINE_BYTES, "image/png")
    messages = [Message("user", [word()], author_name=word()), Message("user", [file])]
    await EventStoreHistoryProvider(store).save_messages(word(), messages)
    session = AgentSession(session_id=word())
    session.state["l"] = word()
    await EventStoreSessionStore(store).set(word(), session)
    checkpoint = WorkflowCheckpoint(workflow_name=word(), graph_signature_hash="h", state={"m": word()})
    await EventStoreCheckpointStorage(store).save(checkpoint)


WRITERS: tuple[Callable[[EventStore, Word], Awaitable[None]], ...] = (
    write_events,
    write_with_manager,
    write_with_openai_agents,
    write_with_google_adk,
    write_with_langgraph,
    write_with_a2a_sdk,
    write_with_pydantic_ai,
    write_with_agent_framework,
)

# Where to look


def files_of_server(server: EmbeddedServer) -> Iterator[Path]:
    """Yield the files of the data directory, except for the write-ahead log."""
    for path in server.data_dir.rglob("*"):
        if path.is_file() and "pg_wal" not in path.parts:
            yield path


def marked_files(server: EmbeddedServer) -> set[str]:
    """Return the files of the server that have the mark, those of tables by the names of these."""
    with psycopg.connect(server.superuser_url, autocommit=True) as superuser:
        superuser.execute("CHECKPOINT")
        names = dict(superuser.execute("SELECT relfilenode::text, relname FROM pg_class").fetchall())
    return {
        names.get(path.name.partition(".")[0], path.name)
        for path in files_of_server(server)
        if is_marked(path.read_bytes())
    }


def dump(server: EmbeddedServer, database: str = "flowagents") -> bytes:
    """Return a dump of a database by its superuser."""
    url = server.superuser_url.replace("/flowagents", f"/{database}")
    return subprocess.run([server.bin_dir / "pg_dump", url], capture_output=True, check=True).stdout


def marked_backup_files(folder: Path) -> set[str]:
    """Return the files of the backups in a folder that have the mark."""

    def content(path: Path) -> bytes:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()

    return {path.name for path in folder.rglob("*") if path.is_file() and is_marked(content(path))}


async def marked_answers(here: Served, conversations: Sequence[UUID]) -> set[str]:
    """Return the endpoints that answer with the mark: those for all conversations, and those for some."""
    of_all = ("conversations", "messages", "tasks", "log", "log/replay", "search", "statistics", "agents", "pending")
    of_one = ("", "/messages", "/tasks", "/events", "/state", "/members", "/ancestry")
    paths = [(path, path) for path in of_all]
    paths += [(f"conversations/{each}{path}", f"conversation{path}") for each in conversations for path in of_one]
    parameters = {
        "log/replay": {"speed": "1e9"},
        "search": {"q": f"{MARK}*"},
        "conversation/state": {"version": "2"},
        **{name: {} for name in ("statistics", "agents", "pending", "conversation", "conversation/members")},
    }
    found = set()
    for path, name in paths:
        answer = await here.client.get(f"/v1/{path}", params=parameters.get(name, {"limit": "1000"}))
        assert answer.status_code == 200, answer.text
        content = (
            json.dumps(answer.json()["items"]).encode() if name == "search" else answer.content
        )  # it has the query
        if is_marked(content):
            found.add(name)
    return found


def marked_commands(url: str) -> set[str]:
    """Return the commands that print the mark."""
    return {each for each in ("messages", "history") if MARK in run(each, "--json", DATABASE_URL=url).stdout}


async def test_nothing_finds_an_erased_word(own_server: EmbeddedServer, tmp_path: Path) -> None:
    settings = ServerSettings(
        _env_file=None,
        data_dir=own_server.data_dir,
        projections="agent_manager.adapters.google_adk_events:SESSIONS",
    )
    untried = []
    async with EventStore(settings) as store, served(store) as here:
        for write in WRITERS:
            try:
                await write(store, Word(MARK))
                await write(store, Word("kept"))
            except pytest.skip.Exception as missing:
                untried.append(str(missing))
        await catch_up(store, load_projections(settings.projections))
        assert files(own_server) == (14, 0)
        events = [event async for event in store.read_log()]
        marked = {event.conversation_id for event in events if is_marked(json.dumps(event.content).encode())}
        conversations = [each for each in dict.fromkeys(event.conversation_id for event in events) if each in marked]
        some = conversations[:2]
        archive = Archive(open_target(str(tmp_path / "backups")))
        old = await create_backup(store, archive)
        execute(own_server, "ANALYZE")
        assert await asyncio.to_thread(marked_files, own_server) >= {
            "events", "idx_conversations_given_id", "messages", "search_documents", "adk_sessions", "blob_chunks",
        }  # fmt: skip
        assert is_marked(await asyncio.to_thread(dump, own_server))
        assert await marked_answers(here, some) >= {
            "conversations", "messages", "tasks", "log", "log/replay", "search", "conversation",
            "conversation/messages", "conversation/tasks", "conversation/events", "conversation/state",
            "conversation/members",
        }  # fmt: skip
        assert await asyncio.to_thread(marked_commands, own_server.url()) == {"messages", "history"}
        assert marked_backup_files(tmp_path)

        for conversation in conversations:
            assert (await store.erase(conversation)).not_refolded == {}
        for user in {event.raw_metadata.get("eventstore.owner") for event in events} - {None}:
            if user.startswith(MARK):
                assert [each async for each in store.erase_user(user)]

        assert files(own_server) == (7, 0)
        assert await marked_answers(here, some) == set()
        assert await asyncio.to_thread(marked_commands, own_server.url()) == set()
        assert not is_marked(await asyncio.to_thread(dump, own_server))
        execute(own_server, "VACUUM (FULL, ANALYZE)")
        execute(own_server, "VACUUM FULL pg_statistic")  # which has the values of before the analysis
        assert await asyncio.to_thread(marked_files, own_server) == set()
        others = [event async for event in store.read_log() if event.conversation_id not in marked]
        assert others
        assert all(event.salt is not None for event in others)
        new = Archive(open_target(str(tmp_path / "new")))
        await create_backup(store, new)
        assert marked_backup_files(tmp_path / "new") == set()
        await create_backup(store, archive)
    # The backup from before, with the receipts that the last one has added beside it.
    execute(own_server, "CREATE DATABASE restored")
    url = own_server.superuser_url.replace("/flowagents", "/restored")
    restored = ServerSettings(_env_file=None, database_url=url, allow_superuser=True)
    await restore_backup(restored, archive, old)
    assert not is_marked(await asyncio.to_thread(dump, own_server, "restored"))
    if untried:
        pytest.skip(f"everything else is gone; not tried: {'; '.join(untried)}")


def files(server: EmbeddedServer) -> tuple[int, int]:
    """Return the number of large files, and of those that no event names."""
    statement = """SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (
                       SELECT
                         FROM events e
                        WHERE e.tenant_id = b.tenant_id
                          AND e.conversation_id = b.conversation_id
                          AND e.metadata -> 'eventstore.files' ? encode(b.sha256, 'hex')
                   )) FROM blobs b"""
    with psycopg.connect(server.superuser_url) as superuser:
        return superuser.execute(statement).fetchone() or (0, 0)


def execute(server: EmbeddedServer, statement: str) -> None:
    """Execute a statement as the superuser."""
    with psycopg.connect(server.superuser_url, autocommit=True) as superuser:
        superuser.execute(statement.encode())
