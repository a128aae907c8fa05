"""Chat logs: the import of files whose lines are JSON in the OpenAI chat format.

A line is checked to its last event before anything of it is written. Several conversations go into one append; if that
is rejected, they are appended one by one. Files are read in chunks, so that memory is bounded by
the longest line, whatever the size of the file.

The actor ``importer`` creates a conversation; messages, the calls that they make and the results that they bring have
the message's role as their actor.

The ids of events and tasks are derived from the ids in the line or, if there are none, from the place in it. The two
kinds are derived under different names, so that no id in a line can imitate a place.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import stat
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, cast
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.importers.source import IMPORTER, MAX_NAME_CHARACTERS, read_time
from eventstore import (
    Append,
    AppendResult,
    ConversationCreated,
    ConversationRenamed,
    EventData,
    EventStore,
    IdAssigner,
    MessageAdded,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
    conversation_uuid,
    message_from_sent,
)
from eventstore.append import MAX_EVENTS, AppendRequest
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventIdConflict, InputError, printable
from eventstore.events import PLAIN
from eventstore.ids import derived_uuid
from eventstore.json_text import to_json
from eventstore.scope import checked_tenant

STDIN = "-"
"""The path that means standard input."""

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Longer lines are skipped: a line has to fit in memory several times."""
PART_BYTES = 32 * 1024 * 1024
"""A larger conversation takes several appends: the server holds each one in memory, more than once."""
GROUP_CONVERSATIONS = 50
"""The most conversations in one append, which locks each of them until it commits."""
GROUP_EVENTS = 2_000
"""An append ends with the conversation that reaches this number."""
GROUP_BYTES = 4 * 1024 * 1024
"""An append ends, and progress is reported, when this many bytes of lines were read."""
_CHUNK = 256 * 1024
_GROWTH = 8
"""An upper bound of the ratio between the bytes of an event and of the text in the line that it is derived from: the
text is escaped once more at most."""
_EVENT = re.compile(r"\bevents\[(\d+)\](?:\.content(?:\.extra)?)?(?=[ .:\[])")
"""An event of an append in the text of an error."""
_FIRST_EVENTS = query("agent_manager.importers", "first_events")
_NAMES = query("agent_manager.importers", "names")
TIME_MEMBERS = ("timestamp", "created_at", "created", "create_time", "time")
"""The members that hold the time of a message or conversation; the first one that can be read counts."""

_RESULT_ARTIFACT_ID = "result"


class MalformedLine(InputError):
    """A line of a chat log that does not hold a conversation."""


class FileUnreadable(InputError):
    """A file does not exist or cannot be read."""

    def __init__(self, path: str, error: OSError | ValueError) -> None:
        reason = getattr(error, "strerror", None) or error
        super().__init__(f"{path}: {reason}: give files that exist and can be read")


class StartsDifferently(ConflictError):
    """The log holds another conversation under the same id. Nothing of the line was written."""


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """What is wrong with a line, counted from 1; ``file`` is as it was given."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(slots=True)
class ImportReport:
    """The result of an import, and its progress.

    Attributes:
        conversations, messages, tasks: how many are in the lines that are now in the log.
        new_events: how many events were added by this import.
        known_events: how many events the log held already.
        problems: the lines that were not imported, in the order of the files.
        unread_times: the places of imported lines whose time could not be read; what is there is dated by the import.
        position: the highest position of the events; None if there are none.
        bytes_read: of all files together.
        total_bytes: of all files together; None if one of them has no known length, such as standard input.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    new_events: int = 0
    known_events: int = 0
    problems: list[ImportProblem] = field(default_factory=list)
    unread_times: list[ImportProblem] = field(default_factory=list)
    position: int | None = None
    bytes_read: int = 0
    total_bytes: int | None = None


