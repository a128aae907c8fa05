"""Loading a backup into the log: only what is new.

Ids repeat, so a message is known by its id and by what it holds: the second of the same id and content is the second
in the store too. What is new becomes the next occurrence of its id.

A source is read again and again, and only what is new goes in. That is safe only if what the store holds under a
conversation's id is that conversation: not one of another source or user, nor one that was deleted at its source and
begun again. Such a conversation would be continued by the messages of another, for good. So all conversations are
compared before anything is written.

All conversations are compared with the log before the first is written: if the log holds another one under the identity
of one of them, nothing is written at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import islice
from uuid import UUID

from agent_manager.agent_registry import AGENTS, checked_conversation, url_of
from agent_manager.importers.a2a_demo import LOCAL, local_file, same_but_for_files, same_but_for_names
from agent_manager.importers.backup import Backup
from agent_manager.importers.chat_log import read_time, time_zone
from agent_manager.importers.chat_log_importer import PART_BYTES
from agent_manager.importers.source import (
    Json,
    Problem,
    SourceConversation,
    SourceMessage,
    canonical_card,
    canonical_message,
    canonical_task,
    fitted,
    full_name,
    message_id,
    misdated,
    text_member,
)
from agent_manager.importers.stored import MIGRATED, Stored, begun, gone_on, is_migrated, read_events, read_stored
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
from eventstore.append import MAX_EVENTS
from eventstore.concurrency import gather_or_raise
from eventstore.errors import ConflictError, InputError, RetryableError, printable
from eventstore.ids import derived_uuid
from eventstore.json_text import equal

# Which messages and tasks of a source the store has already, and under which ids the others go in


def matches(messages: Sequence[SourceMessage], sent: Sequence[Json]) -> list[int | None]:
    """For each message the place of the one among ``sent`` that it is; no place twice."""
    free: dict[str, list[int]] = {}
    for place, one in enumerate(sent):
        free.setdefault(message_id(one), []).append(place)
    found: list[int | None] = []
    for sought in messages:
        candidates = free.get(message_id(sought.wire), [])
        known = next((place for place in candidates if is_same(sent[place], sought)), None)
        if known is not None:
            candidates.remove(known)
        found.append(known)
    return found


def is_same(sent: Json, message: SourceMessage) -> bool:
    """Whether a stored message is this one."""
    sent, wire = canonical_message(sent), message.wire
    return equal(sent, wire) or same_but_for_files(sent, wire, message.fetched)


def is_same_task(stored: Json, source: SourceConversation, place: int) -> bool:
    """Whether a stored task is the source's in that place."""
    stored, task = canonical_task(stored), source.tasks[place]
    return equal(stored, task) or (place in source.fetched_tasks and same_but_for_names(stored, task))


class MessageIds:
    """Gives ids to the messages that come after those which a conversation has."""

    def __init__(self, tenant: str, stored: Stored) -> None:
        self._assigner = IdAssigner(tenant, stored.id, "message")
        self._taken = Counter(event.event_id for event in stored.messages)
        for message in stored.messages:
            self._assigner.assign(message_id(message.sent))

    def next(self, wire: Json) -> UUID:
        """The id of the next message."""
        while (assigned := self._assigner.assign(message_id(wire))) in self._taken:
            pass  # whoever stored that one counted otherwise
        return assigned


def task_ids(source: SourceConversation, tenant: str, conversation_id: UUID) -> Iterator[tuple[UUID, Json]]:
    """The tasks of a source with their ids: the second of one name is the second in the store."""
    assigner = IdAssigner(tenant, conversation_id, "task")
    for task in source.tasks:
        yield assigner.assign(text_member(task, "id")), task


# What a conversation of a source adds to the log: the events for what the log does not have

ACTOR = "importer"
"""Who takes over conversations, tasks and agents; a message is of its role."""
EVENT_ID = "source_id"
"""Where in the metadata of an application's event stands how its source calls it."""


