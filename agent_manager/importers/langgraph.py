"""Threads from the tables of langgraph-checkpoint-postgres, for graphs that go on with :class:`EventStoreSaver`.

Values are taken over as LangGraph's serializer has stored them. No object of Python is made of them: that could execute
anything, and would need the application's classes. An import can be repeated: it adds what is new since.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import ormsgpack
from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS

from agent_manager.a2a import Json
from agent_manager.adapters.langgraph import EventStoreSaver, MakeEvents
from agent_manager.adapters.langgraph_messages import MESSAGES
from agent_manager.adapters.langgraph_thread import Thread
from agent_manager.adapters.langgraph_trees import PYDANTIC, Extension, unpack
from agent_manager.importers.source import SourceUnreadable, read_time
from agent_manager.importers.tables import Tables, open_postgresql
from agent_manager.importers.verify import MISSING, Difference, Report, list_lines
from eventstore import EventStore, Metadata, NewEvent
from eventstore.urls import check_url
from projections import catch_up

_REQUIRED = {
    "checkpoints": {"thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "metadata"},
    "checkpoint_blobs": {"thread_id", "checkpoint_ns", "channel", "version", "type", "blob"},
    "checkpoint_writes": {"thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type", "blob"},
}
_PENDING_SENDS_BEFORE = 4
"""Checkpoints before this version of their format do not hold the tasks that were sent to nodes."""


class Typed(NamedTuple):
    """A value as a serializer of LangGraph has stored it."""

    kind: str
    data: bytes


class _StoredForm:
    """A serializer of LangGraph that leaves values as they are stored."""

    _plain = JsonPlusSerializer()

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return value if isinstance(value, Typed) else self._plain.dumps_typed(value)

    def loads_typed(self, data: tuple[str, bytes]) -> Typed:
        return Typed(*data)


class _ImportingSaver(EventStoreSaver):
    """A saver whose events happened at another time than that of their append."""

    occurred_at: datetime | None = None

    async def _append(self, thread: Thread, make: MakeEvents) -> None:
        def dated(event: NewEvent) -> NewEvent:
            members = event.metadata.model_extra or {}
            return replace(event, metadata=Metadata(occurred_at=self.occurred_at, migrated=True, **members))

        async def make_dated(*, is_repeated: bool) -> Sequence[NewEvent]:
            return [dated(event) for event in await make(is_repeated=is_repeated)]

        await super()._append(thread, make_dated)


@dataclass(slots=True)
class LangGraphReport(Report):
    """The result of an import.

    Attributes:
        new_checkpoints, new_writes: how many were appended; 0 if the store had everything already.
        deleted: the threads that users of the store have deleted since an earlier import; they are left as they are.
        differences: what is not in the store as it is at the source.
    """

    source: str = ""
    threads: int = 0
    checkpoints: int = 0
    new_checkpoints: int = 0
    new_writes: int = 0
    deleted: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.differences

    def values(self) -> Json:
        return {
            "clean": self.is_clean,
            "source": self.source,
            "threads": self.threads,
            "checkpoints": self.checkpoints,
            "new_checkpoints": self.new_checkpoints,
            "new_writes": self.new_writes,
            "deleted_since": self.deleted,
            "differences": [str(difference) for difference in self.differences],
        }

    def lines(self) -> Iterator[str]:
        yield f"Imported    {self.new_checkpoints:,} new checkpoints, {self.new_writes:,} new writes"
        counts = f"{self.threads:,} threads, {self.checkpoints:,} checkpoints"
        if self.differences:
            yield f"DIFFERENT   {len(self.differences):,} places in {counts}"
            yield from list_lines("", self.differences)
        else:
            yield f"Verified    {counts}: all are in the store as they were"
        if self.deleted:
            yield f"Deleted     {len(self.deleted):,} thread(s) by users of the store since: left as they are"


@dataclass(slots=True)
class _SourceCheckpoint:
    """A checkpoint of the source, and the writes after it by task and path, each with their indexes."""

    config: Any
    checkpoint: Any
    metadata: Any
    writes: dict[tuple[str, str], dict[int, tuple[str, Typed]]]

    @property
    def id(self) -> tuple[str, str]:
        return self.config["configurable"]["checkpoint_ns"], self.checkpoint["id"]


async def import_langgraph(
    url: str, store: EventStore, *, on_step: Callable[[str], None] = lambda step: None
) -> LangGraphReport:
    """Import the threads in a database of langgraph-checkpoint-postgres, and compare them with the store.

    Raises:
        SourceUnreadable: the database cannot be read, or its tables are not those of langgraph-checkpoint-postgres.
        EventStoreError: the store failed; import again to continue.
    """
    report = LangGraphReport()
    async with aclosing(await open_postgresql(check_url(url, "--from-langgraph"), "LangGraph's checkpoints")) as tables:
        report.source = f"langgraph in {tables.place}"
        task_path = await _task_path(tables)
        rows = await tables.rows("langgraph_threads")
        for number, row in enumerate(rows):
            on_step(f"importing: {number:,} of {len(rows):,} threads")
            thread_id = row["thread_id"]
            checkpoints = [each async for each in _checkpoints(tables, thread_id, task_path)]
            await _import_thread(store, thread_id, checkpoints, report)
    on_step("updating the read tables")
    await catch_up(store)
    return report


async def _import_thread(
    store: EventStore, thread_id: str, checkpoints: list[_SourceCheckpoint], report: LangGraphReport
) -> None:
    report.threads += 1
    report.checkpoints += len(checkpoints)
    saver = _ImportingSaver(store, serde=_StoredForm())
    config: Any = {"configurable": {"thread_id": thread_id}}
    if await saver.was_deleted(thread_id):
        report.deleted.append(thread_id)
        return
    known = {_id_of(each): _written(each) async for each in saver.alist(config)}
    for source in checkpoints:
        saver.occurred_at = read_time(source.checkpoint.get("ts"))
        stored: Any = {"configurable": source.config["configurable"] | {"checkpoint_id": source.checkpoint["id"]}}
        if source.id not in known:
            await saver.aput(source.config, source.checkpoint, source.metadata, {})
            report.new_checkpoints += 1
        for (task_id, path), writes in source.writes.items():
            if known.get(source.id, Counter())[task_id] < len(writes):
                await saver.aput_writes(stored, _in_place(writes), task_id, path)
                report.new_writes += len(writes)
    found = {_id_of(each): each async for each in EventStoreSaver(store, serde=_StoredForm()).alist(config)}
    for source in checkpoints:
        report.differences += _differences(thread_id, source, found.get(source.id))


def _id_of(found: CheckpointTuple) -> tuple[str, str]:
    return found.config["configurable"]["checkpoint_ns"], found.checkpoint["id"]


def _written(found: CheckpointTuple) -> Counter[str]:
    """Return how many writes each task has made after a checkpoint."""
    return Counter(task_id for task_id, _, _ in found.pending_writes or ())


def _in_place(writes: dict[int, tuple[str, Typed]]) -> list[tuple[str, Typed]]:
    """Return writes in positions from which a saver derives their indexes: special channels fill the gaps."""
    special = [write for index, write in writes.items() if index < 0]
    placed: list[tuple[str, Typed]] = []
    for index in sorted(index for index in writes if index >= 0):
        while len(placed) < index and special:
            placed.append(special.pop())
        placed.append(writes[index])
    return placed + special


async def _task_path(tables: Tables) -> str:
    """Return the expression for the path of a task, which older tables do not have, after a check of all columns."""
    columns = await tables.columns(_REQUIRED)
    for table, required in _REQUIRED.items():
        if missing := required - columns.get(table, set()):
            raise SourceUnreadable(
                f"the table {table} is not that of langgraph-checkpoint-postgres 2 or later, without the column "
                f"{min(missing)}: give the database of its checkpoints"
            )
    return "task_path" if "task_path" in columns["checkpoint_writes"] else "''"


async def _checkpoints(tables: Tables, thread_id: str, task_path: str) -> AsyncIterator[_SourceCheckpoint]:
    of_thread = {"thread_id": thread_id}
    blobs = {
        (row["checkpoint_ns"], row["channel"], row["version"]): Typed(row["type"], bytes(row["blob"] or b""))
        for row in await tables.rows("langgraph_blobs", of_thread)
        if row["type"] != "empty"
    }
    writes: defaultdict[tuple[str, str], dict[tuple[str, str], dict[int, tuple[str, Typed]]]] = defaultdict(dict)
    for row in await tables.rows("langgraph_writes", of_thread, task_path=task_path):
        of_task = writes[row["checkpoint_ns"], row["checkpoint_id"]].setdefault((row["task_id"], row["task_path"]), {})
        channel: str = row["channel"]
        of_task[WRITES_IDX_MAP[channel] if channel in WRITES_IDX_MAP else row["idx"]] = (
            channel,
            Typed(row["type"], bytes(row["blob"])),
        )
    for row in await tables.rows("langgraph_checkpoints", of_thread):
        ns, parent = row["checkpoint_ns"], row["parent_checkpoint_id"]
        checkpoint = dict(row["checkpoint"])
        versions = checkpoint["channel_versions"] = dict(checkpoint.get("channel_versions") or {})
        values = dict(checkpoint.get("channel_values") or {})
        values |= {
            channel: blobs[ns, channel, str(version)]
            for channel, version in versions.items()
            if (ns, channel, str(version)) in blobs
        }
        if checkpoint.get("v", 1) < _PENDING_SENDS_BEFORE and (sends := _sends(writes.get((ns, parent or ""), {}))):
            values[TASKS] = sends
            versions[TASKS] = max(versions.values(), default="1")
        checkpoint["channel_values"] = values
        configurable = {"thread_id": thread_id, "checkpoint_ns": ns} | ({"checkpoint_id": parent} if parent else {})
        yield _SourceCheckpoint(
            {"configurable": configurable}, checkpoint, row["metadata"], writes[ns, row["checkpoint_id"]]
        )


def _sends(writes: dict[tuple[str, str], dict[int, tuple[str, Typed]]]) -> Typed | None:
    """Return the tasks that were sent to nodes after a checkpoint, as the value of their channel in the next one."""
    sent = [
        value.data
        for of_task in writes.values()
        for channel, value in of_task.values()
        if channel == TASKS and value.kind == "msgpack"
    ]
    if not sent:
        return None
    header = bytes([0x90 | len(sent)]) if len(sent) < 16 else b"\xdd" + len(sent).to_bytes(4)
    return Typed("msgpack", header + b"".join(sent))


# Verification


def _differences(thread_id: str, source: _SourceCheckpoint, found: CheckpointTuple | None) -> Sequence[Difference]:
    place = "/".join(filter(None, source.id))
    if found is None:
        return [Difference(thread_id, place, "is there", MISSING)]
    pairs: dict[str, tuple[Any, Any]] = {
        name: (source.checkpoint.get(name), found.checkpoint.get(name))
        for name in source.checkpoint
        if name != "channel_values"
    }
    stored_values, values = found.checkpoint["channel_values"], source.checkpoint["channel_values"]
    for channel in values.keys() | stored_values.keys():
        pairs[f"channel_values.{channel}"] = (
            _comparable(values.get(channel, MISSING)), _comparable(stored_values.get(channel, MISSING)),
        )  # fmt: skip
    pairs["metadata"] = source.metadata, found.metadata
    parent = source.config["configurable"].get("checkpoint_id")
    pairs["parent"] = parent, found.parent_config and found.parent_config["configurable"].get("checkpoint_id")
    written = Counter(
        _write(*write)
        for (task_id, _), of_task in source.writes.items()
        for write in ((task_id, channel, value) for channel, value in of_task.values())
    )
    pairs["writes"] = written - Counter(_write(*write) for write in found.pending_writes or ()), Counter()
    return [
        Difference(thread_id, f"{place}: {name}", repr(left)[:200], repr(right)[:200])
        for name, (left, right) in pairs.items()
        if left != right
    ]


def _write(task_id: str, channel: str, value: Any) -> tuple[str, ...]:
    """Return what a write must have in the store too. What a task wrote to a special channel may be replaced later."""
    return (task_id, channel) if channel in WRITES_IDX_MAP else (task_id, channel, repr(_comparable(value)))


def _comparable(value: Any) -> Any:
    """Return a value in a form in which equal values are equal, without making objects of it."""
    if not isinstance(value, Typed):
        return value
    return _opened_value(unpack(value.data)) if value.kind == "msgpack" else None if value.kind == "null" else value


def _opened_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_opened_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _opened_value(member) for name, member in value.items()}
    if not isinstance(value, Extension):
        return value
    try:
        content = _opened_value(unpack(value.data))
    except (ValueError, ormsgpack.MsgpackDecodeError):
        return value
    if value.code == PYDANTIC and str(content[0]).startswith(MESSAGES):
        # Members of messages that are empty are not stored, as they are empty by default; nor is the type, which the
        # class says.
        members = sorted((name, each) for name, each in content[2].items() if each not in (None, [], {}))
        content[2] = {name: each for name, each in members if name != "type"}
    return (value.code, content)