class ImportStopped(InputError):
    """A strict import stopped at a line that cannot be imported. The lines before it are in the log.

    Attributes:
        problem: the line, and what is wrong with it.
        report: what was imported until then.
    """

    def __init__(self, problem: ImportProblem, report: ImportReport) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.report = report


async def import_files(
    store: EventStore,
    paths: Sequence[Path | str],
    *,
    tenant: str | None = None,
    strict: bool = False,
    zone: tzinfo = UTC,
    progress: Callable[[ImportReport], None] = lambda report: None,
) -> ImportReport:
    """Import chat logs: JSON Lines, each line ``{"id", "title", "messages": [...]}`` in the OpenAI chat format.

    A line is imported as a whole or not at all, unless it makes more than 10,000 events or more than 32 MiB of them. A
    line that is malformed, or contradicts what the log holds, is reported, and the others are imported.

    Args:
        store: an open store.
        paths: files; ``-`` is standard input.
        tenant: the store's own by default.
        strict: whether to stop at the first line that cannot be imported.
        zone: the zone of times that have no offset.
        progress: called after every append and at the end, with the report so far.

    Raises:
        FileUnreadable: a file does not exist or cannot be read; nothing was imported, unless reading it broke off.
        ImportStopped: ``strict``, and a line cannot be imported; the lines before it were.
        InputError: the store is not open, or the name of the tenant is not valid.
        ServerError: the server failed; import the same files again to continue.
    """
    names = [str(path) for path in paths]
    tenant = checked_tenant(store.tenant if tenant is None else tenant)
    _ = store.pool  # raises if the store is not open, before a line is blamed for it
    report = ImportReport(total_bytes=total_bytes(names))
    importer = _Importer(store, tenant, zone, progress, strict, report)
    for name in names:
        await importer.read(name)
    await importer.flush()
    return report


