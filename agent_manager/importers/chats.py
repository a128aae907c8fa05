"""Conversations as files hold them, whatever the format: messages in the OpenAI chat format, with calls and results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
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
        title: any JSON value; texts become names.
        time_members: the members in which the time is looked for.
        is_export: whether other programs wrote it. They change members that do not concern the conversation with every
            export, and give many messages no time: such a message has that of the one before it.
        left_out: what is in the file and not in the messages, with its number.
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


def checked_messages(sent: Json, member: str) -> list[Any]:
    """Return a member that has to be a list of messages."""
    value = sent.get(member)
    if not isinstance(value, list):
        found = f"is {kind(value)}" if member in sent else "is missing"
        raise MalformedChat(f"{member}: {found}, expected a list of messages")
    return value


def id_text(value: Any) -> str | None:
    """Return an identifier as a text; texts and integers are identifiers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def text_or_none(value: Any) -> str | None:
    """Return a value that is a text and not empty."""
    return value if isinstance(value, str) and value else None


# The parts of A2A


def result_parts(content: Any) -> list[Json]:
    """Return the content of a result as the parts of an artifact: text parts, and data parts for all else."""
    parts = []
    for item in content if isinstance(content, list) else [] if content is None else [content]:
        if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
            item = item["text"]
        parts.append(text_part(item) if isinstance(item, str) else data_part(item))
    return parts


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


# What several formats share


OTHER_BRANCHES = "messages of other branches"
"""The key of their number in :attr:`Chat.left_out`."""
ID_MEMBERS = ("id", "uuid", "conversation_id", "session_id", "thread_id")
_TITLES = ("title", "name")


def chat_of(value: Any, *used: str) -> Chat:
    """Return a conversation; ``used`` are the members of its value that are not metadata."""
    sent = value if isinstance(value, dict) else {}
    id_member = next((name for name in ID_MEMBERS if id_text(sent.get(name))), None)
    title_member = next((name for name in _TITLES if text_or_none(sent.get(name))), None)
    metadata = filled(sent, id_member, title_member, *used)
    given_id = None if id_member is None else id_text(sent[id_member])
    return Chat(given_id, None if title_member is None else sent[title_member], metadata, [], sent)


def exported_message(role: Any, parts: list[Json], source: Json, *used: str, **members: Any) -> Json:
    """Return a message with these parts and members; the other members of its source are its export."""
    rest = {name: member for name, member in filled(source, *used).items() if member != "all"}
    known = {name: member for name, member in members.items() if member is not None}
    return {**known, "role": role, **content_of(parts)} | ({"export": rest} if rest else {})


def branch(leaf: str | None, parent_of: Callable[[str], Any]) -> list[str]:
    """Return the ids from the root to a leaf."""
    path: dict[str, None] = {}
    while leaf is not None and leaf not in path:
        path[leaf] = None
        parent = parent_of(leaf)
        leaf = parent if isinstance(parent, str) else None
    return list(path)[::-1]


class PendingCalls:
    """The calls of a conversation that await their results."""

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []

    def add(self, call: ToolCall) -> ToolCall:
        """Add a call, and return it."""
        self._calls.append(call)
        return call

    def take(self, *fits: Callable[[ToolCall], bool]) -> CallKey | None:
        """Remove the latest call that a condition fits, and return its key. The conditions are tried in order."""
        for condition in fits:
            for call in reversed(self._calls):
                if condition(call):
                    self._calls.remove(call)
                    return call.key
        return None

    def take_result(self, given_id: str | None, name: Any) -> CallKey | None:
        """Remove the call that a result with an id, or else with a tool's name, belongs to, and return its key."""
        if given_id:
            return self.take(lambda call: call.key == ("id", given_id))
        return self.take(lambda call: call.name == name, lambda call: name is None)


def without(value: Json, *names: str | None) -> Json:
    """Return the other members of an object."""
    return {name: member for name, member in value.items() if name not in names}


def filled(value: Json, *names: str | None) -> Json:
    """Return the other members of an object that are not empty."""
    return {name: member for name, member in without(value, *names).items() if member not in (None, "", [], {})}


def member_of(value: Json, name: str) -> Json:
    """Return a member that is an object, or an empty one."""
    member = value.get(name)
    return member if isinstance(member, dict) else {}


def listed(value: Any) -> list[Any]:
    """Return a value that is a list, or an empty one."""
    return value if isinstance(value, list) else []


def messages_of(value: Any) -> list[Any]:
    """Return the messages of a list, or of the member ``messages``."""
    return value if isinstance(value, list) else listed(value.get("messages")) if isinstance(value, dict) else []


def recorded_answer(value: Json) -> Any:
    """Return the response in a record of a request and its response."""
    answer = value.get("response")
    return answer.get("body", answer) if isinstance(answer, dict) else None
