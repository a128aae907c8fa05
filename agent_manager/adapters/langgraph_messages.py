"""LangChain's messages as message events, and back; the calls of tools in them as tasks."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID

import ormsgpack
from pydantic_core import to_json

from agent_manager.adapters.langgraph_trees import (
    DATA_URL,
    PLAIN_SERIALIZER,
    PYDANTIC,
    Payloads,
    TooDeep,
    Tree,
    Trees,
    in_stored_order,
    is_plain,
    is_tagged,
    pack,
    plain,
    references,
    split_base64,
    unpack,
)
from eventstore import (
    MessageAdded,
    NewEvent,
    Role,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
)
from eventstore.ids import derived_uuid

EXTRA = "langgraph"
"""The member of a message's ``extra`` that holds what its content does not."""

# Files in messages

_FILE_MEMBERS = ("data", "base64", "file_data", "url", "image_url", "file_url")
"""The members of a block of content that hold a file, or its URL: directly, or in an object in the block."""
_TYPE_MEMBERS = ("mime_type", "media_type")
_FILE_TYPES = ("image", "audio", "video", "file", "document", "media")
"""Words that occur in the type of a block with a file."""


def _file_place(block: Any) -> tuple[str, ...] | None:
    """Return the place of the file, or of what stands for it, in a block of content; None if it has none."""
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or not any(each in kind for each in _FILE_TYPES):
        return None
    for name in _FILE_MEMBERS:
        for outer in ((), *((each,) for each, value in block.items() if isinstance(value, dict))):
            found = _at(block, outer)
            if all(is_plain(each) for each in found) and _is_file(found.get(name)):
                return *outer, name
    return None


def _is_file(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, dict) and value.keys() == {"~file"}
    return "://" in value or (value != "" and split_base64(value)[1] is not None)


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
    trees = Trees(files)
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
    trees: Trees, role: str, module: str, name: str, content: Any, given_id: str | None, members: dict[str, Any]
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
    except TooDeep:
        return None
    extra = {EXTRA: in_stored_order(own)} if own else None
    return MessageAdded(role=Role(role), content=text, parts=parts, given_id=given_id, extra=extra)


def _class_of(role: str) -> tuple[str, str]:
    module, name = _CLASSES[role]
    return MESSAGES + module, name


def _is_same(data: bytes, other: bytes) -> bool:
    """Return whether two messages in MessagePack are read as the same object."""
    first, second = map(_loaded, (data, other))
    return type(first) is type(second) and PLAIN_SERIALIZER.dumps_typed(first) == PLAIN_SERIALIZER.dumps_typed(second)


def _loaded(data: bytes) -> Any:
    return PLAIN_SERIALIZER.loads_typed(("msgpack", pack(ormsgpack.Ext(PYDANTIC, data))))


def message_digest(data: bytes) -> bytes:
    """Return the digest of a message in MessagePack."""
    return blake2b(data, digest_size=16).digest()


def as_written(data: bytes) -> bytes:
    """Return the MessagePack that LangGraph makes of a message that it has read as this one."""
    written: bytes = unpack(PLAIN_SERIALIZER.dumps_typed(_loaded(data))[1]).data
    return written


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
    members = {"content": content, "id": added.given_id} | {key: plain(tree, payloads) for key, tree in own.items()}
    return pack((module, name, members, _METHOD))


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


def _part(trees: Trees, block: Any) -> Tree:
    """Return the part of a message for one of LangChain's blocks of content."""
    if (place := _file_place(block)) is not None and "\0" not in (text := _at(block, place)):
        data_url = DATA_URL.fullmatch(text)
        start, value = ("", text) if data_url is None else data_url.groups()
        is_data = data_url is not None or "://" not in text
        around = _at(block, place[:-1])
        kind = start[len("data:") : -len(";base64,")] or next(
            (around[name] for name in _TYPE_MEMBERS if isinstance(around.get(name), str)), ""
        )
        form = trees.tree(_with(block, place, None))
        if not is_tagged(form):
            file = {"bytes" if is_data else "uri": value} | ({"mimeType": kind} if kind and "\0" not in kind else {})
            form = _with(form, place, {"~file": start if is_data else None})
            return {"kind": "file", "file": file, "metadata": {EXTRA: form}}
    tree = trees.tree(block)
    if isinstance(block, str) and tree == block:
        return {"kind": "text", "text": tree, "metadata": {EXTRA: "text"}}
    if not isinstance(tree, dict) or is_tagged(tree):
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
        return plain(_with(form, place, file["uri"] if start is None else start + file["bytes"]), payloads)
    if part["kind"] == "data":
        return plain(part["data"]["value"] if form == "value" else part["data"], payloads)
    if form == "text":
        return part["text"]
    text = part["text"]
    return {"type": "text", "text": text} if form is None else plain(form | {"text": text}, payloads)