@dataclass(slots=True)
class _Importer:
    """An import: the conversations that were read are appended in groups."""

    store: EventStore
    tenant: str
    zone: tzinfo
    progress: Callable[[ImportReport], None]
    strict: bool
    report: ImportReport
    group: list[Conversation] = field(default_factory=list)
    group_bytes: int = 0

    async def read(self, file: str) -> None:
        async with aclosing(lines(file)) as found:
            async for line in found:
                self.report.bytes_read += line.size
                self.group_bytes += line.size
                try:
                    conversation = self._prepared(file, line)
                except InputError as error:
                    await self.flush()  # the lines before it come first
                    self._reject(file, line.number, error)
                else:
                    if conversation is not None:
                        await self._add(conversation)
                if self.group_bytes >= GROUP_BYTES:
                    await self.flush()

    def _prepared(self, file: str, line: Line) -> Conversation | None:
        """Return the conversation of a line, checked to its last event; None if the line is blank."""
        text, limit = line.text, self.store.settings.max_content_bytes
        if text is None:
            raise MalformedLine(f"is {line.size:,} bytes long, the limit is {MAX_LINE_BYTES:,}: split the conversation")
        if line.number == 1:
            text = text.removeprefix(codecs.BOM_UTF8)
        if not text.strip():
            return None
        try:
            conversation = conversation_from_line(text, self.tenant, self.zone)
            if line.size * _GROWTH > limit:
                conversation.events = list(_shortened(conversation.events, limit))
            conversation.parts = list(split_events(conversation.events, line.size))
        except RecursionError:
            raise MalformedLine("is nested too deeply: flatten the values in it") from None
        first = 0
        for part in conversation.parts:
            try:
                AppendRequest(self.tenant, [Append(conversation.id, part)], limit).encode()
            except InputError as error:
                raise MalformedLine(_in_terms_of_line(str(error), conversation.places[first:])) from None
            first += len(part)
        conversation.file, conversation.line = file, line.number
        return conversation

    async def _add(self, conversation: Conversation) -> None:
        is_large = len(conversation.parts) > 1
        if is_large or conversation.id in {other.id for other in self.group}:
            await self.flush()
        self.group.append(conversation)
        events = sum(len(other.events) for other in self.group)
        if is_large or len(self.group) >= GROUP_CONVERSATIONS or events >= GROUP_EVENTS:
            await self.flush()

    async def flush(self) -> None:
        group, self.group, self.group_bytes = self.group, [], 0
        if group:
            await self._store(group)
        self.progress(self.report)

    async def _store(self, group: list[Conversation]) -> None:
        """Append conversations together; if that is rejected, one by one."""
        try:
            await self._append(group)
        except (InputError, ConflictError) as error:
            if len(group) == 1:
                await self._continue(group[0], error)
                return
            for conversation in group:
                await self._store([conversation])

    async def _continue(self, conversation: Conversation, error: Exception) -> None:
        """Append to a conversation whose title or other members have changed since it was imported.

        Its first event stays as the log holds it; another title becomes a renaming. Any other conflict is rejected.
        """
        if isinstance(error, EventIdConflict) and error.event_id == conversation.events[0].id:
            try:
                await self._append([await _continuation(self.store, self.tenant, conversation)])
            except (InputError, ConflictError) as further:
                error = further
            else:
                return
        self._reject(conversation.file, conversation.line, error)

    async def _append(self, group: list[Conversation]) -> None:
        await check_beginnings(self.store, self.tenant, group)
        if len(group) == 1:
            appends = [[Append(group[0].id, part)] for part in group[0].parts]
        else:
            appends = [[Append(conversation.id, conversation.parts[0]) for conversation in group]]
        results = [await self.store.append_all(append, tenant=self.tenant) for append in appends]
        if results:
            results += await self._rename(group, results[0])
        report = self.report
        report.conversations += len(group)
        report.messages += sum(conversation.messages for conversation in group)
        report.unread_times += [
            ImportProblem(conversation.file, conversation.line, problem)
            for conversation in group
            for problem in conversation.unread_times
        ]
        report.tasks += sum(conversation.tasks for conversation in group)
        for result in results:
            new = sum(event.is_new for event in result.events)
            report.new_events += new
            report.known_events += len(result.events) - new
            report.position = max(report.position or 0, result.position)

    async def _rename(self, group: Sequence[Conversation], result: AppendResult) -> list[AppendResult]:
        """Rename the conversations that the log held already, if an import of another line gave them another title."""
        index, known = 0, {}
        for conversation in group:
            created = conversation.parts[0][0]
            if isinstance(created.data, ConversationCreated) and not result.events[index].is_new:
                known[conversation.id] = conversation, created.data.name
            index += len(conversation.parts[0])
        renamings = [
            Append(conversation_id, [_renaming(self.tenant, known[conversation_id][0], named_by)])
            for conversation_id, named_by, name, actor in await _names(self.store, self.tenant, list(known))
            if name != known[conversation_id][1] and actor == IMPORTER
        ]
        return [await self.store.append_all(renamings, tenant=self.tenant)] if renamings else []

    def _reject(self, file: str, line: int, error: Exception) -> None:
        problem = ImportProblem(file, line, printable(str(error), longest=500))
        self.report.problems.append(problem)
        if self.strict:
            raise ImportStopped(problem, self.report) from error


def _in_terms_of_line(text: str, places: list[str]) -> str:
    """Return an error of an append with the place in the line, such as ``messages[3].name``."""
    return _EVENT.sub(lambda match: places[int(match[1])], text, count=1)


