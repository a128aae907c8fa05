"""Importing files of chat logs: lines, checks, groups of conversations, a report."""

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
from eventstore.append import MAX_EVENTS, EncodedAppend
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventIdConflict, InputError, printable
from eventstore.ids import derived_uuid
from eventstore.json_text import to_json
from eventstore.scope import checked_tenant

# Files as lines, a chunk at a time: memory is bounded by the longest line, whatever the size of the file

STDIN = "-"
"""The path that means standard input."""

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Longer lines are skipped: one has to fit in memory several times over."""

_CHUNK = 256 * 1024


class FileUnreadable(InputError):
    """A file does not exist or cannot be read."""

    def __init__(self, path: str, error: OSError | ValueError) -> None:
        super().__init__(f"{path}: {getattr(error, 'strerror', None) or error}: give files that exist and may be read")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        number: from 1.
        size: in bytes, its end included.
        text: without its end; None where it is longer than :data:`MAX_LINE_BYTES`.
    """

    number: int
    size: int
    text: bytes | None


def total_bytes(paths: Sequence[str]) -> int | None:
    """The size of all files together, None where one of them has no known length.

    Raises:
        FileUnreadable: one of them cannot be read.
    """
    sizes = [_size(path) for path in paths]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


async def lines(path: str) -> AsyncGenerator[Line, None]:
    """The lines of a file; they end at line feeds.

    Raises:
        FileUnreadable: it cannot be read.
    """
    number, size = 1, 0
    pieces: list[bytes] = []
    try:
        with _open(path) as file:
            slow = _may_keep_waiting(file)
            while chunk := await _next_chunk(file, slow):
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


def _size(path: str) -> int | None:
    if path == STDIN:
        return None
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            with Path(path).open("rb"):
                return status.st_size
        if not os.access(path, os.R_OK):  # to open a pipe and close it again would end its writer
            raise PermissionError("Permission denied")
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise FileUnreadable(path, error) from error
    return None


def _open(path: str) -> AbstractContextManager[BufferedReader]:
    if path == STDIN:
        return nullcontext(cast(BufferedReader, sys.stdin.buffer))
    return Path(path).open("rb")


def _may_keep_waiting(file: BufferedReader) -> bool:
    """Whether the next bytes may be long in coming: from a terminal, a pipe, a socket."""
    try:
        return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # io.UnsupportedOperation is one: no file at all
        return False


async def _next_chunk(file: BufferedReader, slow: bool) -> bytes:
    if slow:
        await _readable(file.fileno())
    else:
        await asyncio.sleep(0)  # the other coroutines of the loop have their turn
    return file.read1(_CHUNK)


async def _readable(descriptor: int) -> None:
    """Waits until there is something to read, so that the wait can be cancelled; returns at once where it cannot."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except (NotImplementedError, OSError):  # no loop of this system can wait for it, or for a plain file
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


# What an import tells its caller: how far it is, what it did, and which lines it could not take


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A line that did not go in.

    Attributes:
        file: as it was given, ``-`` for standard input.
        line: from 1.
        reason: what is wrong with it.
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is.

    Attributes:
        bytes_read: of all files together.
        total_bytes: of all files together; None where one of them has no known length, as standard input.
        conversations, messages, tasks: stored so far, by this import or before.
        problems: lines that did not go in so far.
    """

    bytes_read: int
    total_bytes: int | None
    conversations: int
    messages: int
    tasks: int
    problems: int


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        conversations, messages, tasks: in the lines that were understood and are now in the log.
        new_events: added by this import.
        known_events: that the log held already.
        problems: the lines that did not go in, in the order of the files.
        position: the highest position among the events; None where there are none.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    new_events: int = 0
    known_events: int = 0
    problems: list[ImportProblem] = field(default_factory=list)
    position: int | None = None


class ImportStopped(InputError):
    """A strict import met a line that it could not take. What stood before it is in the log.

    Attributes:
        problem: the line and what is wrong with it.
        report: what the import did until then.
    """

    def __init__(self, problem: ImportProblem, report: ImportReport) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.report = report


# A line of a chat log, checked to the last event before any of it is written

PART_BYTES = 32 * 1024 * 1024
"""A larger conversation takes several appends: the server holds each whole in memory, more than once."""


_GROWTH = 8
"""A text grows by less, from the line to the events that are derived from it: it is escaped once more at most."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A conversation that waits to be appended, usually in one part."""

    file: str
    line: int
    conversation: Conversation
    parts: list[Append]


