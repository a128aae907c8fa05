"""From a backup into the log: only what is new, each conversation at the version at which it was looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent_manager.importing.checked import PART_BYTES
from agent_manager.manager.log import Log
from agent_manager.manager.writing import checked_id
from agent_manager.migrating.agents import take_over_agents
from agent_manager.migrating.backup import Backup
from agent_manager.migrating.files import LOCAL, local_file
from agent_manager.migrating.matching import matches
from agent_manager.migrating.planning import plan
from agent_manager.migrating.source import Problem, SourceConversation
from agent_manager.migrating.stored import Stored, read_stored
from agent_manager.migrating.together import together
from eventstore import NO_STREAM, NewEvent, conversation_uuid
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
    """

    log: Log
    new_events: int = 0
    problems: list[Problem] = field(default_factory=list)

    async def all(self, backup: Backup, progress: Progress | None = None) -> None:
        """Takes over agents and conversations.

        Raises:
            ServerError: the server failed; run it again to go on.
        """
        self.new_events += await take_over_agents(self.log, backup.agents)
        group: list[SourceConversation] = []
        done = 0
        for conversation in backup.read():
            group.append(conversation)
            if len(group) == AT_ONCE:
                await self._group(group)
                done += len(group)
                group.clear()
                if progress is not None:
                    progress(TakenOver(done, backup.conversations, self.new_events))
        await self._group(group)
        if progress is not None:
            progress(TakenOver(backup.conversations, backup.conversations, self.new_events))

    async def _group(self, group: list[SourceConversation]) -> None:
        """Looked at together, appended one after the other: where nobody knows when they began, that is their order."""
        found = await together(self._look(conversation) for conversation in group)
        for source, stored in zip(group, found, strict=True):
            if stored is not None:
                await self._one(source, stored)

    async def _look(self, source: SourceConversation) -> Stored | None:
        try:
            conversation_id = conversation_uuid(self.log.tenant, checked_id(source.id))
        except InputError as error:
            self._refuse(source, error)
            return None
        return await read_stored(self.log, conversation_id)

    async def _one(self, source: SourceConversation, stored: Stored) -> None:
        for last in (False,) * _TRIES + (True,):
            try:
                await self._append(plan(source, stored, self.log.tenant), stored)
            except (ConflictError, RetryableError) as error:  # somebody wrote meanwhile: look again
                if last:
                    self._refuse(source, error)
                    return
                stored = await read_stored(self.log, stored.id)
            except InputError as error:
                self._refuse(source, error)
                return
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
