"""LangGraph's checkpointer and store on the event store; for langgraph-checkpoint 4.3.

A thread is a conversation. Only what changed is stored of a checkpoint
(:mod:`agent_manager.adapters.langgraph_thread`), and the messages of a graph are the messages of the conversation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol, Self, cast
from uuid import UUID, uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.base import Checkpoint as State
from langgraph.checkpoint.serde.base import SerializerProtocol
from pydantic_core import to_json

from agent_manager.adapters.blobs import (
    files_in,
    load_blob,
    referred,
    referring,
    store_blob,
    store_files,
)
from agent_manager.adapters.langgraph_copies import Copied, events_to_copy, files_of, first_part
from agent_manager.adapters.langgraph_messages import EXTRA, message_files
from agent_manager.adapters.langgraph_store import EventStoreStore
from agent_manager.adapters.langgraph_thread import (
    CHECKPOINT,
    DIFFERENCES,
    PRUNED,
    RUNS_DELETED,
    VALUE,
    WRITES,
    Checkpoint,
    Thread,
    Value,
    differences,
)
from agent_manager.adapters.langgraph_threads import Threads, keep_payload
from agent_manager.adapters.langgraph_trees import in_stored_order, is_value, plain_trees, plain_values, references
from agent_manager.adapters.langgraph_values import Encoder
from agent_manager.adapters.store_access import StoreAccess, beginning, restart
from eventstore import (
    ANY,
    EXISTS,
    NO_STREAM,
    AppendResult,
    ApplicationEvent,
    Caller,
    ConversationDeleted,
    EventData,
    EventStore,
    ExpectedVersion,
    MessageAdded,
    Metadata,
    NewEvent,
    Settings,
    SyncEventStore,
)
from eventstore.database.queries import query_without
from eventstore.errors import ConversationIsDeleted, EventIdConflict, WrongExpectedVersion
from eventstore.ids import is_canonical_uuid

__all__ = ["EventStoreSaver", "EventStoreStore"]

_PACKAGE = "agent_manager.adapters"


class EventStoreSaver(BaseCheckpointSaver[int]):
    """A checkpointer that stores the threads of graphs as conversations.

    ::

        with EventStoreSaver.from_conn_string("postgresql://…") as checkpointer:
            graph = builder.compile(checkpointer=checkpointer)

    Args:
        store: an open store, which the caller closes. Graphs that are invoked synchronously need a
            :class:`~eventstore.SyncEventStore`, or call from another thread than that of the store's event loop.
        serde: LangGraph's serializer of values. What a serializer that encrypts has made is stored as it is: then no
            message can be read without its key, and each checkpoint has its changed channels whole.
        tenant, user: on whose behalf threads are read and written; the whole tenant of the store by default.
        message_channels: the channels, and members of values, whose messages are messages of the conversation.
    """

    def __init__(
        self,
        store: EventStore | SyncEventStore,
        *,
        serde: SerializerProtocol | None = None,
        tenant: str | None = None,
        user: str | None = None,
        message_channels: Iterable[str] = ("messages",),
    ) -> None:
        super().__init__(serde=serde)
        self._access = StoreAccess(store)
        self._store = self._access.store
        self._caller: Caller = self._store.caller(tenant, user)
        self._message_channels = frozenset(message_channels)
        self._threads = Threads(self._store, self._caller)

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str | None = None, **options: Any) -> Iterator[Self]:
        """Open a store on a server, with an event loop of its own, and a saver on it.

        Args:
            conn_string: the URL of a database; by default what the environment and ``.env`` name.
            options: see the class.
        """
        settings = Settings() if conn_string is None else Settings(database_url=conn_string)
        with SyncEventStore(settings) as store:
            yield cls(store, **options)

    def setup(self) -> None:
        """Do nothing, for applications that call it: the tables are those of the event store."""

    # The contract: synchronous and asynchronous

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint, by default the latest of its namespace, with the writes that follow it."""
        return self._access.wait(self._get_tuple(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See :meth:`get_tuple`."""
        return await self._access.run(self._get_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, the newest first: of a thread, or of all threads, for which it reads the whole log.

        Args:
            filter: values that members of the metadata must have.
            before: a configuration with the id of a checkpoint that is newer than all of these.
        """
        for thread, checkpoint in self._access.wait(self._listed(config, filter, before, limit)):
            yield self._access.wait(self._tuple(thread, checkpoint))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """See :meth:`list`."""
        for thread, checkpoint in await self._access.run(self._listed(config, filter, before, limit)):
            yield await self._access.run(self._tuple(thread, checkpoint))

    def put(
        self, config: RunnableConfig, checkpoint: State, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """Store what a checkpoint differs in from the one that the configuration names."""
        return self._access.wait(self._put(config, checkpoint, metadata, new_versions))

    async def aput(
        self, config: RunnableConfig, checkpoint: State, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """See :meth:`put`."""
        return await self._access.finish(self._put(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task has written after a checkpoint."""
        self._access.wait(self._put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See :meth:`put_writes`."""
        await self._access.finish(self._put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete the conversation of a thread: it is hidden from every read at once."""
        self._access.wait(self._delete_thread(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """See :meth:`delete_thread`."""
        await self._access.finish(self._delete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Hide the checkpoints of runs, in all threads; it reads the whole log to find them."""
        self._access.wait(self._delete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See :meth:`delete_for_runs`."""
        await self._access.finish(self._delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread, and the messages in them, to another thread."""
        self._access.wait(self._copy_thread(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See :meth:`copy_thread`."""
        await self._access.finish(self._copy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Hide the checkpoints of threads, except the latest of each namespace.

        Channels of deltas are still computed from what is hidden.

        Args:
            strategy: ``keep_latest``, or ``delete``, which deletes the threads.
        """
        self._access.wait(self._prune(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See :meth:`prune`."""
        await self._access.finish(self._prune(thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return the writes to channels before a checkpoint, back to one with a value, also where they are hidden."""
        return self._access.wait(self._delta_channel_history(config, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See :meth:`get_delta_channel_history`."""
        return await self._access.run(self._delta_channel_history(config, channels))

    def get_next_version(self, current: Any, channel: None = None) -> Any:
        """Return the version of a channel after another one; versions of other savers, which are texts, continue."""
        if isinstance(current, str):
            return f"{int(current.split('.')[0]) + 1:032}.{0:016}"
        return super().get_next_version(current, None)

    async def was_deleted(self, thread_id: str) -> bool:
        """Return whether a thread was deleted and has not been used again since."""
        return (await self._access.run(self._threads.thread(thread_id))).is_deleted

    # Reading

    async def _get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread = await self._threads.thread(config["configurable"]["thread_id"])
        checkpoint = self._find(thread, config)
        return None if checkpoint is None else await self._tuple(thread, checkpoint)

    @staticmethod
    def _find(thread: Thread, config: RunnableConfig) -> Checkpoint | None:
        ns, checkpoint_id = config["configurable"].get("checkpoint_ns", ""), get_checkpoint_id(config)
        if not checkpoint_id:
            return thread.latest(ns)
        checkpoint = thread.get(ns, checkpoint_id)
        return checkpoint if checkpoint is not None and checkpoint.is_visible and not thread.is_deleted else None

    async def _tuple(self, thread: Thread, checkpoint: Checkpoint) -> CheckpointTuple:
        writes = thread.writes(checkpoint)
        values = await self._threads.decoded(
            thread, [*checkpoint.values.values(), *(write.value for write in writes)], self.serde
        )
        channel_values = dict(zip(checkpoint.values, values, strict=False))
        state, versions, seen, metadata = (plain_values(checkpoint.objects[name]) for name in DIFFERENCES)
        parent = thread.get(checkpoint.ns, checkpoint.parent_id) if checkpoint.parent_id else None
        has_parent = checkpoint.parent_id and (parent is None or parent.is_visible)
        return CheckpointTuple(
            config=_config(thread, checkpoint.ns, checkpoint.id),
            checkpoint=cast(
                State,
                state
                | {
                    "id": checkpoint.id,
                    "channel_values": channel_values,
                    "channel_versions": versions,
                    "versions_seen": seen,
                },
            ),
            metadata=cast(CheckpointMetadata, metadata),
            parent_config=_config(thread, checkpoint.ns, cast(str, checkpoint.parent_id)) if has_parent else None,
            pending_writes=[
                (write.task_id, write.channel, value)
                for write, value in zip(writes, values[len(channel_values) :], strict=True)
            ],
        )

    async def _listed(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Sequence[tuple[Thread, Checkpoint]]:
        if config is None:
            ns = checkpoint_id = None
            threads = [await self._threads.conversation(each) for each in await self._conversations()]
        else:
            ns, checkpoint_id = config["configurable"].get("checkpoint_ns"), get_checkpoint_id(config)
            threads = [await self._threads.thread(config["configurable"]["thread_id"])]
        newer = get_checkpoint_id(before) if before else None
        found = [
            (thread, checkpoint)
            for thread in threads
            for checkpoint in thread.visible(ns)
            if (not checkpoint_id or checkpoint.id == checkpoint_id)
            and (not newer or checkpoint.id < newer)
            and self._has(checkpoint, filter or {})
        ]
        found.sort(key=lambda pair: pair[1].id, reverse=True)
        return found[:limit]

    @staticmethod
    def _has(checkpoint: Checkpoint, wanted: dict[str, Any]) -> bool:
        metadata = plain_values(checkpoint.objects["metadata"])
        return all(name in metadata and metadata[name] == value for name, value in wanted.items())

    async def _conversations(self, run_ids: Sequence[str] | None = None) -> Sequence[UUID]:
        text = query_without(_PACKAGE, "threads", frozenset() if run_ids is not None else frozenset({"runs"}))
        parameters = {"tenant": self._caller.tenant} | ({} if run_ids is None else {"runs": list(run_ids)})
        return [row[0] for row in await self._store.log(self._caller).fetch(text, parameters)]

    async def _delta_channel_history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> dict[str, DeltaChannelHistory]:
        thread = await self._threads.thread(config["configurable"]["thread_id"])
        checkpoint = self._find(thread, config)
        found = {channel: deque[tuple[str, Value]]() for channel in channels}
        seeds: dict[str, Value] = {}
        while checkpoint is not None and len(seeds) < len(found):
            checkpoint = thread.get(checkpoint.ns, checkpoint.parent_id) if checkpoint.parent_id else None
            if checkpoint is None:
                break
            for write in reversed(thread.writes(checkpoint)):
                if write.channel in found and write.channel not in seeds:
                    found[write.channel].appendleft((write.task_id, write.value))
            for channel in found.keys() - seeds.keys():
                if channel in checkpoint.values:
                    seeds[channel] = checkpoint.values[channel]
        histories: dict[str, DeltaChannelHistory] = {}
        for channel, writes in found.items():
            values = await self._threads.decoded(thread, [value for _, value in writes], self.serde)
            histories[channel] = {
                "writes": [(task_id, channel, value) for (task_id, _), value in zip(writes, values, strict=True)]
            }
            if channel in seeds:
                [histories[channel]["seed"]] = await self._threads.decoded(thread, [seeds[channel]], self.serde)
        return histories

    # Writing

    async def _put(
        self, config: RunnableConfig, checkpoint: State, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        configurable = config["configurable"]
        ns, parent_id = configurable.get("checkpoint_ns", ""), configurable.get("checkpoint_id")
        thread = await self._threads.thread(configurable["thread_id"], is_current=False)

        async def make(*, is_repeated: bool) -> Sequence[NewEvent]:
            parent = await self._base(thread, ns, parent_id)
            after = [] if parent is None else sorted({write.version for write in thread.writes(parent)})
            expected = thread.expected(parent, after)
            objects = {
                "state": {name: value for name, value in checkpoint.items() if name not in _SEPARATE},
                "versions": checkpoint["channel_versions"],
                "seen": checkpoint["versions_seen"],
                "metadata": get_serializable_checkpoint_metadata(config, metadata),
            }
            content: dict[str, Any] = {"ns": ns} if ns else {}
            removed: dict[str, Sequence[str]] = {}
            for name, members in objects.items():
                trees = plain_trees(cast(dict[str, Any], members))
                different, gone = differences(expected.objects[name], trees)
                content |= {name: in_stored_order(different)} if different else {}
                removed |= {name: gone} if gone else {}
            values = checkpoint["channel_values"]
            before = {} if parent is None else parent.values
            new = {*content.get("versions", ()), *expected.changed}
            changed = {*new_versions, *new, *(values.keys() - before.keys())} & values.keys()
            base = thread.last_stored(ns) if parent is None and not thread.is_deleted else parent
            encoder = await self._encoder(thread, base, changed)
            encoded = {name: encoder.encode(values[name], name)[0] for name in values if name in changed}
            different, _ = differences(dict(expected.values), encoded)
            content |= {"values": in_stored_order(different)} if different else {}
            gone = [name for name in {*(before.keys() - new), *expected.values} if name not in values]
            content |= {"removed": removed | {"values": sorted(gone)} if gone else removed} if gone or removed else {}
            content |= {"after": after} if expected.changed else {}
            if parent_id:
                content["parent"] = parent_id if parent is None else parent.version
            if base is not None and base is not parent and encoder.has_copied:
                content["base"] = base.version
            event_id = uuid4()
            if is_canonical_uuid(checkpoint["id"]) and not is_repeated:
                event_id = UUID(checkpoint["id"])
            else:
                content["id"] = checkpoint["id"]
            event = NewEvent(ApplicationEvent(CHECKPOINT, in_stored_order(content)), event_id)
            return [*await self._events(thread, encoder), event]

        async with thread.lock:
            await self._append(thread, make)
        return _config(thread, ns, checkpoint["id"])

    async def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        configurable = config["configurable"]
        ns, checkpoint_id = configurable.get("checkpoint_ns", ""), configurable["checkpoint_id"]
        thread = await self._threads.thread(configurable["thread_id"], is_current=False)

        async def make(*, is_repeated: bool) -> Sequence[NewEvent]:
            known = None if thread.is_deleted else thread.get(ns, checkpoint_id)
            # A task that is fast has written before its checkpoint is stored.
            base = thread.last_stored(ns) if known is None and not thread.is_deleted else known
            encoder = await self._encoder(thread, base, [channel for channel, _ in writes])
            content: dict[str, Any] = {"ns": ns} if ns else {}
            content |= {"path": task_path} if task_path else {}
            content |= {"task": task_id, "writes": [[name, encoder.encode(value, name)[0]] for name, value in writes]}
            content["checkpoint"] = checkpoint_id if known is None else known.version
            if base is not None and base is not known and encoder.has_copied:
                content["base"] = base.version
            events = [*await self._events(thread, encoder)]
            content = in_stored_order(content)
            for index in range(len(events) - 1, -1, -1):
                if isinstance(events[index].data, MessageAdded):
                    events[index] = replace(events[index], metadata=Metadata(**{EXTRA: content}))
                    return events
            return [*events, NewEvent(ApplicationEvent(WRITES, content))]

        if writes:
            async with thread.lock:
                await self._append(thread, make)

    async def _base(self, thread: Thread, ns: str, checkpoint_id: str | None) -> Checkpoint | None:
        """Return the checkpoint that a new one differs from."""
        if not checkpoint_id:
            return None
        if thread.get(ns, checkpoint_id) is None:  # stored by another process, or while other events were
            await self._threads.catch_up(thread)
        return None if thread.is_deleted else thread.get(ns, checkpoint_id)

    async def _encoder(self, thread: Thread, base: Checkpoint | None, channels: Iterable[str]) -> Encoder:
        """Return an encoder of values that may repeat those of a checkpoint."""
        known = {} if base is None else base.values
        values = {name: known[name] for name in {*channels, *self._message_channels} if name in known}
        wholes = await self._threads.wholes(thread, values.values())
        for value, whole in zip(values.values(), wholes, strict=True):
            thread.keep(value, whole)
        await self._threads.read(thread, {UUID(whole["~value"]) for whole in wholes if is_value(whole)})
        return Encoder(
            self.serde,
            self._message_channels,
            thread,
            dict(zip(values, wholes, strict=True)),
        )

    async def _events(self, thread: Thread, encoder: Encoder) -> Sequence[NewEvent]:
        """Return the events that encoded values refer to, after their files are stored."""
        for name, content in encoder.files.items():
            if name not in thread.payloads:
                await store_blob(self._store, content, thread.conversation_id, tenant=self._caller.tenant)
                thread.keep_payload(name, content, len(content))
        return tuple(encoder.events.values())

    async def _without_files(self, thread: Thread, event: NewEvent) -> NewEvent:
        """Return an event that names the files that it refers to, after the large files in its parts are stored."""
        data = event.data
        trees = [(event.metadata.model_extra or {}).get(EXTRA)]
        files: set[bytes] = set()
        if isinstance(data, MessageAdded):
            parts = data.parts and await store_files(
                self._store, data.parts, thread.conversation_id, tenant=self._caller.tenant
            )
            event = replace(event, data=data.model_copy(update={"parts": parts}))
            files = files_in(parts or ()) | {referred(str(name)) for name in message_files(data)}
        elif data.event_type in (VALUE, CHECKPOINT, WRITES):
            trees.append(data.to_content())
        names = {each for tree in trees for each in references(tree) if isinstance(each, str)}
        return replace(event, metadata=referring(event.metadata, files | set(map(referred, names))))

    async def _append(self, thread: Thread, make: MakeEvents) -> None:
        """Append the events of a thread. Begin the thread if it is new, and anew if it was deleted.

        Args:
            make: makes the events from what is known of the thread; is called again if that was not current, with
                ``is_repeated`` if the last event must get a new id, because the thread has or had another one under it.
        """
        is_repeated = False
        while True:
            events = await make(is_repeated=is_repeated)
            expected: ExpectedVersion = ANY
            if thread.is_deleted:  # if others begin it again at the same time, one of them does
                events = [*restart(), *events]
                expected = thread.version
            try:
                begin = self._beginning(thread) if expected == ANY else None
                stored = [await self._without_files(thread, event) for event in events]
                result = await self._access.append(self._caller, thread.conversation_id, stored, expected, begin=begin)
            except (ConversationIsDeleted, WrongExpectedVersion):
                await self._threads.catch_up(thread)
                continue
            except EventIdConflict as error:
                if is_repeated:
                    raise
                is_repeated = error.event_id == events[-1].id and events[-1].data.event_type == CHECKPOINT
                await self._threads.catch_up(thread)  # a message that was new has been stored meanwhile
                continue
            self._learn(thread, events, result)
            if result.events[-1].is_new or is_repeated:
                return
            await self._threads.catch_up(thread)
            if not thread.hides(result.events[-1].version):
                return
            is_repeated = True  # it was stored before the thread was deleted

    @staticmethod
    def _beginning(thread: Thread) -> NewEvent:
        return beginning(thread.conversation_id, cast(str, thread.given_id))

    def _learn(self, thread: Thread, events: Sequence[NewEvent], result: AppendResult) -> None:
        """Apply appended events to what is known of their thread, unless others are missing in between."""
        new = [(event, entry) for event, entry in zip(events, result.events, strict=True) if entry.is_new]
        if new and thread.version == 0 and new[0][1].version == 2:  # after the event that began the conversation
            thread.apply(1, uuid4(), "conversation.created", {"given_id": thread.given_id}, 0)
        if not new or new[0][1].version != thread.version + 1:
            return
        for event, entry in new:
            content, size = event.data.to_content(), len(to_json(event.data.to_content()))
            if event.data.event_type in ("message.added", VALUE):
                keep_payload(thread, event.id, event.data, size)
            writes = (event.metadata.model_extra or {}).get(EXTRA)
            thread.apply(entry.version, event.id, event.data.event_type, content, size, writes)

    # Threads as a whole

    async def _delete_thread(self, thread_id: str) -> None:
        thread = await self._threads.thread(thread_id)
        if thread.is_used:
            await self._append_to_existing(thread.conversation_id, ConversationDeleted())

    async def _delete_for_runs(self, run_ids: Sequence[str]) -> None:
        for conversation_id in await self._conversations(run_ids) if run_ids else ():
            event = ApplicationEvent(RUNS_DELETED, {"runs": [str(run_id) for run_id in run_ids]})
            await self._append_to_existing(conversation_id, event)

    async def _prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        if isinstance(thread_ids, str):
            raise TypeError("thread_ids: is a text: give a sequence of ids")
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy: {strategy!r} is not known: give 'keep_latest' or 'delete'")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self._delete_thread(thread_id)
            elif (thread := await self._threads.thread(thread_id)).is_used:
                await self._append_to_existing(thread.conversation_id, ApplicationEvent(PRUNED))

    async def _append_to_existing(self, conversation_id: UUID, data: EventData) -> None:
        """Append an event to a conversation, unless it was deleted meanwhile."""
        with suppress(ConversationIsDeleted):
            await self._access.append(self._caller, conversation_id, [NewEvent(data)], EXISTS)

    async def _copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        source = await self._threads.thread(source_thread_id)
        if not source.is_used:
            return
        tenant, user = self._caller.tenant, self._caller.user
        read = [event async for event in self._store.read(source.conversation_id, tenant=tenant, user=user)]
        events = events_to_copy(read, source)
        await self._threads.read(source, [event.id for event in events if event.event_type == "message.added"])
        target = await self._threads.thread(target_thread_id)
        copied = Copied()
        while events:
            part = first_part(events)
            for digest in (digest for event in part for digest in files_of(event)):
                content = await load_blob(self._store, digest, source.conversation_id, tenant=tenant)
                await store_blob(self._store, content, target.conversation_id, tenant=tenant)
            after = Copied(dict(copied.versions), dict(copied.ids))
            new = after.add(part, source, target, self._beginning(target))
            try:
                if new:
                    await self._access.append(self._caller, target.conversation_id, new, target.version or NO_STREAM)
            except (WrongExpectedVersion, ConversationIsDeleted):
                await self._threads.catch_up(target)
                continue
            events, copied = events[len(part) :], after
            await self._threads.catch_up(target)


class MakeEvents(Protocol):
    """Makes the events of an append."""

    def __call__(self, *, is_repeated: bool) -> Awaitable[Sequence[NewEvent]]: ...


_SEPARATE = frozenset({"id", "channel_values", "channel_versions", "versions_seen"})
"""The members of a checkpoint that are stored apart from the others."""


def _config(thread: Thread, ns: str, checkpoint_id: str) -> RunnableConfig:
    thread_id = thread.given_id or str(thread.conversation_id)
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}
