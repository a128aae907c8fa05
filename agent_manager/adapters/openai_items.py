"""Items of the OpenAI Agents SDK as events of the vocabulary, and back; needed without the SDK too, for imports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from agent_manager.a2a import Json
from agent_manager.adapters.conversation_history import StoredEvent
from agent_manager.adapters.message_forms import (
    form_of,
    json_if_unstorable,
    message_of,
    parts_of,
    plain_text,
    storable,
    value_of,
)
from eventstore import (
    ApplicationEvent,
    EventData,
    MessageAdded,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
)
from eventstore.message_format import ROLES

EXTRA = "openai"
"""The member of ``extra`` with what the other members do not hold of an item. A text is the whole item as JSON."""
ITEM = "openai.item"
"""The type of the application event that holds an item without a counterpart, such as reasoning."""
_CALLS = "_call"
_OUTPUTS = "_output"
_ANSWERED_LATER = (
    "function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call",
    "tool_search_call",
)  # fmt: skip
"""The calls whose output is an item of its own; any other call holds its output."""
_FAILED = ("failed", "incomplete")


# Items as events


def events_of(
    items: Iterable[Any],
    calls: dict[str, UUID],
    *,
    check: bool = False,
    new_task_id: Callable[[], UUID] = uuid4,
) -> Iterator[NewEvent]:
    """Yield the events of items.

    Args:
        calls: the tasks of calls whose outputs may be among the items, by the id of the call. It is updated.
        check: whether an item that cannot be stored as it is, such as one with a NUL character, is kept as JSON.
        new_task_id: returns the id of the next task.

    Raises:
        NoJsonForm: an item has no JSON form.
    """
    for item in items:
        text = json_if_unstorable(item) if check else None
        shown = item if text is None else storable(item)
        if text is not None and (shown is None or json_if_unstorable(shown) is not None):  # nested too deep
            yield NewEvent(ApplicationEvent(ITEM, {"json": text}))
            continue
        for data in _events_of_item(shown, calls, new_task_id):
            event = data if text is None else _with_json(data, text)
            yield NewEvent(event, actor=_actor(event))


def _events_of_item(item: Any, calls: dict[str, UUID], new_task_id: Callable[[], UUID]) -> Iterator[EventData]:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if not isinstance(kind, str):
        yield ApplicationEvent(ITEM, {"item": item})
    elif kind == "message" and isinstance(item.get("role"), str) and item["role"] in ROLES:
        yield message_of(item, "content", ROLES[item["role"]], EXTRA)
    elif kind.endswith(_CALLS):
        task_id = new_task_id()
        call_id = item.get("call_id", item.get("id"))
        if isinstance(call_id, str):
            calls[call_id] = task_id
        yield _call(item, kind, task_id, call_id if isinstance(call_id, str) else None)
    elif kind.endswith(_OUTPUTS) and isinstance(item.get("call_id"), str):
        task_id = calls.get(item["call_id"]) or new_task_id()
        parts, rest = parts_of(item.get("output"))
        own = item | {"output": rest} if "output" in item else item
        yield TaskArtifactAdded(task_id=task_id, artifact_id="result", parts=parts, extra={EXTRA: own})
        status = TaskStatus.FAILED if item.get("status") in _FAILED else TaskStatus.COMPLETED
        yield TaskStatusChanged(task_id=task_id, status=status)
    else:
        yield ApplicationEvent(ITEM, {"item": item})


def _call(item: Json, kind: str, task_id: UUID, call_id: str | None) -> TaskCreated:
    name, member = item.get("name"), _arguments(item)
    description = name if isinstance(name, str) else kind.removesuffix(_CALLS)
    if member is not None and isinstance(item[member], str):
        description, item = f"{description}({item[member]})", item | {member: None}
    if item.get("status") in _FAILED or item.get("error") is not None:
        status = TaskStatus.FAILED
    elif kind in _ANSWERED_LATER or item.get("status") == "in_progress":
        status = TaskStatus.IN_PROGRESS
    else:
        status = TaskStatus.COMPLETED
    return TaskCreated(task_id=task_id, description=description, status=status, given_id=call_id, extra={EXTRA: item})


def _arguments(item: Json) -> str | None:
    """Return the member of a call that holds its arguments, which its description repeats."""
    members = [member for member in ("arguments", "input") if member in item]
    return members[0] if len(members) == 1 and isinstance(item.get("name"), str) else None


def _actor(data: EventData) -> str:
    if isinstance(data, MessageAdded):
        return str(data.role)
    return "tool" if isinstance(data, TaskArtifactAdded) else "assistant"


def _with_json(data: EventData, text: str) -> EventData:
    """Return the event of an item with the whole item as JSON."""
    if isinstance(data, ApplicationEvent):
        return ApplicationEvent(ITEM, {"json": text})
    return data if isinstance(data, TaskStatusChanged) else data.model_copy(update={"extra": {EXTRA: text}})


def open_outputs(items: Sequence[Any]) -> list[str]:
    """Return the ids of the calls whose outputs are among the items, but not the calls themselves."""
    known: set[str] = set()
    found: dict[str, None] = {}
    for item in items:
        kind, call_id = (item.get("type"), item.get("call_id")) if isinstance(item, dict) else (None, None)
        if isinstance(kind, str) and isinstance(call_id, str):
            if kind.endswith(_CALLS):
                known.add(call_id)
            elif kind.endswith(_OUTPUTS) and call_id not in known:
                found[call_id] = None
    return list(found)


# Events as items


@dataclass(slots=True)
class Entry:
    """An item of a session.

    Attributes:
        version: that of its event.
        call: the task of the call that it is.
        output_of: the task of the call whose output it is.
        is_shared: whether it is of the conversation from which that of the session was forked.
    """

    version: int
    item: Any
    call: UUID | None = None
    output_of: UUID | None = None
    is_shared: bool = False


def entry_of(event: StoredEvent) -> Entry | None:
    """Return the item of an event; None if it has none."""
    content: Any = event.content
    match event.event_type:
        case "message.added":
            item = _message(content)
            return None if item is None else Entry(event.version, item)
        case "task.created" if (own := _own(content)) is not None:
            return Entry(event.version, _called(content, own), call=UUID(content["task_id"]))
        case "task.artifact_added" if (own := _own(content)) is not None:
            if isinstance(own, dict) and "output" in own:
                own["output"] = value_of(content["parts"], own["output"])
            return Entry(event.version, _item(own), output_of=UUID(content["task_id"]))
        case _ if event.event_type == ITEM:
            return Entry(event.version, content["item"] if "item" in content else json.loads(content["json"]))
    return None


def _own(content: Json) -> Any:
    return (content.get("extra") or {}).get(EXTRA)


def _item(own: Any) -> Any:
    return json.loads(own) if isinstance(own, str) else own


def _message(content: Json) -> Any:
    own = _own(content)
    if isinstance(own, dict):
        return form_of(content, "content", EXTRA)
    if own is not None:
        return _item(own)
    # A message of another writer
    text = plain_text(content)
    role = {"tool": "assistant"}.get(content["role"], content["role"])
    return {"role": role, "content": text} if text else None


def _called(content: Json, own: Any) -> Any:
    description = content["description"]
    if isinstance(own, dict) and (member := _arguments(own)) is not None and description != own["name"]:
        own[member] = description[len(own["name"]) + 1 : -1]
    return _item(own)
