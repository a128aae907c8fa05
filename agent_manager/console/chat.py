"""The view of messages and tasks: texts, tool calls beside their results, files, and a timeline."""

from __future__ import annotations

import re
from base64 import b64encode
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import accumulate, islice
from typing import Any

from agent_manager.a2a import FINAL, Json, assemble_artifacts, part_in_version
from agent_manager.adapters.a2a_demo_messages import File, as_message, file_of, with_file_addresses
from agent_manager.console.rendering import pretty
from agent_manager.server.schemas.conversations import MessageOut, TaskOut
from projections import Message

MAX_TEXT = 4000
"""Characters of a text that a list shows; the page of the message has all of it."""
MAX_BYTES = 2**24
"""Characters of a text or of JSON that is downloaded."""
MAX_TASK_TEXT, MAX_TASKS = 1000, 30
"""Characters of a text of a task, and tasks of a timeline: the latest."""
MAX_TIMELINE = 15_000
"""Characters of all texts of a timeline as HTML; the latest tasks have theirs first."""
MAX_LIST, MAX_LIVE = 35_000, 350_000
"""Characters of all messages of a list, so that a page takes less than 100 kB, and of those that follow meanwhile."""
MAX_WHOLE = 200_000
"""Characters of a message on its own page."""
MAX_BLOCKS = 200
"""Parts of a message, artifacts, and parts of artifacts of a task, that a page shows."""

_LONGER_AS_HTML = re.compile(r"[<>&\"'`*_\[|#\n]")
"""Characters that become several in HTML: those that are escaped, and those that are markdown."""


@dataclass
class Block:
    """A part of a message.

    Attributes:
        kind: ``text``, ``file``, ``data``, ``call`` (of a tool), ``result``, or ``more`` in place of all further parts.
        text: The text, or JSON.
        rest: The number of characters that are left out.
        name: Of a file or tool.
        call_id: Of a call or result.
        media_type: Of a file.
        file_id: Of a file that the log holds.
        url: Of a file elsewhere, which is never fetched.
        result: Of a call, if it is among the same messages.
        download: The path below the conversation of a part of an artifact.
    """

    kind: str
    text: str = ""
    rest: int = 0
    name: str = ""
    call_id: str = ""
    media_type: str = ""
    file_id: str = ""
    url: str = ""
    result: Block | None = None
    download: str = ""

    @property
    def is_image(self) -> bool:
        """True if a page may show the file as an image."""
        return self.file_id != "" and self.media_type in ("image/png", "image/jpeg", "image/gif", "image/webp")


@dataclass
class ChatMessage:
    """A message with its blocks, and the tasks that ended between it and the next message."""

    message: MessageOut
    blocks: list[Block] = field(default_factory=list)
    ended: list[TaskOut] = field(default_factory=list)


def large_message(row: Message) -> MessageOut:
    """Return a message without what takes long to parse: only its text is shown, and that there is more."""
    names = MessageOut.model_fields.keys() - {"sent"}
    return MessageOut.model_construct(**{name: getattr(row, name) for name in names}, sent={})


def chat_messages(messages: Sequence[MessageOut], longest: int = MAX_TEXT, most: int = MAX_LIST) -> list[ChatMessage]:
    """Return messages with their blocks; the result of a tool stands with its call, if that is among them.

    Args:
        longest, most: Characters of a text, and of a message.
    """
    chat = [ChatMessage(message, list(_blocks(message, longest, most))) for message in messages]
    calls: dict[str, Block] = {}
    for each in chat:
        kept = []
        for block in each.blocks:
            if block.kind == "call":
                calls[block.call_id] = block
            elif block.kind == "result" and (call := calls.pop(block.call_id, None)) is not None and block.call_id:
                call.result = block
                continue
            kept.append(block)
        each.blocks = kept
    return [
        each
        for each in chat
        if each.blocks or each.message.error or each.message.role != "tool" or each.message.is_erased
    ]


