"""Migration of a source into the store: a backup, the events that are new, and a verification.

A source is imported again and again. That is safe only if the stored conversation of an id is the source's: not one of
another source or user, nor one that was deleted at its source and begun again. Its messages would be mixed with those
of another conversation, for good. So all conversations are compared with the log before the first event is written, and
if one of them contradicts the store, nothing is written at all.

Ids repeat, so a message is identified by its id and its content: the second message of an id and content is the second
in the store too. A new message becomes the next occurrence of its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.agent_registry import checked_conversation
from agent_manager.importers.a2a_demo import FILE_PREFIX, ManagerSource, separate_file_id
from agent_manager.importers.backup import Backup, check_tenant, new_backup_path, remove_backup, write_backup
from agent_manager.importers.chat_events import split_events
from agent_manager.importers.source import (
    IMPORTER,
    MAX_NAME_CHARACTERS,
    Problem,
    Source,
    SourceConversation,
    SourceMessage,
    message_id,
    misdated_messages,
    read_time,
    stored_name,
    text_member,
)
from agent_manager.importers.stored import (
    EVENT_ID,
    MIGRATED,
    StoredConversation,
    further_task_events,
    missing_agents,
    new_task_events,
    read_agents,
    read_stored,
)
from agent_manager.importers.verify import (
    IN_STORE,
    Report,
    Verification,
    is_same_task,
    list_lines,
    match_messages,
    verify_backup,
)
from agent_manager.storage import Log, ServerLog
from eventstore import (
    NO_STREAM,
    AgentRegistered,
    ConversationArchived,
    ConversationCreated,
    ConversationReactivated,
    ConversationRenamed,
    EventData,
    EventStore,
    IdAssigner,
    MessageAdded,
    Metadata,
    NewEvent,
    Settings,
    message_from_sent,
)
from eventstore.errors import ConflictError, InputError, RetryableError, printable
from eventstore.event_types import SCHEMA_VERSION, parse
from eventstore.ids import derived_uuid
from eventstore.json_text import json_equal
from eventstore.scope import checked_tenant
from eventstore.sync import Portal
from eventstore.times import parse_zone

BACKUPS = Path("eventstore-backups")
"""The default folder of the backups."""

_TRIES = 21
_NAMED_REASONS = 5


class SourceContradictsStore(ConflictError):
    """A source has other conversations than the store under the same ids. Nothing was written."""

    def __init__(self, reasons: list[str]) -> None:
        others = f", and {len(reasons) - _NAMED_REASONS:,} more" if len(reasons) > _NAMED_REASONS else ""
        super().__init__(
            f"nothing was written: {'; '.join(reasons[:_NAMED_REASONS])}{others}: "
            "correct the source, or import into another tenant"
        )


@dataclass(slots=True)
class MigrationReport(Report):
    """The result of a migration.

    Attributes:
        new_events: how many events were appended; 0 if the store had everything already.
        problems: what the source did not give, or the store did not accept.
        misdated: messages with times that cannot be right; they were stored with these times.
    """

    backup: Backup
    new_events: int = 0
    verified: Verification = field(default_factory=Verification)
    problems: list[Problem] = field(default_factory=list)
    misdated: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.problems and not self.verified.differences

    def values(self) -> Json:
        return {
            "clean": self.is_clean,
            "tenant": self.backup.tenant,
            "source": self.backup.source,
            "backup": {"file": str(self.backup.path), "sha256": self.backup.sha256},
            "pending": self.backup.pending,
            "new_events": self.new_events,
            **self.verified.values(),
            "problems": [asdict(problem) for problem in self.problems],
            "misdated": [asdict(problem) for problem in self.misdated],
        }

    def lines(self) -> Iterator[str]:
        yield f"Source      {self.backup.source}, {len(self.backup.agents):,} agent(s)"
        yield f"Backup      {self.backup.path}"
        yield f"Imported    {self.new_events:,} new events"
        yield from self.verified.lines(IN_STORE)
        if self.backup.pending:
            yield f"Pending     {self.backup.pending:,} message(s) awaited an answer: import again when they have it"
        yield from list_lines("Problem", self.problems)
        yield from list_lines("Time", self.misdated)


async def migrate(
    source: Source,
    store: EventStore,
    *,
    backups: Path = BACKUPS,
    tenant: str | None = None,
    time_zone: str | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> MigrationReport:
    """Import what a source holds and the store does not. Run it again to import only what is new since.

    Args:
        backups: the folder for the backup of the source.
        tenant: the store's own by default.
        time_zone: the IANA name of the zone of times that have no offset; UTC by default.
        on_step: called with a description of each step before it begins, and of its progress.

    Raises:
        SourceContradictsStore: the store holds other conversations under the ids of some. Nothing was written, and the
            backup was removed.
        SourceUnreadable: the source cannot be read. Nothing was written.
        ServerError: the server failed; run the migration again to continue.
        OSError: the backup cannot be written. Nothing was stored.
    """
    on_step("backing up")
    backup_tenant = checked_tenant(store.tenant if tenant is None else tenant)
    backup = await write_backup(source, new_backup_path(backups), backup_tenant, time_zone)
    try:
        return await import_backup(backup, store, tenant=tenant, on_step=on_step)
    except SourceContradictsStore:
        remove_backup(backup)
        raise


async def import_backup(
    backup: Backup, store: EventStore, *, tenant: str | None = None, on_step: Callable[[str], None] = lambda step: None
) -> MigrationReport:
    """Import what a backup of the tenant holds and the store does not.

    Raises:
        BackupMismatch: it is of another tenant. To import it anyway, use :func:`migrate` with a :class:`BackupSource`.
        SourceContradictsStore: the store holds other conversations under the ids of some. Nothing was written.
    """
    tenant = checked_tenant(store.tenant if tenant is None else tenant)
    check_tenant(backup, tenant)
    on_step("importing")
    report = await load_backup(ServerLog(store, tenant), backup, on_step)
    on_step("verifying")
    report.verified = await verify_backup(store, tenant, backup)
    return report


def migrate_from(
    manager: Any,
    *,
    files: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    backups: Path | str = BACKUPS,
    tenant: str | None = None,
    time_zone: str | None = None,
) -> MigrationReport:
    """Import what a manager in this process holds. Call it from any thread; it returns when everything is verified.

    Args:
        manager: the demo application's, ours, or one like them.
        files: the files that the application's server keeps apart from its messages, as the demo's
            ``server._file_cache``.
        settings: of the store; from the environment and ``.env`` by default.
        backups: the folder for the backup of what the manager holds.
        tenant: the store's own by default.
        time_zone: the IANA name of the zone of times that have no offset; UTC by default.

    Raises:
        SourceUnreadable: the manager holds something that has no JSON form. Nothing was written.
        EventStoreError: the store cannot be used.
    """

    async def run() -> MigrationReport:
        async with EventStore(settings) as store:
            source = ManagerSource(manager, files)
            return await migrate(source, store, backups=Path(backups), tenant=tenant, time_zone=time_zone)

    portal = Portal()
    try:
        return portal.call(run())
    finally:
        portal.close()


# A backup is loaded into a log: only what is new, and only into conversations that are the source's


async def load_backup(log: Log, backup: Backup, on_step: Callable[[str], None] = lambda step: None) -> MigrationReport:
    """Append the events of a backup that a log does not have. The report is without a verification.

    Raises:
        SourceContradictsStore: the log holds other conversations under the ids of some.
        InputError: the backup names a time zone that is not known.
        ServerError: the server failed; load the backup again to continue.
    """
    zone = UTC if backup.time_zone is None else parse_zone(backup.time_zone, "time_zone")
    loader = _Loader(log, zone, MigrationReport(backup))
    await loader.check(backup)
    await loader.register_agents(backup.agents)
    count = 0
    async for source, stored in backup.read_with(loader.read):
        # Appended one after the other: if times are unknown, this is the conversations' order.
        if not isinstance(stored, StoredConversation):
            loader.reject(source, stored)
        elif not stored.is_deleted:  # users of the store do not want it any more
            await loader.load(source, stored)
        count += 1
        on_step(f"importing: {count:,} of {backup.conversations:,} conversations")
    return loader.report


@dataclass(slots=True)
class _Loader:
    log: Log
    zone: tzinfo
    report: MigrationReport

    async def check(self, backup: Backup) -> None:
        """Compare all conversations with the log, before anything is written."""
        reasons: list[str] = []
        given_ids: dict[UUID, str] = {}
        async for source, stored in backup.read_with(self.read):
            self.report.misdated += misdated_messages(source, backup.taken_at)
            if not isinstance(stored, StoredConversation):
                continue
            if reason := _contradiction(source, stored):
                reasons.append(reason)
            if (given_id := given_ids.setdefault(stored.id, source.id)) != source.id:
                reasons.append(printable(f"conversations {given_id!r} and {source.id!r} are one in the store"))
        if reasons:
            raise SourceContradictsStore(reasons)

    async def read(self, source: SourceConversation) -> StoredConversation | InputError:
        """Return the conversation as the log has it, or why it cannot be stored."""
        try:
            conversation_id = checked_conversation(self.log.tenant, source.id)
        except InputError as error:
            return error
        return await read_stored(self.log, conversation_id)

    async def register_agents(self, cards: list[Json]) -> None:
        stored = await read_agents(self.log)
        missing = missing_agents(cards, stored).items()
        await self._append(stored, [_import_event(AgentRegistered(url=url, card=card)) for url, card in missing])

    async def load(self, source: SourceConversation, stored: StoredConversation) -> None:
        """Append the events of a conversation that are missing, again if another writer appends meanwhile."""
        for tries_left in reversed(range(_TRIES)):
            try:
                if reason := _contradiction(source, stored):  # another writer began it since the check
                    raise SourceContradictsStore([reason])
                await self._append(stored, _missing_events(source, stored, self.log.tenant, self.zone))
            except (InputError, SourceContradictsStore) as error:
                self.reject(source, error)
                return
            except (ConflictError, RetryableError) as error:  # another writer appended since it was read
                if not tries_left:
                    self.reject(source, error)
                    return
                stored = await read_stored(self.log, stored.id)
            else:
                self.report.problems += _missing_files(source, stored)
                return

    async def _append(self, stored: StoredConversation, events: list[NewEvent]) -> None:
        version = stored.version
        for part in split_events(events):
            version = (await self.log.append(stored.id, part, version or NO_STREAM)).version
            self.report.new_events += len(part)

    def reject(self, source: SourceConversation, error: Exception) -> None:
        self.report.problems.append(Problem(source.id, "not imported", printable(str(error), longest=500)))


def _missing_files(source: SourceConversation, stored: StoredConversation) -> Iterator[Problem]:
    """Yield the files that only the source's server has, unless an earlier import brought them."""
    messages = stored.conversation.messages
    for index, match in enumerate(match_messages(source.messages, messages)):
        message = source.messages[index] if match is None else messages[match]
        for part_index, part in enumerate(message.wire.get("parts") or ()):
            if (file_id := separate_file_id(part)) is not None:
                reason = (
                    f"the file {FILE_PREFIX}{file_id} is missing: the source's server did not give it: "
                    "call migrate_from with files="
                )
                yield Problem(source.id, f"messages[{index}].parts[{part_index}]", reason)


