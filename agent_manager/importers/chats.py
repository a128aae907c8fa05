"""Conversations as files hold them, whatever the format: messages in the OpenAI chat format, with calls and results."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from agent_manager.a2a import Json
from eventstore import Role
from eventstore.errors import InputError

CallKey: TypeAlias = tuple[str, str]
"""The key that a call and its result share: ``("id", ID)`` or, in OpenAI's first format, ``("name", FUNCTION)``."""


class MalformedChat(InputError):
    """A value in a file is not a conversation in its format."""


class NotRecognised(MalformedChat):
    """A value in a file is not a conversation in a known format."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call in a message.

    Attributes:
        place: where in its message it is.
        key: what its result names; None if no result can name it.
        arguments: a text, usually JSON; or any JSON value.
    """

    place: str
    given_id: str | None
    key: CallKey | None
    name: str
    arguments: Any

    @property
    def description(self) -> str:
        """The call in the notation of a function call."""
        arguments = "" if self.arguments is None else self.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        return f"{self.name}({arguments})"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call, as the parts of an artifact; ``name`` is the tool's if the result has it."""

    key: CallKey
    parts: list[Json]
    name: str | None = None
    is_failed: bool = False


@dataclass(slots=True)
class ChatMessage:
    """A message.

    Attributes:
        sent: what is stored and read back: in the OpenAI chat format, or with the parts of A2A.
        place: where in the value it is.
        role: the stored role, if it is another one than that in ``sent``.
    """

    sent: Json
    place: str
    calls: list[ToolCall] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    role: Role | None = None


@dataclass(slots=True)
class Chat:
    """A conversation.

    Attributes:
        given_id: its id in the file; None if it has none.
        title: any JSON value; texts become names.
        metadata: its other members.
        time_members: the members in which the time is looked for.
        is_export: whether other programs wrote it. They change members that do not concern the conversation with every
            export, and give many messages no time: such a message has that of the one before it.
        left_out: what is in the file and not in the messages, with its number.
        other_messages: the ids of messages of other branches.
        follows: the id of the response or conversation that it continues; None if it begins one.
        may_be_followed: whether a later value may continue it, and have results of its calls.
    """

    given_id: str | None
    title: Any
    metadata: Json
    messages: list[ChatMessage]
    time_members: Json
    is_export: bool = True
    left_out: Counter[str] = field(default_factory=Counter)
    other_messages: list[str] = field(default_factory=list)
    follows: str | None = None
    may_be_followed: bool = False


# JSON, parsed strictly: what cannot be stored as it is, is rejected


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number: send null or a text")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
_KINDS: dict[type, str] = {
    type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
    dict: "an object",
}  # fmt: skip


def parse(text: bytes) -> Any:
    """Return a JSON value. Raise MalformedChat if it is not valid."""
    try:
        return _DECODER.decode(text.decode())
    except UnicodeDecodeError as error:
        raise MalformedChat(f"is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise MalformedChat(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise MalformedChat(f"is not JSON: {error}") from None
    except RecursionError:
        raise MalformedChat("is nested too deeply: flatten the values in it") from None


def kind(value: Any) -> str:
    """Return what a JSON value is, for an error."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def checked_object(value: Any, place: str) -> Json:
    """Return a value that has to be an object."""
    if not isinstance(value, dict):
        raise MalformedChat(f"{place}: is {kind(value)}, expected an object")
    return value


def checked_list(sent: Json, member: str, expected: str) -> list[Any]:
    """Return a member that has to be a list."""
    value = sent.get(member)
    if not isinstance(value, list):
        found = f"is {kind(value)}" if member in sent else "is missing"
        raise MalformedChat(f"{member}: {found}, expected {expected}")
    return value


def id_text(value: Any) -> str | None:
    """Return an identifier as a text; texts and integers are identifiers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def text_or_none(value: Any) -> str | None:
    """Return a value that is a text and not empty."""
    return value if isinstance(value, str) and value else None


# The OpenAI chat format, with tool calls in its present format (tool_calls) and the first one (function_call)


def read_openai(value: Any) -> Chat:
    """Return the conversation of ``{"id", "title", "messages"}``, or of a list of messages."""
    sent = {"messages": value} if isinstance(value, list) else value
    if not isinstance(sent, dict):
        raise MalformedChat(f"is {kind(sent)}, expected an object with id, title and messages")
    given_id = id_text(sent.get("id"))
    if given_id is None and sent.get("id") is not None:
        raise MalformedChat(f"id: is {kind(sent['id'])}, expected the conversation's id, a text")
    messages = checked_list(sent, "messages", "a list of messages")
    for index, message in enumerate(messages):
        checked_object(message, f"messages[{index}]")
    return Chat(
        given_id,
        sent.get("title"),
        {name: member for name, member in sent.items() if name not in ("id", "title", "messages")},
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


def result_parts(content: Any) -> list[Json]:
    """Return the content of a result as the parts of an artifact: text parts, and data parts for all else."""
    parts = []
    for item in content if isinstance(content, list) else [] if content is None else [content]:
        if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
            item = item["text"]
        parts.append(text_part(item) if isinstance(item, str) else data_part(item))
    return parts


# The parts of A2A


def text_part(text: str, metadata: Json | None = None) -> Json:
    """Return a text as a part."""
    return {"kind": "text", "text": text} | ({"metadata": metadata} if metadata else {})


def data_part(data: Any) -> Json:
    """Return a JSON value as a part."""
    return {"kind": "data", "data": data}


def file_part(uri: str, name: Any, media_type: Any, metadata: Json) -> Json:
    """Return a reference to a file as a part."""
    file = {"uri": uri}
    if isinstance(name, str):
        file["name"] = name
    if isinstance(media_type, str):
        file["mimeType"] = media_type
    return {"kind": "file", "file": file} | ({"metadata": metadata} if metadata else {})


def content_of(parts: list[Json]) -> Json:
    """Return the members of a message with these parts: a single text is its content."""
    if len(parts) == 1 and parts[0].keys() == {"kind", "text"}:
        return {"content": parts[0]["text"]}
    return {"parts": parts} if parts else {"content": ""}
