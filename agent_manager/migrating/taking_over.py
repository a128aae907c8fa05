"""From a backup into the log: only what is new, each conversation at the version at which it was looked at.

All conversations are compared with the log before the first is written: if the log holds another one under the identity
of one of them, nothing is written at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from itertools import islice
from uuid import UUID

from agent_manager.importing.checked import PART_BYTES
from agent_manager.importing.times import time_zone
from agent_manager.manager.log import Log
from agent_manager.manager.registry import checked_conversation
from agent_manager.migrating.agents import take_over_agents
from agent_manager.migrating.backup import Backup
from agent_manager.migrating.contradicting import SourceContradictsStore, contradiction
from agent_manager.migrating.files import LOCAL, local_file
from agent_manager.migrating.matching import matches
from agent_manager.migrating.planning import plan
from agent_manager.migrating.source import Problem, SourceConversation, misdated
from agent_manager.migrating.stored import Stored, read_stored
from agent_manager.migrating.together import together
from eventstore import NO_STREAM, NewEvent
from eventstore.append import MAX_EVENTS
from eventstore.errors import ConflictError, InputError, RetryableError, printable

AT_ONCE = 16
"""Conversations that are looked at together."""
_TRIES = 20


@dataclass(frozen=True, slots=True)
class TakenOver:
    """How far it is.

    Attributes:
        conversations: dealt with so far.
        total: that there are.
        new_events: appended so far.
    """

    conversations: int
    total: int
    new_events: int


Progress = Callable[[TakenOver], None]


@dataclass(slots=True)
class Taking:
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
            found = await together(self._look(conversation) for conversation in group)
            for source, stored in zip(group, found, strict=True):
                if not isinstance(stored, Stored):
                    self._refuse(source, stored)
                elif not stored.is_deleted:  # by the store's users, who want no more of it
                    await self._one(source, stored)
            done += len(group)
            if progress is not None:
                progress(TakenOver(done, backup.conversations, self.new_events))

    async def _check(self, backup: Backup) -> None:
        reasons: list[str] = []
        names: dict[UUID, str] = {}
        for group in _groups(backup):
            found = await together(self._look(conversation) for conversation in group)
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
