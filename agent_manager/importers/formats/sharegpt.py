"""ShareGPT: turns with ``from`` and ``value``, as in data sets for training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from agent_manager.a2a import Json
from agent_manager.importers.chats import (
    Chat,
    ChatMessage,
    MalformedChat,
    PendingCalls,
    ToolCall,
    ToolResult,
    chat_of,
    checked_messages,
    checked_object,
    kind,
    listed,
    result_parts,
    text_or_none,
    without,
)
from agent_manager.importers.formats.openai import openai_message

_TURNS_MEMBERS = ("conversations", "conversation", "items", "messages")
_ROLES = {
    "human": "user", "user": "user", "system": "system",
    "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "assistant": "assistant", "function_call": "assistant", "function-call": "assistant",
    "observation": "tool", "function_response": "tool", "function-response": "tool", "function": "tool", "tool": "tool",
}  # fmt: skip


def _turns_member(value: Any) -> str | None:
    """Return the member with the messages."""
    for name in _TURNS_MEMBERS:
        first = next(iter(listed(value.get(name))), None) if isinstance(value, dict) else None
        if isinstance(first, dict) and ("from" in first or (name != "messages" and "role" in first)):
            return name
    return None


def is_sharegpt(value: Any) -> bool:
    """Return whether a value is a list of turns, or an object with one."""
    first = next(iter(value), None) if isinstance(value, list) else None
    return (isinstance(first, dict) and {"from", "value"} <= first.keys()) or _turns_member(value) is not None


def read_sharegpt(value: Any) -> Chat:
    """Return the conversation of a list of turns, or of an object with one."""
    sent: Json = {"conversations": value} if isinstance(value, list) else checked_object(value, "the conversation")
    member = _turns_member(sent) or "conversations"
    chat = chat_of(sent, member, "system")
    if text_or_none(sent.get("system")):
        chat.messages.append(ChatMessage({"role": "system", "content": sent["system"]}, "system"))
    calls = PendingCalls()
    for index, turn in enumerate(checked_messages(sent, member)):
        place = f"{member}[{index}]"
        checked_object(turn, place)
        if "from" not in turn:
            chat.messages.append(openai_message(turn, place))
            continue
        sender, text = turn["from"], turn.get("value")
        role = _ROLES.get(sender.lower()) if isinstance(sender, str) else None
        if role is None:
            raise MalformedChat(f"{place}.from: {sender!r:.80} is not known: one of {', '.join(_ROLES)}")
        if not isinstance(text, str | None):
            raise MalformedChat(f"{place}.value: is {kind(text)}, expected a text")
        read = ChatMessage({"role": role, "content": text, **without(turn, "from", "value")}, place)
        if sender.lower().startswith("function") and role == "assistant":
            read.calls += [calls.add(call) for call in _calls(text or "", place)]
        elif role == "tool" and (key := calls.take(lambda call: True)) is not None:
            read.results.append(ToolResult(key, result_parts(text)))
        chat.messages.append(read)
    return chat


def _calls(text: str, place: str) -> Iterator[ToolCall]:
    """Yield the calls in the text of a turn, the last one first, since results take the latest call."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    found = value if isinstance(value, list) else [value]
    for index, call in reversed(list(enumerate(found))):
        name, arguments = (call.get("name"), call.get("arguments")) if isinstance(call, dict) else (None, text)
        key = ("place", f"{place}[{index}]")
        yield ToolCall(f"value[{index}]", None, key, text_or_none(name) or "unnamed", arguments)
