"""Exports of ChatGPT: a tree of nodes. The branch that ends in ``current_node`` is the conversation."""

from __future__ import annotations

from typing import Any

from agent_manager.a2a import Json
from agent_manager.importers.chats import (
    ID_MEMBERS,
    OTHER_BRANCHES,
    Chat,
    ChatMessage,
    MalformedChat,
    PendingCalls,
    ToolCall,
    ToolResult,
    branch,
    chat_of,
    checked_object,
    data_part,
    exported_message,
    file_part,
    filled,
    kind,
    listed,
    member_of,
    text_or_none,
    text_part,
    without,
)

_HIDDEN = "hidden messages"


def is_chatgpt(value: Any) -> bool:
    """Return whether a value has a tree of nodes."""
    return isinstance(value, dict) and "mapping" in value


def read_chatgpt(value: Any) -> Chat:
    """Return the conversation of an export."""
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
        leaf = max(leaves, key=lambda name: _number(member_of(nodes[name], "message").get("create_time")), default=None)
    path = branch(leaf, lambda name: parent if (parent := nodes[name].get("parent")) in nodes else None)
    chat = chat_of(sent, "mapping", "current_node", *ID_MEMBERS)
    calls = PendingCalls()
    for name in path:
        message = nodes[name].get("message")
        if message is not None and (read := _message(name, nodes[name], calls, chat)) is not None:
            chat.messages.append(read)
    for name in nodes.keys() - set(path):
        message = nodes[name].get("message")
        if message is not None and _parts(message):
            chat.left_out[OTHER_BRANCHES] += 1
            chat.other_messages.append(text_or_none(message.get("id")) or name)
    return chat


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _message(name: str, node: Json, calls: PendingCalls, chat: Chat) -> ChatMessage | None:
    message, place = node["message"], f"mapping.{name}.message"
    author, recipient = member_of(message, "author"), text_or_none(message.get("recipient"))
    role, author_name = author.get("role"), text_or_none(author.get("name"))
    if role is None:
        raise MalformedChat(f"{place}.author.role: is missing")
    parts = _parts(message)
    is_call = role == "assistant" and recipient not in (None, "all")
    if not is_call and role != "tool":
        if not parts:
            return None
        if member_of(message, "metadata").get("is_visually_hidden_from_conversation") is True:
            chat.left_out[_HIDDEN] += 1
            return None
    given_id = text_or_none(message.get("id")) or name
    sent = exported_message(
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
            status = member_of(member_of(message, "metadata"), "aggregate_result").get("status")
            is_failed = member_of(message, "content").get("content_type") == "system_error" or (
                isinstance(status, str) and status.startswith("failed")
            )
            read.results.append(ToolResult(key, parts, author_name, is_failed))
    return read


def _parts(message: Json) -> list[Json]:
    """Return the parts of a message that have content."""
    content = message.get("content")
    attachments = [item for item in listed(member_of(message, "metadata").get("attachments")) if isinstance(item, dict)]
    parts: list[Json] = []
    if isinstance(content, str):
        parts += [text_part(content)] if content else []
    elif isinstance(content, dict):
        rest = filled(content, "content_type", "parts", "text", "result")
        texts = [content[name] for name in ("text", "result") if text_or_none(content.get(name))]
        if isinstance(content.get("parts"), list):
            parts += [part for item in content["parts"] if (part := _part(item, attachments)) is not None]
        elif texts:
            if rest.get("language") == "unknown":
                del rest["language"]
            parts.append(text_part(texts[0], rest))
        elif rest and content.get("content_type") not in ("text", "code", "multimodal_text"):
            parts.append(data_part(content))
    for item in attachments:
        if (given_id := text_or_none(item.get("id"))) is not None:
            rest = without(item, "id", "name", "mime_type", "mimeType")
            media_type = item.get("mime_type") or item.get("mimeType")
            parts.append(file_part(f"file-service://{given_id}", item.get("name"), media_type, rest))
    return parts


def _part(item: Any, attachments: list[Json]) -> Json | None:
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
        return text_part(item["text"], without(item, "text"))
    return data_part(item)
