"""Values of LangGraph's channels as JSON: trees.

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic_core import to_json

from agent_manager.adapters.blobs import SCHEME, is_large, reference
from eventstore.json_text import MAX_DEPTH

T = TypeVar("T")
Tree: TypeAlias = Any
"""A value as JSON."""
Payloads: TypeAlias = Mapping[UUID | str, Tree]
"""Targets of references in trees: events by id (messages in MessagePack, values as trees), files by reference."""
Channels: TypeAlias = Mapping[str, Tree]
"""The values of the channels of a checkpoint, complete."""

_OPTION = ormsgpack.OPT_NON_STR_KEYS
DATA_URL = re.compile(r"(data:[^,]{0,200};base64,)(.*)", re.DOTALL)
PLAIN_SERIALIZER = JsonPlusSerializer()
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


class TooDeep(Exception):
    """A value is nested too deep for JSON in the log."""


_MAX_DEPTH = MAX_DEPTH - 50
"""Levels of a value that become JSON; the rest is for what contains it."""


class Trees:
    """Makes trees of the values that MessagePack has.

    Attributes:
        files: the bytes of large files, by their references; None to leave files where they are.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files

    def tree(self, value: Any, has_messages: bool = False, depth: int = 0) -> Tree:
        """Return the tree of a value; ``has_messages`` if its messages are those of the conversation."""
        if depth > _MAX_DEPTH:
            raise TooDeep
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
            if not all(map(is_plain, value)):
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
            start, data = split_base64(leaf) if is_large(leaf) else ("", None)
            return leaf if data is None else {"~base64": [start, add_file(self.files, data)]}
        if "~bytes" in leaf and is_large(leaf["~bytes"]):
            return {"~bytes": add_file(self.files, b64decode(leaf["~bytes"]))}
        return leaf

    def _extension(self, value: Extension, has_messages: bool, depth: int) -> Tree:
        try:
            content = unpack(value.data)
        except ValueError:
            return {"~ext": [value.code, None, b64encode(value.data).decode()]}
        return {"~ext": [value.code, self.tree(content, has_messages, depth)]}


def is_plain(name: Any) -> bool:
    """Return whether JSON has the key of an object, and a tree no other use for it."""
    return type(name) is str and name[:1] != "~" and "\0" not in name


def add_file(files: dict[str, bytes], content: bytes) -> str:
    name = reference(sha256(content).digest())
    files[name] = content
    return name


def split_base64(text: str) -> tuple[str, bytes | None]:
    """Return what precedes the Base64 of a file in a text, and the file; None if the text is something else."""
    data_url = DATA_URL.fullmatch(text)
    start, base64 = ("", text) if data_url is None else data_url.groups()
    try:
        data = b64decode(base64, validate=True)
    except ValueError:
        return "", None
    return (start, data) if b64encode(data).decode() == base64 else ("", None)


def in_stored_order(members: dict[str, T]) -> dict[str, T]:
    """Return members in the order of ``jsonb``, so that the store need not keep another one."""
    return dict(sorted(members.items(), key=lambda member: (len(member[0].encode()), member[0])))


def same(a: Tree, b: Tree) -> bool:
    """Return whether two trees are equal, with the order of their members: unlike in Python, 1 is not true, nor 1.0."""
    return bool(a == b) and (type(a) is str or is_reference(a) or to_json(a) == to_json(b))


def is_tagged(tree: Tree) -> bool:
    return len(tree) == 1 and next(iter(tree))[:1] == "~"


def is_reference(tree: Tree) -> bool:
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
    if not ids:
        return tree
    if isinstance(tree, list):
        return [with_ids(item, ids) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if is_reference(tree):
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
        if is_reference(tree):
            yield UUID(next(iter(tree.values())))
        elif is_tagged(tree) and (name := _file_name(tree)) is not None:
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
    return {name: Trees().tree(unpack(PLAIN_SERIALIZER.dumps_typed([value])[1])[0]) for name, value in members.items()}


def plain_values(trees: Mapping[str, Tree]) -> dict[str, Any]:
    """Return the members of an object from :func:`plain_trees`."""
    return {name: decode(tree, PLAIN_SERIALIZER, {}) for name, tree in trees.items()}


def is_value(tree: Tree) -> bool:
    """Return whether a tree is a large value as a whole, which is an event of its own."""
    return isinstance(tree, dict) and len(tree) == 1 and "~value" in tree


def decode(tree: Tree, serde: SerializerProtocol, payloads: Payloads) -> Any:
    """Return the value of a complete tree."""
    if not isinstance(tree, dict | list):
        return tree
    tree = expanded(tree, payloads)
    if isinstance(tree, dict) and "~typed" in tree:
        kind, data = tree["~typed"]
        return serde.loads_typed((kind, _data(data, payloads)))
    return serde.loads_typed(("msgpack", pack(plain(tree, payloads))))


def pack(value: Any) -> bytes:
    return ormsgpack.packb(value, option=_OPTION)


def _data(text: str, payloads: Payloads) -> bytes:
    data: bytes = payloads[text] if text.startswith(SCHEME) else b64decode(text)
    return data


def plain(tree: Tree, payloads: Payloads) -> Any:
    """Return a tree as the values that MessagePack has."""
    if isinstance(tree, list):
        return [plain(item, payloads) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if not is_tagged(tree):
        return {name: plain(member, payloads) for name, member in tree.items()}
    [(tag, content)] = tree.items()
    match tag:
        case "~value":
            return plain(payloads[UUID(content)], payloads)
        case "~message":
            return ormsgpack.Ext(PYDANTIC, payloads[UUID(content)])
        case "~ext":
            code, value, *data = content
            return ormsgpack.Ext(code, b64decode(data[0]) if data else pack(plain(value, payloads)))
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
            return {_key(plain(name, payloads)): plain(member, payloads) for name, member in content}
    raise ValueError(f"{tag} is not a tag of a value of LangGraph: a newer version of this adapter wrote it")


def _key(value: Any) -> Any:
    return tuple(map(_key, value)) if isinstance(value, list) else value
