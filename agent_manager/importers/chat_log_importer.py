"""The import of files of chat logs.

A line is checked to its last event before anything of it is written. Several conversations go into one append; if that
is rejected, they are appended one by one to find the culprit. Files are read in chunks, so that memory is bounded by
the longest line, whatever the size of the file.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import stat
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from io import BufferedReader
from pathlib import Path
from typing import cast
from uuid import UUID

from agent_manager.importers.chat_log import IMPORTER, Conversation, MalformedLine, conversation_from_line
from eventstore import (
    Append,
    AppendResult,
    ConversationCreated,
    ConversationRenamed,
    EventStore,
    MessageAdded,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
)
from eventstore.append import MAX_EVENTS, AppendRequest
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventIdConflict, InputError, printable
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
_FIRST_EVENTS = query("agent_manager.importers", "first_events")


class FileUnreadable(InputError):
    """A file does not exist or cannot be read."""

    def __init__(self, path: str, error: OSError | ValueError) -> None:
        reason = getattr(error, "strerror", None) or error
        super().__init__(f"{path}: {reason}: give files that exist and can be read")


class StartsDifferently(ConflictError):
    """The log holds another conversation under the same id. Nothing of the line was written."""


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A line that was not imported.

    Attributes:
        file: as it was given, ``-`` for standard input.
        line: the number of the line, from 1.
        reason: what is wrong with it.
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """The progress of an import.

    Attributes:
        bytes_read: of all files together.
        total_bytes: of all files together; None if one of them has no known length, such as standard input.
        conversations, messages, tasks: how many are stored so far, by this import or before.
        problems: how many lines were not imported so far.
    """

    bytes_read: int
    total_bytes: int | None
    conversations: int
    messages: int
    tasks: int
    problems: int


@dataclass(slots=True)
class ImportReport:
    """The result of an import.

    Attributes:
        conversations, messages, tasks: how many are in the lines that are now in the log.
        new_events: how many events were added by this import.
        known_events: how many events the log held already.
        problems: the lines that were not imported, in the order of the files.
        position: the highest position of the events; None if there are none.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    new_events: int = 0
    known_events: int = 0
    problems: list[ImportProblem] = field(default_factory=list)
    position: int | None = None


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
    progress: Callable[[ImportProgress], None] | None = None,
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
        progress: called after every append and at the end.

    Raises:
        FileUnreadable: a file does not exist or cannot be read; nothing was imported, unless reading it broke off.
        ImportStopped: ``strict``, and a line cannot be imported; the lines before it were.
        InputError: the store is not open, or the name of the tenant is not valid.
        ServerError: the server failed; import the same files again to continue.
    """
    names = [str(path) for path in paths]
    tenant = checked_tenant(store.tenant if tenant is None else tenant)
    _ = store.pool  # raises if the store is not open, before a line is blamed for it
    importer = _Importer(store, tenant, total_bytes(names), zone, progress, strict)
    for name in names:
        await importer.read(name)
    await importer.flush()
    return importer.report


@dataclass(slots=True)
class _Importer:
    """An import that is running: the lines that were read are appended in groups."""

    store: EventStore
    tenant: str
    total_bytes: int | None
    zone: tzinfo
    progress: Callable[[ImportProgress], None] | None
    strict: bool
    report: ImportReport = field(default_factory=ImportReport)
    bytes_read: int = 0
    group: list[PreparedLine] = field(default_factory=list)
    group_bytes: int = 0

    async def read(self, file: str) -> None:
        async with aclosing(lines(file)) as found:
            async for line in found:
                self.bytes_read += line.size
                self.group_bytes += line.size
                try:
                    prepared = prepare(file, line, self.tenant, self.store.settings.max_content_bytes, self.zone)
                except InputError as error:
                    await self.flush()  # the lines before it come first
                    self._reject(file, line.number, error)
                else:
                    if prepared is not None:
                        await self._add(prepared)
                if self.group_bytes >= GROUP_BYTES:
                    await self.flush()

    async def _add(self, prepared: PreparedLine) -> None:
        in_group = {other.conversation.id for other in self.group}
        if len(prepared.parts) > 1 or prepared.conversation.id in in_group:
            await self.flush()
        self.group.append(prepared)
        events = sum(len(other.conversation.events) for other in self.group)
        if len(self.group) >= GROUP_CONVERSATIONS or events >= GROUP_EVENTS or len(prepared.parts) > 1:
            await self.flush()

    async def flush(self) -> None:
        group, self.group, self.group_bytes = self.group, [], 0
        if group:
            await self._store_group(group)
        if self.progress is not None:
            done = self.report
            counts = (done.conversations, done.messages, done.tasks, len(done.problems))
            self.progress(ImportProgress(self.bytes_read, self.total_bytes, *counts))

    async def _store_group(self, group: list[PreparedLine]) -> None:
        try:
            results = await self._append(group)
        except (InputError, ConflictError) as error:
            if len(group) == 1:
                await self._store_continuation(group[0], error)
                return
            for prepared in group:
                await self._store_group([prepared])
        else:
            self._count(group, results)

    async def _store_continuation(self, prepared: PreparedLine, error: Exception) -> None:
        """Append to a conversation whose title or other members have changed since it was imported.

        Its first event stays as the log holds it; another title becomes a renaming. Any other conflict is rejected.
        """
        if isinstance(error, EventIdConflict) and error.event_id == prepared.conversation.events[0].id:
            try:
                continuation = await _continuation(self.store, self.tenant, prepared)
                self._count([continuation], await self._append([continuation]))
            except (InputError, ConflictError) as further:
                error = further
            else:
                return
        self._reject(prepared.file, prepared.line, error)

    async def _append(self, group: list[PreparedLine]) -> list[AppendResult]:
        await check_beginnings(self.store, self.tenant, [prepared.conversation for prepared in group])
        if len(group) == 1:
            return [await self.store.append_all([part], tenant=self.tenant) for part in group[0].parts]
        return [await self.store.append_all([prepared.parts[0] for prepared in group], tenant=self.tenant)]

    def _count(self, group: list[PreparedLine], results: list[AppendResult]) -> None:
        report = self.report
        report.conversations += len(group)
        report.messages += sum(prepared.conversation.messages for prepared in group)
        report.tasks += sum(prepared.conversation.tasks for prepared in group)
        for result in results:
            new = sum(event.is_new for event in result.events)
            report.new_events += new
            report.known_events += len(result.events) - new
            report.position = max(report.position or 0, result.position)

    def _reject(self, file: str, line: int, error: Exception) -> None:
        problem = ImportProblem(file, line, printable(str(error), longest=500))
        self.report.problems.append(problem)
        if self.strict:
            raise ImportStopped(problem, self.report) from error


# A line, checked to its last event


@dataclass(frozen=True, slots=True)
class PreparedLine:
    """A conversation that is ready to be appended, usually in one part."""

    file: str
    line: int
    conversation: Conversation
    parts: list[Append]


def prepare(file: str, line: Line, tenant: str, max_content_bytes: int, zone: tzinfo) -> PreparedLine | None:
    """Return the conversation of a line, None if it is blank; ``zone`` is the zone of times without an offset.

    Raises:
        InputError: nothing of the line can be imported.
    """
    text = line.text
    if text is None:
        raise MalformedLine(f"is {line.size:,} bytes long, the limit is {MAX_LINE_BYTES:,}: split the conversation")
    if line.number == 1:
        text = text.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        return None
    try:
        conversation = conversation_from_line(text, tenant, zone)
        if line.size * _GROWTH > max_content_bytes:
            conversation.events = list(_shortened(conversation.events, max_content_bytes))
        parts = [Append(conversation.id, events) for events in split_events(conversation.events, line.size)]
    except RecursionError:
        raise MalformedLine("is nested too deeply: flatten the values in it") from None
    first = 0
    for part in parts:
        try:
            AppendRequest(tenant, [part], max_content_bytes).encode()
        except InputError as error:
            raise MalformedLine(_in_terms_of_line(str(error), conversation.places[first:])) from None
        first += len(part.events)
    return PreparedLine(file, line.number, conversation, parts)


def split_events(events: list[NewEvent], size: int | None = None) -> Iterator[list[NewEvent]]:
    """Yield the events of a conversation in as few appends as possible.

    Args:
        size: about how many bytes they are together, if that is known.
    """
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


_EVENT = re.compile(r"\bevents\[(\d+)\](?:\.content(?:\.extra)?)?(?=[ .:\[])")


def _in_terms_of_line(text: str, places: list[str]) -> str:
    """Return an error of an append with the place in the line, such as ``messages[3].name``."""
    return _EVENT.sub(lambda match: places[int(match[1])], text, count=1)


# Conversations that the log holds already


async def check_beginnings(store: EventStore, tenant: str, conversations: Sequence[Conversation]) -> None:
    """Check that each of these conversations is new, or was begun by an earlier import of it.

    A line may have lost its oldest messages, or have none yet. But if neither the line nor the log has the first
    message of the other, they are two conversations.

    Raises:
        StartsDifferently: one of them is another: its messages would be mixed with those of the line.
    """
    lines = {conversation.id: conversation for conversation in conversations}
    parameters = {
        "tenant": tenant,
        "conversations": list(lines),
        "messages": [_first_message(conversation) for conversation in conversations],
    }
    rows = await store.log(store.caller(tenant)).fetch(_FIRST_EVENTS, parameters)
    for conversation_id, first, stored_message, has_first_message in rows:
        line = lines[conversation_id]
        if first != line.events[0].id:
            raise StartsDifferently(
                f"conversation {conversation_id} is in the store already and was not imported from a chat log: "
                "give this one another id, or import into another tenant"
            )
        is_continued = (
            stored_message is None or has_first_message or stored_message in {event.id for event in line.events}
        )
        if line.messages and not is_continued:
            raise StartsDifferently(
                f"conversation {conversation_id} begins with another message in the store: "
                "give this one another id, or import into another tenant"
            )


def _first_message(conversation: Conversation) -> UUID | None:
    return conversation.events[1].id if conversation.messages else None


async def _continuation(store: EventStore, tenant: str, prepared: PreparedLine) -> PreparedLine:
    """Return a line without its first event, which the log holds, and with a renaming if its title is another.

    Raises:
        StartsDifferently: the stored conversation was given another id: a text, and the UUID derived from it.
    """
    conversation_id = prepared.conversation.id
    created = prepared.conversation.events[0].data
    assert isinstance(created, ConversationCreated)
    [stored] = [event async for event in store.read(conversation_id, limit=1, tenant=tenant)]
    if stored.content.get("given_id") != created.given_id:
        given_id = stored.content.get("given_id") or str(conversation_id)
        raise StartsDifferently(
            f"its UUID is that of the stored conversation {printable(given_id)!r}: give it another id"
        )
    naming = store.read(
        conversation_id, types=["conversation.created", "conversation.renamed"], backwards=True, limit=1, tenant=tenant
    )
    stored_names = [event.content.get("name", "") async for event in naming]
    first, *others = prepared.parts
    events = list(first.events[1:])
    if stored_names != [created.name]:
        renamed_id = derived_uuid("import", tenant, str(conversation_id), "renamed", created.name)
        events.insert(0, NewEvent(ConversationRenamed(name=created.name), renamed_id, IMPORTER))
    parts = [Append(conversation_id, events), *others] if events else others
    return replace(prepared, parts=parts)


# Files as lines


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        number: from 1.
        size: in bytes, with its line feed.
        text: without its line feed; None if it is longer than :data:`MAX_LINE_BYTES`.
    """

    number: int
    size: int
    text: bytes | None


