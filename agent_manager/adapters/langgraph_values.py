"""Values of LangGraph's channels as JSON, and LangChain's messages as message events.

A value is what LangGraph's serializer makes of it. Its MessagePack is stored as the JSON that it reads as; what JSON
cannot express is an object with a single member that begins with ``~``:

- ``{"~ext": [code, content]}``: an object of Python, as the serializer writes it;
- ``{"~message": id}``: a message, which is the event of that id;
- ``{"~value": id}``: a large text or value, which is the event of that id;
- ``{"~bytes": base64}``, ``{"~text": base64}`` (a text with NUL characters), ``{"~float": text}``;
- ``{"~base64": [text, file]}``: a text, such as the beginning of a URL of data, and a large file in Base64 after it;
- ``{"~map": [[key, value], …]}``: an object whose keys are not texts, or begin with ``~``;
- ``{"~typed": [type, base64]}``: what another serializer, such as one that encrypts, has made.

Large bytes are a reference to a file that is stored beside the log (:mod:`agent_manager.adapters.blobs`), in place of
their Base64.

Only what changed is stored. Relative to the channels of the checkpoint before,

- ``{"~list": [channel, item, {"~copy": [from, number]}, …]}`` is a list with items copied from the one in a channel;
- ``{"~more": [item, …]}`` is the same channel's list with further items at its end;
- ``{"~dict": [[key that was removed, …], {key: value, …}]}`` is the same channel's object with other members.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b, sha256
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic_core import to_json

from agent_manager.adapters.blobs import SCHEME, is_large, reference
from eventstore import (
    ApplicationEvent,
    MessageAdded,
    NewEvent,
    Role,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
)
from eventstore.ids import derived_uuid
from eventstore.json_text import MAX_DEPTH

T = TypeVar("T")
Tree: TypeAlias = Any
"""A value as JSON."""
Payloads: TypeAlias = Mapping[UUID | str, Tree]
"""What trees refer to: events by their ids (messages in MessagePack, values as trees), files by their references."""
Channels: TypeAlias = Mapping[str, Tree]
"""The values of the channels of a checkpoint, complete."""

VALUE = "langgraph.value"
"""The type of the application event that holds a large value or text."""
LARGE_BYTES = 2000
"""From this size on a value becomes an event of its own, so that a thread can be read without its large values. About
here PostgreSQL begins to store values outside of their rows."""
EXTRA = "langgraph"
"""The member of a message's ``extra`` that holds what its content does not."""
_OPTION = ormsgpack.OPT_NON_STR_KEYS
_PLAIN = JsonPlusSerializer()
PYDANTIC = 5
"""The code of MessagePack under which LangGraph's serializer stores pydantic's models, of which messages are some."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A value of a type of its own in MessagePack."""

    code: int
    data: bytes


def unpack(data: bytes) -> Any:
    """Return the values in MessagePack, without making objects of Python."""
    return ormsgpack.unpackb(data, ext_hook=Extension, option=_OPTION)


class _TooDeep(Exception):
    """A value is nested too deep for JSON in the log."""


_MAX_DEPTH = MAX_DEPTH - 50
"""Levels of a value that become JSON; the rest is for what contains it."""