def add_ended(chat: Sequence[ChatMessage], tasks: Iterable[TaskOut], *, is_last: bool) -> None:
    """Note with each message which tasks ended after it, and before the next one.

    Args:
        is_last: Whether the last of the messages is that of the conversation.
    """
    versions = [each.message.version for each in chat]
    for task in tasks:
        place = bisect(versions, task.version) - 1
        if task.status in FINAL and place >= 0 and (is_last or place < len(chat) - 1):
            chat[place].ended.append(task)


def length_in_list(message: MessageOut, longest: int = MAX_TEXT) -> int:
    """Return about how many characters a message takes in a list."""
    return 500 + sum(_length_as_html(block.text) for block in _blocks(message, longest))


def number_that_fits(messages: Iterable[MessageOut], longest: int = MAX_TEXT, most: int = MAX_LIST) -> int:
    """Return how many of the first messages a list shows: at least one."""
    return max(1, bisect(list(accumulate(length_in_list(message, longest) for message in messages)), most))


def _length_as_html(text: str) -> int:
    return len(text) + 4 * len(_LONGER_AS_HTML.findall(text))


def _blocks(message: MessageOut, longest: int, most: int = MAX_LIST) -> Iterable[Block]:
    if not message.sent:  # a large one
        yield from (_cut("text", message.content, longest), Block("more"))
        return
    for number, block in enumerate(_all_blocks(message, longest)):
        if number == MAX_BLOCKS or most <= 0:
            yield Block("more")
            return
        most -= len(block.text)
        yield block


