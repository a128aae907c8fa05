"""LangChain: ``messages_to_dict`` (type and data), ``dumpd`` (lc and kwargs), and messages with a type."""

from __future__ import annotations

from typing import Any

from agent_manager.a2a import Json
from agent_manager.importers.chats import Chat, MalformedChat, chat_of, listed, member_of, messages_of, without
from agent_manager.importers.formats.openai import openai_message

_ROLES = {
    "human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "system": "system", "tool": "tool",
    "function": "function", "developer": "developer", "AIMessageChunk": "assistant", "HumanMessageChunk": "user",
    "SystemMessageChunk": "system", "ToolMessageChunk": "tool", "FunctionMessageChunk": "function",
}  # fmt: skip


def _message(value: Any) -> tuple[Any, Json] | None:
    """Return type and members of a message; None if it is not one."""
    if not isinstance(value, dict):
        return None
    if value.get("lc") is not None and isinstance(value.get("kwargs"), dict):
        path = listed(value.get("id")) or [""]
        name = str(path[-1]).removesuffix("Chunk").removesuffix("Message").lower()
        return value["kwargs"].get("type") or name, value["kwargs"]
    if "type" in value and isinstance(value.get("data"), dict):
        return value["type"], value["data"]
    if isinstance(value.get("type"), str) and "content" in value and "role" not in value:
        return value["type"], value
    return None


def is_langchain(value: Any) -> bool:
    """Return whether a value has messages of LangChain."""
    messages = _messages(value)
    read = _message(messages[0]) if messages else None
    return (
        read is not None
        and isinstance(read[0], str)
        and (read[0] in _ROLES or read[0] in ("chat", "generic", "remove"))
    )


def _messages(value: Any) -> list[Any]:
    messages = messages_of(value)
    return messages[0] if len(messages) == 1 and isinstance(messages[0], list) else messages


def read_langchain(value: Any) -> Chat:
    """Return the conversation of a list of messages, or of an object with one."""
    chat = chat_of(value, "messages")
    for index, item in enumerate(_messages(value)):
        place = f"messages[{index}]"
        read = _message(item)
        if read is None:
            raise MalformedChat(f"{place}: is not a message of LangChain: expected type and data, or lc and kwargs")
        name, data = read
        if name == "remove":  # an instruction to the program, without content
            continue
        role = _ROLES.get(name) if isinstance(name, str) else None
        if role is None and name in ("chat", "generic"):
            role = {"human": "user", "ai": "assistant"}.get(str(data.get("role")), data.get("role"))
        if role is None:
            raise MalformedChat(f"{place}.type: {name!r:.80} is not known: one of {', '.join(_ROLES)}, chat")
        sent = {"role": role} | without(data, "type", "role")
        if not sent.get("tool_calls") and (older := member_of(data, "additional_kwargs").get("tool_calls")):
            sent["tool_calls"] = older
        chat.messages.append(openai_message(sent, place))
    return chat