# The events that the log does not have


def _missing_events(
    source: SourceConversation, stored: StoredConversation, tenant: str, zone: tzinfo
) -> list[NewEvent]:
    """Return the events that are missing. What users of the store have changed since the import stays as it is."""
    events: list[NewEvent] = []
    name, metadata = stored_name(source)
    if not stored.version:
        given_id = source.id if source.id != str(stored.id) else None
        created = ConversationCreated(name=name, given_id=given_id, metadata=metadata)
        event_id = derived_uuid("migration", tenant, str(stored.id), "created")
        events.append(NewEvent(created, event_id, IMPORTER, _metadata(source.created_at)))
    elif name != stored.conversation.name[:MAX_NAME_CHARACTERS] and "name" not in stored.changes.members:
        events.append(_import_event(ConversationRenamed(name=name)))
    events += _message_events(source, stored, tenant)
    events += _task_events(source, stored, tenant, zone)
    for event in source.events:
        event_id = derived_uuid("migration", tenant, str(stored.id), "event", event.id)
        if event_id not in stored.event_times:
            data = parse(event.type, SCHEMA_VERSION, event.content)
            actor = str(data.role) if isinstance(data, MessageAdded) else IMPORTER
            events.append(NewEvent(data, event_id, actor, _metadata(event.time, **{EVENT_ID: event.id})))
    if source.is_active != stored.conversation.is_active and "is_active" not in stored.changes.members:
        events.append(_import_event(ConversationReactivated() if source.is_active else ConversationArchived()))
    return events


