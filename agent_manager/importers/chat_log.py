"""Chat logs: the import of files of conversations, in the OpenAI chat format and those of other programs.

:mod:`~agent_manager.importers.chat_files` divides files into values, each of which holds a conversation, and
:mod:`~agent_manager.importers.formats` reads it. A conversation is checked to its last event before anything of it
is written. Several conversations go into one append; if that is rejected, they are appended one by one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from uuid import UUID

from agent_manager.importers.chat_events import (
    Conversation,
    OpenCalls,
    conversation_of_chat,
    shortened,
    split_events,
    whole_id,
)
from agent_manager.importers.chat_files import expanded, total_bytes, values
from agent_manager.importers.chats import Chat, MalformedChat, NotRecognised, parse
from agent_manager.importers.formats import FORMATS, RECOGNISED, ChatReader, is_many
from agent_manager.importers.json_values import MAX_VALUE_BYTES, JsonValue, NotJson
from agent_manager.importers.source import IMPORTER
from agent_manager.importers.stored_chats import StartsDifferently, check_beginnings, continuation, names_of, renaming
from eventstore import Append, AppendResult, ConversationCreated, EventStore
from eventstore.append import AppendRequest
from eventstore.errors import ConflictError, EventIdConflict, InputError, printable
from eventstore.scope import Caller, checked_tenant

GROUP_CONVERSATIONS = 50
"""The most conversations in one append, which locks each of them until it commits."""
GROUP_EVENTS = 2_000
"""An append ends with the conversation that reaches this number."""
GROUP_BYTES = 4 * 1024 * 1024
"""An append ends, and progress is reported, when this many bytes were read."""
MAX_PROBLEMS = 10
"""The most problems of a file that a report has in full; the others are counted."""
_EVENT = re.compile(r"\bevents\[(\d+)\](?:\.content(?:\.extra)?)?(?=[ .:\[])")
"""An event of an append in the text of an error."""
FORMAT_NAMES = tuple(each.name for each in reversed(FORMATS))
"""The formats that can be imported."""
_EXPECTED = f"recognised are {RECOGNISED}"


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """The reason why a conversation in a file, or a file, cannot be imported.

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
        rejected: how many conversations, and files that hold none, were not imported.
        problems: what is wrong with them, in the order of the files; of a file the first ten, and how many more.
        unread_times: likewise, the places whose time could not be read; what is there is dated by the import.
        left_out: what the imported conversations have in the file and not in the log, such as messages of other
            branches, with its number.
        position: the highest position of the events; None if there are none.
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
    """The findings in a file so far.

    Attributes:
        unrecognised, held_back: how many values no format fits, and the problems of the first ones.
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
        conversation.events = shortened(conversation.events, limit, value.size)
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
                await self._append([await continuation(self.store, self.tenant, conversation)])
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
            Append(conversation_id, [renaming(self.tenant, known[conversation_id][0], named_by)])
            for conversation_id, named_by, name, actor in await names_of(self.store, self.tenant, list(known))
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
