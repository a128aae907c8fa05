"""The OpenAI chat format, which is the project's own, and the items of OpenAI Responses.

Tool calls are in the present format (``tool_calls``) or the first one (``function_call``).
"""

from __future__ import annotations

import json
from typing import Any

from agent_manager.a2a import Json
from agent_manager.importers.chats import (
    CallKey,
    Chat,
    ChatMessage,
    MalformedChat,
    ToolCall,
    ToolResult,
    chat_of,
    checked_messages,
    checked_object,
    data_part,
    id_text,
    kind,
    listed,
    member_of,
    recorded_answer,
    result_parts,
    text_or_none,
    without,
)

# The chat format


def is_openai_message(value: Any) -> bool:
    """Return whether a value is a message."""
    return isinstance(value, dict) and "role" in value and not value.keys() & {"messages", "mapping", "chat_messages"}


def is_openai(value: Any) -> bool:
    """Return whether a value is a list of messages, or an object with one."""
    if isinstance(value, list):
        return bool(value) and is_openai_message(value[0])
    return isinstance(value, dict) and "messages" in value


def read_openai(value: Any) -> Chat:
    """Return the conversation of ``{"id", "title", "messages"}``, or of messages; with the answer that a record has."""
    sent = {"messages": value} if isinstance(value, list) else value
    if not isinstance(sent, dict):
        raise MalformedChat(f"is {kind(sent)}, expected an object with id, title and messages")
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        answers = listed(value.get("choices")) or listed(member_of(value, "response").get("choices"))
        answer = answers[0].get("message") if answers and isinstance(answers[0], dict) else None
        if isinstance(answer, dict):
            sent = without(value, "choices", "response") | {"messages": [*value["messages"], answer]}
    given_id = id_text(sent.get("id"))
    if given_id is None and sent.get("id") is not None:
        raise MalformedChat(f"id: is {kind(sent['id'])}, expected the conversation's id, a text")
    messages = checked_messages(sent, "messages")
    for index, message in enumerate(messages):
        checked_object(message, f"messages[{index}]")
    return Chat(
        given_id,
        sent.get("title"),
        without(sent, "id", "title", "messages"),
        [openai_message(message, f"messages[{index}]") for index, message in enumerate(messages)],
        sent,
        is_export=False,
    )


def openai_message(sent: Json, place: str) -> ChatMessage:
    """Return a message in the OpenAI chat format with its calls or its result."""
    try:
        calls = tool_calls(sent)
    except MalformedChat as error:
        raise MalformedChat(f"{place}.{error}") from None
    key = _answered_call(sent)
    if key is None:
        return ChatMessage(sent, place, calls)
    name = sent.get("name")
    is_failed = sent.get("status") == "error" or sent.get("is_error") is True
    result = ToolResult(key, result_parts(sent.get("content")), name if isinstance(name, str) else None, is_failed)
    return ChatMessage(sent, place, calls, [result])


def tool_calls(message: Json) -> list[ToolCall]:
    """Return the calls in a message."""
    entries = message.get("tool_calls")
    if not isinstance(entries, list | None):
        raise MalformedChat(f"tool_calls: is {kind(entries)}, expected a list of tool calls")
    calls = []
    for index, entry in enumerate(entries or ()):
        place = f"tool_calls[{index}]"
        call = checked_object(entry, place)
        given_id = id_text(call.get("id"))
        calls.append(ToolCall(place, given_id, None if given_id is None else ("id", given_id), *_function(call)))
    first_format = message.get("function_call")
    if first_format is not None:
        name, arguments = _function(checked_object(first_format, "function_call"))
        calls.append(ToolCall("function_call", None, ("name", name), name, arguments))
    return calls


def _function(call: Json) -> tuple[str, Any]:
    """Return name and arguments: from ``function``, from ``custom`` (``input``), or from the call itself."""
    holder = next((call[kind] for kind in ("function", "custom") if isinstance(call.get(kind), dict)), call)
    name = holder.get("name")
    arguments = next((holder[member] for member in ("arguments", "input", "args") if member in holder), None)
    return name if isinstance(name, str) else "unnamed", arguments


def _answered_call(message: Json) -> CallKey | None:
    """Return the key of the call that a message is the result of; None if it is not a result."""
    given_id, role = id_text(message.get("tool_call_id")), message.get("role")
    if role in ("tool", "function") and given_id is not None:
        return "id", given_id
    if role == "function" and isinstance(message.get("name"), str):
        return "name", message["name"]
    return None


# Responses: items of input and output


