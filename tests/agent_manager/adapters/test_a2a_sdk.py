"""a2a-sdk's stores on the event store: tasks read back equal, with only what changed in the log."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples

from eventstore import EventStore, MessageAdded, conversation_uuid
from eventstore.errors import ConversationIsDeleted, InputError, InvalidEvent
from projections import Reader, catch_up
from projections.search import Search

pytest.importorskip("a2a.server.cluster", reason="the tests of tasks in protobuf need a2a-sdk 1.3")

from a2a.auth.user import User
from a2a.server.cluster import ConcurrentTaskModificationError, TaskVersion
from a2a.server.context import ServerCallContext
from a2a.server.tasks.task_manager import TaskManager
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import InvalidParamsError

from agent_manager.adapters.a2a_sdk import (
    EventStorePushNotificationConfigStore,
    EventStoreTaskEventStream,
    EventStoreTaskStore,
    EventStoreVersionedTaskStore,
)
from agent_manager.adapters.a2a_sdk_tasks import RECORDS, Tasks
from agent_manager.adapters.store_access import StoreAccess

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

SUBMITTED, WORKING = pb.TASK_STATE_SUBMITTED, pb.TASK_STATE_WORKING
COMPLETED, CANCELED = pb.TASK_STATE_COMPLETED, pb.TASK_STATE_CANCELED
NOBODY = ServerCallContext()


class Named(User):
    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def user_name(self) -> str:
        return self._name


def call_of(name: str) -> ServerCallContext:
    return ServerCallContext(user=Named(name))


def message(text: str, message_id: str, role: Any = pb.ROLE_AGENT) -> pb.Message:
    return pb.Message(message_id=message_id, role=role, parts=[pb.Part(text=text)])


def new_task(task_id: str = "t", context_id: str = "trip", state: Any = SUBMITTED, **members: Any) -> pb.Task:
    history = [message("Where is Lisbon?", "m1", pb.ROLE_USER)]
    return pb.Task(id=task_id, context_id=context_id, status=pb.TaskStatus(state=state), history=history, **members)


async def events_of(store: EventStore, context_id: str = "trip") -> list[Any]:
    return [event async for event in store.read(conversation_uuid(store.tenant, context_id))]


# What is stored


async def test_a_task_is_stored_in_the_vocabulary_with_only_what_changed(store: EventStore) -> None:
    tasks = EventStoreTaskStore(store)
    await tasks.initialize()  # which does nothing
    task = new_task()
    await tasks.save(task, NOBODY)
    task.status.CopyFrom(pb.TaskStatus(state=WORKING, message=message("Looking", "m2")))
    await tasks.save(task, NOBODY)
    task.history.append(task.status.message)
    task.status.CopyFrom(pb.TaskStatus(state=COMPLETED))
    task.artifacts.append(pb.Artifact(artifact_id="a", parts=[pb.Part(text="In Portugal")]))
    await tasks.save(task, NOBODY)
    await tasks.save(task, NOBODY)  # nothing changed
    assert [event.event_type for event in await events_of(store)] == [
        "conversation.created",
        "message.added", "task.created", "task.status_changed",
        "task.status_changed",
        "task.status_changed", "task.artifact_added",
    ]  # fmt: skip
    texts = "".join(str(event.content) for event in await events_of(store))
    assert texts.count("Looking") == 1  # in the status; the history refers to it
    assert await EventStoreTaskStore(store).get("t", NOBODY) == task


async def test_no_order_of_members_is_stored_because_protobuf_has_none(store: EventStore) -> None:
    tasks, task = EventStoreTaskStore(store), new_task()
    task.metadata.update({"name": "a", "date": "b"})
    task.history[0].metadata.update({"name": {"to": 1, "by": 2}})
    await tasks.save(task, NOBODY)
    task.history.append(message("In Portugal", "m2"))
    await tasks.save(task, NOBODY)
    events = [
        *await events_of(store),
        *[event async for event in store.read(conversation_uuid(store.tenant, RECORDS + "t"))],
    ]
    assert len(events) == 6
    assert [event.event_type for event in events if "eventstore.member_order" in event.raw_metadata] == []
    assert await EventStoreTaskStore(store).get("t", NOBODY) == task


async def test_a_task_in_memory_has_each_message_once(store: EventStore) -> None:
    tasks, task = Tasks(StoreAccess(store)), new_task()
    for number in range(2, 5):
        task.history.append(message("Looking", f"m{number}"))
        await tasks.save(task, "")
        state = await tasks.known("t")
        assert state is not None
        assert state.converted is not None
        converted = state.converted[1]["history"]
        assert [*map(id, converted)] == [id(state.messages[event_id]) for event_id in state.history]


async def test_a_growing_artifact_is_stored_in_chunks(store: EventStore) -> None:
    tasks = EventStoreTaskStore(store)
    task = new_task(artifacts=[pb.Artifact(artifact_id="a", parts=[pb.Part(text="0" * 1000)])])
    await tasks.save(task, NOBODY)
    for number in range(1, 50):
        task.artifacts[0].parts.append(pb.Part(text=f"{number}" * 100))
        await tasks.save(task, NOBODY)
    assert await EventStoreTaskStore(store).get("t", NOBODY) == task
    assert sum(event.size for event in await events_of(store)) < 4 * task.ByteSize()


async def test_another_reader_sees_messages_and_tasks(store: EventStore, works: bool) -> None:
    await EventStoreTaskStore(store).save(new_task(), NOBODY)
    result = (await events_of(store))[-1]
    reader = Reader(store)
    conversation_id = conversation_uuid(store.tenant, "trip")
    found = await reader.messages(conversation_id, at_least=result.position)
    assert [each.content for each in found.items] == ["Where is Lisbon?"]
    [task] = (await reader.tasks(conversation_id=conversation_id, at_least=result.position)).items
    assert (task.given_id, task.status, task.description) == ("t", "pending", "Where is Lisbon?")


# Reading back equal

# PostgreSQL's JSON has no negative zero.
numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0) | st.integers(
    -(2**53), 2**53
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
structs = st.dictionaries(
    texts,
    st.recursive(st.none() | st.booleans() | numbers | texts, lambda each: st.lists(each, max_size=2)),
    max_size=3,
)
parts = st.one_of(
    texts.map(lambda text: pb.Part(text=text)),
    st.binary(max_size=20).map(lambda raw: pb.Part(raw=raw, media_type="image/png", filename="ä.png")),
    texts.map(lambda url: pb.Part(url=url)),
)


@st.composite
def structured(draw: Any, kind: Any, **members: Any) -> Any:
    drawn = kind(**{name: draw(strategy) for name, strategy in members.items()})
    if draw(st.booleans()):
        drawn.metadata.update(draw(structs))
    return drawn


messages = structured(
    pb.Message, message_id=texts, role=st.sampled_from([0, 1, 2]), parts=st.lists(parts, max_size=3),
    task_id=texts, context_id=texts, extensions=st.lists(texts, max_size=2),
)  # fmt: skip
artifacts = structured(
    pb.Artifact, artifact_id=st.sampled_from(["", "a", "b", "c"]), parts=st.lists(parts, max_size=3), name=texts
)
statuses = st.builds(
    lambda state, message: pb.TaskStatus(state=state, message=message),
    st.integers(0, 8),
    st.none() | messages,
)
tasks_of_any_kind = structured(
    pb.Task, context_id=st.sampled_from(["", "c"]), status=st.none() | statuses, history=st.lists(messages, max_size=4),
    artifacts=st.lists(artifacts, max_size=3),
)  # fmt: skip


@given(versions=st.lists(tasks_of_any_kind, min_size=1, max_size=4))
@examples(40)
async def test_a_task_reads_back_equal_after_any_change(store: EventStore, versions: list[pb.Task]) -> None:
    writer, task_id = EventStoreTaskStore(store), str(uuid4())
    for task in versions:
        task.id = task_id
        await writer.save(task, NOBODY)
        assert await writer.get(task.id, NOBODY) == task
        assert await EventStoreTaskStore(store).get(task.id, NOBODY) == task


@given(updates=st.lists(st.one_of(statuses.filter(lambda status: status.state != CANCELED), artifacts), min_size=1))
@examples(30)
async def test_the_updates_of_a_task_are_streamed_as_they_were_published(store: EventStore, updates: list[Any]) -> None:
    task_id = str(uuid4())
    tasks = EventStoreVersionedTaskStore(store)
    manager = TaskManager(tasks, NOBODY, task_id, "c", None)
    published: list[Any] = []
    first = new_task(task_id, "c")
    await manager.save_task_event(first)
    published.append(pb.Task.FromString(first.SerializeToString()))
    for update in updates:
        kind = "status" if isinstance(update, pb.TaskStatus) else "artifact"
        event_type = pb.TaskStatusUpdateEvent if kind == "status" else pb.TaskArtifactUpdateEvent
        event = event_type(task_id=task_id, context_id="c", **{kind: update})
        if kind == "artifact":
            stored = await tasks.get(task_id, NOBODY)
            event.append = any(each.artifact_id == update.artifact_id for each in stored.task.artifacts)
            event.last_chunk = len(update.parts) > 1
        event.metadata.update({"of": kind})
        await manager.save_task_event(event)
        published.append(event)
    received: list[Any] = []
    stream = EventStoreTaskEventStream(store).subscribe(task_id, after=TaskVersion.MISSING)
    async with aclosing(stream):
        while len(received) < len(published):
            received.append((await anext(stream)).event)
    assert received == published


async def test_a_task_with_a_text_that_postgresql_cannot_store_is_refused(store: EventStore) -> None:
    task = new_task()
    task.history[0].parts[0].text = "\0"
    with pytest.raises(InvalidEvent, match="NUL"):
        await EventStoreTaskStore(store).save(task, NOBODY)


@pytest.mark.parametrize("levels", [40, 60, 900])
async def test_metadata_that_could_not_be_read_back_are_refused(store: EventStore, levels: int) -> None:
    task = new_task()
    values = task.metadata.get_or_create_list("v")
    for _ in range(levels):
        values = values.add_list()
    if levels > 40:
        with pytest.raises(InputError, match="nested too deep"):
            await EventStoreTaskStore(store).save(task, NOBODY)
    else:
        await EventStoreTaskStore(store).save(task, NOBODY)
        assert await EventStoreTaskStore(store).get("t", NOBODY) == task


async def test_a_large_artifact_is_divided(store: EventStore) -> None:
    tasks, limit = EventStoreTaskStore(store), store.settings.max_content_bytes
    task = new_task(artifacts=[pb.Artifact(artifact_id="a", parts=[pb.Part(text="ä" * limit)])])
    await tasks.save(task, NOBODY)
    assert await EventStoreTaskStore(store).get("t", NOBODY) == task


async def test_large_files_are_stored_once_beside_the_log_and_read_back_equal(store: EventStore, works: bool) -> None:
    picture = pb.Part(raw=bytes(range(256)) * 200, media_type="image/png", filename="ä.png")
    largest = pb.Part(raw=bytes(store.settings.max_content_bytes))
    tasks = EventStoreVersionedTaskStore(store)
    manager = TaskManager(tasks, NOBODY, "t", "trip", None)
    task = new_task()
    task.history[0].parts.append(picture)
    await manager.save_task_event(task)
    status = pb.TaskStatus(state=WORKING, message=message("Looking", "m2"))
    status.message.parts.append(picture)
    updates = [
        pb.TaskStatusUpdateEvent(task_id="t", context_id="trip", status=status),
        pb.TaskArtifactUpdateEvent(
            task_id="t", context_id="trip", artifact=pb.Artifact(artifact_id="a", parts=[picture, largest])
        ),
    ]
    for update in updates:
        await manager.save_task_event(update)
    stored = await tasks.get("t", NOBODY)
    for reader in (EventStoreTaskStore(store), EventStoreTaskStore(store)):
        assert await reader.get("t", NOBODY) == stored.task
        assert (await reader.list(pb.ListTasksRequest(), NOBODY)).tasks[0].history == stored.task.history
    assert stored.task.history[0].parts[1] == picture
    assert list(stored.task.artifacts[0].parts) == [picture, largest]
    stream = EventStoreTaskEventStream(store).subscribe("t", after=TaskVersion.MISSING)
    async with aclosing(stream):
        assert [(await anext(stream)).event for _ in range(3)][1:] == updates
    assert sum(event.size for event in await events_of(store)) < len(picture.raw)
    [(blobs,)] = await store.tables(store.caller()).fetch("SELECT count(*) FROM blobs")
    assert blobs == 2


async def test_a_task_cannot_refer_to_a_stored_file(store: EventStore) -> None:
    part = pb.Part(url="eventstore-blob:" + "0" * 64)
    part.metadata.update({"eventstore_blob_size": 1})
    with pytest.raises(InputError, match="send the bytes"):
        await EventStoreTaskStore(store).save(new_task(artifacts=[pb.Artifact(artifact_id="a", parts=[part])]), NOBODY)


# Owners


async def test_tasks_of_one_context_of_two_users_are_apart(store: EventStore, works: bool) -> None:
    tasks = EventStoreTaskStore(store)
    await tasks.save(new_task("of ann", "shared"), call_of("ann"))
    await tasks.save(new_task("of bob", "shared"), call_of("bob"))
    assert await tasks.get("of ann", call_of("bob")) is None
    assert await tasks.get("of ann", NOBODY) is None
    for name in ("ann", "bob"):
        found = await tasks.list(pb.ListTasksRequest(context_id="shared"), call_of(name))
        assert [task.id for task in found.tasks] == [f"of {name}"]
    assert (await tasks.list(pb.ListTasksRequest(), NOBODY)).total_size == 0
    with pytest.raises(InputError, match="belongs to another user"):
        await tasks.save(new_task("of ann", "shared"), call_of("bob"))
    await tasks.delete("of ann", call_of("bob"))
    assert await tasks.get("of ann", call_of("ann")) is not None


async def test_a_context_is_the_users_in_row_level_security(store: EventStore) -> None:
    await EventStoreTaskStore(store).save(new_task(context_id="of ann"), call_of("ann"))
    conversation_id = conversation_uuid(store.tenant, "ann/of ann")
    assert [event async for event in store.read(conversation_id, user="ann")]
    assert not [event async for event in store.read(conversation_id, user="bob")]


# Lists


async def test_a_list_has_the_latest_first_in_pages(store: EventStore, works: bool) -> None:
    tasks = EventStoreTaskStore(store)
    for number in range(5):
        task = new_task(f"t{number}", f"c{number % 2}", WORKING if number % 2 else SUBMITTED)
        if number < 3:
            task.status.timestamp.FromNanoseconds(1_700_000_000_000_000_000 + number)
        await tasks.save(task, NOBODY)
    found, token = [], ""
    while True:
        page = await tasks.list(pb.ListTasksRequest(page_size=2, page_token=token), NOBODY)
        assert page.total_size == 5
        found += [task.id for task in page.tasks]
        if not (token := page.next_page_token):
            break
    assert found == ["t2", "t1", "t0", "t4", "t3"]  # those without a time last
    since = pb.ListTasksRequest(status=SUBMITTED)
    since.status_timestamp_after.FromNanoseconds(1_700_000_000_000_000_001)
    assert [task.id for task in (await tasks.list(since, NOBODY)).tasks] == ["t2"]
    of_context = await tasks.list(pb.ListTasksRequest(context_id="c1"), NOBODY)
    assert [task.id for task in of_context.tasks] == ["t1", "t3"]
    with pytest.raises(InvalidParamsError):
        await tasks.list(pb.ListTasksRequest(page_token="nonsense"), NOBODY)


async def test_a_deleted_task_is_hidden_at_once_and_can_begin_again(store: EventStore, works: bool) -> None:
    tasks, others = EventStoreTaskStore(store), EventStoreTaskStore(store)
    await tasks.save(new_task(), NOBODY)
    assert await others.get("t", NOBODY) is not None
    await tasks.delete("t", NOBODY)
    await tasks.delete("t", NOBODY)
    for each in (tasks, others):
        assert await each.get("t", NOBODY) is None
        assert (await each.list(pb.ListTasksRequest(), NOBODY)).total_size == 0
    again = new_task(state=WORKING)
    await others.save(again, NOBODY)
    assert await tasks.get("t", NOBODY) == again
    assert (await tasks.list(pb.ListTasksRequest(), NOBODY)).total_size == 1


@pytest.mark.own_database
async def test_a_deleted_task_is_in_no_read_table(store: EventStore) -> None:
    async def shown() -> tuple[int, list[str], int, int]:
        """Return how many conversations, which tasks, and how many artifacts and found documents are shown."""
        await catch_up(store)
        tasks, conversations = (await Reader(store).tasks()).items, (await Reader(store).conversations()).items
        [(artifacts,)] = await store.tables(store.caller()).fetch("SELECT count(*) FROM task_artifacts")
        found = (await Search(store).page("Portugal", kind="artifact")).items
        return len(conversations), sorted(str(each.given_id) for each in tasks), artifacts, len(found)

    tasks = EventStoreTaskStore(store)
    for name in ("one", "two"):
        artifact = pb.Artifact(artifact_id="a", parts=[pb.Part(text=f"{name}: in Portugal")])
        await tasks.save(new_task(name, artifacts=[artifact]), NOBODY)
    assert await shown() == (1, ["one", "two"], 2, 2)
    await tasks.delete("one", NOBODY)
    assert await shown() == (1, ["two"], 1, 1)
    await tasks.delete("two", NOBODY)
    assert (await shown())[0] == 0  # with the last task the conversation is hidden, and so are its messages
    await EventStoreTaskStore(store).save(new_task("three"), NOBODY)
    assert await tasks.get("three", NOBODY) == new_task("three")
    await tasks.save(new_task("one", state=WORKING), NOBODY)
    assert await EventStoreTaskStore(store).get("one", NOBODY) == new_task("one", state=WORKING)
    assert await shown() == (1, ["one", "three"], 0, 0)


async def test_a_conversation_with_messages_of_others_is_not_hidden_with_its_last_task(store: EventStore) -> None:
    tasks = EventStoreTaskStore(store)
    await tasks.save(new_task(), NOBODY)
    await store.append(conversation_uuid(store.tenant, "trip"), [MessageAdded(role="user", content="by hand")])
    await tasks.delete("t", NOBODY)
    assert (await events_of(store))[-1].event_type == "task.deleted"


async def test_the_tasks_of_a_deleted_conversation_are_hidden(store: EventStore) -> None:
    from eventstore import ConversationDeleted

    tasks = EventStoreTaskStore(store)
    await tasks.save(new_task(), NOBODY)
    await store.append(conversation_uuid(store.tenant, "trip"), [ConversationDeleted()])
    assert await tasks.get("t", NOBODY) is None
    with pytest.raises(ConversationIsDeleted):
        await tasks.save(new_task(state=WORKING), NOBODY)


# Versions


async def saved(tasks: EventStoreVersionedTaskStore, task: pb.Task, version: Any = TaskVersion.MISSING) -> Any:
    return await tasks.save(task, event=None, prev=None, prev_version=version, context=NOBODY)


async def test_of_two_writers_of_one_version_one_is_refused(store: EventStore) -> None:
    first, second = EventStoreVersionedTaskStore(store), EventStoreVersionedTaskStore(store)
    version = await saved(first, new_task())
    assert (await second.get("t", NOBODY)).version == version
    await saved(second, new_task(state=WORKING), version)
    with pytest.raises(ConcurrentTaskModificationError):
        await saved(first, new_task(state=COMPLETED), version)
    with pytest.raises(ConcurrentTaskModificationError):
        await saved(first, new_task(state=WORKING))
    later = (await first.get("t", NOBODY)).version
    assert later.is_after(version)
    unchanged = await saved(first, new_task(state=WORKING), later)
    assert unchanged.is_after(later)


async def test_of_many_first_writers_one_succeeds(store: EventStore) -> None:
    stores = [EventStoreVersionedTaskStore(store) for _ in range(8)]
    tasks = [new_task(context_id=f"c{number % 2}") for number in range(8)]
    results = await asyncio.gather(*map(saved, stores, tasks), return_exceptions=True)
    assert sum(isinstance(result, TaskVersion) for result in results) == 1
    assert all(isinstance(result, TaskVersion | ConcurrentTaskModificationError) for result in results)


async def test_tasks_of_one_context_are_saved_concurrently(store: EventStore) -> None:
    async def work(number: int) -> None:
        tasks, task = EventStoreVersionedTaskStore(store), new_task(f"t{number}")
        version = await saved(tasks, task)
        for _ in range(5):
            task.artifacts.append(pb.Artifact(artifact_id=f"{len(task.artifacts)}", parts=[pb.Part(text="x")]))
            version = await saved(tasks, task, version)
        assert (await EventStoreTaskStore(store).get(task.id, NOBODY)) == task

    await asyncio.gather(*map(work, range(6)))


async def test_a_task_that_has_ended_cannot_be_canceled(store: EventStore) -> None:
    tasks = EventStoreVersionedTaskStore(store)
    version = await saved(tasks, new_task())
    await saved(tasks, new_task(state=WORKING), version)
    await saved(tasks, new_task(state=CANCELED), version)  # whatever its version
    with pytest.raises(ConcurrentTaskModificationError):
        await saved(tasks, new_task(state=CANCELED), version)
    with pytest.raises(ConcurrentTaskModificationError):
        await saved(tasks, new_task("unknown", state=CANCELED), TaskVersion(1))
    with pytest.raises(TypeError, match="integer versions"):
        await saved(tasks, new_task(), TaskVersion("one"))
    assert await tasks.as_task_store.get("t", NOBODY) is not None
    await tasks.delete("t", NOBODY)
    assert await tasks.get("t", NOBODY) is None


async def test_a_stream_waits_for_its_task_and_resumes_after_a_version(store: EventStore) -> None:
    stream = EventStoreTaskEventStream(store).subscribe("t", after=TaskVersion.MISSING)
    first = asyncio.ensure_future(anext(stream))
    manager = TaskManager(EventStoreVersionedTaskStore(store), NOBODY, "t", "trip", None)
    await manager.save_task_event(new_task())
    received = await asyncio.wait_for(first, 10)
    assert received.event == new_task()
    change = pb.TaskStatusUpdateEvent(task_id="t", context_id="trip", status=pb.TaskStatus(state=WORKING))
    await manager.save_task_event(change)
    assert (await asyncio.wait_for(anext(stream), 10)).event == change
    await stream.aclose()
    resumed = EventStoreTaskEventStream(store).subscribe("t", after=received.version)
    async with aclosing(resumed):
        assert (await asyncio.wait_for(anext(resumed), 10)).event == change


# Push notifications


def config(config_id: str = "", **members: Any) -> pb.TaskPushNotificationConfig:
    return pb.TaskPushNotificationConfig(id=config_id, url="https://example.org/hook", **members)


async def test_settings_of_push_notifications_are_kept_by_owner(store: EventStore) -> None:
    configs, others = EventStorePushNotificationConfigStore(store), EventStorePushNotificationConfigStore(store)
    ann, bob = call_of("ann"), call_of("bob")
    made = await configs.set_info("t", config(), ann)
    assert (made.id, made.task_id) == ("t", "t")
    await asyncio.gather(*(others.set_info("t", config(f"{number}"), bob) for number in range(20)))
    assert await others.get_info("t", ann) == [made]
    assert len(await configs.get_info_for_dispatch("t")) == 21
    await configs.delete_info("t", bob, "7")
    assert "7" not in {each.id for each in await configs.get_info("t", bob)}
    await configs.delete_info("t", bob)
    assert await configs.get_info_for_dispatch("t") == [made]


async def test_settings_may_come_before_their_task(store: EventStore, works: bool) -> None:
    configs, tasks = EventStorePushNotificationConfigStore(store), EventStoreTaskStore(store)
    ann = call_of("ann")
    made = await configs.set_info("t", config(), ann)
    await tasks.save(new_task(), ann)
    assert await EventStoreTaskStore(store).get("t", ann) == new_task()
    assert await configs.get_info("t", ann) == [made]
    with pytest.raises(InputError, match="belongs to another user"):
        await EventStoreTaskStore(store).save(new_task(), call_of("bob"))
    assert (await tasks.list(pb.ListTasksRequest(), ann)).total_size == 1
    names = [each.given_id for each in (await Reader(store).conversations()).items]
    assert names == ["ann/trip"]  # and no record of where a task is


async def test_secrets_of_push_notifications_are_encrypted_or_refused(
    store: EventStore, caplog: pytest.LogCaptureFixture
) -> None:
    secret = config(
        "s", token="hunter2", authentication=pb.AuthenticationInfo(scheme="Bearer", credentials="swordfish")
    )
    with pytest.raises(InputError, match="encryption_key"):
        await EventStorePushNotificationConfigStore(store).set_info("t", secret, NOBODY)
    key = Fernet.generate_key()
    made = await EventStorePushNotificationConfigStore(store, key).set_info("t", secret, NOBODY)
    assert await EventStorePushNotificationConfigStore(store, key.decode()).get_info("t", NOBODY) == [made]
    log = "".join([str(event.content) async for event in store.read_log()])
    assert "hunter2" not in log
    assert "swordfish" not in log
    for wrong in (None, Fernet.generate_key()):
        with caplog.at_level(logging.ERROR):
            assert await EventStorePushNotificationConfigStore(store, wrong).get_info("t", NOBODY) == []
        assert "another key" in caplog.text