def split_events(events: list[NewEvent], size: int | None = None) -> Iterator[list[NewEvent]]:
    """Yield the events of a conversation in as few appends as possible; ``size`` is about their bytes, if known."""
    if size is not None and len(events) <= MAX_EVENTS and size <= PART_BYTES:
        yield events
        return
    part: list[NewEvent] = []
    part_bytes = 0
    for event in events:
        event_bytes = len(json.dumps(event.data.to_content()))
        if part and (len(part) == MAX_EVENTS or part_bytes + event_bytes > PART_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(event)
        part_bytes += event_bytes
    if part:
        yield part


def _shortened(events: list[NewEvent], limit: int) -> Iterator[NewEvent]:
    """Yield the events, those of tasks cut to the size limit: the message that they come from holds everything."""
    message_id = None
    for event in events:
        data = event.data
        if isinstance(data, MessageAdded):
            message_id = event.id
        elif len(to_json(data.to_content(), "content")) > limit:
            if isinstance(data, TaskCreated):
                data = data.model_copy(update={"description": data.description[: limit // _GROWTH] + "…"})
            elif isinstance(data, TaskArtifactAdded):
                reference = {"kind": "data", "data": {"message_id": str(message_id)}}
                data = data.model_copy(update={"parts": [reference]})
        yield replace(event, data=data)


# Conversations that the log holds already


async def check_beginnings(store: EventStore, tenant: str, conversations: Sequence[Conversation]) -> None:
    """Check that each of these conversations is new, or was begun by an earlier import of it.

    A line may have lost its oldest messages, or have none yet. But if neither the line nor the log has the first
    message of the other, they are two conversations, whose messages would be mixed.
    """
    lines = {conversation.id: conversation for conversation in conversations}
    parameters = {
        "tenant": tenant,
        "conversations": list(lines),
        "messages": [line.events[1].id if line.messages else None for line in conversations],
    }
    rows = await store.log(store.caller(tenant)).fetch(_FIRST_EVENTS, parameters)
    for conversation_id, first, stored_message, has_first_message in rows:
        line, problem = lines[conversation_id], ""
        if first != line.events[0].id:
            problem = "is in the store already and was not imported from a chat log"
        elif (
            line.messages
            and not (stored_message is None or has_first_message)
            and stored_message not in {event.id for event in line.events}
        ):
            problem = "begins with another message in the store"
        if problem:
            raise StartsDifferently(
                f"conversation {conversation_id} {problem}: give this one another id, or import into another tenant"
            )


async def _continuation(store: EventStore, tenant: str, conversation: Conversation) -> Conversation:
    """Return a conversation without its first event, which the log holds, and with a renaming if its title is another.

    The stored conversation may have been given another id: a text, and this one the UUID derived from it.
    """
    created = conversation.events[0].data
    assert isinstance(created, ConversationCreated)
    [stored] = [event async for event in store.read(conversation.id, limit=1, tenant=tenant)]
    if stored.content.get("given_id") != created.given_id:
        given_id = stored.content.get("given_id") or str(conversation.id)
        raise StartsDifferently(
            f"its UUID is that of the stored conversation {printable(given_id)!r}: give it another id"
        )
    first, *others = conversation.parts
    events = list(first[1:])
    for _, named_by, name, _ in await _names(store, tenant, [conversation.id]):
        if name != created.name:
            events.insert(0, _renaming(tenant, conversation, named_by))
    return replace(conversation, parts=[events, *others] if events else others)


async def _names(store: EventStore, tenant: str, conversations: Sequence[UUID]) -> Sequence[tuple[Any, ...]]:
    """Return, of each conversation, its id, and the id, the name and the actor of the event that named it last."""
    if not conversations:
        return []
    parameters = {"tenant": tenant, "conversations": list(conversations)}
    return await store.log(store.caller(tenant)).fetch(_NAMES, parameters)


def _renaming(tenant: str, conversation: Conversation, named_by: UUID) -> NewEvent:
    """Return the event that renames a conversation to the title of its line.

    Its id is made of that of the event that gave the present name, so that a name can be given again after another one.
    """
    created = conversation.events[0].data
    assert isinstance(created, ConversationCreated)
    renamed_id = derived_uuid("import", tenant, str(conversation.id), "renamed", created.name, str(named_by))
    return NewEvent(ConversationRenamed(name=created.name), renamed_id, IMPORTER)


# The conversation of a line


@dataclass(slots=True)
class Conversation:
    """The events of a conversation.

    Attributes:
        places: for each event, the place in the line that it comes from.
        messages, tasks: their numbers.
        parts: the events as they are appended, usually in one part.
        unread_times: what is wrong with times that could not be read.
        file, line: where it was read.
    """

    id: UUID
    events: list[NewEvent] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    messages: int = 0
    tasks: int = 0
    unread_times: list[str] = field(default_factory=list)
    parts: list[list[NewEvent]] = field(default_factory=list)
    file: str = ""
    line: int = 0


def conversation_from_line(line: bytes, tenant: str, zone: tzinfo = UTC) -> Conversation:
    """Return the events of one line; ``zone`` is the zone of times without an offset.

    Raises:
        MalformedLine, InvalidEvent, InvalidId: it is not a conversation; the error names the place.
    """
    sent = _parse(line)
    given_id = _id_text(sent.get("id"))
    if given_id is None:
        raise MalformedLine(_unexpected(sent, "id", "the conversation's id, a text"))
    messages = sent.get("messages")
    if not isinstance(messages, list):
        raise MalformedLine(_unexpected(sent, "messages", "a list of messages"))
    for index, message in enumerate(messages):
        _checked_object(message, f"messages[{index}]")
    converter = _Converter(tenant, conversation_uuid(tenant, given_id), zone)
    converter.create(sent, given_id, messages)
    for index, message in enumerate(messages):
        converter.add_message(index, message)
    return converter.conversation


def find_time(sent: Mapping[str, Any], zone: tzinfo = UTC) -> datetime | None:
    """Return the time of a message or conversation; None if it has none that can be read."""
    times = (read_time(sent[name], zone) for name in TIME_MEMBERS if name in sent)
    return next((time for time in times if time is not None), None)


class _Converter:
    """Collects the events of one conversation."""

    def __init__(self, tenant: str, conversation_id: UUID, zone: tzinfo) -> None:
        self.conversation = Conversation(conversation_id)
        self._zone = zone
        self._scope = (tenant, str(conversation_id))
        self._message_ids = IdAssigner(tenant, conversation_id, "message")
        self._task_ids = IdAssigner(tenant, conversation_id, "task")
        self._open_calls: dict[CallKey, list[tuple[UUID, ToolCall]]] = {}

    def create(self, sent: Json, given_id: str, messages: list[Json]) -> None:
        title = sent.get("title")
        metadata = {name: value for name, value in sent.items() if name not in ("id", "title", "messages")}
        name = title[:MAX_NAME_CHARACTERS] if isinstance(title, str) else ""
        if title is not None and title != name:
            metadata["title"] = title
        times = (find_time(holder, self._zone) for holder in (sent, *messages))
        created = ConversationCreated(
            name=name,
            given_id=given_id if given_id != str(self.conversation.id) else None,
            metadata=metadata or None,
        )
        time = next(filter(None, times), None)
        self._add(created, self._derived_id("conversation"), IMPORTER, time, "conversation")
        self._note_unread_time("conversation", sent, time)

    def add_message(self, index: int, sent: Json) -> None:
        place, time = f"messages[{index}]", find_time(sent, self._zone)
        self._note_unread_time(place, sent, time)
        given_id = sent.get("id")
        try:
            if isinstance(given_id, str) and given_id:
                message_id = self._message_ids.assign(given_id)
            else:
                given_id, message_id = None, self._derived_id("message", index)
            if given_id == str(message_id):
                given_id = None
            message = message_from_sent(sent, given_id=given_id)
            calls = _tool_calls(sent)
        except InputError as error:
            raise MalformedLine(f"{place}.{error}") from None
        actor = str(message.role)
        self._add(message, message_id, actor, time, place)
        self.conversation.messages += 1
        self._complete_task(sent, actor, time, place)
        for call in calls:
            self._create_task(index, call, message_id, actor, time, f"{place}.{call.place}")

    def _create_task(
        self, index: int, call: ToolCall, message_id: UUID, actor: str, time: datetime | None, place: str
    ) -> None:
        if call.given_id is None:
            task_id = self._derived_id("task", index, call.place)
        else:
            task_id = self._task_ids.assign(call.given_id)
        if call.key is not None:
            self._open_calls.setdefault(call.key, []).append((task_id, call))
        created = TaskCreated(
            task_id=task_id,
            description=call.description,
            status=TaskStatus.IN_PROGRESS,
            given_id=call.given_id if call.given_id != str(task_id) else None,
            metadata={"message_id": str(message_id), "tool": call.name},
        )
        self._add(created, self._derived_id("created", str(task_id)), actor, time, place)
        self.conversation.tasks += 1

    def _complete_task(self, sent: Json, actor: str, time: datetime | None, place: str) -> None:
        """Complete the latest open call that the message is the result of."""
        key = _answered_call(sent)
        if key is None or not self._open_calls.get(key):
            return
        task_id, call = self._open_calls[key].pop()
        name = sent.get("name")
        result = TaskArtifactAdded(
            task_id=task_id,
            artifact_id=_RESULT_ARTIFACT_ID,
            parts=_result_parts(sent.get("content")),
            name=name if isinstance(name, str) else call.name,
        )
        completed = TaskStatusChanged(task_id=task_id, status=TaskStatus.COMPLETED)
        self._add(result, self._derived_id("result", str(task_id)), actor, time, place)
        self._add(completed, self._derived_id("completed", str(task_id)), actor, time, place)

    def _note_unread_time(self, place: str, sent: Json, time: datetime | None) -> None:
        if time is None:
            for name in TIME_MEMBERS:
                if sent.get(name) not in (None, ""):
                    problem = f"{place}.{name}: {sent[name]!r:.60} is not a time; the time of the import is used"
                    self.conversation.unread_times.append(problem)
                    break

    def _derived_id(self, *names: str | int) -> UUID:
        return derived_uuid("import", *self._scope, *names)

    def _add(self, data: EventData, event_id: UUID, actor: str, time: datetime | None, place: str) -> None:
        metadata = PLAIN if time is None else Metadata(occurred_at=time)
        self.conversation.events.append(NewEvent(data, event_id, actor, metadata))
        self.conversation.places.append(place)


# Tool calls, in the present format (tool_calls) and the first one (function_call)

CallKey: TypeAlias = tuple[str, str]
"""The key that a call and its result share: ``("id", ID)`` or, in the first format, ``("name", FUNCTION)``."""


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


def _tool_calls(message: Json) -> list[ToolCall]:
    entries = message.get("tool_calls")
    if not isinstance(entries, list | None):
        raise MalformedLine(f"tool_calls: is {_kind(entries)}, expected a list of tool calls")
    calls = []
    for index, entry in enumerate(entries or ()):
        place = f"tool_calls[{index}]"
        call = _checked_object(entry, place)
        given_id = _id_text(call.get("id"))
        calls.append(ToolCall(place, given_id, None if given_id is None else ("id", given_id), *_function(call)))
    first_format = message.get("function_call")
    if first_format is not None:
        name, arguments = _function(_checked_object(first_format, "function_call"))
        calls.append(ToolCall("function_call", None, ("name", name), name, arguments))
    return calls


def _function(call: Json) -> tuple[str, Any]:
    """Return name and arguments: from ``function``, from ``custom`` (``input``), or from the call itself."""
    holder = next((call[kind] for kind in ("function", "custom") if isinstance(call.get(kind), dict)), call)
    name = holder.get("name")
    return name if isinstance(name, str) else "unnamed", holder.get("arguments", holder.get("input"))


def _answered_call(message: Json) -> CallKey | None:
    """Return the key of the call that a message is the result of; None if it is not a result."""
    given_id = _id_text(message.get("tool_call_id"))
    if message["role"] in ("tool", "function") and given_id is not None:
        return "id", given_id
    if message["role"] == "function" and isinstance(message.get("name"), str):
        return "name", message["name"]
    return None


def _result_parts(content: Any) -> list[Json]:
    """Return the content of a tool message as the parts of an artifact: text parts, and data parts for all else."""
    parts = []
    for item in content if isinstance(content, list) else [] if content is None else [content]:
        if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
            item = item["text"]
        parts.append({"kind": "text", "text": item} if isinstance(item, str) else {"kind": "data", "data": item})
    return parts


# A line as a JSON object, parsed strictly: what cannot be stored as it is, is rejected


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number: send null or a text")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
_KINDS: dict[type, str] = {
    type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
    dict: "an object",
}  # fmt: skip


def _parse(line: bytes) -> Json:
    try:
        sent = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise MalformedLine(f"is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise MalformedLine(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise MalformedLine(f"is not JSON: {error}") from None
    if not isinstance(sent, dict):
        raise MalformedLine(f"is {_kind(sent)}, expected an object with id, title and messages")
    return sent


def _checked_object(value: Any, place: str) -> Json:
    if not isinstance(value, dict):
        raise MalformedLine(f"{place}: is {_kind(value)}, expected an object")
    return value


def _id_text(value: Any) -> str | None:
    """Return an identifier as a text; texts and integers are identifiers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _unexpected(sent: Json, member: str, expected: str) -> str:
    found = f"is {_kind(sent[member])}" if member in sent else "is missing"
    return f"{member}: {found}, expected {expected}"


# Files as lines


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        size: in bytes, with its line feed.
        text: without its line feed; None if it is longer than :data:`MAX_LINE_BYTES`.
    """

    number: int
    size: int
    text: bytes | None


async def lines(path: str) -> AsyncGenerator[Line, None]:
    """Yield the lines of a file, which end at line feeds. Raise FileUnreadable if it cannot be read."""
    number, size = 1, 0
    pieces: list[bytes] = []
    try:
        with _open(path) as file:
            while chunk := await _next_chunk(file):
                *ends, rest = chunk.split(b"\n")
                for end in ends:
                    pieces.append(end)
                    yield _line(number, size + len(end) + 1, pieces)
                    number, size, pieces = number + 1, 0, []
                size += len(rest)
                pieces.append(rest)
                if size > MAX_LINE_BYTES:
                    pieces.clear()
        if size:
            yield _line(number, size, pieces)
    except OSError as error:
        raise FileUnreadable(path, error) from error


def _open(path: str) -> AbstractContextManager[BufferedReader]:
    if path == STDIN:
        return nullcontext(cast(BufferedReader, sys.stdin.buffer))
    return Path(path).open("rb")


def _line(number: int, size: int, pieces: list[bytes]) -> Line:
    return Line(number, size, b"".join(pieces) if size <= MAX_LINE_BYTES else None)


async def _next_chunk(file: BufferedReader) -> bytes:
    """Return the next bytes of a file; wait for a terminal, pipe or socket in a way that can be cancelled."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        descriptor = file.fileno()
        loop.add_reader(descriptor, ready.set)
    except (NotImplementedError, OSError):  # a loop without add_reader, a regular file, or a stream that is not a file
        await asyncio.sleep(0)  # let the other coroutines of the loop run
        return file.read1(_CHUNK)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return file.read1(_CHUNK)


def total_bytes(paths: Sequence[str]) -> int | None:
    """Return the size of all files together; None if one has no known length."""
    total, is_known = 0, True
    for path in paths:
        if path == STDIN:
            is_known = False
            continue
        try:
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                with Path(path).open("rb"):
                    total += status.st_size
            elif os.access(path, os.R_OK):  # opening a pipe and closing it again would end its writer
                is_known = False
            else:
                raise PermissionError("Permission denied")
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            raise FileUnreadable(path, error) from error
    return total if is_known else None
