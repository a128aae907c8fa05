"""Exports of Claude, and requests and responses of the Anthropic Messages API.

Both have content blocks, which may hold calls and results in one message.
"""

from __future__ import annotations

from mimetypes import guess_type
from typing import Any
from urllib.parse import quote

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
    checked_messages,
    checked_object,
    data_part,
    exported_message,
    file_part,
    id_text,
    kind,
    listed,
    member_of,
    messages_of,
    recorded_answer,
    result_parts,
    text_or_none,
    text_part,
)
from agent_manager.importers.formats.openai import openai_message
from eventstore import Role

# Exports of Claude


def is_claude(value: Any) -> bool:
    """Return whether a value is a conversation of an export."""
    return isinstance(value, dict) and "chat_messages" in value


def read_claude(value: Any) -> Chat:
    """Return the conversation of an export."""
    sent = checked_object(value, "the conversation")
    messages = checked_messages(sent, "chat_messages")
    for index, message in enumerate(messages):
        checked_object(message, f"chat_messages[{index}]")
    chat = chat_of(sent, "chat_messages", "current_leaf_message_uuid", *ID_MEMBERS)
    shown = _claude_branch(messages, sent.get("current_leaf_message_uuid"))
    calls = PendingCalls()
    for index, message in enumerate(messages):
        if index in shown:
            chat.messages.append(_claude_message(message, f"chat_messages[{index}]", calls))
        else:
            chat.left_out[OTHER_BRANCHES] += 1
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
    path = branch(leaf, lambda name: messages[index_of[name]].get("parent_message_uuid") if name in index_of else None)
    return {index_of[name] for name in path if name in index_of}


def _claude_message(message: Json, place: str, calls: PendingCalls) -> ChatMessage:
    sender = message.get("sender", message.get("role"))
    if sender is None:
        raise MalformedChat(f"{place}.sender: is missing")
    content, text = message.get("content"), message.get("text")
    blocks = listed(content) or ([content] if text_or_none(content) else [text] if text_or_none(text) else [])
    parts, found_calls, results = _blocks(blocks, place, calls)
    for name in ("attachments", "files", "files_v2"):
        for item in listed(message.get(name)):
            if isinstance(item, dict) and (part := _claude_file(item)) not in parts:
                parts.append(part)
    used = ("uuid", "sender", "role", "text", "content", "created_at", "attachments", "files", "files_v2")
    sent = exported_message(
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


def _blocks(blocks: list[Any], place: str, calls: PendingCalls) -> tuple[list[Json], list[ToolCall], list[ToolResult]]:
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
                is_failed = block.get("is_error") is True or member_of(block, "content").get("error_code") is not None
                name = text_or_none(block.get("name"))
                results.append(ToolResult(result_key, result_parts(block.get("content")), name, is_failed))
    return parts, found_calls, results


# Anthropic Messages


_ANTHROPIC_BLOCKS = ("tool_use", "tool_result", "thinking", "redacted_thinking", "document")


def is_anthropic(value: Any) -> bool:
    """Return whether a value has messages with content blocks."""
    if isinstance(value, dict):
        if _is_anthropic_message(value) or _is_anthropic_message(recorded_answer(value)):
            return True
        if "system" in value and isinstance(value.get("messages"), list):
            return True
    return any(
        isinstance(block, dict) and isinstance(name := block.get("type"), str) and name.endswith(_ANTHROPIC_BLOCKS)
        for message in messages_of(value)
        if isinstance(message, dict) and "role" in message
        for block in listed(message.get("content"))
    )


def _is_anthropic_message(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "message" and "role" in value and "content" in value


def read_anthropic(value: Any) -> Chat:
    """Return the conversation of a request, a response, a record of both, or a list of messages."""
    sent: Json = {"messages": value} if isinstance(value, list) else checked_object(value, "the conversation")
    if _is_anthropic_message(sent):
        given = {name: sent[name] for name in ("id",) if name in sent}
        chat, messages = chat_of(given), [(sent, "message")]
    else:
        entries = checked_messages(sent, "messages")
        messages = [(message, f"messages[{index}]") for index, message in enumerate(entries)]
        if sent.get("system"):
            messages.insert(0, ({"role": "system", "content": sent["system"]}, "system"))
        if _is_anthropic_message(answer := recorded_answer(sent)):
            messages.append((answer, "response"))
        chat = chat_of(sent, "messages", "system", "response")
    calls = PendingCalls()
    for message, place in messages:
        checked_object(message, place)
        blocks, read = listed(message.get("content")), openai_message(message, place)
        _, found_calls, results = _blocks(blocks, place, calls)
        read.calls, read.results = read.calls + found_calls, read.results + results
        if results and len(results) == len(blocks) and message.get("role") == "user":
            read.role = Role.TOOL  # the API has no role of its own for results
        chat.messages.append(read)
    return chat
