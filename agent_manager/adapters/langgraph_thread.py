"""A thread of LangGraph, folded from the events of its conversation.

A checkpoint's event has only what differs from the checkpoint before, its *parent*; parents are named by the version of
their event, so that a difference is always applied to what it was made from. The events are

- ``langgraph.checkpoint``: ``id`` (if that is not the event's), ``ns``, ``parent``; of ``state``, ``versions``,
  ``seen`` and ``metadata`` the members that changed, with the names of others that are gone in ``removed``; the
  ``values`` of the channels that changed (:mod:`~agent_manager.adapters.langgraph_trees`). A channel with a new
  version and without a value has none any more. Of a checkpoint that follows writes, whose events ``after`` names by
  their versions, only what differs from what they lead to by themselves (:meth:`Thread.expected`) is there;
- ``langgraph.writes``: ``writes``, pairs of a channel and a value that the task ``task`` at ``path`` wrote after
  ``checkpoint``. If a message is among them that is new, the member ``langgraph`` of the metadata of its event has them
  instead;
- in both of these ``base``: the version of the checkpoint that values copy from, if not ``parent`` or ``checkpoint``;
- ``langgraph.pruned``: from here on only the latest checkpoint of each namespace is visible;
- ``langgraph.runs_deleted``: the checkpoints of the ``runs`` are not visible any more.

If the conversation goes back to a version, the thread does. To version 0 it goes when it begins again after it was
deleted. A message that is hidden then and written again is another event, whose id follows from the event that hid it.

A message that calls tools, or is the result of a call, is followed by the events of their tasks.

Checkpoints that are not visible any more remain what later ones differ from, and keep the writes that a channel of
deltas is computed from.

Of an erased event the thread has nothing any more, but what refers to it remains. An erased checkpoint is taken to be
what follows from the one before; the writes in the event of an erased message, to be of that message and those that
were appended with it, so that the list in a channel keeps its length.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from langgraph.checkpoint.base import WRITES_IDX_MAP, empty_checkpoint, writes_sort_key
from pydantic_core import to_json

from agent_manager.adapters.langgraph_trees import (
    Tree,
    complete,
    has_copies,
    has_messages,
    is_value,
    same,
    sources,
)
from agent_manager.adapters.store_access import RESTART
from eventstore.ids import derived_uuid

VALUE = "langgraph.value"
"""The type of the application event that holds a large value or text."""
CHECKPOINT, WRITES = "langgraph.checkpoint", "langgraph.writes"
PRUNED, RUNS_DELETED = "langgraph.pruned", "langgraph.runs_deleted"
DIFFERENCES = ("state", "versions", "seen", "metadata")
"""The objects of a checkpoint of which only the members that changed are stored."""
START = "__start__"
"""LangGraph's channel of the input of a run."""
_BRANCH = "branch:to:"
"""The beginning of LangGraph's channels that make a node run in the next step."""
_WHOLE_VALUES = 32
"""Complete values that a thread keeps: those of the last few checkpoints, from which the next ones differ."""


@dataclass(eq=False, slots=True)
class Value:
    """A stored value of a channel, and the checkpoint that it copies from."""

    stored: Tree
    channel: str
    base: Checkpoint | None


@dataclass(eq=False, slots=True)
class Checkpoint:
    """A checkpoint.

    Attributes:
        version: of its event.
        parent_id: of the checkpoint before, which the thread may not have.
        objects: its :data:`DIFFERENCES`, complete.
        is_visible: whether neither it nor its run was deleted.
    """

    version: int
    ns: str
    id: str
    parent_id: str | None
    objects: dict[str, dict[str, Tree]]
    values: dict[str, Value]
    is_visible: bool = True


@dataclass(eq=False, slots=True)
class Write:
    """A value that a task wrote to a channel, in the event of a version."""

    version: int
    task_id: str
    path: str
    index: int
    channel: str
    value: Value


K = TypeVar("K")
L = TypeVar("L")
S = TypeVar("S", Checkpoint, Write)


class Expected(NamedTuple):
    """A checkpoint as far as it follows from its parent and the writes after that.

    Attributes:
        objects: its :data:`DIFFERENCES`.
        changed: the channels with a new version.
        values: the values of some of these, as they are stored.
    """

    objects: dict[str, dict[str, Tree]]
    changed: frozenset[str] = frozenset()
    values: Mapping[str, Tree] = {}


