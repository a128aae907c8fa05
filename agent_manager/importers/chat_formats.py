"""The formats in which other programs write conversations, and their recognition.

Each format has a reader that returns a :class:`~agent_manager.importers.chats.Chat`. A value that has the form of a
format but is damaged raises MalformedChat with the place. What a message has beyond its text, its files and its calls
is kept in its member ``export``, which search leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mimetypes import guess_type
from typing import Any
from urllib.parse import quote

from agent_manager.a2a import Json
from agent_manager.importers.chats import (
    CallKey,
    Chat,
    ChatMessage,
    MalformedChat,
    NotRecognised,
    ToolCall,
    ToolResult,
    checked_list,
    checked_object,
    content_of,
    data_part,
    file_part,
    id_text,
    kind,
    openai_message,
    read_openai,
    result_parts,
    text_or_none,
    text_part,
)
from eventstore import Role

_OTHER_BRANCHES = "messages of other branches"
_HIDDEN = "hidden messages"
_IDS = ("id", "uuid", "conversation_id", "session_id", "thread_id")
_TITLES = ("title", "name")


def _chat(value: Any, messages: list[ChatMessage], *used: str) -> Chat:
    """Return a conversation; ``used`` are the members of its value that are not metadata."""
    sent = value if isinstance(value, dict) else {}
    id_member = next((name for name in _IDS if id_text(sent.get(name))), None)
    title_member = next((name for name in _TITLES if text_or_none(sent.get(name))), None)
    metadata = {
        name: member
        for name, member in sent.items()
        if name not in (id_member, title_member, *used) and member not in (None, "", [], {})
    }
    given_id = None if id_member is None else id_text(sent[id_member])
    return Chat(given_id, None if title_member is None else sent[title_member], metadata, messages, sent)


def _message(role: Any, parts: list[Json], source: Json, *used: str, **members: Any) -> Json:
    """Return a message with these parts and members; the other members of its source are its export."""
    rest = {
        name: member for name, member in source.items() if name not in used and member not in (None, "", [], {}, "all")
    }
    known = {name: member for name, member in members.items() if member is not None}
    return {**known, "role": role, **content_of(parts)} | ({"export": rest} if rest else {})


def _branch(leaf: str | None, parent_of: Callable[[str], Any]) -> list[str]:
    """Return the ids from the root to a leaf."""
    path: dict[str, None] = {}
    while leaf is not None and leaf not in path:
        path[leaf] = None
        parent = parent_of(leaf)
        leaf = parent if isinstance(parent, str) else None
    return list(path)[::-1]


class _OpenCalls:
    """The calls of a conversation that await their results."""

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []

    def add(self, call: ToolCall) -> ToolCall:
        """Add a call, and return it."""
        self._calls.append(call)
        return call

    def take(self, *fits: Callable[[ToolCall], bool]) -> CallKey | None:
        """Return the key of the latest call that the first of these conditions fits that fits any."""
        for condition in fits:
            for call in reversed(self._calls):
                if condition(call):
                    self._calls.remove(call)
                    return call.key
        return None

    def take_result(self, given_id: str | None, name: Any) -> CallKey | None:
        """Return the key of the call that a result with an id, or else with the name of the tool, belongs to."""
        if given_id:
            return self.take(lambda call: call.key == ("id", given_id))
        return self.take(lambda call: call.name == name, lambda call: name is None)


# ChatGPT: a tree of nodes; the branch that ends in current_node is the conversation


def _is_chatgpt(value: Any) -> bool:
    return isinstance(value, dict) and "mapping" in value


def _read_chatgpt(value: Any) -> Chat:
    sent = checked_object(value, "the conversation")
    nodes = checked_object(sent.get("mapping"), "mapping")
    for name, node in nodes.items():
        if not isinstance(checked_object(node, f"mapping.{name}").get("parent"), str | None):
            raise MalformedChat(f"mapping.{name}.parent: is {kind(node['parent'])}, expected the id of a node")
        if node.get("message") is not None:
            checked_object(node["message"], f"mapping.{name}.message")
    leaf = sent.get("current_node")
    if not isinstance(leaf, str) or leaf not in nodes:
        parents = {node["parent"] for node in nodes.values() if isinstance(node.get("parent"), str)}
        leaves = [name for name in nodes if name not in parents]
        leaf = max(leaves, key=lambda name: _number(_member(nodes[name], "message").get("create_time")), default=None)
    path = _branch(leaf, lambda name: parent if (parent := nodes[name].get("parent")) in nodes else None)
    chat = _chat(sent, [], "mapping", "current_node", *_IDS)
    calls = _OpenCalls()
    for name in path:
        message = nodes[name].get("message")
        if message is not None and (read := _chatgpt_message(name, nodes[name], calls, chat)) is not None:
            chat.messages.append(read)
    for name in nodes.keys() - set(path):
        message = nodes[name].get("message")
        if message is not None and _chatgpt_parts(message):
            chat.left_out[_OTHER_BRANCHES] += 1
            chat.other_messages.append(text_or_none(message.get("id")) or name)
    return chat


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _member(value: Json, name: str) -> Json:
    """Return a member that is an object, or an empty one."""
    member = value.get(name)
    return member if isinstance(member, dict) else {}


def _chatgpt_message(name: str, node: Json, calls: _OpenCalls, chat: Chat) -> ChatMessage | None:
    message, place = node["message"], f"mapping.{name}.message"
    author, recipient = _member(message, "author"), text_or_none(message.get("recipient"))
    role, author_name = author.get("role"), text_or_none(author.get("name"))
    if role is None:
        raise MalformedChat(f"{place}.author.role: is missing")
    parts = _chatgpt_parts(message)
    is_call = role == "assistant" and recipient not in (None, "all")
    if not is_call and role != "tool":
        if not parts:
            return None
        if _member(message, "metadata").get("is_visually_hidden_from_conversation") is True:
            chat.left_out[_HIDDEN] += 1
            return None
    given_id = text_or_none(message.get("id")) or name
    sent = _message(
        role, parts, message, "id", "content", "create_time", id=given_id, create_time=message.get("create_time")
    )
    if author.keys() == {"role"} or not any(member for key, member in author.items() if key != "role"):
        sent.get("export", {}).pop("author", None)
    read = ChatMessage(sent, place)
    if is_call:
        assert recipient is not None
        arguments = "\n".join(part["text"] for part in parts if part["kind"] == "text")
        read.calls.append(calls.add(ToolCall("content", f"{given_id}:call", ("node", name), recipient, arguments)))
    elif role == "tool":
        key = calls.take(
            lambda call: call.key == ("node", node.get("parent")),
            lambda call: call.name == author_name,
            lambda call: call.name.partition(".")[0] == (author_name or "").partition(".")[0],
        )
        if key is not None:
            status = _member(_member(message, "metadata"), "aggregate_result").get("status")
            is_failed = _member(message, "content").get("content_type") == "system_error" or (
                isinstance(status, str) and status.startswith("failed")
            )
            read.results.append(ToolResult(key, parts, author_name, is_failed))
    return read


def _chatgpt_parts(message: Json) -> list[Json]:
    """Return the parts of a message that have content."""
    content = message.get("content")
    attachments = [item for item in _listed(_member(message, "metadata").get("attachments")) if isinstance(item, dict)]
    parts: list[Json] = []
    if isinstance(content, str):
        parts += [text_part(content)] if content else []
    elif isinstance(content, dict):
        rest = {
            name: member
            for name, member in content.items()
            if name not in ("content_type", "parts", "text", "result") and member not in (None, "", [], {})
        }
        texts = [content[name] for name in ("text", "result") if text_or_none(content.get(name))]
        if isinstance(content.get("parts"), list):
            parts += [part for item in content["parts"] if (part := _chatgpt_part(item, attachments)) is not None]
        elif texts:
            if rest.get("language") == "unknown":
                del rest["language"]
            parts.append(text_part(texts[0], rest))
        elif rest and content.get("content_type") not in ("text", "code", "multimodal_text"):
            parts.append(data_part(content))
    for item in attachments:
        if (given_id := text_or_none(item.get("id"))) is not None:
            rest = {
                name: member for name, member in item.items() if name not in ("id", "name", "mime_type", "mimeType")
            }
            media_type = item.get("mime_type") or item.get("mimeType")
            parts.append(file_part(f"file-service://{given_id}", item.get("name"), media_type, rest))
    return parts


def _chatgpt_part(item: Any, attachments: list[Json]) -> Json | None:
    """Return a part; remove the attachment that it shows."""
    if isinstance(item, str):
        return text_part(item) if item else None
    if not isinstance(item, dict):
        return None if item is None else data_part(item)
    pointer = text_or_none(item.get("asset_pointer"))
    if pointer is not None:
        shown = next((each for each in attachments if each.get("id") == pointer.rpartition("/")[2]), {})
        if shown:
            attachments.remove(shown)
        used = ("asset_pointer", "content_type")
        rest = {name: member for name, member in item.items() if name not in used and member is not None}
        media_type = shown.get("mime_type") or shown.get("mimeType")
        return file_part(pointer, shown.get("name"), media_type, rest)
    if text_or_none(item.get("text")):  # the transcription of what was spoken
        return text_part(item["text"], {name: member for name, member in item.items() if name != "text"})
    return data_part(item)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# Claude: chat_messages with content blocks, which may hold calls and results in one message


def _is_claude(value: Any) -> bool:
    return isinstance(value, dict) and "chat_messages" in value


def _read_claude(value: Any) -> Chat:
    sent = checked_object(value, "the conversation")
    messages = checked_list(sent, "chat_messages", "a list of messages")
    for index, message in enumerate(messages):
        checked_object(message, f"chat_messages[{index}]")
    chat = _chat(sent, [], "chat_messages", "current_leaf_message_uuid", *_IDS)
    shown = _claude_branch(messages, sent.get("current_leaf_message_uuid"))
    calls = _OpenCalls()
    for index, message in enumerate(messages):
        if index in shown:
            chat.messages.append(_claude_message(message, f"chat_messages[{index}]", calls))
        else:
            chat.left_out[_OTHER_BRANCHES] += 1
            chat.other_messages += filter(None, [text_or_none(message.get("uuid"))])
    return chat


def _claude_branch(messages: list[Json], leaf: Any) -> set[int]:
    """Return the indexes of the messages of the current branch: of all, unless replies were edited or repeated."""
    index_of = {message["uuid"]: index for index, message in enumerate(messages) if text_or_none(message.get("uuid"))}
    parents = [parent for message in messages if isinstance(parent := message.get("parent_message_uuid"), str)]
    if len(set(parents)) == len(parents) or not index_of.keys() & set(parents):
        return set(range(len(messages)))
    if not isinstance(leaf, str) or leaf not in index_of:
        leaf = messages[-1].get("uuid")
    if not isinstance(leaf, str) or leaf not in index_of:
        return set(range(len(messages)))
    path = _branch(leaf, lambda name: messages[index_of[name]].get("parent_message_uuid") if name in index_of else None)
    return {index_of[name] for name in path if name in index_of}


def _claude_message(message: Json, place: str, calls: _OpenCalls) -> ChatMessage:
    sender = message.get("sender", message.get("role"))
    if sender is None:
        raise MalformedChat(f"{place}.sender: is missing")
    content, text = message.get("content"), message.get("text")
    blocks = _listed(content) or ([content] if text_or_none(content) else [text] if text_or_none(text) else [])
    parts, found_calls, results = _blocks(blocks, place, calls)
    for name in ("attachments", "files", "files_v2"):
        for item in _listed(message.get(name)):
            if isinstance(item, dict) and (part := _claude_file(item)) not in parts:
                parts.append(part)
    used = ("uuid", "sender", "role", "text", "content", "created_at", "attachments", "files", "files_v2")
    sent = _message(
        "user" if sender == "human" else sender, parts, message, *used,
        id=text_or_none(message.get("uuid")), created_at=message.get("created_at"),
    )  # fmt: skip
    return ChatMessage(sent, place, found_calls, results)


def _claude_file(item: Json) -> Json:
    file_id, name = text_or_none(item.get("file_uuid") or item.get("id")), text_or_none(item.get("file_name"))
    uri = text_or_none(item.get("preview_url")) or (
        f"urn:uuid:{file_id}" if file_id else quote(name or "file", errors="surrogatepass")
    )
    media_type = text_or_none(item.get("file_type")) or ""
    if "/" not in media_type:  # a suffix, such as txt
        media_type = guess_type(f"file.{media_type}")[0] or ""
    used = ("file_name", "file_type", "preview_url")
    rest = {key: member for key, member in item.items() if key not in used and member not in (None, "")}
    return file_part(uri, name, media_type or None, rest)


def _blocks(blocks: list[Any], place: str, calls: _OpenCalls) -> tuple[list[Json], list[ToolCall], list[ToolResult]]:
    """Return Anthropic's content blocks as parts, and the calls and results among them."""
    parts, found_calls, results = [], [], []
    for index, block in enumerate(blocks):
        if isinstance(block, str):
            parts.append(text_part(block))
            continue
        if not isinstance(block, dict):
            raise MalformedChat(f"{place}.content[{index}]: is {kind(block)}, expected a content block")
        block_type = block.get("type")
        is_text = block_type == "text" and isinstance(block.get("text"), str)
        parts.append(text_part(block["text"]) if is_text else data_part(block))
        if not isinstance(block_type, str):
            continue
        if block_type.endswith("tool_use"):
            given_id, tool = id_text(block.get("id")), text_or_none(block.get("name")) or "unnamed"
            key = ("id", given_id) if given_id else ("place", f"{place}.content[{index}]")
            call = ToolCall(f"content[{index}]", given_id or None, key, tool, block.get("input"))
            found_calls.append(calls.add(call))
        elif block_type.endswith("tool_result"):
            result_key = calls.take_result(id_text(block.get("tool_use_id")), block.get("name"))
            if result_key is not None:
                is_failed = block.get("is_error") is True or _member(block, "content").get("error_code") is not None
                name = text_or_none(block.get("name"))
                results.append(ToolResult(result_key, result_parts(block.get("content")), name, is_failed))
    return parts, found_calls, results


