"""Chat logs: the import of files of conversations, in the OpenAI chat format and those of other programs.

:mod:`~agent_manager.importers.chat_files` divides files into values, each of which holds a conversation, and
:mod:`~agent_manager.importers.chat_formats` reads it. A conversation is checked to its last event before anything of it
is written. Several conversations go into one append; if that is rejected, they are appended one by one.

The actor ``importer`` creates a conversation; messages, the calls that they make and the results that they bring have
the message's role as their actor.

The ids of events and tasks are derived from the ids in the file or, if there are none, from the place in the
conversation. The two kinds are derived under different names, so that no id in a file can imitate a place. A
conversation without an id gets one that is derived from its beginning, so that it is found again when it has grown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.importers.chat_files import (
    MAX_VALUE_BYTES,
    JsonValue,
    NotJson,
    expanded,
    total_bytes,
    values,
)
from agent_manager.importers.chat_formats import FORMATS, RECOGNISED, ChatReader, is_many
from agent_manager.importers.chats import (
    CallKey,
    Chat,
    ChatMessage,
    MalformedChat,
    NotRecognised,
    ToolCall,
    ToolResult,
    parse,
)
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
    sent_message,
)
from eventstore.append import MAX_EVENTS, AppendRequest
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventIdConflict, InputError, printable
from eventstore.events import PLAIN
from eventstore.ids import assigned_uuid, derived_uuid
from eventstore.json_text import to_json
from eventstore.scope import Caller, checked_tenant

PART_BYTES = 32 * 1024 * 1024
"""A larger conversation takes several appends: the server holds each one in memory, more than once."""
GROUP_CONVERSATIONS = 50
"""The most conversations in one append, which locks each of them until it commits."""
GROUP_EVENTS = 2_000
"""An append ends with the conversation that reaches this number."""
GROUP_BYTES = 4 * 1024 * 1024
"""An append ends, and progress is reported, when this many bytes were read."""
MAX_PROBLEMS = 10
"""The most problems of a file that a report has in full; the others are counted."""
_GROWTH = 8
"""An upper bound of the ratio between the bytes of an event and of the text in the line that it is derived from: the
text is escaped once more at most."""
_EVENT = re.compile(r"\bevents\[(\d+)\](?:\.content(?:\.extra)?)?(?=[ .:\[])")
"""An event of an append in the text of an error."""
_FIRST_EVENTS = query("agent_manager.importers", "first_events")
_NAMES = query("agent_manager.importers", "names")
FORMAT_NAMES = tuple(each.name for each in reversed(FORMATS))
"""The formats that can be imported."""
_EXPECTED = f"recognised are {RECOGNISED}"
TIME_MEMBERS = ("timestamp", "created_at", "created", "create_time", "time")
"""The members that hold the time of a message or conversation; the first one that can be read counts."""

_RESULT_ARTIFACT_ID = "result"


class StartsDifferently(ConflictError):
    """The log holds another conversation under the same id. Nothing of this one was written."""


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """What is wrong with a conversation in a file, or with the file.

    Attributes:
        file: as it was given; with its name in a folder or an archive.
        line: where the conversation begins, counted from 1; None if it is about the whole file.
        reason: what is wrong, with the place in the conversation if there is one.
        place: the path of the conversation in its document, such as ``[3]``; empty for a line and a whole document.
    """

    file: str
    line: int | None
    reason: str
    place: str = ""

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        place = f" {self.place}:" if self.place else ""
        return f"{self.file}{line}:{place} {self.reason}"


@dataclass(slots=True)
class ImportReport:
    """The result of an import, and its progress.

    Attributes:
        conversations, messages, tasks: how many are in what was read that are now in the log.
        new_events: how many events were added by this import.
        known_events: how many events the log held already.
        rejected: how many conversations, and files that hold none, were not imported.
        problems: what is wrong with them, in the order of the files; of a file the first ten, and how many more.
        unread_times: likewise, the places whose time could not be read; what is there is dated by the import.
        left_out: what the imported conversations have in the file and not in the log, such as messages of other
            branches, with its number.
        position: the highest position of the events; None if there are none.
        bytes_read: of all files together.
        total_bytes: of all files together; None if one of them has no known length, such as standard input.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    new_events: int = 0
    known_events: int = 0
    rejected: int = 0
    problems: list[ImportProblem] = field(default_factory=list)
    unread_times: list[ImportProblem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    position: int | None = None
    bytes_read: int = 0
    total_bytes: int | None = None


class ImportStopped(InputError):
    """A strict import stopped at a conversation that cannot be imported. Those before it are in the log.

    Attributes:
        problem: the conversation, and what is wrong with it.
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
    format_name: str | None = None,
    progress: Callable[[ImportReport], None] = lambda report: None,
) -> ImportReport:
    """Import chat logs, and the exports of other programs: JSON Lines, an array, or a document.

    A conversation is imported as a whole or not at all, unless it makes more than 10,000 events or more than 32 MiB of
    them. One that is malformed, or contradicts what the log holds, is reported, and the others are imported.

    Args:
        store: an open store.
        paths: files and folders; ``-`` is standard input. Files may be compressed (gzip, zstd), and archives (zip).
        tenant: the store's own by default.
        strict: whether to stop at the first conversation that cannot be imported.
        zone: the zone of times that have no offset.
        format_name: one of :data:`FORMAT_NAMES`; each value's own by default, as its members show.
        progress: called after every append and at the end, with the report so far.

    Raises:
        FileUnreadable: a file does not exist or cannot be read; nothing was imported, unless reading it broke off.
        ImportStopped: ``strict``, and a conversation cannot be imported; those before it were.
        InputError: the store is not open, or the name of the tenant or format is not valid.
        ServerError: the server failed; import the same files again to continue.
    """
    if format_name is not None and format_name not in FORMAT_NAMES:
        raise InputError(f"format {format_name!r} is not known: give one of {', '.join(FORMAT_NAMES)}")
    names = expanded([str(path) for path in paths])
    tenant = checked_tenant(store.tenant if tenant is None else tenant)
    _ = store.pool  # raises if the store is not open, before a line is blamed for it
    report = ImportReport(total_bytes=total_bytes(names))
    importer = _Importer(store, tenant, zone, progress, strict, report, ChatReader(format_name))
    for name in names:
        await importer.read(name)
    await importer.end()
    return report


@dataclass(slots=True)
class _File:
    """What was found in a file so far.

    Attributes:
        values: their number.
        unrecognised: how many of them no format fits, and the problems of the first ones.
        problems, unread_times: how many were reported.
    """

    values: int = 0
    unrecognised: int = 0
    held_back: list[ImportProblem] = field(default_factory=list)
    problems: int = 0
    unread_times: int = 0


@dataclass(slots=True)
class _Importer:
    """An import: the conversations that were read are appended in groups."""

    store: EventStore
    tenant: str
    zone: tzinfo
    progress: Callable[[ImportReport], None]
    strict: bool
    report: ImportReport
    reader: ChatReader
    group: list[Conversation] = field(default_factory=list)
    group_bytes: int = 0
    files: dict[str, _File] = field(default_factory=dict)
    open_calls: dict[UUID, OpenCalls] = field(default_factory=dict)

    async def read(self, path: str) -> None:
        """Read a file; of an archive, its files."""
        names: dict[str, None] = {}
        async with aclosing(values(path, is_many, self._count_bytes)) as found:
            async for value in found:
                names[value.file] = None
                if isinstance(value, JsonValue):
                    await self._read_value(value)
                else:
                    await self.flush()
                    expected = f"; {_EXPECTED}" if isinstance(value.error, NotJson) else ""
                    reason = printable(str(value.error), longest=500) + expected
                    self._reject(ImportProblem(value.file, None, reason), value.error)
        for name in names:
            if (file := self.files[name]).held_back:
                await self.flush()
                self._reject_unrecognised(name, file)

    async def end(self) -> None:
        """Append the last group, and report how many problems there are beyond those reported."""
        await self.flush()
        for name, file in self.files.items():
            for count, problems in (
                (file.problems, self.report.problems),
                (file.unread_times, self.report.unread_times),
            ):
                if count > MAX_PROBLEMS:
                    problems.append(ImportProblem(name, None, f"and {count - MAX_PROBLEMS:,} more"))

    def _reject_unrecognised(self, name: str, file: _File) -> None:
        """Report, as one problem, that no value of a file has a known format."""
        first, file.held_back = file.held_back[0], []
        number = f" ({file.values:,} such values)" if file.values > 1 else ""
        self._reject(ImportProblem(name, None, f"{first.reason}{number}; {_EXPECTED}", first.place), None)

    def _count_bytes(self, number: int) -> None:
        self.report.bytes_read += number

    async def _read_value(self, value: JsonValue) -> None:
        file = self.files.setdefault(value.file, _File())
        self.group_bytes += value.size
        try:
            conversation = self._prepared(value)
        except InputError as error:
            file.values += 1
            reason = f"{error}; {_EXPECTED}" if isinstance(error, NotRecognised) and self.strict else str(error)
            problem = ImportProblem(value.file, value.line, printable(reason, longest=500), value.place)
            if isinstance(error, NotRecognised) and not self.strict:
                file.unrecognised += 1
                if file.unrecognised == file.values:
                    file.held_back = [*file.held_back, problem][:MAX_PROBLEMS]
                    return
            if self.group:
                await self.flush()  # the problems of what is before it come first
            self._release(file)
            self._reject(problem, error)
        else:
            if conversation is not None:
                file.values += 1
                self._release(file)
                await self._add(conversation)
        if self.group_bytes >= GROUP_BYTES:
            await self.flush()

    def _release(self, file: _File) -> None:
        """Report the values without a known format that were held back until the file had a value with one."""
        held_back, file.held_back = file.held_back, []
        for problem in held_back:
            self._reject(problem, None)
        if held_back:
            more = file.unrecognised - len(held_back)
            file.problems, self.report.rejected = file.problems + more, self.report.rejected + more

    def _prepared(self, value: JsonValue) -> Conversation | None:
        """Return the conversation of a value, checked to its last event; None if the line is blank."""
        text = value.text
        if text is None:
            raise MalformedChat(f"is longer than {MAX_VALUE_BYTES:,} bytes, the limit: split the conversation")
        if not text.strip():
            return None
        chat, value = self.reader.read(parse(text)), replace(value, text=None)
        conversation = self._converted(chat, value)
        if chat.given_id is None:
            conversation.or_else = lambda: self._converted(chat, value, whole_id(chat, self.tenant))
        return conversation

    def _converted(self, chat: Chat, value: JsonValue, conversation_id: UUID | None = None) -> Conversation:
        limit = self.store.settings.max_content_bytes
        conversation = conversation_of_chat(chat, self.tenant, self.zone, conversation_id, self.open_calls)
        if value.size * _GROWTH > limit:
            conversation.events = list(_shortened(conversation.events, limit))
        conversation.parts = list(split_events(conversation.events, value.size))
        first = 0
        for part in conversation.parts:
            try:
                AppendRequest(Caller(self.tenant), [Append(conversation.id, part)], limit).encode()
            except InputError as error:
                raise MalformedChat(_in_terms_of_file(str(error), conversation.places[first:])) from None
            except RecursionError:
                raise MalformedChat("is nested too deeply: flatten the values in it") from None
            first += len(part)
        conversation.value = value
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

        Its first event stays as the log holds it; another title becomes a renaming. So do the messages of an export if
        they differ in nothing but what other programs say about them. If it has no id of its own, and another
        conversation begins like it, the id is derived from all of it. Any other conflict is rejected.
        """
        if isinstance(error, EventIdConflict) and (
            conversation.is_export or error.event_id == conversation.events[0].id
        ):
            try:
                await self._append([await _continuation(self.store, self.tenant, conversation)])
            except (InputError, ConflictError) as further:
                error = further
            else:
                return
        if conversation.or_else is not None and isinstance(error, EventIdConflict | StartsDifferently):
            await self._store([conversation.or_else()])
            return
        reason = printable(_in_terms_of_conversation(error, conversation), longest=500)
        value = conversation.value
        self._reject(ImportProblem(value.file, value.line, reason, value.place), error)

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
        report.tasks += sum(conversation.tasks for conversation in group)
        for conversation in group:
            report.left_out += conversation.left_out
            report.known_events += conversation.known_events
            file, value = self.files[conversation.value.file], conversation.value
            for reason in conversation.unread_times:
                file.unread_times += 1
                if file.unread_times <= MAX_PROBLEMS:
                    report.unread_times.append(ImportProblem(value.file, value.line, reason, value.place))
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

    def _reject(self, problem: ImportProblem, error: Exception | None) -> None:
        file = self.files.setdefault(problem.file, _File())
        file.problems += 1
        self.report.rejected += 1
        if file.problems <= MAX_PROBLEMS:
            self.report.problems.append(problem)
        if self.strict:
            raise ImportStopped(problem, self.report) from error


def _in_terms_of_file(text: str, places: list[str]) -> str:
    """Return an error of an append with the place in the file's value, such as ``messages[3].name``."""
    return _EVENT.sub(lambda match: places[int(match[1])], text, count=1)


def _in_terms_of_conversation(error: Exception, conversation: Conversation) -> str:
    """Return an error with the ids that the file has, instead of those in the log."""
    text = str(error)
    if isinstance(error, EventIdConflict):
        index = next((index for index, event in enumerate(conversation.events) if event.id == error.event_id), None)
        event = None if index is None else conversation.events[index].data
        place = "it" if index is None else conversation.places[index]
        given_id = getattr(event, "given_id", None) or error.event_id
        differences = f"; they differ in {error.differences}" if error.differences else ""
        text = (
            f"conversation {conversation.id} already holds another event for {place} (id {given_id}){differences}: "
            "give this one another id, or import into another tenant"
        )
    return text.replace(f"conversation {conversation.id}", f"conversation {conversation.given_id!r}")


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
            and not line.follows
            and stored_message not in {event.id for event in line.events} | line.other_messages
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
    known = {conversation.events[0].id}
    if conversation.is_export:
        ours = {event.id: event.data for event in conversation.events}
        async for event in store.read(conversation.id, tenant=tenant):
            if event.id in ours and _says_the_same(event.data, ours[event.id]):
                known.add(event.id)
    parts = [[event for event in part if event.id not in known] for part in conversation.parts]
    for _, named_by, name, _ in await _names(store, tenant, [conversation.id]):
        if name != created.name:
            parts[0].insert(0, _renaming(tenant, conversation, named_by))
    number = sum(event.id in known for event in conversation.events[1:])
    return replace(conversation, parts=[part for part in parts if part], known_events=number)


def _says_the_same(stored: object, event: EventData) -> bool:
    """Return whether two events with the same id differ in nothing but what surrounds a message in an export."""
    if not isinstance(stored, MessageAdded) or not isinstance(event, MessageAdded):
        return True  # derived from a message
    return {**sent_message(stored), "export": None} == {**sent_message(event), "export": None}


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


# The events of a conversation

OpenCalls: TypeAlias = dict[CallKey, list[tuple[UUID, ToolCall]]]
"""The calls that await their results, with their tasks."""


@dataclass(slots=True)
class Conversation:
    """The events of a conversation.

    Attributes:
        given_id: its id in the file, or the UUID that it was given.
        places: for each event, the place in the value that it comes from.
        messages, tasks: their numbers.
        parts: the events as they are appended, usually in one part.
        unread_times: what is wrong with times that could not be read.
        is_export, left_out, follows: as in :class:`~agent_manager.importers.chats.Chat`.
        other_messages: the ids of the messages of other branches.
        known_events: how many of the events are not appended because the log holds them.
        value: where it was read.
        or_else: gives the conversation another id, if it has none of its own; None if it has.
    """

    id: UUID
    given_id: str = ""
    events: list[NewEvent] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    messages: int = 0
    tasks: int = 0
    unread_times: list[str] = field(default_factory=list)
    parts: list[list[NewEvent]] = field(default_factory=list)
    is_export: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    follows: bool = False
    other_messages: set[UUID] = field(default_factory=set)
    known_events: int = 0
    value: JsonValue = field(default_factory=lambda: JsonValue("", 1, "", 0, None))
    or_else: Callable[[], Conversation] | None = None


def conversation_of_chat(
    chat: Chat,
    tenant: str,
    zone: tzinfo = UTC,
    conversation_id: UUID | None = None,
    open_calls: dict[UUID, OpenCalls] | None = None,
) -> Conversation:
    """Return the events of a conversation.

    Args:
        zone: the zone of times without an offset.
        conversation_id: its id; derived from the id in the file, or else from its beginning, if it is None.
        open_calls: the calls of conversations that later values may continue.

    Raises:
        MalformedChat, InvalidEvent, InvalidId: it cannot be stored; the error names the place.
    """
    if conversation_id is None:
        given_id = chat.given_id
        conversation_id = beginning_id(chat, tenant) if given_id is None else conversation_uuid(tenant, given_id)
    converter = _Converter(chat, tenant, conversation_id, zone, open_calls or {})
    try:
        converter.create()
        for index, message in enumerate(chat.messages):
            converter.add_message(index, message)
    except RecursionError:
        raise MalformedChat("is nested too deeply: flatten the values in it") from None
    if chat.may_be_followed and open_calls is not None:
        open_calls[conversation_id] = {key: calls for key, calls in converter.open_calls.items() if calls}
    return converter.conversation


def beginning_id(chat: Chat, tenant: str) -> UUID:
    """Return an id for a conversation without one, derived from its messages up to the first answer."""
    roles = [message.sent.get("role") for message in chat.messages]
    end = next((index for index, role in enumerate(roles) if role in ("assistant", "agent")), len(roles))
    return _content_id(chat.messages[: end + 1], tenant, None if chat.messages else chat.metadata)


def whole_id(chat: Chat, tenant: str) -> UUID:
    """Return an id for a conversation without one, derived from all of it."""
    return _content_id(chat.messages, tenant, chat.metadata)


def _content_id(messages: Sequence[ChatMessage], tenant: str, metadata: Json | None) -> UUID:
    content = json.dumps([metadata, *(message.sent for message in messages)], sort_keys=True)
    return derived_uuid("import", tenant, "content", content)


def find_time(sent: Mapping[str, Any], zone: tzinfo = UTC) -> datetime | None:
    """Return the time of a message or conversation; None if it has none that can be read."""
    times = (read_time(sent[name], zone) for name in TIME_MEMBERS if name in sent)
    return next((time for time in times if time is not None), None)


class _Converter:
    """Collects the events of one conversation."""

    def __init__(
        self, chat: Chat, tenant: str, conversation_id: UUID, zone: tzinfo, open_calls: dict[UUID, OpenCalls]
    ) -> None:
        given_id = str(conversation_id) if chat.given_id is None else chat.given_id
        self.conversation = Conversation(
            conversation_id,
            given_id,
            is_export=chat.is_export,
            left_out=chat.left_out,
            follows=chat.follows is not None,
        )
        self.conversation.other_messages = {
            assigned_uuid(tenant, conversation_id, "message", message) for message in chat.other_messages
        }
        self.open_calls = {key: list(calls) for key, calls in open_calls.get(conversation_id, {}).items()}
        self._chat, self._zone = chat, zone
        self._time: datetime | None = None  # of the message before
        self._scope = (tenant, str(conversation_id))
        self._message_ids = IdAssigner(tenant, conversation_id, "message")
        self._task_ids = IdAssigner(tenant, conversation_id, "task")

    def create(self) -> None:
        chat, conversation = self._chat, self.conversation
        title, metadata = chat.title, chat.metadata
        name = title[:MAX_NAME_CHARACTERS] if isinstance(title, str) else ""
        if title is not None and title != name:
            metadata = metadata | {"title": title}
        created = ConversationCreated(
            name=name,
            given_id=conversation.given_id if conversation.given_id != str(conversation.id) else None,
            metadata=metadata or None,
        )
        times = (
            find_time(holder, self._zone) for holder in (chat.time_members, *(each.sent for each in chat.messages))
        )
        time = next(filter(None, times), None)
        self._add(created, self._derived_id("conversation"), IMPORTER, time, "conversation")
        self._note_unread_time("conversation", chat.time_members, time)
        self._time = time if chat.is_export else None

    def add_message(self, index: int, read: ChatMessage) -> None:
        sent, place = read.sent, read.place
        time = find_time(sent, self._zone)
        self._note_unread_time(place, sent, time)
        if self._chat.is_export:
            self._time = time = time or self._time
        given_id = sent.get("id")
        try:
            if isinstance(given_id, str) and given_id:
                message_id = self._message_ids.assign(given_id)
            else:
                given_id, message_id = None, self._derived_id("message", index)
            if given_id == str(message_id):
                given_id = None
            message = message_from_sent(sent, given_id=given_id)
        except InputError as error:
            raise MalformedChat(f"{place}.{error}") from None
        if read.role is not None:
            extra = (message.extra or {}) | {"role": sent["role"]}
            message = message.model_copy(update={"role": read.role, "extra": extra})
        actor = str(message.role)
        self._add(message, message_id, actor, time, place)
        self.conversation.messages += 1
        for call in read.calls:
            self._create_task(index, call, message_id, actor, time, f"{place}.{call.place}")
        for result in read.results:
            self._complete_task(result, actor, time, place)

    def _create_task(
        self, index: int, call: ToolCall, message_id: UUID, actor: str, time: datetime | None, place: str
    ) -> None:
        if call.given_id is None:
            task_id = self._derived_id("task", index, call.place)
        else:
            task_id = self._task_ids.assign(call.given_id)
        if call.key is not None:
            self.open_calls.setdefault(call.key, []).append((task_id, call))
        created = TaskCreated(
            task_id=task_id,
            description=call.description,
            status=TaskStatus.IN_PROGRESS,
            given_id=call.given_id if call.given_id != str(task_id) else None,
            metadata={"message_id": str(message_id), "tool": call.name},
        )
        self._add(created, self._derived_id("created", str(task_id)), actor, time, place)
        self.conversation.tasks += 1

    def _complete_task(self, result: ToolResult, actor: str, time: datetime | None, place: str) -> None:
        """Complete the latest open call that this is the result of."""
        if not self.open_calls.get(result.key):
            return
        task_id, call = self.open_calls[result.key].pop()
        artifact = TaskArtifactAdded(
            task_id=task_id, artifact_id=_RESULT_ARTIFACT_ID, parts=result.parts, name=result.name or call.name
        )
        status = TaskStatus.FAILED if result.is_failed else TaskStatus.COMPLETED
        completed = TaskStatusChanged(task_id=task_id, status=status)
        self._add(artifact, self._derived_id("result", str(task_id)), actor, time, place)
        self._add(completed, self._derived_id("completed", str(task_id)), actor, time, place)

    def _note_unread_time(self, place: str, sent: Mapping[str, Any], time: datetime | None) -> None:
        if time is None:
            used = "import" if self._time is None else "message before"
            for name in TIME_MEMBERS:
                if sent.get(name) not in (None, ""):
                    problem = f"{place}.{name}: {sent[name]!r:.60} is not a time; the time of the {used} is used"
                    self.conversation.unread_times.append(problem)
                    break

    def _derived_id(self, *names: str | int) -> UUID:
        return derived_uuid("import", *self._scope, *names)

    def _add(self, data: EventData, event_id: UUID, actor: str, time: datetime | None, place: str) -> None:
        metadata = PLAIN if time is None else Metadata(occurred_at=time)
        self.conversation.events.append(NewEvent(data, event_id, actor, metadata))
        self.conversation.places.append(place)