@dataclass
class Thread:
    """The checkpoints of one thread, as far as its events are known.

    Attributes:
        version: of the last event that is known; 0 if the conversation has none.
        given_id: the thread's id, if that is not the UUID of the conversation.
        is_deleted: whether the conversation is deleted.
        rewinds: the versions to which the conversation went back, and those of the events that did so.
        payload_versions: the versions of the events of values, messages and tasks, by their ids.
        payloads: what values refer to: the contents of those events, and files by their references, that were read.
        calls: see :class:`~agent_manager.adapters.langgraph_values.Encoder`.
        message_ids: see :class:`~agent_manager.adapters.langgraph_values.Encoder`.
        lock: held by a write until it is known, so that the next one can differ from it.
        weight: the approximate size of what is known, in bytes.
    """

    conversation_id: UUID
    version: int = 0
    given_id: str | None = None
    is_deleted: bool = False
    rewinds: list[tuple[int, int]] = field(default_factory=list)
    payload_versions: dict[UUID, int] = field(default_factory=dict)
    payloads: dict[UUID | str, Tree] = field(default_factory=dict)
    calls: dict[str, UUID] = field(default_factory=dict)
    message_ids: dict[bytes, UUID] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    weight: int = 0
    _checkpoints: dict[str, dict[str, Checkpoint]] = field(default_factory=dict)
    _by_version: dict[int, Checkpoint] = field(default_factory=dict)
    _writes: dict[tuple[str, str], dict[tuple[str, int], Write]] = field(default_factory=dict)
    _written_in: dict[int, list[Write]] = field(default_factory=dict)
    _whole: dict[Value, Tree] = field(default_factory=dict)
    _created: list[tuple[int, str, UUID]] = field(default_factory=list)
    """The versions of the events of calls, the calls, and their tasks."""
    _messages: list[UUID] = field(default_factory=list)
    _appended: int = 0
    """The index of the first message that may be of the same append as the next one."""
    _erased_ids: set[UUID] = field(default_factory=set)
    _erased: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The ranges of the messages that may have been appended with an erased one, by the version of its event."""
    _restored: int = 0
    """The index of the first message after those whose writes were restored."""
    _substitutes: dict[int, Any] = field(default_factory=dict)

    @property
    def is_used(self) -> bool:
        """True if LangGraph has stored something in the thread that was not deleted."""
        return not self.is_deleted and bool(self._checkpoints or self._writes)

    def get(self, ns: str, checkpoint_id: str) -> Checkpoint | None:
        """Return a checkpoint, also one that is not visible; None if there is none."""
        return self._checkpoints.get(ns, {}).get(checkpoint_id)

    def hides(self, version: int) -> bool:
        """Return whether the conversation went back to a time before the event with a version."""
        return any(to_version < version < at_version for to_version, at_version in self.rewinds)

    def shows(self, event_id: UUID) -> bool:
        """Return whether the conversation has a message, or will have it when a deleted thread has begun again."""
        version = self.payload_versions.get(event_id)
        return version is not None and not self.is_deleted and not self.hides(version)

    def message_id(self, first: UUID) -> UUID:
        """Return the id of the event of a message that the conversation shows, or of the one that it will show.

        Args:
            first: the id of the first event of the message, which may be hidden or erased.
        """
        hidden_by = [at_version for _, at_version in self.rewinds]
        if self.is_deleted:
            hidden_by.append(self.version + len(RESTART))
        ids = [first, *(derived_uuid("langgraph.message", str(first), version) for version in hidden_by)]
        return self._not_erased(next(filter(self.shows, ids), ids[-1]))

    def value_id(self, tree: Tree) -> UUID:
        """Return the id of the event of a large value."""
        return self._not_erased(derived_uuid(VALUE, blake2b(to_json(tree), digest_size=32).hexdigest()))

    def _not_erased(self, event_id: UUID) -> UUID:
        while event_id in self._erased_ids:
            event_id = derived_uuid("langgraph.again", str(event_id))
        return event_id

    def last_stored(self, ns: str) -> Checkpoint | None:
        """Return the checkpoint that was stored last and is not hidden, preferably one of a namespace."""
        last = next(reversed(self._checkpoints.get(ns, self._by_version).values()), None)
        return None if last is None or self.hides(last.version) else last

    def latest(self, ns: str) -> Checkpoint | None:
        """Return the visible checkpoint of a namespace with the highest id."""
        return max(self._visible(ns), key=lambda checkpoint: checkpoint.id, default=None)

    def visible(self, ns: str | None = None) -> Iterator[Checkpoint]:
        """Yield the visible checkpoints of a namespace, or of all."""
        for each in self._checkpoints if ns is None else (ns,):
            yield from self._visible(each)

    def _visible(self, ns: str) -> Iterator[Checkpoint]:
        if not self.is_deleted:
            yield from (checkpoint for checkpoint in self._checkpoints.get(ns, {}).values() if checkpoint.is_visible)

    def writes(self, checkpoint: Checkpoint) -> list[Write]:
        """Return the writes after a checkpoint, in the order in which LangGraph applies them."""
        return _in_order(self._writes.get((checkpoint.ns, checkpoint.id), {}).values())

    def expected(self, parent: Checkpoint | None, after: Iterable[int]) -> Expected:
        """Return what follows from a checkpoint and the writes after it in the events of some versions.

        This is a guess of what LangGraph makes of them, of which a checkpoint's event has the differences. It must stay
        as it is, since stored events depend on it.
        """
        if parent is None:
            return Expected({name: {} for name in DIFFERENCES})
        versions = parent.objects["versions"]
        written = _in_order(
            write for each in after for write in self._written_in.get(each, ()) if not write.channel.startswith("__")
        )
        if not written or any(type(version) is not int for version in versions.values()):
            return Expected(parent.objects)
        trees: dict[str, list[Tree]] = {}
        seen = dict(parent.objects["seen"])
        for write in written:
            trees.setdefault(write.channel, []).append(write.value.stored)
            node = write.path.rpartition(", ")[2]
            if (trigger := _BRANCH + node) in versions:
                seen[node] = seen.get(node, {}) | {trigger: versions[trigger]}
        values = {
            channel: each[-1] if channel.startswith(_BRANCH) else {"~more": _items(each)}
            for channel, each in trees.items()
            if not any(map(has_copies, each)) and (channel.startswith(_BRANCH) or channel in parent.values)
        }
        changed = frozenset((*trees, *(channel for channel in parent.values if channel.startswith(_BRANCH))))
        version = max(versions.values(), default=0) + 1
        metadata = dict(parent.objects["metadata"])
        if type(step := metadata.get("step")) is int:
            metadata["step"] = step + 1
        objects = {
            "state": parent.objects["state"]
            | ({"updated_channels": sorted(trees)} if "updated_channels" in parent.objects["state"] else {}),
            "versions": versions | dict.fromkeys(changed, version),
            "seen": seen,
            "metadata": metadata,
        }
        return Expected(objects, changed, values)

    def substitute(self, version: int) -> Any:
        """Return what stands for what an erased event of LangGraph's own held, or for the writes in that of a message.

        It is None unless another event needs it.
        """
        return self._substitutes.get(version)

    def forget(self) -> None:
        """Forget the events that are known, so that they are read again."""
        for name, value in vars(Thread(self.conversation_id, given_id=self.given_id, lock=self.lock)).items():
            setattr(self, name, value)

    # Events

    def apply(
        self,
        version: int,
        event_id: UUID,
        event_type: str,
        content: Any,
        size: int,
        writes: Any = None,
        *,
        is_erased: bool = False,
    ) -> None:
        """Apply the next event of the conversation; an event that is known already is ignored.

        Args:
            content: None for an event that values refer to.
            size: approximate size of the content, in bytes.
            writes: the writes in the event's metadata.
        """
        if version <= self.version:
            return
        self.version = version
        self.weight += 500 + size
        if is_erased:
            self._erased_ids.add(event_id)
        if writes is not None:
            self._apply_writes(version, writes)
        match event_type:
            case "conversation.created":
                self.given_id = content.get("given_id")
            case "conversation.deleted" | "conversation.reactivated":
                self.is_deleted = event_type == "conversation.deleted"
            case "conversation.rewound":
                self._rewind(content["to_version"], version)
            case "message.added":
                self.payload_versions[event_id] = version
                self._messages.append(event_id)
                if is_erased:
                    self._erased[version] = self._appended, len(self._messages)
                elif writes is not None:
                    self._appended = len(self._messages)
            case "langgraph.value":
                self.payload_versions[event_id] = version
            case "task.created" | "task.artifact_added" | "task.status_changed":
                self.payload_versions[event_id] = version
                if event_type == "task.created" and "given_id" in content:
                    self._created.append((version, content["given_id"], UUID(content["task_id"])))
                    self.calls[content["given_id"]] = UUID(content["task_id"])
            case "langgraph.checkpoint" if is_erased:
                self._apply_erased_checkpoint(version, event_id)
            case "langgraph.checkpoint":
                self._apply_checkpoint(version, event_id, content)
            case "langgraph.writes" if not is_erased:
                self._apply_writes(version, content)
            case "langgraph.pruned":
                self._prune()
            case "langgraph.runs_deleted" if not is_erased:
                for checkpoint in self.visible():
                    checkpoint.is_visible = checkpoint.objects["metadata"].get("run_id") not in content["runs"]
        if event_type in (CHECKPOINT, WRITES):
            self._appended = len(self._messages)

    def _rewind(self, to_version: int, version: int) -> None:
        self.rewinds.append((to_version, version))
        self._checkpoints = _up_to(to_version, self._checkpoints)
        self._writes = _up_to(to_version, self._writes)
        self._created = [each for each in self._created if each[0] <= to_version]
        self.calls = {call_id: task_id for _, call_id, task_id in self._created}

    def _apply_erased_checkpoint(self, version: int, event_id: UUID) -> None:
        parent = self.last_stored("")
        if parent is None:
            metadata = {"source": "input", "step": -1, "parents": {}}
            state = {"v": empty_checkpoint()["v"]}
            content: dict[str, Any] = {"state": state, "metadata": metadata, "versions": {START: 1}}
        else:
            after = sorted({write.version for write in self.writes(parent)})
            content = {"ns": parent.ns, "parent": parent.version, "after": after}
            versions = parent.objects["versions"]
            if not after and type(started := versions.get(START)) is int:  # it had the input of a run
                content["versions"] = {START: max(started, *versions.values()) + 1}
        self._substitutes[version] = content
        self._apply_checkpoint(version, event_id, content)
        self._by_version[version].is_visible = False

    def _apply_checkpoint(self, version: int, event_id: UUID, content: Any) -> None:
        ns, checkpoint_id = content.get("ns", ""), content.get("id", str(event_id))
        parent, parent_id = self._named(content.get("parent"))
        removed, after = content.get("removed", {}), content.get("after", ())
        if parent is not None:
            for each in after:
                self._restore_writes(each, parent)
        expected = self.expected(parent, after)
        objects = {
            name: _merged(expected.objects[name], content.get(name, {}), removed.get(name, ())) for name in DIFFERENCES
        }
        gone = {*content.get("versions", ()), *expected.changed, *removed.get("values", ())}
        stored = {name: tree for name, tree in expected.values.items() if name not in removed.get("values", ())}
        stored |= content.get("values", {})
        values = {name: value for name, value in (parent.values if parent else {}).items() if name not in gone}
        base = self._by_version[content["base"]] if "base" in content else parent
        values |= {name: Value(tree, name, base) for name, tree in stored.items()}
        checkpoint = Checkpoint(version, ns, checkpoint_id, parent_id, objects, values)
        self._checkpoints.setdefault(ns, {})[checkpoint_id] = checkpoint
        self._by_version[version] = checkpoint

    def _restore_writes(self, version: int, parent: Checkpoint) -> None:
        """Restore, after a checkpoint, the writes in the event of a message that was erased."""
        channel = next((name for name, value in parent.values.items() if has_messages(value.stored)), None)
        if version in self._erased and channel is not None:
            start, end = self._erased.pop(version)
            messages = [{"~message": str(each)} for each in self._messages[max(start, self._restored) : end]]
            self._restored = end
            checkpoint = parent.id if parent.version > version else parent.version
            writes = {"checkpoint": checkpoint, "ns": parent.ns, "task": "", "writes": [[channel, messages]]}
            self._substitutes[version] = writes
            self._written_in[version] = [Write(version, "", "", 0, channel, Value(messages, channel, parent))]

    def _named(self, reference: int | str | None) -> tuple[Checkpoint | None, str | None]:
        """Return the checkpoint that a reference in an event names, and its id."""
        if isinstance(reference, int):
            checkpoint = self._by_version[reference]
            return checkpoint, checkpoint.id
        return None, reference

    def _apply_writes(self, version: int, content: Any) -> None:
        checkpoint, checkpoint_id = self._named(content["checkpoint"])
        base = self._by_version[content["base"]] if "base" in content else checkpoint
        writes = self._writes.setdefault((content.get("ns", ""), str(checkpoint_id)), {})
        for position, (channel, tree) in enumerate(content["writes"]):
            index = WRITES_IDX_MAP.get(channel, position)
            write = Write(version, content["task"], content.get("path", ""), index, channel, Value(tree, channel, base))
            self._written_in.setdefault(version, []).append(write)
            if index < 0:
                writes[write.task_id, index] = write
            else:
                writes.setdefault((write.task_id, index), write)

    def _prune(self) -> None:
        latest = {ns: self.latest(ns) for ns in self._checkpoints}
        for checkpoint in self.visible():
            checkpoint.is_visible = checkpoint is latest[checkpoint.ns]
        for checkpoint in self.visible():
            # The namespace of one call of a subgraph is not needed without the checkpoint that it was called from.
            caller = self.get("", checkpoint.objects["metadata"].get("parents", {}).get("", ""))
            if ":" in checkpoint.ns and caller is not None and not caller.is_visible:
                checkpoint.is_visible = False

    # Values

    def unread(self, values: Iterable[Value]) -> set[UUID]:
        """Return the ids of the payloads that have to be read before :meth:`whole` completes these values."""
        chain = [each for value in values for each in self._chain(value)]
        trees = [each.stored for each in chain]
        trees += [self._whole[source] for each in chain for source in _sources(each).values() if source in self._whole]
        return {UUID(tree["~value"]) for tree in trees if is_value(tree)} - self.payloads.keys()

    def whole(self, value: Value) -> Tree:
        """Return the complete value."""
        if value not in self._whole:
            chain = sorted(self._chain(value), key=lambda each: each.base.version if each.base else 0)
            uses = Counter(source for each in chain for source in _sources(each).values())
            made: dict[Value, Tree] = {}
            for each in chain:
                channels = {}
                for name, source in _sources(each).items():
                    channels[name] = made[source] if source in made else self._whole[source]
                    uses[source] -= 1
                    if not uses[source]:  # or a long thread would have all its lists in memory
                        made.pop(source, None)
                made[each] = complete(each.stored, each.channel, channels, self.payloads)
            self._whole[value] = made[value]
        return self._whole[value]

    def keep_payload(self, name: UUID | str, payload: Tree, size: int) -> None:
        """Keep what values refer to by an id or a reference."""
        self.payloads[name] = payload
        self.weight += size

    def keep(self, value: Value, tree: Tree) -> None:
        """Keep a complete value, of which others will be made; the oldest are forgotten."""
        self._whole[value] = tree
        for each in list(self._whole)[:-_WHOLE_VALUES]:
            del self._whole[each]

    def _chain(self, value: Value) -> Iterator[Value]:
        """Yield the values that are needed to complete a value, unless they are complete."""
        pending, seen = [value], set[Value]()
        while pending:
            each = pending.pop()
            if each not in self._whole and each not in seen:
                seen.add(each)
                yield each
                pending += _sources(each).values()


def _sources(value: Value) -> dict[str, Value]:
    """Return the values that a value copies from, by their channels."""
    names = {name or value.channel for name in sources(value.stored)}
    known = value.base.values if value.base is not None else {}
    return {name: known[name] for name in names if name in known}


def _up_to(version: int, stored: dict[K, dict[L, S]]) -> dict[K, dict[L, S]]:
    """Return what was stored up to a version."""
    kept = {
        place: {key: each for key, each in found.items() if each.version <= version} for place, found in stored.items()
    }
    return {place: found for place, found in kept.items() if found}


def _in_order(writes: Iterable[Write]) -> list[Write]:
    """Return writes in the order in which LangGraph applies them."""
    return sorted(writes, key=lambda write: writes_sort_key(write.path, write.task_id, write.index))


def _items(trees: Iterable[Tree]) -> list[Tree]:
    return [item for tree in trees for item in (tree if isinstance(tree, list) else [tree])]


def _merged(before: dict[str, Tree], changed: dict[str, Tree], removed: Iterable[str]) -> dict[str, Tree]:
    return {name: value for name, value in before.items() if name not in removed} | changed


def differences(before: dict[str, Tree], after: dict[str, Tree]) -> tuple[dict[str, Tree], list[str]]:
    """Return the members of an object that changed, and the names of those that are gone."""
    changed = {name: value for name, value in after.items() if name not in before or not same(before[name], value)}
    return changed, [name for name in before if name not in after]