# Anthropic Messages: requests and responses of the API


_ANTHROPIC_BLOCKS = ("tool_use", "tool_result", "thinking", "redacted_thinking", "document")


def _messages_of(value: Any) -> list[Any]:
    """Return the messages of a list, or of the member ``messages``."""
    return value if isinstance(value, list) else _listed(value.get("messages")) if isinstance(value, dict) else []


def _is_anthropic(value: Any) -> bool:
    if isinstance(value, dict):
        if _is_anthropic_message(value) or _is_anthropic_message(_answer(value)):
            return True
        if "system" in value and isinstance(value.get("messages"), list):
            return True
    return any(
        isinstance(block, dict) and isinstance(name := block.get("type"), str) and name.endswith(_ANTHROPIC_BLOCKS)
        for message in _messages_of(value)
        if isinstance(message, dict) and "role" in message
        for block in _listed(message.get("content"))
    )


def _is_anthropic_message(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "message" and "role" in value and "content" in value


def _answer(value: Json) -> Any:
    """Return the response in a record of a request and its response."""
    answer = value.get("response")
    return answer.get("body", answer) if isinstance(answer, dict) else None


def _flattened(value: Any) -> Any:
    """Return a record of a request and its response with the members of the request."""
    request = _member(value, "request") if isinstance(value, dict) else {}
    request = _member(request, "body") or request
    if request.keys() & {"messages", "input"} and not value.keys() & {"messages", "input"}:
        return {name: member for name, member in value.items() if name != "request"} | request
    return value


def _read_anthropic(value: Any) -> Chat:
    sent: Json = {"messages": value} if isinstance(value, list) else checked_object(value, "the conversation")
    if _is_anthropic_message(sent):
        given = {name: sent[name] for name in ("id",) if name in sent}
        chat, messages = _chat(given, []), [(sent, "message")]
    else:
        listed = checked_list(sent, "messages", "a list of messages")
        messages = [(message, f"messages[{index}]") for index, message in enumerate(listed)]
        if sent.get("system"):
            messages.insert(0, ({"role": "system", "content": sent["system"]}, "system"))
        if _is_anthropic_message(answer := _answer(sent)):
            messages.append((answer, "response"))
        chat = _chat(sent, [], "messages", "system", "response")
    calls = _OpenCalls()
    for message, place in messages:
        checked_object(message, place)
        blocks, read = _listed(message.get("content")), openai_message(message, place)
        _, found_calls, results = _blocks(blocks, place, calls)
        read.calls, read.results = read.calls + found_calls, read.results + results
        if results and len(results) == len(blocks) and message.get("role") == "user":
            read.role = Role.TOOL  # the API has no role of its own for results
        chat.messages.append(read)
    return chat


# ShareGPT


_SHAREGPT_MEMBERS = ("conversations", "conversation", "items", "messages")
_SHAREGPT_ROLES = {
    "human": "user", "user": "user", "system": "system",
    "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "assistant": "assistant", "function_call": "assistant", "function-call": "assistant",
    "observation": "tool", "function_response": "tool", "function-response": "tool", "function": "tool", "tool": "tool",
}  # fmt: skip


def _sharegpt_member(value: Any) -> str | None:
    """Return the member with the messages."""
    for name in _SHAREGPT_MEMBERS:
        first = next(iter(_listed(value.get(name))), None) if isinstance(value, dict) else None
        if isinstance(first, dict) and ("from" in first or (name != "messages" and "role" in first)):
            return name
    return None


def _is_sharegpt(value: Any) -> bool:
    first = next(iter(value), None) if isinstance(value, list) else None
    return (isinstance(first, dict) and {"from", "value"} <= first.keys()) or _sharegpt_member(value) is not None


def _read_sharegpt(value: Any) -> Chat:
    sent: Json = {"conversations": value} if isinstance(value, list) else checked_object(value, "the conversation")
    member = _sharegpt_member(sent) or "conversations"
    chat = _chat(sent, [], member, "system")
    if text_or_none(sent.get("system")):
        chat.messages.append(ChatMessage({"role": "system", "content": sent["system"]}, "system"))
    calls = _OpenCalls()
    for index, turn in enumerate(checked_list(sent, member, "a list of messages")):
        place = f"{member}[{index}]"
        checked_object(turn, place)
        if "from" not in turn:
            chat.messages.append(openai_message(turn, place))
            continue
        sender, text = turn["from"], turn.get("value")
        role = _SHAREGPT_ROLES.get(sender.lower()) if isinstance(sender, str) else None
        if role is None:
            raise MalformedChat(f"{place}.from: {sender!r:.80} is not known: one of {', '.join(_SHAREGPT_ROLES)}")
        if not isinstance(text, str | None):
            raise MalformedChat(f"{place}.value: is {kind(text)}, expected a text")
        rest = {name: item for name, item in turn.items() if name not in ("from", "value")}
        read = ChatMessage({"role": role, "content": text, **rest}, place)
        if sender.lower().startswith("function") and role == "assistant":
            read.calls += [calls.add(call) for call in _sharegpt_calls(text or "", place)]
        elif role == "tool" and (key := calls.take(lambda call: True)) is not None:
            read.results.append(ToolResult(key, result_parts(text)))
        chat.messages.append(read)
    return chat


def _sharegpt_calls(text: str, place: str) -> Iterator[ToolCall]:
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


# LangChain: messages_to_dict (type and data), dumpd (lc and kwargs), and messages with a type


_LANGCHAIN_ROLES = {
    "human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "system": "system", "tool": "tool",
    "function": "function", "developer": "developer", "AIMessageChunk": "assistant", "HumanMessageChunk": "user",
    "SystemMessageChunk": "system", "ToolMessageChunk": "tool", "FunctionMessageChunk": "function",
}  # fmt: skip


def _langchain_message(value: Any) -> tuple[Any, Json] | None:
    """Return type and members of a message; None if it is not one."""
    if not isinstance(value, dict):
        return None
    if value.get("lc") is not None and isinstance(value.get("kwargs"), dict):
        path = _listed(value.get("id")) or [""]
        name = str(path[-1]).removesuffix("Chunk").removesuffix("Message").lower()
        return value["kwargs"].get("type") or name, value["kwargs"]
    if "type" in value and isinstance(value.get("data"), dict):
        return value["type"], value["data"]
    if isinstance(value.get("type"), str) and "content" in value and "role" not in value:
        return value["type"], value
    return None


def _is_langchain(value: Any) -> bool:
    messages = _langchain_list(value)
    read = _langchain_message(messages[0]) if messages else None
    return (
        read is not None
        and isinstance(read[0], str)
        and (read[0] in _LANGCHAIN_ROLES or read[0] in ("chat", "generic", "remove"))
    )


def _langchain_list(value: Any) -> list[Any]:
    messages = _messages_of(value)
    return messages[0] if len(messages) == 1 and isinstance(messages[0], list) else messages


def _read_langchain(value: Any) -> Chat:
    chat = _chat(value, [], "messages")
    for index, item in enumerate(_langchain_list(value)):
        place = f"messages[{index}]"
        read = _langchain_message(item)
        if read is None:
            raise MalformedChat(f"{place}: is not a message of LangChain: expected type and data, or lc and kwargs")
        name, data = read
        if name == "remove":  # an instruction to the program, without content
            continue
        role = _LANGCHAIN_ROLES.get(name) if isinstance(name, str) else None
        if role is None and name in ("chat", "generic"):
            role = {"human": "user", "ai": "assistant"}.get(str(data.get("role")), data.get("role"))
        if role is None:
            raise MalformedChat(f"{place}.type: {name!r:.80} is not known: one of {', '.join(_LANGCHAIN_ROLES)}, chat")
        sent = {"role": role} | {key: member for key, member in data.items() if key not in ("type", "role")}
        if not sent.get("tool_calls") and (older := _member(data, "additional_kwargs").get("tool_calls")):
            sent["tool_calls"] = older
        chat.messages.append(openai_message(sent, place))
    return chat


# OpenAI Responses: items of input and output


_ITEM_LISTS = ("instructions", "input", "items", "data", "output")
_ITEM_TYPES = ("message", "reasoning", "item_reference", "compaction")
_ANSWERED_LATER = ("function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call")
"""Calls that the application answers in a later item; the server has answered the others within the item."""


def _is_item(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    name = value.get("type")
    return isinstance(name, str) and (name in _ITEM_TYPES or name.endswith(("_call", "_call_output")))


def _is_responses(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_item, value))
    if not isinstance(value, dict) or "messages" in value or "mapping" in value or "chat_messages" in value:
        return False
    lists = [*(value.get(name) for name in _ITEM_LISTS), _member(value, "response").get("output")]
    return value.get("object") == "response" or any(
        isinstance(items, list) and any(_is_item(item) or _is_openai_message(item) for item in items) for items in lists
    )


def _read_responses(value: Any) -> Chat:
    sent: Json = {"input": value} if isinstance(value, list) else checked_object(value, "the response")
    if isinstance(answer := _answer(sent), dict):
        sent = sent | {name: member for name, member in answer.items() if member is not None}
    chat = _chat(sent, [], *_ITEM_LISTS, "response", "object", "conversation", "previous_response_id")
    conversation = sent.get("conversation")
    chat.follows = id_text(_member(sent, "conversation").get("id", conversation))
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
                read.sent = {"id": f"{prefix}/{place}"} | {k: v for k, v in read.sent.items() if k != "id"}
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
        rest = {member: item[member] for member in item if member not in ("id", "call_id", "output")}
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


# The OpenAI chat format, which is the project's own


def _is_openai_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and not value.keys() & {"messages", "mapping", "chat_messages"}


def _is_openai(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _is_openai_message(value[0])
    return isinstance(value, dict) and "messages" in value


def _read_openai(value: Any) -> Chat:
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        answers = _listed(value.get("choices")) or _listed(_member(value, "response").get("choices"))
        answer = answers[0].get("message") if answers and isinstance(answers[0], dict) else None
        if isinstance(answer, dict):
            rest = {name: member for name, member in value.items() if name not in ("choices", "response")}
            return read_openai(rest | {"messages": [*value["messages"], answer]})
    return read_openai(value)


# Recognition


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A format: its name, what it is, whether a value has its form, and its reader."""

    name: str
    title: str
    fits: Callable[[Any], bool]
    read: Callable[[Any], Chat]


FORMATS = (
    ChatFormat("chatgpt", "exports of ChatGPT", _is_chatgpt, _read_chatgpt),
    ChatFormat("claude", "exports of Claude", _is_claude, _read_claude),
    ChatFormat("langchain", "messages of LangChain", _is_langchain, _read_langchain),
    ChatFormat("responses", "OpenAI Responses", _is_responses, _read_responses),
    ChatFormat("sharegpt", "ShareGPT", _is_sharegpt, _read_sharegpt),
    ChatFormat("anthropic", "Anthropic Messages", _is_anthropic, _read_anthropic),
    ChatFormat("openai", "OpenAI chat messages", _is_openai, _read_openai),
)
"""The formats, in the order in which they are tried. A more special form comes before a more general one."""
RECOGNISED = ", ".join(each.title for each in reversed(FORMATS))


def chat_format(value: Any, name: str | None = None) -> ChatFormat:
    """Return the format that a value has the form of, or that with a name. Raise NotRecognised if there is none."""
    for each in FORMATS:
        if each.name == name or (name is None and each.fits(value)):
            return each
    raise NotRecognised(_described(value))


class ChatReader:
    """Reads the values of an import, in the format of each or in one that was given.

    Stored responses of OpenAI that follow each other are one conversation.
    """

    def __init__(self, format_name: str | None = None) -> None:
        self._format_name = format_name
        self._conversation_of: dict[str, str] = {}

    def read(self, value: Any) -> Chat:
        """Return the conversation of a value.

        Raises:
            NotRecognised: it has the form of no format.
            MalformedChat: it is damaged.
        """
        value = _flattened(value)
        chat = chat_format(value, self._format_name).read(value)
        if chat.follows is not None:
            response_id, chat.given_id = chat.given_id, self._conversation_of.get(chat.follows, chat.follows)
            if response_id is not None:
                self._conversation_of[response_id] = chat.given_id
        return chat


def _described(value: Any) -> str:
    if isinstance(value, dict):
        names = ", ".join(list(value)[:8]) + (", …" if len(value) > 8 else "")
        return f"is an object with the members {names}" if value else "is an empty object"
    if isinstance(value, list) and value:
        return f"is a list whose first element {_described(value[0])}"
    return f"is {'an empty list' if isinstance(value, list) else kind(value)}"


def is_many(first: bytes, is_member: bool) -> bool:
    """Return whether each element of an array is a conversation, rather than the array one conversation.

    Args:
        first: the first element of the array.
        is_member: whether the array is a member of an object, which may be a conversation itself.
    """
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return not is_member
    if _is_openai_message(value) or _is_item(value) or _is_langchain([value]) or _is_sharegpt([value]):
        return False
    return not is_member or any(each.fits(value) for each in FORMATS)