def _message_events(source: SourceConversation, stored: StoredConversation, tenant: str) -> Iterator[NewEvent]:
    assigner = IdAssigner(tenant, stored.id, "message")
    messages = stored.conversation.messages
    for message in messages:
        assigner.assign(message_id(message.wire))
    for message, match in zip(source.messages, match_messages(source.messages, messages), strict=True):
        if match is None:
            given_id = message_id(message.wire)
            while (event_id := assigner.assign(given_id)) in stored.event_times:
                pass  # another writer counted the occurrences of this id differently
            added = message_from_sent(message.wire, given_id=given_id or None)
            yield NewEvent(added, event_id, str(added.role), _metadata(message.time))


def _task_events(
    source: SourceConversation, stored: StoredConversation, tenant: str, zone: tzinfo
) -> Iterator[NewEvent]:
    assigner = IdAssigner(tenant, stored.id, "task")
    for index, task in enumerate(source.tasks):
        task_id = assigner.assign(text_member(task, "id"))
        known = stored.tasks.get(task_id)
        if known is None:
            events = new_task_events(tenant, stored.id, task_id, task)
        elif known.is_changed or is_same_task(known.wire, source, index):
            continue
        else:
            events = further_task_events(tenant, stored.id, task_id, known.events, task)
        status = task.get("status")
        time = read_time(status.get("timestamp"), zone) if isinstance(status, dict) else None
        for data in events:
            yield _import_event(data, time)