def _all_blocks(message: MessageOut, longest: int) -> Iterable[Block]:
    sent = message.sent
    if sent.get("tool_call_id") is not None:
        text = sent.get("content")
        yield _cut(
            "result", text if isinstance(text, str) else pretty(text), longest, sent.get("name"), sent["tool_call_id"]
        )
        return
    parts = sent.get("parts")
    if isinstance(parts, list):
        addressed = with_file_addresses(sent, message.conversation_id, message.version)["parts"]
        for part in addressed:
            yield from _part(part_in_version(part, "0.3"), longest)
    elif isinstance(sent.get("content"), list):
        converted = as_message(sent, "0.3", str(message.id))
        for part in with_file_addresses(converted, message.conversation_id, message.version).get("parts", []):
            yield from _part(part, longest)
    elif message.content:
        yield _cut("text", message.content, longest)
    for call in sent.get("tool_calls") or [] if isinstance(sent.get("tool_calls"), list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield _cut("call", _arguments(function.get("arguments")), longest, function.get("name"), call.get("id"))


def _part(part: Any, longest: int) -> Iterable[Block]:
    if not isinstance(part, dict):
        yield _cut("data", pretty(part, longest), longest)
        return
    kind = part.get("kind")
    if kind == "text" and isinstance(part.get("text"), str):
        yield _cut("text", part["text"], longest)
    elif kind == "file" and isinstance(part.get("file"), dict):
        file = part["file"]
        uri = str(file.get("uri", ""))
        is_stored = uri.startswith("/message/file/")
        yield Block(
            "file",
            name=str(file.get("name") or ""),
            media_type=str(file.get("mimeType") or "").partition(";")[0].strip().lower(),
            file_id=uri.rpartition("/")[2] if is_stored else "",
            url="" if is_stored else uri,
        )
    else:
        data = part.get("data")
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            for member, role in (("args", "call"), ("arguments", "call"), ("response", "result")):
                if member in data:
                    yield _cut(role, _arguments(data[member]), longest, data["name"], data.get("id"))
                    return
        yield _cut("data", pretty(data if data is not None else part, 10 * longest), longest)


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else pretty(value, 10 * MAX_TEXT)


def _cut(kind: str, text: str, longest: int, name: Any = "", call_id: Any = "") -> Block:
    return Block(kind, text[:longest], max(0, len(text) - longest), str(name or ""), str(call_id or ""))


# Tasks


@dataclass(frozen=True)
class TimelineTask:
    """A task in the timeline.

    Attributes:
        start, width: Of its bar, in thousandths of the timeline.
        text: Of the message that came with its status.
        artifacts: Names and blocks.
    """

    task: TaskOut
    start: int
    width: int
    is_final: bool
    seconds: float
    text: str
    artifacts: list[tuple[str, list[Block]]]


def timeline(tasks: Sequence[TaskOut], until: datetime | None = None) -> list[TimelineTask]:
    """Return tasks with their places in the timeline, which spans all of them.

    Args:
        until: The end of tasks that go on; now by default.
    """
    now = until or datetime.now(UTC)
    tasks = tasks[-MAX_TASKS:]
    rest = MAX_TIMELINE
    ends = [max(each.created_at, each.updated_at if each.status in FINAL else now) for each in tasks]
    first = min((each.created_at for each in tasks), default=now)
    span = max(((end - first).total_seconds() for end in ends), default=0) or 1
    found = []
    for each, end in reversed(list(zip(tasks, ends, strict=True))):
        seconds = (end - each.created_at).total_seconds()
        start = min(990, int(1000 * (each.created_at - first).total_seconds() / span))
        width = max(4, min(1000 - start, int(1000 * seconds / span)))
        text = status_text(each.status_message)[: min(MAX_TASK_TEXT, rest // 5)]
        rest -= _length_as_html(text)
        artifacts = _artifacts(each, min(MAX_TASK_TEXT, rest // 5))
        rest = max(0, rest - sum(_length_as_html(block.text) for _, blocks in artifacts for block in blocks))
        found.append(TimelineTask(each, start, width, each.status in FINAL, seconds, text, artifacts))
    return found[::-1]


def status_text(message: Json | None) -> str:
    """Return the text of the message of a task's status."""
    parts = message.get("parts") if message else None
    texts = (
        [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
        if isinstance(parts, list)
        else []
    )
    return "\n".join(texts)[:MAX_TEXT]


def _artifacts(task: TaskOut, longest: int) -> list[tuple[str, list[Block]]]:
    chunks = [each.model_dump() for each in task.artifacts]
    found: list[tuple[str, list[Block]]] = []
    shown = 0
    for number, artifact in enumerate(islice(assemble_artifacts(chunks), MAX_BLOCKS)):
        blocks = []
        for part_number, part in enumerate(_parts_of(artifact)[: MAX_BLOCKS - shown]):
            for block in _part(_without_bytes(part_in_version(part, "0.3")), longest):
                if not block.url:
                    block.download = f"tasks/{task.id}/artifacts/{number}/{part_number}"
                blocks.append(block)
        found.append((_name_of(artifact), blocks))
        shown += len(blocks)
    return found


def artifact_file(task: TaskOut, number: int, part_number: int) -> File | None:
    """Return a part of an artifact of a task as a file; None if there is none, or only its URL is stored."""
    artifacts = assemble_artifacts(each.model_dump() for each in task.artifacts)
    parts = _parts_of(artifacts[number]) if number < len(artifacts) else []
    if part_number >= len(parts):
        return None
    part, name = parts[part_number], _name_of(artifacts[number])
    if (file := file_of(part)) is not None:
        return replace(file, name=file.name or name)
    converted = part_in_version(part, "0.3")
    if isinstance(converted, dict) and isinstance(converted.get("file"), dict):
        return None
    is_text = isinstance(converted, dict) and isinstance(converted.get("text"), str)
    text = (
        converted["text"]
        if is_text
        else pretty(part if not isinstance(part, dict) else part.get("data", part), MAX_BYTES)
    )
    kind, suffix = ("text/plain", ".txt") if is_text else ("application/json", ".json")
    return File(b64encode(text.encode(errors="replace")).decode(), kind, name if "." in name else name + suffix)


def _parts_of(artifact: Json) -> list[Any]:
    parts = artifact["parts"]
    return parts if isinstance(parts, list) else []


def _name_of(artifact: Json) -> str:
    return str(artifact.get("name") or artifact["artifactId"])


def _without_bytes(part: Any) -> Any:
    """Return a part without the bytes of its file, which only messages have addresses for."""
    file = part.get("file") if isinstance(part, dict) else None
    if not isinstance(file, dict) or "bytes" not in file:
        return part
    return part | {"file": {name: value for name, value in file.items() if name != "bytes"}}
