"""Loading a backup into the log: only what is new, and only into conversations that are the source's.

A source is imported again and again. That is safe only if the stored conversation of an id is the source's: not one of
another source or user, nor one that was deleted at its source and begun again. Its messages would be mixed with those
of another conversation, for good. So all conversations are compared with the log before the first event is written, and
if one of them contradicts the store, nothing is written at all.

Ids repeat, so a message is identified by its id and its content: the second message of an id and content is the second
in the store too. A new message becomes the next occurrence of its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.agent_registry import AGENTS, checked_conversation, url_of
from agent_manager.importers.a2a_demo import FILE_PREFIX, separate_file_id
from agent_manager.importers.backup import Backup
from agent_manager.importers.chat_log import IMPORTER, read_time, time_zone
from agent_manager.importers.chat_log_importer import split_events
from agent_manager.importers.comparison import is_same_task, match_messages
from agent_manager.importers.source import (
    Problem,
    SourceConversation,
    canonical_card,
    message_id,
    misdated_messages,
    original_name,
    stored_name,
    text_member,
)
from agent_manager.importers.stored import (
    MIGRATED,
    Stored,
    further_task_events,
    is_migrated,
    new_task_events,
    read_events,
    read_stored,
)
from agent_manager.storage import Log
from eventstore import (
    NO_STREAM,
    AgentRegistered,
    AgentUnregistered,
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationReactivated,
    ConversationRenamed,
    IdAssigner,
    Metadata,
    NewEvent,
    conversation_uuid,
    message_from_sent,
)
from eventstore.concurrency import gather_or_raise
from eventstore.errors import ConflictError, InputError, RetryableError, printable
from eventstore.ids import derived_uuid
from eventstore.json_text import json_equal

EVENT_ID = "source_id"
"""The member of an application event's metadata that holds its id at the source."""

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


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of an import.

    Attributes:
        conversations: how many are done.
        total: how many there are.
        new_events: how many were appended so far.
    """

    conversations: int
    total: int
    new_events: int


@dataclass(slots=True)
class BackupLoader:
    """The import of one backup into a log.

    Attributes:
        new_events: how many events were appended.
        problems: conversations that were not imported this time, and files that the source did not give.
        misdated: messages with times that cannot be right.
    """

    log: Log
    new_events: int = 0
    problems: list[Problem] = field(default_factory=list)
    misdated: list[Problem] = field(default_factory=list)

    async def load(self, backup: Backup, on_progress: Callable[[LoadProgress], None] | None = None) -> None:
        """Import agents and conversations.

        Raises:
            SourceContradictsStore: the log holds other conversations under the ids of some.
            InputError: the backup names a time zone that is not known.
            ServerError: the server failed; load the backup again to continue.
        """
        zone = UTC if backup.time_zone is None else time_zone(backup.time_zone)
        await self._check(backup)
        await self._register_agents(backup.agents)
        done = 0
        for batch in backup.read_batches():
            # Read concurrently, appended one after the other: if times are unknown, this is the conversations' order.
            found = await gather_or_raise(self._read(conversation) for conversation in batch)
            for source, stored in zip(batch, found, strict=True):
                if not isinstance(stored, Stored):
                    self._reject(source, stored)
                elif not stored.is_deleted:  # users of the store do not want it any more
                    await self._load_conversation(source, stored, zone)
            done += len(batch)
            if on_progress is not None:
                on_progress(LoadProgress(done, backup.conversations, self.new_events))

    async def _check(self, backup: Backup) -> None:
        reasons: list[str] = []
        ids: dict[UUID, str] = {}
        for batch in backup.read_batches():
            found = await gather_or_raise(self._read(conversation) for conversation in batch)
            for source, stored in zip(batch, found, strict=True):
                self.misdated += misdated_messages(source, backup.taken_at)
                if not isinstance(stored, Stored):
                    continue
                if reason := contradiction(source, stored):
                    reasons.append(reason)
                if (given_id := ids.setdefault(stored.id, source.id)) != source.id:
                    reasons.append(printable(f"conversations {given_id!r} and {source.id!r} are one in the store"))
        if reasons:
            raise SourceContradictsStore(reasons)

    async def _read(self, source: SourceConversation) -> Stored | InputError:
        """Return the conversation as the log has it, or why it cannot be stored."""
        try:
            conversation_id = checked_conversation(self.log.tenant, source.id)
        except InputError as error:
            return error
        return await read_stored(self.log, conversation_id)

    async def _register_agents(self, cards: list[Json]) -> None:
        stored = await stored_agents(self.log)
        events = [
            NewEvent(AgentRegistered(url=url, card=card), actor=IMPORTER, metadata=_metadata())
            for url, card in missing_agents(cards, stored).items()
        ]
        if events:
            await self.log.append(conversation_uuid(self.log.tenant, AGENTS), events, stored.version or NO_STREAM)
            self.new_events += len(events)

    async def _load_conversation(self, source: SourceConversation, stored: Stored, zone: tzinfo) -> None:
        for tries_left in reversed(range(_TRIES)):
            try:
                if reason := contradiction(source, stored):  # another writer began it since the check
                    raise SourceContradictsStore([reason])
                await self._append(missing_events(source, stored, self.log.tenant, zone), stored)
            except (InputError, SourceContradictsStore) as error:
                self._reject(source, error)
                return
            except (ConflictError, RetryableError) as error:  # another writer appended since it was read
                if not tries_left:
                    self._reject(source, error)
                    return
                stored = await read_stored(self.log, stored.id)
            else:
                self.problems += _missing_files(source, stored)
                return

    async def _append(self, events: list[NewEvent], stored: Stored) -> None:
        version = stored.version
        for part in split_events(events):
            version = (await self.log.append(stored.id, part, version or NO_STREAM)).version
            self.new_events += len(part)

    def _reject(self, source: SourceConversation, error: Exception) -> None:
        self.problems.append(Problem(source.id, "not imported", printable(str(error), longest=500)))


def _missing_files(source: SourceConversation, stored: Stored) -> Iterator[Problem]:
    """Yield the files that only the source's server has, unless an earlier import brought them."""
    matches = match_messages(source.messages, [message.sent for message in stored.messages])
    for index, (message, match) in enumerate(zip(source.messages, matches, strict=True)):
        wire = message.wire if match is None else stored.messages[match].sent
        for part_index, part in enumerate(wire.get("parts") or ()):
            if (file_id := separate_file_id(part)) is not None:
                reason = (
                    f"the file {FILE_PREFIX}{file_id} is missing: the source's server did not give it: "
                    "call migrate_from with files="
                )
                yield Problem(source.id, f"messages[{index}].parts[{part_index}]", reason)