class _Trees:
    """Makes trees of the values that MessagePack has.

    Attributes:
        files: the bytes of large files, by their references; None to leave files where they are.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files

    def tree(self, value: Any, has_messages: bool = False, depth: int = 0) -> Tree:
        """Return the tree of a value; ``has_messages`` if its messages are those of the conversation."""
        if depth > _MAX_DEPTH:
            raise _TooDeep
        kind = type(value)
        if kind is str:
            return self._large({"~text": b64encode(value.encode()).decode()} if "\0" in value else value)
        if value is None or kind is bool or kind is int:
            return value
        if kind is float:
            return value if math.isfinite(value) and (value or math.copysign(1, value) > 0) else {"~float": repr(value)}
        if kind is list or kind is tuple:
            return [self.tree(item, has_messages, depth + 1) for item in value]
        if kind is dict:
            if not all(map(_is_plain, value)):
                pairs = [[self.tree(part, has_messages, depth + 2) for part in pair] for pair in value.items()]
                return {"~map": pairs}
            return {name: self._member(name, member, has_messages, depth + 1) for name, member in value.items()}
        if kind is Extension:
            return self._extension(value, has_messages, depth + 2)
        return self._large({"~bytes": b64encode(value).decode()})

    def _member(self, name: str, value: Any, has_messages: bool, depth: int) -> Tree:
        return self.tree(value, has_messages, depth)

    def _large(self, leaf: Tree) -> Tree:
        """Return a text or bytes as they are stored: large files as references."""
        if self.files is None:
            return leaf
        if isinstance(leaf, str):
            start, data = _split_base64(leaf) if is_large(leaf) else ("", None)
            return leaf if data is None else {"~base64": [start, _add_file(self.files, data)]}
        if "~bytes" in leaf and is_large(leaf["~bytes"]):
            return {"~bytes": _add_file(self.files, b64decode(leaf["~bytes"]))}
        return leaf

    def _extension(self, value: Extension, has_messages: bool, depth: int) -> Tree:
        try:
            content = unpack(value.data)
        except ValueError:
            return {"~ext": [value.code, None, b64encode(value.data).decode()]}
        return {"~ext": [value.code, self.tree(content, has_messages, depth)]}


def _is_plain(name: Any) -> bool:
    """Return whether JSON has the key of an object, and a tree no other use for it."""
    return type(name) is str and name[:1] != "~" and "\0" not in name


def _add_file(files: dict[str, bytes], content: bytes) -> str:
    name = reference(sha256(content).digest())
    files[name] = content
    return name


@dataclass
class Encoder(_Trees):
    """Encodes the values of one checkpoint, or of the writes to it.

    Attributes:
        channels: the values of the checkpoint before, for values that repeat parts of them.
        message_channels: the channels whose messages become events.
        known: whether an event is stored already.
        shows: whether the conversation has a message, which it has not if it hides it.
        generations: see :attr:`~agent_manager.adapters.langgraph_thread.Thread.generations`.
        message_ids: the ids of messages that were encoded before, by :func:`message_digest`.
        events: the events that the encoded values refer to and that are not stored yet, by their ids.
        has_copied: whether an encoded value copies from ``channels``.
        calls: the tasks of calls of tools, by the ids of the calls.
    """

    serde: SerializerProtocol
    message_channels: frozenset[str]
    known: Callable[[UUID], bool]
    shows: Callable[[UUID], bool]
    generations: Sequence[int]
    message_ids: dict[bytes, UUID]
    channels: Channels = field(default_factory=dict)
    payloads: Payloads = field(default_factory=dict)
    events: dict[UUID, NewEvent] = field(default_factory=dict)
    has_copied: bool = False
    calls: dict[str, UUID] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def encode(self, value: Any, channel: str = "") -> tuple[Tree, Tree]:
        """Return the value of a channel as it is stored, and complete."""
        kind, data = self.serde.dumps_typed(value)
        if kind == "null":
            return None, None
        whole: Tree = None
        if kind == "msgpack":
            with suppress(_TooDeep):
                whole = self.tree(unpack(data), channel in self.message_channels)
        if whole is None:
            text = b64encode(data).decode()
            whole = {"~typed": [kind, _add_file(self.files, data) if is_large(text) else text]}
        stored = self._changes(whole, channel)
        if stored is None:
            stored = self._without_repeated_lists(whole)
            if stored is whole and _size(whole) > LARGE_BYTES and not _is_reference(whole):
                stored = whole = self._value(whole)
        return stored, whole

    def _member(self, name: str, value: Any, has_messages: bool, depth: int) -> Tree:
        return self.tree(value, has_messages or name in self.message_channels, depth)

    def _large(self, leaf: Tree) -> Tree:
        leaf = super()._large(leaf)
        size = len(leaf) if isinstance(leaf, str) else max(map(len, leaf.values()))
        return self._value(leaf) if size > LARGE_BYTES else leaf

    def _value(self, tree: Tree) -> Tree:
        event_id = value_id(tree)
        if not self.known(event_id):
            self.events[event_id] = NewEvent(ApplicationEvent(VALUE, tree), event_id)
        return {"~value": str(event_id)}

    def _extension(self, value: Extension, has_messages: bool, depth: int) -> Tree:
        if value.code == PYDANTIC:
            digest = message_digest(value.data)
            message_id = self.message_ids.get(digest)
            made = message_event(value.data) if has_messages and not self._is_stored(message_id) else None
            if made is not None:
                message, files = made
                message = replace(message, id=visible_id(message.id, self.generations, self.shows))
                message_id = self.message_ids[digest] = message.id
                if not self.shows(message_id):
                    self.events[message_id] = message
                    self.files |= files
                    self.events |= {each.id: each for each in task_events(message, self.calls)}
            if message_id is not None and self._is_stored(message_id):
                return {"~message": str(message_id)}
        return super()._extension(value, has_messages, depth)

    def _is_stored(self, event_id: UUID | None) -> bool:
        return event_id is not None and (self.shows(event_id) or event_id in self.events)

    # What changed

    def _changes(self, whole: Tree, channel: str) -> Tree:
        """Return how a value differs from the channel's value before; None if they have nothing in common."""
        before = expanded(self.channels.get(channel), self.payloads)
        if isinstance(whole, list) and isinstance(before, list):
            return self._list_changes(whole, before, channel, channel)
        if isinstance(whole, dict) and isinstance(before, dict) and not (_is_tagged(whole) or _is_tagged(before)):
            removed = [name for name in before if name not in whole]
            changed = {
                name: value for name, value in whole.items() if name not in before or not same(before[name], value)
            }
            merged = {name: None for name in before if name in whole} | changed
            if len(changed) < len(whole) and list(merged) == list(whole):
                self.has_copied = True
                return {"~dict": [removed, {name: self._smaller(value) for name, value in changed.items()}]}
        return None

    def _list_changes(self, items: list[Tree], before: list[Tree], channel: str, own_channel: str = "") -> Tree:
        runs = list(_runs(items, before))
        if not any(number for _, number in runs):
            return None
        self.has_copied = True
        if runs[0] == (0, len(before)) and channel == own_channel:
            return {"~more": [self._smaller(item) for item in items[len(before) :]]}
        parts = [self._smaller(items[start]) if not number else {"~copy": [start, number]} for start, number in runs]
        return {"~list": [channel, *parts]}

    def _smaller(self, tree: Tree) -> Tree:
        tree = self._without_repeated_lists(tree)
        return self._value(tree) if _size(tree) > LARGE_BYTES and not has_copies(tree) else tree

    def _without_repeated_lists(self, tree: Tree) -> Tree:
        """Return a value in which lists of messages that the checkpoint's channels have too are copies of these."""
        if isinstance(tree, dict):
            changed = {name: self._without_repeated_lists(value) for name, value in tree.items()}
            return tree if all(changed[name] is value for name, value in tree.items()) else changed
        if not isinstance(tree, list):
            return tree
        if len(tree) > 1 and any(isinstance(item, dict) and "~message" in item for item in tree):
            for channel in self.message_channels & self.channels.keys():
                before = expanded(self.channels[channel], self.payloads)
                if isinstance(before, list) and (changes := self._list_changes(tree, before, channel)) is not None:
                    return changes
        parts = [self._without_repeated_lists(item) for item in tree]
        return tree if all(part is item for part, item in zip(parts, tree, strict=True)) else parts