_ITEM_LISTS = ("instructions", "input", "items", "data", "output")
_ITEM_TYPES = ("message", "reasoning", "item_reference", "compaction")
_ANSWERED_LATER = ("function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call")
"""Calls that the application answers in a later item; the server has answered the others within the item."""


def is_item(value: Any) -> bool:
    """Return whether a value is an item."""
    if not isinstance(value, dict):
        return False
    name = value.get("type")
    return isinstance(name, str) and (name in _ITEM_TYPES or name.endswith(("_call", "_call_output")))


def is_responses(value: Any) -> bool:
    """Return whether a value is a response, or has items."""
    if isinstance(value, list):
        return any(map(is_item, value))
    if not isinstance(value, dict) or "messages" in value or "mapping" in value or "chat_messages" in value:
        return False
    lists = [*(value.get(name) for name in _ITEM_LISTS), member_of(value, "response").get("output")]
    return value.get("object") == "response" or any(
        isinstance(items, list) and any(is_item(item) or is_openai_message(item) for item in items) for items in lists
    )


def read_responses(value: Any) -> Chat:
    """Return the conversation of items, of a request, of a response, or of a record of both."""
    sent: Json = {"input": value} if isinstance(value, list) else checked_object(value, "the response")
    if isinstance(answer := recorded_answer(sent), dict):
        sent = sent | {name: member for name, member in answer.items() if member is not None}
    chat = chat_of(sent, *_ITEM_LISTS, "response", "object", "conversation", "previous_response_id")
    conversation = sent.get("conversation")
    chat.follows = id_text(member_of(sent, "conversation").get("id", conversation))
    chat.follows = chat.follows or text_or_none(sent.get("previous_response_id"))
    chat.may_be_followed = True
    prefix = text_or_none(sent.get("id"))
    for name in _ITEM_LISTS:
        items = sent.get(name)
        if isinstance(items, str):
            items = [{"role": "system" if name == "instructions" else "user", "content": items}] if items else []
        if not isinstance(items, list | None):
            raise MalformedChat(f"{name}: is {kind(items)}, expected a list of items")
        for index, item in enumerate(items or ()):
            place = f"{name}[{index}]"
            if checked_object(item, place).get("type") == "item_reference":  # to an item that the conversation has
                continue
            read = _responses_message(item, place)
            if prefix is not None and not text_or_none(read.sent.get("id")):
                read.sent = {"id": f"{prefix}/{place}"} | without(read.sent, "id")
            chat.messages.append(read)
    return chat


def _responses_message(item: Json, place: str) -> ChatMessage:
    name, call_id = item.get("type", "message"), text_or_none(item.get("call_id"))
    if not isinstance(name, str):
        raise MalformedChat(f"{place}.type: is {kind(name)}, expected the type of an item")
    if name == "message":
        return openai_message(item, place)
    own_id = {"id": item["id"]} if text_or_none(item.get("id")) else {}
    if name.endswith("_call_output"):
        output = item.get("output")
        rest = without(item, "id", "call_id", "output")
        sent = own_id | {"role": "tool", "tool_call_id": call_id, "content": output, "export": rest}
        is_failed = item.get("status") in ("incomplete", "failed") or item.get("error") is not None
        results = [ToolResult(("id", call_id), result_parts(output), is_failed=is_failed)] if call_id else []
        return ChatMessage(sent, place, [], results)
    if not name.endswith("_call"):
        return ChatMessage(own_id | {"role": "assistant", "parts": [data_part(item)]}, place)
    tool, given_id = text_or_none(item.get("name")) or name.removesuffix("_call"), call_id or own_id.get("id")
    members = ("arguments", "input", "action", "queries", "code")
    arguments = next((item[member] for member in members if item.get(member) is not None), None)
    key = ("id", given_id) if given_id else ("place", place)
    call = ToolCall("call", given_id, key, tool, arguments)
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False) if arguments else ""
    entry = {"id": given_id, "type": "function", "function": {"name": tool, "arguments": text}}
    read = ChatMessage(own_id | {"role": "assistant", "content": None, "tool_calls": [entry], "export": item}, place)
    read.calls.append(call)
    outputs = [item[member] for member in ("output", "outputs", "results", "result") if item.get(member) is not None]
    is_failed = item.get("error") is not None or item.get("status") == "failed"
    if outputs or is_failed or (name not in _ANSWERED_LATER and item.get("status") == "completed"):
        parts = result_parts(outputs[0] if outputs else item.get("error"))
        read.results.append(ToolResult(key, parts, tool, is_failed))
    return read
