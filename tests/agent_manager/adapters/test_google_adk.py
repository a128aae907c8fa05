"""Sessions of google-adk in the event store: state, deletion, concurrency, imports, and reads without a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.adk", reason="google-adk is not installed (extra: adk)")

from google.adk.cli.service_registry import get_service_registry
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session
from google.genai import types
from support.adk import make_sqlite
from support.environment import child_environment
from support.tenants import TenantStore
from support.waiting import until, until_async

from agent_manager.adapters import google_adk
from agent_manager.adapters.blobs import INLINE_BYTES
from agent_manager.adapters.google_adk import EventStoreSessionService, register_services
from agent_manager.adapters.google_adk_events import SESSIONS, conversation_name
from agent_manager.importers import migrate
from agent_manager.importers.google_adk import AdkSource
from eventstore import (
    ApplicationEvent,
    Caller,
    ConversationReactivated,
    ConversationRenamed,
    EventStore,
    MessageAdded,
    conversation_uuid,
)
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import InvalidEvent, SettingsError
from eventstore.read import end_of_log
from projections import (
    PROJECTIONS,
    Reader,
    Search,
    Worker,
    applied_position,
    catch_up,
    load_projections,
    rebuild,
    verify,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

APP, ANA = "app", "ana"
KEYS = {"app_name": APP, "user_id": ANA}


@pytest.fixture
def service(store: EventStore) -> EventStoreSessionService:
    return EventStoreSessionService(store)


@pytest.fixture(params=["without a worker", "the tables are behind", "the tables are up"])
def followed(request: pytest.FixtureRequest, store: EventStore) -> Callable[..., Awaitable[None]]:
    """A function that lets a worker follow the log, or not: reads must not depend on it."""

    async def follow(moment: str = "last") -> None:
        if request.param == "the tables are up" or (request.param == "the tables are behind" and moment == "first"):
            await catch_up(store, [SESSIONS])

    return follow


def text(words: str, author: str = "user", **delta: Any) -> Event:
    event = changed(**delta)
    event.author = author
    event.content = types.Content(role="user" if author == "user" else "model", parts=[types.Part(text=words)])
    return event


def changed(**delta: Any) -> Event:
    """Return an event that changes the state; ``app__a`` stands for ``app:a``."""
    actions = EventActions(state_delta={name.replace("__", ":"): value for name, value in delta.items()})
    return Event(invocation_id="i", author="agent", actions=actions)


async def appended(service: EventStoreSessionService, session: Session, *events: Event) -> Session:
    for event in events:
        await service.append_event(session, event)
    return session


async def got(service: EventStoreSessionService, session_id: str = "s", **config: Any) -> Session | None:
    return await service.get_session(**KEYS, session_id=session_id, config=GetSessionConfig(**config))


async def test_a_session_reads_back_equal(service: EventStoreSessionService, followed: Any) -> None:
    session = await service.create_session(**KEYS, session_id="s", state={"a": 1, "app:b": 2, "user:c": 3, "temp:d": 4})
    assert session.state == {"a": 1, "app:b": 2, "user:c": 3}
    await appended(service, session, text("olá"))
    await followed("first")
    await appended(service, session, text("hi", "agent", a=None), changed(app__b=[5], user__e={"f": 1e23}))
    await followed()
    assert await got(service) == session
    assert session.state == {"a": None, "app:b": [5], "user:c": 3, "user:e": {"f": 1e23}}
    assert (await service.list_sessions(app_name=APP)).sessions == [session.model_copy(update={"events": []})]
    assert await service.get_user_state(**KEYS) == {"c": 3, "e": {"f": 1e23}}


@pytest.mark.parametrize("count", [0, 1, 2, 9])
async def test_the_state_is_whole_whatever_events_are_read(
    service: EventStoreSessionService, followed: Any, count: int
) -> None:
    session = await service.create_session(**KEYS, session_id="s", state={"n": 0})
    await appended(service, session, text("one", n=1), changed(m=1))
    await followed("first")
    await appended(service, session, text("two", n=2))
    await followed()
    recent = await got(service, num_recent_events=count)
    assert recent is not None
    assert recent.state == {"n": 2, "m": 1}
    assert recent.events == session.events[len(session.events) - count :] if count < 3 else session.events
    assert await appended(service, recent, text("three")) == recent
    assert recent.last_update_time == recent.events[-1].timestamp


async def test_lists_have_the_last_updated_session_last(service: EventStoreSessionService, followed: Any) -> None:
    sessions = {name: await service.create_session(**KEYS, session_id=name, state={"of": name}) for name in "abc"}
    other = await service.create_session(app_name=APP, user_id="bob", session_id="a", state={"app:v": 1, "user:w": 2})
    await service.create_session(app_name="another", user_id=ANA, session_id="a")
    await followed("first")
    await appended(service, sessions["a"], text("hello", seen=True))
    await service.delete_session(**KEYS, session_id="b")
    await followed()
    of_ana = (await service.list_sessions(**KEYS)).sessions
    assert [session.id for session in of_ana] == ["c", "a"]
    assert [session.state for session in of_ana] == [{"of": "c", "app:v": 1}, {"of": "a", "seen": True, "app:v": 1}]
    everyone = (await service.list_sessions(app_name=APP)).sessions
    assert [(session.user_id, session.id) for session in everyone] == [(ANA, "c"), ("bob", "a"), (ANA, "a")]
    assert everyone[1] == other
    assert (await service.list_sessions(app_name="nothing")).sessions == []


async def test_a_session_that_is_created_again_begins_anew(
    service: EventStoreSessionService, store: EventStore, followed: Any
) -> None:
    for number in range(3):
        session = await service.create_session(**KEYS, session_id="s", state={f"k{number}": 1, "user:u": number})
        with pytest.raises(AlreadyExistsError):
            await service.create_session(**KEYS, session_id="s")
        await appended(service, session, text(f"in {number}"))
        await followed("first")
        assert await got(service) == session
        await service.delete_session(**KEYS, session_id="s")
        await service.delete_session(**KEYS, session_id="s")
        await followed()
        assert await got(service) is None
        assert await got(service, num_recent_events=1) is None
        assert (await service.list_sessions(app_name=APP)).sessions == []
        with pytest.raises(SessionNotFoundError):
            await service.append_event(session, text("too late"))
    assert await service.get_user_state(**KEYS) == {"u": 2}
    again = await service.create_session(**KEYS, session_id="s")
    assert again.state == {"user:u": 2}
    assert again.events == []
    await catch_up(store)
    assert len(await Reader(store).conversations()) == 1  # what was deleted stays deleted


async def test_a_session_whose_deletion_was_undone_is_there_again(
    service: EventStoreSessionService, store: EventStore, followed: Any
) -> None:
    session = await appended(service, await service.create_session(**KEYS, session_id="s"), text("hello", n=1))
    await service.delete_session(**KEYS, session_id="s")
    await followed("first")
    await store.append(conversation_uuid(store.tenant, conversation_name(APP, ANA, "s")), [ConversationReactivated()])
    await followed()
    found = await got(service)
    assert found is not None
    assert (found.events, found.state) == (session.events, {"n": 1})
    assert [each.state for each in (await service.list_sessions(**KEYS)).sessions] == [{"n": 1}]


async def test_a_stale_writer_is_refused(service: EventStoreSessionService) -> None:
    await service.create_session(**KEYS, session_id="s")
    sessions = [await got(service) for _ in range(8)]
    results = await asyncio.gather(
        *(service.append_event(session, text(f"{n}")) for n, session in enumerate(sessions) if session),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Event) for result in results) == 1
    assert sum(isinstance(result, StaleSessionError) for result in results) == 7
    found = await got(service)
    assert found is not None
    assert len(found.events) == 1


async def test_branches_of_one_agent_append_to_one_session_at_the_same_time(service: EventStoreSessionService) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    await asyncio.gather(*(service.append_event(session, text(f"{n}", "agent")) for n in range(20)))
    assert await got(service) == session
    assert len(session.events) == 20


async def test_what_is_not_of_the_session_does_not_make_a_writer_stale(
    service: EventStoreSessionService, store: EventStore
) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    conversation = conversation_uuid(store.tenant, conversation_name(APP, ANA, "s"))
    await store.append(conversation, [ConversationRenamed(name="Trip"), ApplicationEvent("seen")])
    await appended(service, session, text("hello"), text("again"))
    found = await got(service)
    assert found is not None
    assert found.events == session.events
    await store.append(conversation, [MessageAdded(role="user", content="from elsewhere")])
    with pytest.raises(StaleSessionError, match="modified in storage"):
        await service.append_event(session, text("late"))


async def test_another_framework_reads_and_writes_the_same_conversation(
    service: EventStoreSessionService, store: EventStore
) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    await appended(service, session, text("what is the time"), text("noon", "clock"))
    conversation = conversation_uuid(store.tenant, conversation_name(APP, ANA, "s"))
    await store.append(conversation, [MessageAdded(role="assistant", content="and sunny")], actor="weather")
    found = await got(service)
    assert found is not None
    assert [(each.author, each.content and each.content.parts[0].text) for each in found.events] == [  # type: ignore[index]
        ("user", "what is the time"),
        ("clock", "noon"),
        ("weather", "and sunny"),
    ]
    await catch_up(store)
    messages = await Reader(store).messages(conversation)
    assert [(each.role, each.content) for each in messages] == [
        ("user", "what is the time"),
        ("assistant", "noon"),
        ("assistant", "and sunny"),
    ]
    assert [event.actor async for event in store.read(conversation, types=["message.added"])] == [
        ANA, "clock", "weather",
    ]  # fmt: skip


def call(name: str, call_id: str | None, **arguments: Any) -> Event:
    part = types.Part(function_call=types.FunctionCall(id=call_id, name=name, args=arguments))
    return Event(author="clerk", content=types.Content(role="model", parts=[part]))


def response(name: str, call_id: str | None, author: str = "clerk", **result: Any) -> Event:
    part = types.Part(function_response=types.FunctionResponse(id=call_id, name=name, response=result))
    return Event(author=author, content=types.Content(role="user", parts=[part]))


async def tasks_of(store: EventStore) -> list[tuple[str, str, list[Any]]]:
    """Return description, status and results of the tasks of the session, in the order of their calls."""
    await catch_up(store)
    conversation = conversation_uuid(store.tenant, conversation_name(APP, ANA, "s"))
    tasks = await Reader(store).tasks(conversation)
    return [
        (task.description, str(task.status), [part for each in task.artifacts or () for part in each["parts"]])
        for task in sorted(tasks, key=lambda task: task.created_at)
    ]


async def test_a_function_call_is_a_task_and_its_response_the_result(
    service: EventStoreSessionService, store: EventStore
) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    await appended(service, session, text("is it sunny in Lisboa"), call("weather", "c1", city="Lisboa", days=[1, 2]))
    assert await tasks_of(store) == [('weather({"city": "Lisboa", "days": [1, 2]})', "in_progress", [])]
    await appended(service, session, response("weather", "c1", result="sunshine"), text("It is.", "clerk"))
    await appended(service, session, call("weather", "c1", city="Porto"), response("weather", "c1", error="no data"))
    assert [(description, status) for description, status, _ in await tasks_of(store)] == [
        ('weather({"city": "Lisboa", "days": [1, 2]})', "completed"),
        ('weather({"city": "Porto"})', "failed"),
    ]
    assert [results for _, _, results in await tasks_of(store)] == [
        [{"kind": "text", "text": "sunshine"}],
        [{"kind": "data", "data": {"error": "no data"}}],
    ]
    for count in (None, 0, 1, 2, 3, 4, 5, 6):
        found = await got(service, num_recent_events=count)
        assert found is not None
        assert found.events == session.events[len(session.events) - (6 if count is None else count) :]
        assert found.last_update_time == session.last_update_time


async def test_arguments_and_results_are_stored_once_and_found(
    service: EventStoreSessionService, store: EventStore
) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    asked, answered = call("find", "c", word="heliotrope"), response("find", "c", where=["under the wisteria"])
    for _ in range(2):  # appended again, it is stored once
        await appended(service, session, asked, answered)
    conversation = conversation_uuid(store.tenant, conversation_name(APP, ANA, "s"))
    log = str([event.content async for event in store.read(conversation)])
    assert (log.count("heliotrope"), log.count("wisteria")) == (1, 1)
    await catch_up(store)
    for word, kind in (("heliotrope", "task"), ("wisteria", "artifact")):
        assert [str(hit.kind) for hit in (await Search(store).page(word)).items] == [kind]


async def test_a_call_of_a_long_running_tool_is_in_progress_until_its_user_responds(
    service: EventStoreSessionService, store: EventStore
) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    asked = call("approve", "c", amount=7)
    asked.long_running_tool_ids = {"c"}
    confirmed = call("adk_request_confirmation", "d", hint="sure?")
    await appended(service, session, asked, response("approve", "c", status="pending"), confirmed)
    assert [status for _, status, _ in await tasks_of(store)] == ["in_progress", "input-required"]
    await appended(service, session, response("adk_request_confirmation", "d", "user", confirmed=True))
    await appended(service, session, response("approve", "c", "user", status="approved"))
    tasks = await tasks_of(store)
    assert [status for _, status, _ in tasks] == ["completed", "completed"]
    assert tasks[0][2][-1] == {"kind": "data", "data": {"status": "approved"}}
    assert await got(service) == session


async def test_a_response_without_a_call_is_a_task_too(service: EventStoreSessionService, store: EventStore) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    await appended(service, session, response("lookup", None, result="42"), call("noted", None))
    assert await tasks_of(store) == [
        ("lookup", "completed", [{"kind": "text", "text": "42"}]),
        ("noted({})", "in_progress", []),
    ]
    assert await got(service) == session


async def test_large_files_leave_the_log_and_come_back(service: EventStoreSessionService, store: EventStore) -> None:
    image = bytes(range(256)) * (INLINE_BYTES // 128)
    response = types.FunctionResponse(
        name="draw",
        response={"ok": True},
        parts=[types.FunctionResponsePart(inline_data=types.FunctionResponseBlob(mime_type="image/png", data=image))],
    )
    parts = [
        types.Part(text="look"),
        types.Part.from_bytes(data=image, mime_type="image/png"),
        types.Part(function_response=response),
    ]
    session = await service.create_session(**KEYS, session_id="s")
    for _ in range(3):
        event = Event(author="user", content=types.Content(role="user", parts=[part.model_copy() for part in parts]))
        await service.append_event(session, event)
    assert await got(service) == session
    [(count,)] = await store.tables(Caller(store.tenant)).fetch("SELECT count(*) FROM blobs")
    assert count == 1
    conversation = conversation_uuid(store.tenant, conversation_name(APP, ANA, "s"))
    assert max([event.size async for event in store.read(conversation)]) < 4096


async def test_users_see_only_their_sessions_in_the_store(store: EventStore) -> None:
    service = EventStoreSessionService(store, owned_by_user=True)
    for user in (ANA, "bob"):
        session = await service.create_session(app_name=APP, user_id=user, session_id="s", state={"user:n": user})
        await appended(service, session, text(f"of {user}", app__last=user))
    await catch_up(store)
    conversations = [
        await Reader(store, caller=Caller(store.tenant, user)).conversations() for user in (ANA, "bob", "eve")
    ]
    assert [[each.given_id for each in page] for page in conversations] == [["app/ana/s"], ["app/bob/s"], []]
    assert await got(service) is not None
    assert [session.user_id for session in (await service.list_sessions(**KEYS)).sessions] == [ANA]
    await EventStoreSessionService(store).create_session(app_name=APP, user_id="eve", session_id="s", state={"x": 1})
    of_eve = {"app_name": APP, "user_id": "eve"}
    for config in (None, GetSessionConfig(num_recent_events=0)):
        assert await service.get_session(**of_eve, session_id="s", config=config) is None
    assert (await service.list_sessions(**of_eve)).sessions == []
    await catch_up(store, [SESSIONS])
    assert (await service.list_sessions(**of_eve)).sessions == []
    assert await service.get_session(**of_eve, session_id="s", config=GetSessionConfig(num_recent_events=0)) is None


async def test_tenants_have_the_same_sessions_without_noticing(store: EventStore, module_store: EventStore) -> None:
    tenants = [store, TenantStore(module_store, f"{store.tenant}-other")]
    services = [EventStoreSessionService(tenant) for tenant in tenants]
    sessions = [
        await appended(each, await each.create_session(**KEYS, session_id="s", state={"app:n": n}), text(f"{n}"))
        for n, each in enumerate(services)
    ]
    for each, session in zip(services, sessions, strict=True):
        assert await got(each) == session
        assert len((await each.list_sessions(app_name=APP)).sessions) == 1


async def test_imported_sessions_go_on(store: EventStore, service: EventStoreSessionService, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    with sqlite3.connect(path) as connection:
        connection.execute("""UPDATE events SET event_data = replace(event_data, ', "extra": 1', '')""")
    connection.close()
    async with AdkSource(str(path)) as source:
        assert (await migrate(source, store, backups=tmp_path / "backups")).is_clean
    session = await got(service, "s1")
    assert session is not None
    assert session.state == {"a": 1, "app:v": 2, "user:lang": "pt"}
    assert [event.content is None for event in session.events] == [False, False, False, True, False]
    assert [event.timestamp for event in session.events] == sorted(event.timestamp for event in session.events)
    assert session.events[0].content.parts[1].inline_data.data == b"\xff\xfe\xfd\xfb"  # type: ignore[union-attr,index]
    [called], [answered] = session.events[1].get_function_calls(), session.events[2].get_function_responses()
    assert (called.args, answered.response) == ({"x": None}, {"ok": 1.5})
    recent = await got(service, "s1", num_recent_events=2)
    assert recent is not None
    assert recent.events == session.events[-2:]
    await catch_up(store, [SESSIONS])
    assert (await service.list_sessions(app_name="app")).sessions == [session.model_copy(update={"events": []})]
    further = response("f", "c", author="user", result="later")
    await appended(service, session, text("further", a=2), changed(b=1), further)
    assert await got(service, "s1") == session
    await catch_up(store)
    [task] = await Reader(store).tasks(conversation_uuid(store.tenant, "app/ana/s1"))
    assert [artifact["parts"] for artifact in task.artifacts] == [
        [{"kind": "data", "data": {"ok": 1.5}}],
        [{"kind": "text", "text": "later"}],
    ]
    async with AdkSource(str(path)) as source:
        assert (await migrate(source, store, backups=tmp_path / "backups")).new_events == 0


async def test_a_session_without_a_revision_must_have_the_last_event(service: EventStoreSessionService) -> None:
    await service.create_session(**KEYS, session_id="s")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(Session(id="nothing", **KEYS), text("hello"))
    empty = Session(id="s", **KEYS)
    await service.append_event(empty, text("one"))
    copied = Session.model_validate_json(empty.model_dump_json())
    copied.last_update_time -= 1
    await service.append_event(copied, text("two"))
    with pytest.raises(StaleSessionError):
        await service.append_event(Session(id="s", **KEYS), text("three"))


async def test_what_cannot_be_stored_is_named(service: EventStoreSessionService) -> None:
    session = await service.create_session(**KEYS, session_id="s")
    with pytest.raises(InvalidEvent, match=r"content\.parts\[0\]\.text: has a NUL character"):
        await service.append_event(session, text("a\0b"))
    assert session.events == []


async def test_the_tables_are_rebuilt_and_verified_like_the_others(
    store: EventStore, service: EventStoreSessionService
) -> None:
    for user in ("ana", "bob"):
        for name in "abcdef":
            session = await service.create_session(app_name=APP, user_id=user, session_id=name, state={"user:n": name})
            await appended(service, session, text("hello", x=1), changed(app__last=name, user__last=user, y=[None]))
    await service.delete_session(**KEYS, session_id="a")
    before = (await service.list_sessions(app_name=APP)).sessions
    projections = load_projections("agent_manager.adapters.google_adk_events:SESSIONS")
    assert projections == (*PROJECTIONS, SESSIONS)
    await catch_up(store, [SESSIONS])
    [verified] = await verify(store, [SESSIONS])
    assert not verified.differences
    [rebuilt] = await rebuild(store, [SESSIONS])
    assert not rebuilt.differences
    assert (await service.list_sessions(app_name=APP)).sessions == before
    assert await service.get_user_state(app_name=APP, user_id="bob") == {"n": "f", "last": "bob"}


async def test_the_service_fills_the_tables_if_no_worker_does(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_adk, "LONGEST_LAG", 3)
    async with EventStoreSessionService(store) as service:
        for name in "abcdefgh":
            await service.create_session(**KEYS, session_id=name, state={"app:last": name})

        async def is_applied() -> bool:
            await service.list_sessions(app_name=APP)
            return await end_of_log(store.pool) - await applied_position(store, [SESSIONS]) <= 3

        await until_async(is_applied, "the tables are filled")
        sessions = (await service.list_sessions(app_name=APP)).sessions
        assert [session.id for session in sessions] == list("abcdefgh")
        assert {session.state["app:last"] for session in sessions} == {"h"}


@pytest.mark.own_database
async def test_services_that_start_at_the_same_time_create_their_tables_once(store: EventStore) -> None:
    services = [EventStoreSessionService(store) for _ in range(6)]
    found = await asyncio.gather(*(service.list_sessions(app_name=APP) for service in services))
    assert [each.sessions for each in found] == [[]] * 6


@pytest.mark.own_database
async def test_a_worker_follows_the_sessions(store: EventStore) -> None:
    worker = asyncio.create_task(Worker(store, projections=(*PROJECTIONS, SESSIONS)).run())
    try:
        service = EventStoreSessionService(store)
        for number in range(30):
            session = await service.create_session(**KEYS, session_id=f"{number}", state={"user:n": number})
            await appended(service, session, text("hello"), changed(app__last=number))
        await wait_for(store, await end_of_log(store.pool), projections=[SESSIONS])
    finally:
        await cancel_and_wait([worker])
    assert not (await verify(store, [SESSIONS]))[0].differences
    sessions = (await service.list_sessions(app_name=APP)).sessions
    assert {session.state["app:last"] for session in sessions} == {29}
    assert len(sessions) == 30


async def test_a_service_opens_its_own_store_from_a_uri(database_url: str, store: EventStore) -> None:
    register_services()
    uri = database_url.replace("postgresql://", "eventstore://")
    uri += f"{'&' if '?' in uri else '?'}tenant={store.tenant}"
    service = get_service_registry().create_session_service(uri, agents_dir=".")
    assert isinstance(service, EventStoreSessionService)
    async with service:
        session = await service.create_session(**KEYS, session_id="s")
        await asyncio.to_thread(asyncio.run, service.append_event(session, text("from another event loop")))
        assert await got(service) == session
    assert await got(EventStoreSessionService(store)) == session


@pytest.mark.parametrize("uri", ["eventstore:/nowhere", "eventstore:sessions.db"])
def test_a_uri_that_names_no_server_is_refused(uri: str) -> None:
    register_services()
    with pytest.raises(SettingsError, match="eventstore://LOGIN@HOST"):
        get_service_registry().create_session_service(uri)


AGENT = """
import asyncio, sys
from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types
from agent_manager.adapters.google_adk import EventStoreSessionService