# The events that the log does not have


def missing_events(source: SourceConversation, stored: Stored, tenant: str, zone: tzinfo = UTC) -> list[NewEvent]:
    """Return the events that are missing. What users of the store have changed since the import stays as it is.

    Args:
        zone: the zone of times without an offset.

    Raises:
        InputError: something cannot be stored.
    """
    return [
        *_creation_events(source, stored, tenant),
        *_message_events(source, stored, tenant),
        *_task_events(source, stored, tenant, zone),
        *_application_events(source, stored, tenant),
        *_activity_events(source, stored),
    ]


def _creation_events(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    name, metadata = stored_name(source)
    if not stored.version:
        given_id = source.id if source.id != str(stored.id) else None
        created = ConversationCreated(name=name, given_id=given_id, metadata=metadata)
        event_id = derived_uuid("migration", tenant, str(stored.id), "created")
        yield NewEvent(created, event_id, IMPORTER, _metadata(source.created_at))
    elif name != stored.name and "name" not in stored.changed:
        yield NewEvent(ConversationRenamed(name=name), actor=IMPORTER, metadata=_metadata())


def _message_events(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    assigner = IdAssigner(tenant, stored.id, "message")
    for known in stored.messages:
        assigner.assign(message_id(known.sent))
    stored_ids = {known.event_id for known in stored.messages}
    matches = match_messages(source.messages, [known.sent for known in stored.messages])
    for message, match in zip(source.messages, matches, strict=True):
        if match is None:
            given_id = message_id(message.wire)
            while (event_id := assigner.assign(given_id)) in stored_ids:
                pass  # another writer counted the occurrences of this id differently
            added = message_from_sent(message.wire, given_id=given_id or None)
            yield NewEvent(added, event_id, str(added.role), _metadata(message.time))


def _task_events(source: SourceConversation, stored: Stored, tenant: str, zone: tzinfo) -> Iterator[NewEvent]:
    assigner = IdAssigner(tenant, stored.id, "task")
    for index, task in enumerate(source.tasks):
        task_id = assigner.assign(text_member(task, "id"))
        known = stored.tasks.get(task_id)
        if known is None:
            events = new_task_events(tenant, stored.id, task_id, task)
        elif known.changed or is_same_task(known.wire([]), source, index):
            continue
        else:
            events = further_task_events(tenant, stored.id, task_id, known.events, task)
        status = task.get("status")
        time = read_time(status.get("timestamp"), zone) if isinstance(status, dict) else None
        for data in events:
            yield NewEvent(data, actor=IMPORTER, metadata=_metadata(time))


def _application_events(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    for event in source.events:
        event_id = derived_uuid("migration", tenant, str(stored.id), "event", event.id)
        if event_id not in stored.events:
            metadata = Metadata(occurred_at=event.time, **{MIGRATED: True, EVENT_ID: event.id})
            yield NewEvent(ApplicationEvent(event.type, event.content), event_id, IMPORTER, metadata)


def _activity_events(source: SourceConversation, stored: Stored) -> Iterator[NewEvent]:
    if source.is_active != stored.is_active and "is_active" not in stored.changed:
        data = ConversationReactivated() if source.is_active else ConversationArchived()
        yield NewEvent(data, actor=IMPORTER, metadata=_metadata())


def _metadata(time: datetime | None = None) -> Metadata:
    return Metadata(occurred_at=time, **{MIGRATED: True})


# The check that the stored conversation of an id is the source's


def contradiction(source: SourceConversation, stored: Stored) -> str | None:
    """Return why the stored conversation is not the source's; None if it is, or if nothing is stored."""
    if not stored.version:
        return None
    reason = _other_identity(source, stored) or _other_beginning(source, stored)
    return reason and printable(f"conversation {source.id!r} is another in the store: {reason}", longest=500)


def _other_identity(source: SourceConversation, stored: Stored) -> str | None:
    if stored.given_id != source.id:
        return f"there its id is {stored.given_id!r}"
    if source.metadata is None:
        return None
    _, metadata = original_name(stored.name, stored.metadata)
    if not json_equal(source.metadata, metadata):
        return f"its metadata is {source.metadata} at the source, {metadata} in the store"
    if None not in (source.created_at, stored.created_at) and source.created_at != stored.created_at:
        return f"it began at {source.created_at} at the source, at {stored.created_at} in the store"
    return None


def _other_beginning(source: SourceConversation, stored: Stored) -> str | None:
    """Return which message contradicts the store.

    Messages may be missing on either side: memory forgets the oldest ones, and those of several writers arrive late.
    But if neither side has the first message of the other, they are two conversations. And a message never changes.
    """
    migrated = [index for index, message in enumerate(stored.messages) if message.is_migrated]
    if not source.messages or not (migrated or (stored.messages and not stored.is_migrated)):
        return None
    matches = match_messages(source.messages, [message.sent for message in stored.messages])
    first = migrated[0] if migrated else 0
    if matches[0] is None and first not in matches:
        return f"it begins with {_named(source.messages[0].wire)}, there with {_named(stored.messages[first].sent)}"
    stored_counts = Counter(message_id(message.sent) for message in stored.messages)
    source_counts = Counter(message_id(message.wire) for message in source.messages)
    unmatched = {message_id(stored.messages[index].sent) for index in set(migrated).difference(matches)} - {""}
    for message, match in zip(source.messages, matches, strict=True):
        given_id = message_id(message.wire)
        if match is None and given_id in unmatched and stored_counts[given_id] == source_counts[given_id] == 1:
            return f"{_named(message.wire)} was changed since it was stored"
    return None


def _named(message: Json) -> str:
    return f"message {message_id(message) or '(without an id)'!r}"


# The registered agents, which the log holds as events of a reserved conversation


@dataclass(slots=True)
class StoredAgents:
    """The agents of the log.

    Attributes:
        cards: the registered agents' cards, by URL.
        changed: URLs that users of the store, not an import, have registered or unregistered last.
        version: the version of the reserved conversation.
    """

    cards: dict[str, Json] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    version: int = 0


async def stored_agents(log: Log) -> StoredAgents:
    """Return the agents as the log has them now."""
    stored = StoredAgents()
    async for event in read_events(log, conversation_uuid(log.tenant, AGENTS)):
        stored.version = event.version
        data = event.data
        if isinstance(data, AgentRegistered):
            stored.cards[data.url] = data.card
        elif isinstance(data, AgentUnregistered):
            stored.cards.pop(data.url, None)
        else:
            continue
        (stored.changed.discard if is_migrated(event) else stored.changed.add)(data.url)
    return stored


def missing_agents(cards: list[Json], stored: StoredAgents) -> dict[str, Json]:
    """Return the agents that the log does not have as they are, unless users of the store have changed them since."""
    return {
        url: card
        for url, card in cards_by_url(cards).items()
        if url not in stored.changed
        and not (url in stored.cards and json_equal(canonical_card(stored.cards[url]), canonical_card(card)))
    }


def cards_by_url(cards: list[Json]) -> dict[str, Json]:
    """Return cards by the URL, or else the name, in them. An application may list an agent twice."""
    return {url_of(card) or text_member(card, "name"): card for card in cards}