def _runs(items: list[Tree], before: list[Tree]) -> Iterator[tuple[int, int]]:
    """Yield the items as (index, 0) if they are new, and as (first index before, number) if they are copies."""
    places: dict[bytes, int] | None = None
    index, place = 0, 0
    while index < len(items):
        number = 0
        while (
            index + number < len(items)
            and place + number < len(before)
            and same(items[index + number], before[place + number])
        ):
            number += 1
        if number:
            yield place, number
            index, place = index + number, place + number
            continue
        if places is None:
            places = {to_json(item): number for number, item in reversed(list(enumerate(before)))}
        found = places.get(to_json(items[index]))
        if found is None:
            yield index, 0
            index += 1
        else:
            place = found


def in_stored_order(members: dict[str, T]) -> dict[str, T]:
    """Return members in the order of ``jsonb``, so that the store need not keep another one."""
    return dict(sorted(members.items(), key=lambda member: (len(member[0].encode()), member[0])))


def same(a: Tree, b: Tree) -> bool:
    """Return whether two trees are equal, with the order of their members: unlike in Python, 1 is not true, nor 1.0."""
    return bool(a == b) and (type(a) is str or _is_reference(a) or to_json(a) == to_json(b))


def _size(tree: Tree) -> int:
    return len(to_json(tree))