class Scripted(BaseLlm):
    async def generate_content_async(self, request, stream=False):
        last = request.contents[-1].parts[-1]
        turns = sum(each.role == "user" and bool(each.parts[0].text) for each in request.contents)
        if last.function_response is None:
            call = types.FunctionCall(name="note", args={"word": last.text})
            parts = [types.Part(function_call=call)]
        else:
            parts = [types.Part(text=f"turn {turns}: noted {last.function_response.response['word']}")]
        yield LlmResponse(content=types.Content(role="model", parts=parts))

async def note(word: str, tool_context):
    "Note a word."
    tool_context.state["words"] = [*tool_context.state.get("words", []), word]
    if word == "stall":
        print("stalling", flush=True)
        await asyncio.Event().wait()
    return {"word": word}

async def main(*words):
    agent = LlmAgent(name="clerk", model=Scripted(model="scripted"), tools=[note], output_key="answer")
    async with EventStoreSessionService() as service:
        runner = Runner(agent=agent, app_name="app", session_service=service, auto_create_session=True)
        for word in words:
            message = types.Content(role="user", parts=[types.Part(text=word)])
            async for event in runner.run_async(user_id="ana", session_id="s", new_message=message):
                if event.is_final_response():
                    print(event.content.parts[0].text, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.own_database
async def test_an_agent_that_is_killed_goes_on(database_url: str, store: EventStore, tmp_path: Path) -> None:
    environment = child_environment(DATABASE_URL=database_url)
    out = tmp_path / "out"
    command = [sys.executable, "-c", AGENT]
    with out.open("wb") as file:
        process = subprocess.Popen([*command, "one", "two", "stall"], stdout=file, env=environment)  # noqa: ASYNC220
    try:
        until(lambda: "stalling" in out.read_text() or process.poll() is not None, "the tool is called", 60)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert out.read_text().splitlines() == ["turn 1: noted one", "turn 2: noted two", "stalling"]
    service = EventStoreSessionService(store)
    session = await got(service)
    assert session is not None
    assert [event.get_function_calls()[0].args for event in session.events if event.get_function_calls()] == [
        {"word": "one"}, {"word": "two"}, {"word": "stall"},
    ]  # fmt: skip
    assert session.state == {"words": ["one", "two"], "answer": "turn 2: noted two"}
    after = subprocess.run(  # noqa: ASYNC221
        [*command, "three"], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    assert after.stdout.splitlines() == ["turn 4: noted three"]
    session = await got(service)
    assert session is not None
    assert session.state["words"] == ["one", "two", "three"]
    await catch_up(store)
    messages = await Reader(store).messages(conversation_uuid(store.tenant, conversation_name(APP, ANA, "s")))
    assert [message.content for message in messages if message.content] == [
        "one", "turn 1: noted one", "two", "turn 2: noted two", "stall", "three", "turn 4: noted three",
    ]  # fmt: skip