def checked(file: str, line: Line, tenant: str, max_content_bytes: int, zone: tzinfo) -> Checked | None:
    """Return the conversation of a line, None if it is blank; ``zone`` is that of times without an offset.

    Raises:
        InputError: nothing of the line can go in.
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
            conversation.events = list(_fitting(conversation.events, max_content_bytes))
        parts = [Append(conversation.id, events) for events in _parts(conversation.events, line.size)]
    except RecursionError:
        raise MalformedLine("is nested too deeply") from None
    first = 0
    for part in parts:
        try:
            EncodedAppend(tenant, [part], max_content_bytes).encode()
        except InputError as error:
            raise MalformedLine(_in_line(str(error), conversation.places[first:])) from None
        first += len(part.events)
    return Checked(file, line.number, conversation, parts)


def _parts(events: list[NewEvent], size: int) -> Iterator[list[NewEvent]]:
    """The events of a line of that many bytes, in as few appends as may be."""
    if len(events) <= MAX_EVENTS and size <= PART_BYTES:
        yield events
        return
    part: list[NewEvent] = []
    taken = 0
    for event in events:
        more = len(json.dumps(event.data.to_content()))
        if part and (len(part) == MAX_EVENTS or taken + more > PART_BYTES):
            yield part
            part, taken = [], 0
        part.append(event)
        taken += more
    yield part


def _fitting(events: list[NewEvent], limit: int) -> Iterator[NewEvent]:
    """The events, those of tasks cut to the size limit: the message that they come from holds everything."""
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


def _in_line(text: str, places: list[str]) -> str:
    """An error of an append in the words of the line: ``messages[3].name`` for ``events[4].content.extra.name``."""
    return _EVENT.sub(lambda match: places[int(match[1])], text, count=1)


# A conversation that was imported before, under another title or with other further members


async def continued(store: EventStore, tenant: str, ready: Checked) -> Checked:
    """Return the same without its first event, which the log holds already; with a renaming if the title is another.

    Raises:
        StartsDifferently: the stored conversation has another id as given (a text, and the UUID made from it).
    """
    conversation_id = ready.conversation.id
    created = ready.conversation.events[0].data
    assert isinstance(created, ConversationCreated)
    [stored] = [event async for event in store.read(conversation_id, limit=1, tenant=tenant)]
    if stored.content.get("given_id") != created.given_id:
        given_id = stored.content.get("given_id") or str(conversation_id)
        raise StartsDifferently(
            f"its UUID is that of the stored conversation {printable(given_id)!r}: give it another id"
        )
    names = store.read(
        conversation_id, types=["conversation.created", "conversation.renamed"], backwards=True, limit=1, tenant=tenant
    )
    present = [event.content.get("name", "") async for event in names]
    first, *others = ready.parts
    events = list(first.events[1:])
    if present != [created.name]:
        renamed_id = derived_uuid("import", tenant, str(conversation_id), "renamed", created.name)
        events.insert(0, NewEvent(ConversationRenamed(name=created.name), renamed_id, IMPORTER))
    parts = [Append(conversation_id, events), *others] if events else others
    return replace(ready, parts=parts)


# Conversations of the log that are not those of the lines which have their ids

_FIRST_EVENTS = query("agent_manager.importers", "first_events")


class StartsDifferently(ConflictError):
    """The log holds another conversation of this id. Nothing of the line was written."""


async def check_beginnings(store: EventStore, tenant: str, conversations: Sequence[Conversation]) -> None:
    """Check that each of these conversations is new, or was begun by an earlier import of it.

    A line may have lost its oldest messages, or have none yet. But if neither the line nor the log has the first
    message of the other, they are two conversations.

    Raises:
        StartsDifferently: one of them is another: its messages would be mixed with those of the line.
    """
    lines = {conversation.id: conversation for conversation in conversations}
    given = {
        "tenant": tenant,
        "conversations": list(lines),
        "messages": [_first_message(conversation) for conversation in conversations],
    }
    for conversation_id, first, message, has_ours in await store.log(store.caller(tenant)).fetch(_FIRST_EVENTS, given):
        line = lines[conversation_id]
        if first != line.events[0].id:
            raise StartsDifferently(
                f"conversation {conversation_id} is in the store already and was not imported from a chat log: "
                "give this one another id, or import into another tenant"
            )
        is_continued = message is None or has_ours or message in {event.id for event in line.events}
        if line.messages and not is_continued:
            raise StartsDifferently(
                f"conversation {conversation_id} begins with another message in the store: "
                "give this one another id, or import into another tenant"
            )


def _first_message(conversation: Conversation) -> UUID | None:
    return conversation.events[1].id if conversation.messages else None


# Files of chat logs into the log: several conversations to an append, and the culprit found where one is refused

GROUP_CONVERSATIONS = 50
"""At most so many in one append: it holds a lock for each until it commits."""
GROUP_EVENTS = 2_000
"""An append ends with the conversation that reaches this."""
GROUP_BYTES = 4 * 1024 * 1024
"""Of lines, that an append ends at, and after which progress is told in any case."""


async def import_files(
    store: EventStore,
    paths: Sequence[Path | str],
    *,
    tenant: str | None = None,
    strict: bool = False,
    zone: tzinfo = UTC,
    progress: Callable[[ImportProgress], None] | None = None,
) -> ImportReport:
    """Imports chat logs: JSON Lines, each line ``{"id", "title", "messages": [...]}`` in the OpenAI chat shape.

    A line goes in as a whole or not at all, unless it makes more than 10,000 events or more than 32 MiB of them. A
    line that is malformed, or contradicts what the log holds, is reported and the others go in.

    Args:
        store: an open store.
        paths: files; ``-`` is standard input.
        tenant: the store's own if left out.
        strict: stop at the first line that cannot go in.
        zone: of the times that name no offset.
        progress: called after every append and at the end.

    Raises:
        FileUnreadable: a file does not exist or cannot be read; nothing was imported, unless reading it broke off.
        ImportStopped: ``strict``, and a line cannot go in; those before it are in.
        InputError: the store is not open, or the tenant has no possible name.
        ServerError: the server failed; import the same files again to continue.
    """
    names = [str(path) for path in paths]
    tenant = checked_tenant(store.tenant if tenant is None else tenant)
    _ = store.pool  # a store that is not open is nobody's line's fault
    importer = _Importer(store, tenant, total_bytes(names), zone, progress, strict=strict)
    for name in names:
        await importer.read(name)
    await importer.flush()
    return importer.report


class _Importer:
    def __init__(
        self,
        store: EventStore,
        tenant: str,
        total: int | None,
        zone: tzinfo,
        progress: Callable[[ImportProgress], None] | None,
        *,
        strict: bool,
    ) -> None:
        self.report = ImportReport()
        self._store = store
        self._tenant = tenant
        self._total = total
        self._zone = zone
        self._progress = progress
        self._strict = strict
        self._bytes_read = 0
        self._group: list[Checked] = []
        self._group_bytes = 0

    async def read(self, file: str) -> None:
        async with aclosing(lines(file)) as found:
            async for line in found:
                self._bytes_read += line.size
                self._group_bytes += line.size
                try:
                    ready = checked(file, line, self._tenant, self._store.settings.max_content_bytes, self._zone)
                except InputError as error:
                    await self.flush()  # what stands before it goes in first
                    self._refuse(file, line.number, error)
                else:
                    if ready is not None:
                        await self._add(ready)
                if self._group_bytes >= GROUP_BYTES:
                    await self.flush()

    async def _add(self, ready: Checked) -> None:
        if len(ready.parts) > 1 or any(ready.conversation.id == other.conversation.id for other in self._group):
            await self.flush()
        self._group.append(ready)
        events = sum(len(other.conversation.events) for other in self._group)
        if len(self._group) >= GROUP_CONVERSATIONS or events >= GROUP_EVENTS or len(ready.parts) > 1:
            await self.flush()

    async def flush(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        if group:
            await self._store_group(group)
        if self._progress is not None:
            counts = self.report
            self._progress(
                ImportProgress(
                    self._bytes_read,
                    self._total,
                    counts.conversations,
                    counts.messages,
                    counts.tasks,
                    len(counts.problems),
                )
            )

    async def _store_group(self, group: list[Checked]) -> None:
        try:
            results = await self._append(group)
        except (InputError, ConflictError) as error:
            if len(group) == 1:
                await self._store_known(group[0], error)
                return
            for ready in group:
                await self._store_group([ready])
        else:
            self._count(group, results)

    async def _store_known(self, ready: Checked, error: Exception) -> None:
        """Stores a conversation whose title or further members have changed since it was imported.

        What the log holds of its beginning stays; another title becomes a renaming. Anything else is refused, a line
        whose id is another text than that of the stored conversation included.
        """
        if isinstance(error, EventIdConflict) and error.event_id == ready.conversation.events[0].id:
            try:
                known = await continued(self._store, self._tenant, ready)
                self._count([known], await self._append([known]))
            except (InputError, ConflictError) as further:
                error = further
            else:
                return
        self._refuse(ready.file, ready.line, error)

    async def _append(self, group: list[Checked]) -> list[AppendResult]:
        await check_beginnings(self._store, self._tenant, [ready.conversation for ready in group])
        if len(group) == 1:
            return [await self._store.append_all([part], tenant=self._tenant) for part in group[0].parts]
        return [await self._store.append_all([ready.parts[0] for ready in group], tenant=self._tenant)]

    def _count(self, group: list[Checked], results: list[AppendResult]) -> None:
        report = self.report
        report.conversations += len(group)
        report.messages += sum(ready.conversation.messages for ready in group)
        report.tasks += sum(ready.conversation.tasks for ready in group)
        for result in results:
            new = sum(event.is_new for event in result.events)
            report.new_events += new
            report.known_events += len(result.events) - new
            report.position = max(report.position or 0, result.position)

    def _refuse(self, file: str, line: int, error: Exception) -> None:
        problem = ImportProblem(file, line, printable(str(error), longest=500))
        self.report.problems.append(problem)
        if self._strict:
            raise ImportStopped(problem, self.report) from error