def _import_event(data: EventData, time: datetime | None = None) -> NewEvent:
    return NewEvent(data, actor=IMPORTER, metadata=_metadata(time))


def _metadata(time: datetime | None = None, **members: str) -> Metadata:
    return Metadata(occurred_at=time, **{MIGRATED: True}, **members)


# The check that the stored conversation of an id is the source's


def _contradiction(source: SourceConversation, stored: StoredConversation) -> str | None:
    """Return why the stored conversation is not the source's; None if it is, or if nothing is stored."""
    if not stored.version:
        return None
    reason = _other_identity(source, stored.conversation) or _other_beginning(source, stored)
    return reason and printable(f"conversation {source.id!r} is another in the store: {reason}", longest=500)


def _other_identity(source: SourceConversation, stored: SourceConversation) -> str | None:
    if stored.id != source.id:
        return f"there its id is {stored.id!r}"
    if source.metadata is None:
        return None
    if not json_equal(source.metadata, stored.metadata):
        return f"its metadata is {source.metadata} at the source, {stored.metadata} in the store"
    if None not in (source.created_at, stored.created_at) and source.created_at != stored.created_at:
        return f"it began at {source.created_at} at the source, at {stored.created_at} in the store"
    return None


def _other_beginning(source: SourceConversation, stored: StoredConversation) -> str | None:
    """Return which message contradicts the store.

    Messages may be missing on either side: a source in memory drops the oldest, and those of other writers arrive late.
    But if neither side has the first message of the other, they are two conversations. And a message never changes.
    """
    messages, migrated = stored.conversation.messages, stored.migrated_messages
    if not source.messages or not (migrated or (messages and not stored.is_migrated)):
        return None
    matches = match_messages(source.messages, messages)
    first = migrated[0] if migrated else 0
    if matches[0] is None and first not in matches:
        return f"it begins with {_named(source.messages[0])}, there with {_named(messages[first])}"
    stored_counts = Counter(message_id(message.wire) for message in messages)
    source_counts = Counter(message_id(message.wire) for message in source.messages)
    unmatched = {message_id(messages[index].wire) for index in set(migrated).difference(matches)} - {""}
    for message, match in zip(source.messages, matches, strict=True):
        given_id = message_id(message.wire)
        if match is None and given_id in unmatched and stored_counts[given_id] == source_counts[given_id] == 1:
            return f"{_named(message)} was changed since it was stored"
    return None


def _named(message: SourceMessage) -> str:
    return f"message {message_id(message.wire) or '(without an id)'!r}"