def plan(source: SourceConversation, stored: Stored, tenant: str, zone: tzinfo = UTC) -> list[NewEvent]:
    """Return the events that are missing. What the store's own users have changed since is left as it is.

    Args:
        zone: of times without an offset.

    Raises:
        InputError: something cannot be stored.
    """
    return [
        *_conversation(source, stored, tenant),
        *_messages(source, stored, tenant),
        *_tasks(source, stored, tenant, zone),
        *_events(source, stored, tenant),
        *_activity(source, stored),
    ]


def event_uuid(tenant: str, conversation_id: UUID, given_id: str) -> UUID:
    """The id of an event that is neither message nor task, in the log."""
    return derived_uuid("migration", tenant, str(conversation_id), "event", given_id)


def _conversation(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    name, metadata = fitted(source)
    if not stored.version:
        created = ConversationCreated(
            name=name, given_id=source.id if source.id != str(stored.id) else None, metadata=metadata
        )
        yield NewEvent(
            created, derived_uuid("migration", tenant, str(stored.id), "created"), ACTOR, _about(source.created_at)
        )
    elif name != stored.name and "name" not in stored.changed:
        yield NewEvent(ConversationRenamed(name=name), actor=ACTOR, metadata=_about(None))


def _messages(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    ids = MessageIds(tenant, stored)
    found = matches(source.messages, [message.sent for message in stored.messages])
    for message, known in zip(source.messages, found, strict=True):
        if known is None:
            added = message_from_sent(message.wire, given_id=message_id(message.wire) or None)
            yield NewEvent(added, ids.next(message.wire), str(added.role), _about(message.time))


def _tasks(source: SourceConversation, stored: Stored, tenant: str, zone: tzinfo) -> Iterator[NewEvent]:
    for place, (task_id, task) in enumerate(task_ids(source, tenant, stored.id)):
        known = stored.tasks.get(task_id)
        if known is None:
            events = begun(tenant, stored.id, task_id, task)
        elif known.changed or is_same_task(known.wire([]), source, place):
            continue
        else:
            events = gone_on(tenant, stored.id, task_id, known.events, task)
        status = task.get("status")
        moment = read_time(status.get("timestamp"), zone) if isinstance(status, dict) else None
        for data in events:
            yield NewEvent(data, actor=ACTOR, metadata=_about(moment))


def _events(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    for event in source.events:
        event_id = event_uuid(tenant, stored.id, event.id)
        if event_id not in stored.events:
            about = Metadata(occurred_at=event.time, **{MIGRATED: True, EVENT_ID: event.id})
            yield NewEvent(ApplicationEvent(event.type, event.content), event_id, ACTOR, about)


def _activity(source: SourceConversation, stored: Stored) -> Iterator[NewEvent]:
    if source.is_active != stored.is_active and "is_active" not in stored.changed:
        data = ConversationReactivated() if source.is_active else ConversationArchived()
        yield NewEvent(data, actor=ACTOR, metadata=_about(None))


def _about(moment: datetime | None) -> Metadata:
    return Metadata(occurred_at=moment, **{MIGRATED: True})


# Conversations of a source that the store holds under the same identity, but with another beginning

_NAMED = 5


class SourceContradictsStore(ConflictError):
    """A source has conversations that begin otherwise than the stored ones of their ids. Nothing was written."""

    def __init__(self, reasons: list[str]) -> None:
        more = f", and {len(reasons) - _NAMED:,} more" if len(reasons) > _NAMED else ""
        super().__init__(
            f"nothing was written: {'; '.join(reasons[:_NAMED])}{more}: "
            "correct the source, or import into another tenant"
        )


def contradiction(source: SourceConversation, stored: Stored) -> str | None:
    """Return why the stored conversation is not the source's; None if it is, or if nothing is stored."""
    if not stored.version:
        return None
    why = _other_identity(source, stored) or _other_beginning(source, stored)
    return why and printable(f"conversation {source.id!r} is another in the store: {why}", longest=500)


def _other_identity(source: SourceConversation, stored: Stored) -> str | None:
    if stored.given_id != source.id:
        return f"there its id is {stored.given_id!r}"
    if source.metadata is None:
        return None
    _, metadata = full_name(stored.name, stored.metadata)
    if not equal(source.metadata, metadata):
        return f"its metadata is {source.metadata} at the source, {metadata} in the store"
    if None not in (source.created_at, stored.created_at) and source.created_at != stored.created_at:
        return f"it began at {source.created_at} at the source, at {stored.created_at} in the store"
    return None


def _other_beginning(source: SourceConversation, stored: Stored) -> str | None:
    """Return which message contradicts the store.

    Messages may be missing on either side: memory forgets the oldest ones, and those of several writers arrive late.
    But if neither side has the first message of the other, they are two conversations. And a message never changes.
    """
    brought = [place for place, message in enumerate(stored.messages) if message.is_migrated]
    if not source.messages or not (brought or (stored.messages and not stored.is_migrated)):
        return None
    found = matches(source.messages, [message.sent for message in stored.messages])
    first = brought[0] if brought else 0
    if found[0] is None and first not in found:
        return f"it begins with {_named(source.messages[0].wire)}, there with {_named(stored.messages[first].sent)}"
    times_stored = Counter(message_id(message.sent) for message in stored.messages)
    times_sent = Counter(message_id(message.wire) for message in source.messages)
    changed = {message_id(stored.messages[place].sent) for place in brought if place not in found} - {""}
    for message, place in zip(source.messages, found, strict=True):
        name = message_id(message.wire)
        if place is None and name in changed and times_stored[name] == times_sent[name] == 1:
            return f"{_named(message.wire)} was changed since it was stored"
    return None


def _named(message: Json) -> str:
    return f"message {message_id(message) or '(without an id)'!r}"


# The registered agents: in the log they are events of a reserved conversation


def agent_url(card: Json) -> str:
    """Under what an agent is registered: the URL in its card, or its name where that has none."""
    return url_of(card) or text_member(card, "name")


@dataclass(slots=True)
class StoredAgents:
    """The agents of the log.

    Attributes:
        cards: of those that are registered, by their URL.
        changed: URLs that others than a migration have registered or unregistered last.
        version: of the reserved conversation.
    """

    cards: dict[str, Json] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    version: int = 0


async def stored_agents(log: Log) -> StoredAgents:
    """The agents as the log has them now."""
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


def by_url(cards: list[Json]) -> dict[str, Json]:
    """Cards by the URL of their agent: an application may list one twice that was registered twice."""
    return {agent_url(card): card for card in cards}


def missing_agents(cards: list[Json], stored: StoredAgents) -> dict[str, Json]:
    """The agents that the log does not have as they are; those that its own users have changed since count as there."""
    return {
        url: card
        for url, card in by_url(cards).items()
        if url not in stored.changed
        and not (url in stored.cards and equal(canonical_card(stored.cards[url]), canonical_card(card)))
    }


async def take_over_agents(log: Log, cards: list[Json]) -> int:
    """Registers the agents that are missing; how many events that took."""
    stored = await stored_agents(log)
    events = [
        NewEvent(AgentRegistered(url=url, card=card), actor=ACTOR, metadata=Metadata(**{MIGRATED: True}))
        for url, card in missing_agents(cards, stored).items()
    ]
    if events:
        expected = stored.version or NO_STREAM
        await log.append(conversation_uuid(log.tenant, AGENTS), events, expected)
    return len(events)


# From a backup into the log: only what is new, each conversation at the version at which it was looked at

AT_ONCE = 16
"""Conversations that are looked at together."""
_TRIES = 20


@dataclass(frozen=True, slots=True)
class LoadResult:
    """How far it is.

    Attributes:
        conversations: dealt with so far.
        total: that there are.
        new_events: appended so far.
    """

    conversations: int
    total: int
    new_events: int


Progress = Callable[[LoadResult], None]


@dataclass(slots=True)
class BackupLoader:
    """Appends what a backup holds and a log does not.

    Attributes:
        new_events: that were appended.
        problems: what could not be stored (of such a conversation nothing went in, this time), and files that the
            source did not give.
        misdated: messages with times that cannot be right.
    """

    log: Log
    new_events: int = 0
    problems: list[Problem] = field(default_factory=list)
    misdated: list[Problem] = field(default_factory=list)
    _zone: tzinfo = UTC

    async def all(self, backup: Backup, progress: Progress | None = None) -> None:
        """Take over agents and conversations.

        Raises:
            SourceContradictsStore: the log holds other conversations under the identities of some.
            InputError: the backup names a time zone that is not known.
            ServerError: the server failed; run it again to go on.
        """
        self._zone = UTC if backup.time_zone is None else time_zone(backup.time_zone)
        await self._check(backup)
        self.new_events += await take_over_agents(self.log, backup.agents)
        done = 0
        for group in _groups(backup):
            # Looked at together, appended one after the other: if their times are not known, that is their order.
            found = await gather_or_raise(self._look(conversation) for conversation in group)
            for source, stored in zip(group, found, strict=True):
                if not isinstance(stored, Stored):
                    self._refuse(source, stored)
                elif not stored.is_deleted:  # by the store's users, who want no more of it
                    await self._one(source, stored)
            done += len(group)
            if progress is not None:
                progress(LoadResult(done, backup.conversations, self.new_events))

    async def _check(self, backup: Backup) -> None:
        reasons: list[str] = []
        names: dict[UUID, str] = {}
        for group in _groups(backup):
            found = await gather_or_raise(self._look(conversation) for conversation in group)
            for source, stored in zip(group, found, strict=True):
                self.misdated += misdated(source, backup.taken_at)
                if not isinstance(stored, Stored):
                    continue
                if why := contradiction(source, stored):
                    reasons.append(why)
                if (name := names.setdefault(stored.id, source.id)) != source.id:
                    reasons.append(printable(f"conversations {name!r} and {source.id!r} are one in the store"))
        if reasons:
            raise SourceContradictsStore(reasons)

    async def _look(self, source: SourceConversation) -> Stored | InputError:
        """Return the conversation as the log has it, or why it cannot be there."""
        try:
            conversation_id = checked_conversation(self.log.tenant, source.id)
        except InputError as error:
            return error
        return await read_stored(self.log, conversation_id)

    async def _one(self, source: SourceConversation, stored: Stored) -> None:
        for last in (False,) * _TRIES + (True,):
            try:
                if why := contradiction(source, stored):  # somebody began it meanwhile
                    raise SourceContradictsStore([why])
                await self._append(plan(source, stored, self.log.tenant, self._zone), stored)
            except (InputError, SourceContradictsStore) as error:
                self._refuse(source, error)
                return
            except (ConflictError, RetryableError) as error:  # somebody wrote meanwhile: look again
                if last:
                    self._refuse(source, error)
                    return
                stored = await read_stored(self.log, stored.id)
            else:
                self.problems += _lost_files(source, stored)
                return

    async def _append(self, events: list[NewEvent], stored: Stored) -> None:
        version = stored.version
        for part in _parts(events):
            expected = version or NO_STREAM
            version = (await self.log.append(stored.id, part, expected)).version
            self.new_events += len(part)

    def _refuse(self, source: SourceConversation, error: Exception) -> None:
        self.problems.append(Problem(source.id, "not taken over", printable(str(error), longest=500)))


def _groups(backup: Backup) -> Iterator[list[SourceConversation]]:
    conversations = backup.read()
    while group := list(islice(conversations, AT_ONCE)):
        yield group


def _parts(events: list[NewEvent]) -> Iterator[list[NewEvent]]:
    """The events in as few appends as may be; most conversations take one."""
    part: list[NewEvent] = []
    size = 0
    for event in events:
        more = len(json.dumps(event.data.to_content()))
        if part and (len(part) == MAX_EVENTS or size + more > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(event)
        size += more
    if part:
        yield part


def _lost_files(source: SourceConversation, stored: Stored) -> Iterator[Problem]:
    """Files that only the source's server has, unless an earlier run brought them."""
    found = matches(source.messages, [message.sent for message in stored.messages])
    for index, (message, known) in enumerate(zip(source.messages, found, strict=True)):
        there = message.wire if known is None else stored.messages[known].sent
        for place, part in enumerate(there.get("parts") or ()):
            file_id = local_file(part)
            if file_id is not None:
                why = f"the file {LOCAL}{file_id} was not to be had: its server keeps it (migrate_from takes files=)"
                yield Problem(source.id, f"messages[{index}].parts[{place}]", why)