def _is_tagged(tree: Tree) -> bool:
    return len(tree) == 1 and next(iter(tree))[:1] == "~"


def value_id(tree: Tree) -> UUID:
    """Return the id of the event of a large value."""
    return derived_uuid(VALUE, blake2b(to_json(tree), digest_size=32).hexdigest())


def _is_reference(tree: Tree) -> bool:
    return isinstance(tree, dict) and len(tree) == 1 and ("~value" in tree or "~message" in tree)


def has_copies(tree: Tree) -> bool:
    """Return whether a tree is made of parts of another value."""
    if isinstance(tree, dict):
        return not _COPIES.isdisjoint(tree) or any(map(has_copies, tree.values()))
    return isinstance(tree, list) and any(map(has_copies, tree))


_COPIES = frozenset(("~list", "~more", "~dict"))


def has_messages(tree: Tree) -> bool:
    """Return whether a tree refers to messages."""
    if isinstance(tree, dict):
        return "~message" in tree or any(map(has_messages, tree.values()))
    return isinstance(tree, list) and any(map(has_messages, tree))


def with_ids(tree: Tree, ids: Mapping[str, str]) -> Tree:
    """Return a tree that refers to events by other ids, given these by the ones in the tree."""
    if isinstance(tree, list):
        return [with_ids(item, ids) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _is_reference(tree):
        return {tag: ids.get(event_id, event_id) for tag, event_id in tree.items()}
    return {name: with_ids(value, ids) for name, value in tree.items()}


# Reading


def expanded(tree: Tree, payloads: Payloads) -> Tree:
    """Return the value that a tree refers to as a whole."""
    while is_value(tree):
        tree = payloads[UUID(tree["~value"])]
    return tree


def complete(stored: Tree, channel: str, channels: Channels, payloads: Payloads) -> Tree:
    """Return the complete value of a channel from the stored one, given the values of the checkpoint before.

    One of them that was erased is taken to be empty.
    """
    if isinstance(stored, dict) and len(stored) == 1 and "~dict" in stored:
        removed, changed = stored["~dict"]
        before = expanded(channels.get(channel), payloads) or {}
        kept = {name: value for name, value in before.items() if name not in removed}
        return kept | {name: complete(value, "", channels, payloads) for name, value in changed.items()}
    if isinstance(stored, dict):
        if len(stored) == 1 and "~more" in stored:
            added = [complete(item, "", channels, payloads) for item in stored["~more"]]
            return [*(expanded(channels.get(channel), payloads) or ()), *added]
        if len(stored) == 1 and "~list" in stored:
            source, *parts = stored["~list"]
            before = expanded(channels.get(source), payloads) or []
            items: list[Tree] = []
            for part in parts:
                if isinstance(part, dict) and "~copy" in part:
                    start, number = part["~copy"]
                    items += before[start : start + number]
                else:
                    items.append(complete(part, "", channels, payloads))
            return items
        return {name: complete(value, "", channels, payloads) for name, value in stored.items()}
    if isinstance(stored, list):
        return [complete(item, "", channels, payloads) for item in stored]
    return stored


def references(tree: Tree) -> Iterator[UUID | str]:
    """Yield the ids of the events, and the references to the files, that a tree refers to."""
    if isinstance(tree, dict):
        if _is_reference(tree):
            yield UUID(next(iter(tree.values())))
        elif _is_tagged(tree) and (name := _file_name(tree)) is not None:
            yield name
        else:
            for value in tree.values():
                yield from references(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from references(item)


def _file_name(tree: Tree) -> str | None:
    """Return the reference of a tagged tree that stands for a large file; None if it stands for something else."""
    [(tag, content)] = tree.items()
    name = content if tag == "~bytes" else content[-1] if tag in ("~typed", "~base64") else ""
    return name if name.startswith(SCHEME) else None


def sources(tree: Tree) -> Iterator[str]:
    """Yield the channels of the checkpoint before that a stored value copies from; ``""`` stands for its own."""
    if isinstance(tree, dict):
        if "~list" in tree:
            yield tree["~list"][0]
        if "~dict" in tree or "~more" in tree:
            yield ""
        for value in tree.values():
            yield from sources(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from sources(item)


def plain_trees(members: Mapping[str, Any]) -> dict[str, Tree]:
    """Return the members of an object as trees that refer to no events, whatever serializer the values have."""
    return {name: _Trees().tree(unpack(_PLAIN.dumps_typed([value])[1])[0]) for name, value in members.items()}


def plain_values(trees: Mapping[str, Tree]) -> dict[str, Any]:
    """Return the members of an object from :func:`plain_trees`."""
    return {name: decode(tree, _PLAIN, {}) for name, tree in trees.items()}


def is_value(tree: Tree) -> bool:
    """Return whether a tree is a large value as a whole, which is an event of its own."""
    return isinstance(tree, dict) and len(tree) == 1 and "~value" in tree


def decode(tree: Tree, serde: SerializerProtocol, payloads: Payloads) -> Any:
    """Return the value of a complete tree."""
    if not isinstance(tree, dict | list):
        return tree
    if isinstance(tree, dict) and "~typed" in (tree := expanded(tree, payloads)):
        kind, data = tree["~typed"]
        return serde.loads_typed((kind, _data(data, payloads)))
    return serde.loads_typed(("msgpack", _pack(_plain(tree, payloads))))


def _pack(value: Any) -> bytes:
    return ormsgpack.packb(value, option=_OPTION)


def _data(text: str, payloads: Payloads) -> bytes:
    data: bytes = payloads[text] if text.startswith(SCHEME) else b64decode(text)
    return data


def _plain(tree: Tree, payloads: Payloads) -> Any:
    """Return a tree as the values that MessagePack has."""
    if isinstance(tree, list):
        return [_plain(item, payloads) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if not _is_tagged(tree):
        return {name: _plain(member, payloads) for name, member in tree.items()}
    [(tag, content)] = tree.items()
    match tag:
        case "~value":
            return _plain(payloads[UUID(content)], payloads)
        case "~message":
            return ormsgpack.Ext(PYDANTIC, payloads[UUID(content)])
        case "~ext":
            code, value, *data = content
            return ormsgpack.Ext(code, b64decode(data[0]) if data else _pack(_plain(value, payloads)))
        case "~bytes":
            return _data(content, payloads)
        case "~base64":
            start, name = content
            return start + b64encode(payloads[name]).decode()
        case "~text":
            return b64decode(content).decode()
        case "~float":
            return float(content)
        case "~map":
            return {_key(_plain(name, payloads)): _plain(member, payloads) for name, member in content}
    raise ValueError(f"{tag} is not a tag of a value of LangGraph: a newer version of this adapter wrote it")


def _key(value: Any) -> Any:
    return tuple(map(_key, value)) if isinstance(value, list) else value


# Files in messages

_DATA_URL = re.compile(r"(data:[^,]{0,200};base64,)(.*)", re.DOTALL)
_FILE_MEMBERS = ("data", "base64", "file_data", "url", "image_url", "file_url")
"""The members of a block of content that hold a file, or its URL: directly, or in an object in the block."""
_TYPE_MEMBERS = ("mime_type", "media_type")
_FILE_TYPES = ("image", "audio", "video", "file", "document", "media")
"""What the type of a block with a file contains."""


def _split_base64(text: str) -> tuple[str, bytes | None]:
    """Return what precedes the Base64 of a file in a text, and the file; None if the text is something else."""
    data_url = _DATA_URL.fullmatch(text)
    start, base64 = ("", text) if data_url is None else data_url.groups()
    try:
        data = b64decode(base64, validate=True)
    except ValueError:
        return "", None
    return (start, data) if b64encode(data).decode() == base64 else ("", None)


def _file_place(block: Any) -> tuple[str, ...] | None:
    """Return the place of the file, or of what stands for it, in a block of content; None if it has none."""
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or not any(each in kind for each in _FILE_TYPES):
        return None
    for name in _FILE_MEMBERS:
        for outer in ((), *((each,) for each, value in block.items() if isinstance(value, dict))):
            found = _at(block, outer)
            if all(_is_plain(each) for each in found) and _is_file(found.get(name)):
                return *outer, name
    return None


def _is_file(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, dict) and value.keys() == {"~file"}
    return "://" in value or (value != "" and _split_base64(value)[1] is not None)


def _at(block: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        block = block[name]
    return block


def _with(block: Any, place: tuple[str, ...], value: Any) -> Any:
    """Return a block with another value at a place."""
    name, *rest = place
    return block | {name: _with(block[name], tuple(rest), value) if rest else value}


# Messages

_ROLES = {
    "human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool",
    "HumanMessageChunk": "user", "AIMessageChunk": "assistant", "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool", "FunctionMessageChunk": "tool",
}  # fmt: skip
"""LangChain's types of messages, and the role of each."""
MESSAGES = "langchain_core.messages."
_CLASSES = {
    "user": ("human", "HumanMessage"), "assistant": ("ai", "AIMessage"), "system": ("system", "SystemMessage"),
    "tool": ("tool", "ToolMessage"),
}  # fmt: skip
"""The module, which is also the type, and the class of most messages of a role."""
_METHOD = "model_validate_json"


_USAGE = ("input_tokens", "output_tokens", "total_tokens")
"""The members of most messages' ``usage_metadata``, in LangChain's order, which is restored without being stored."""


def message_event(data: bytes) -> tuple[NewEvent, dict[str, bytes]] | None:
    """Return the event of a message of LangChain in MessagePack; None if it is something else.

    The event's id follows from the message, so that it is stored once however often a graph's state contains it.

    Returns:
        The event, and the large files in its own form by their references. Those of its parts are in the parts.
    """
    try:
        module, name, members, method = unpack(data)
        role = _ROLES.get(members["type"])
        content = members["content"]
    except (ValueError, TypeError, KeyError):
        return None
    if role is None or not module.startswith(MESSAGES) or method != _METHOD or not isinstance(content, str | list):
        return None
    given_id = members.get("id")
    if not isinstance(given_id, str) or "\0" in given_id:
        given_id = None
    kept = {key: value for key, value in members.items() if key != "content" and (key != "id" or value != given_id)}
    if (module, name) == _class_of(role):
        kept.pop("type", None)
    set_members = {key: value for key, value in kept.items() if value not in (None, [], {})}
    files: dict[str, bytes] = {}
    trees = _Trees(files)
    added = _added(trees, role, module, name, content, given_id, set_members)
    if added is not None and not _is_same(
        message_data(added, cast(Payloads, files)), data
    ):  # others have a default too
        added = _added(trees, role, module, name, content, given_id, kept)
    if added is None:
        return None
    identity = to_json([role, added.content, added.parts, given_id, (added.extra or {}).get(EXTRA)])
    event_id = derived_uuid("langgraph.message", blake2b(identity, digest_size=32).hexdigest())
    return NewEvent(added, event_id, actor=role), files


def _added(
    trees: _Trees, role: str, module: str, name: str, content: Any, given_id: str | None, members: dict[str, Any]
) -> MessageAdded | None:
    try:
        own = {key: trees.tree(value) for key, value in members.items()}
        if isinstance(usage := own.get("usage_metadata"), dict) and list(usage) == list(_USAGE):
            own["usage_metadata"] = in_stored_order(usage)
        if (module, name) != _class_of(role):
            own["class"] = f"{module.removeprefix(MESSAGES)}.{name}"
        if isinstance(content, list):
            text, parts = None, [_part(trees, block) for block in content]
        else:
            text, parts = content.replace("\0", ""), None
            if text != content:  # PostgreSQL stores no NUL character
                own["content"] = trees.tree(content)
    except _TooDeep:
        return None
    extra = {EXTRA: in_stored_order(own)} if own else None
    return MessageAdded(role=Role(role), content=text, parts=parts, given_id=given_id, extra=extra)


def _class_of(role: str) -> tuple[str, str]:
    module, name = _CLASSES[role]
    return MESSAGES + module, name


def _is_same(data: bytes, other: bytes) -> bool:
    """Return whether two messages in MessagePack are read as the same object."""
    first, second = map(_loaded, (data, other))
    return type(first) is type(second) and _PLAIN.dumps_typed(first) == _PLAIN.dumps_typed(second)


def _loaded(data: bytes) -> Any:
    return _PLAIN.loads_typed(("msgpack", _pack(ormsgpack.Ext(PYDANTIC, data))))


def message_digest(data: bytes) -> bytes:
    """Return the digest of a message in MessagePack."""
    return blake2b(data, digest_size=16).digest()


def digest_when_written(data: bytes) -> bytes:
    """Return the digest that a message has when LangGraph writes it that has read it as this MessagePack."""
    return message_digest(unpack(_PLAIN.dumps_typed(_loaded(data))[1]).data)


def visible_id(message_id: UUID, generations: Sequence[int], shows: Callable[[UUID], bool]) -> UUID:
    """Return the id of the event of a message that the conversation shows, or of the one to be appended.

    Args:
        message_id: the id of the first event of the message, which the conversation may hide.
        generations: see :attr:`~agent_manager.adapters.langgraph_thread.Thread.generations`.
        shows: whether the conversation has a message.
    """
    ids = [
        derived_uuid("langgraph.message", str(message_id), number) if number else message_id for number in generations
    ]
    return next(filter(shows, ids), ids[-1])


def message_data(added: MessageAdded, payloads: Payloads) -> bytes:
    """Return the message of an event in MessagePack.

    Args:
        payloads: the files to which its own form refers (:func:`message_files`). Those of its parts are loaded.
    """
    own = dict((added.extra or {}).get(EXTRA, {}))
    module, name = _class_of(str(added.role))
    if "class" in own:
        path, _, name = own.pop("class").rpartition(".")
        module = MESSAGES + path
    content: Any = added.content
    if added.parts is not None:
        content = [_block(part, payloads) for part in added.parts]
    if isinstance(usage := own.get("usage_metadata"), dict) and usage.keys() == set(_USAGE):
        own["usage_metadata"] = {name: usage[name] for name in _USAGE}
    members = {"content": content, "id": added.given_id} | {key: _plain(tree, payloads) for key, tree in own.items()}
    return _pack((module, name, members, _METHOD))


def task_events(message: NewEvent, calls: dict[str, UUID]) -> Iterator[NewEvent]:
    """Yield the events of the tasks of the calls of tools in a message, or of the task whose result it is.

    Their ids follow from the message's, so that they are stored once. The message itself is not repeated in them.

    Args:
        calls: the tasks of earlier calls, by the ids of the calls; those of the message are added.
    """
    own = (cast(MessageAdded, message.data).extra or {}).get(EXTRA, {})
    made_of = {"message_id": str(message.id)}

    def derived(name: object) -> UUID:
        return derived_uuid("langgraph.task", str(message.id), str(name))

    tool_calls = own.get("tool_calls")
    for number, call in enumerate(tool_calls if isinstance(tool_calls, list) else ()):
        name, call_id = (_text(call.get(member)) if isinstance(call, dict) else None for member in ("name", "id"))
        task_id = derived(number)
        if call_id is not None:
            calls[call_id] = task_id
        status = TaskStatus.IN_PROGRESS
        created = TaskCreated(
            task_id=task_id, description=name or "", status=status, given_id=call_id, metadata=made_of
        )
        yield NewEvent(created, derived(f"created {number}"), actor="assistant")
    if (call_id := _text(own.get("tool_call_id"))) is not None:
        task_id = calls.get(call_id) or derived("result")
        parts = [{"kind": "data", "data": made_of}]
        result = TaskArtifactAdded(task_id=task_id, artifact_id="result", parts=parts, metadata=made_of)
        yield NewEvent(result, derived("added"), actor="tool")
        status = TaskStatus.FAILED if own.get("status") == "error" else TaskStatus.COMPLETED
        changed = TaskStatusChanged(task_id=task_id, status=status, metadata=made_of)
        yield NewEvent(changed, derived("changed"), actor="tool")


def _text(tree: Tree) -> str | None:
    return tree if isinstance(tree, str) else None


def message_files(added: MessageAdded) -> Iterator[UUID | str]:
    """Yield the references to the files that the own form of a message refers to."""
    yield from references((added.extra or {}).get(EXTRA, {}))
    yield from references(added.parts)


def _part(trees: _Trees, block: Any) -> Tree:
    """Return the part of a message for one of LangChain's blocks of content."""
    if (place := _file_place(block)) is not None and "\0" not in (text := _at(block, place)):
        data_url = _DATA_URL.fullmatch(text)
        start, value = ("", text) if data_url is None else data_url.groups()
        is_data = data_url is not None or "://" not in text
        around = _at(block, place[:-1])
        kind = start[len("data:") : -len(";base64,")] or next(
            (around[name] for name in _TYPE_MEMBERS if isinstance(around.get(name), str)), ""
        )
        form = trees.tree(_with(block, place, None))
        if not _is_tagged(form):
            file = {"bytes" if is_data else "uri": value} | ({"mimeType": kind} if kind and "\0" not in kind else {})
            form = _with(form, place, {"~file": start if is_data else None})
            return {"kind": "file", "file": file, "metadata": {EXTRA: form}}
    tree = trees.tree(block)
    if isinstance(block, str) and tree == block:
        return {"kind": "text", "text": tree, "metadata": {EXTRA: "text"}}
    if not isinstance(tree, dict) or _is_tagged(tree):
        return {"kind": "data", "data": {"value": tree}, "metadata": {EXTRA: "value"}}
    if tree.get("type") != "text" or not isinstance(tree.get("text"), str):
        return {"kind": "data", "data": tree}
    part = {"kind": "text", "text": tree["text"]}
    return part if list(tree) == ["type", "text"] else part | {"metadata": {EXTRA: tree | {"text": None}}}


def _block(part: Tree, payloads: Payloads) -> Any:
    form = part.get("metadata", {}).get(EXTRA)
    if part["kind"] == "file":
        place = _file_place(form)
        assert place is not None
        start, file = _at(form, place)["~file"], part["file"]
        return _plain(_with(form, place, file["uri"] if start is None else start + file["bytes"]), payloads)
    if part["kind"] == "data":
        return _plain(part["data"]["value"] if form == "value" else part["data"], payloads)
    if form == "text":
        return part["text"]
    text = part["text"]
    return {"type": "text", "text": text} if form is None else _plain(form | {"text": text}, payloads)