async def lines(path: str) -> AsyncGenerator[Line, None]:
    """Yield the lines of a file, which end at line feeds.

    Raises:
        FileUnreadable: it cannot be read.
    """
    number, size = 1, 0
    pieces: list[bytes] = []
    try:
        with _open(path) as file:
            may_block = _may_block(file)
            while chunk := await _next_chunk(file, may_block):
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


def _line(number: int, size: int, pieces: list[bytes]) -> Line:
    return Line(number, size, b"".join(pieces) if size <= MAX_LINE_BYTES else None)


def _open(path: str) -> AbstractContextManager[BufferedReader]:
    if path == STDIN:
        return nullcontext(cast(BufferedReader, sys.stdin.buffer))
    return Path(path).open("rb")


def _may_block(file: BufferedReader) -> bool:
    """Return whether reading may wait for another process: for a terminal, a pipe, a socket."""
    try:
        return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # io.UnsupportedOperation, which has no descriptor, is one
        return False


async def _next_chunk(file: BufferedReader, may_block: bool) -> bytes:
    if may_block:
        await _until_readable(file.fileno())
    else:
        await asyncio.sleep(0)  # let the other coroutines of the loop run
    return file.read1(_CHUNK)


async def _until_readable(descriptor: int) -> None:
    """Wait for input in a way that can be cancelled; return at once if the loop cannot wait for the descriptor."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except (NotImplementedError, OSError):  # a loop without add_reader, or a regular file
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def total_bytes(paths: Sequence[str]) -> int | None:
    """Return the size of all files together; None if one of them has no known length.

    Raises:
        FileUnreadable: one of them cannot be read.
    """
    sizes = [_size(path) for path in paths]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _size(path: str) -> int | None:
    if path == STDIN:
        return None
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            with Path(path).open("rb"):
                return status.st_size
        if not os.access(path, os.R_OK):  # opening a pipe and closing it again would end its writer
            raise PermissionError("Permission denied")
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise FileUnreadable(path, error) from error
    return None
