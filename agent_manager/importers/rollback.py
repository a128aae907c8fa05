"""Rollback of a migration: stop the application, restore, verify, start it again.

The rollback is rehearsed while the application still runs: the merged data is put together and verified, so that a
reason not to roll back is found before anything is stopped. The store is only read.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.agent_registry import AGENTS
from agent_manager.importers.a2a_demo import is_served
from agent_manager.importers.backup import SUFFIX, Backup, check_tenant, write_backup
from agent_manager.importers.restore import RESTORE
from agent_manager.importers.source import Source, SourceConversation, canonical_card
from agent_manager.importers.stored import (
    LocalChanges,
    StoredConversation,
    cards_by_url,
    keyed_tasks,
    read_agents,
    read_stored,
)
from agent_manager.importers.verify import Report, Verification, list_lines, match_messages, verify_served
from agent_manager.private_files import append_private
from agent_manager.storage import ServerLog
from eventstore import EventStore, conversation_uuid
from eventstore.errors import InputError
from eventstore.urls import show_url
from projections import Reader, all_items, catch_up

LOG = "application.log"
"""The file beside the restored data that takes the output of the started application."""
_POLL_SECONDS = 0.1
_STDERR = 2


class CommandFailed(InputError):
    """A command that stops or starts the application failed."""


@dataclass(slots=True)
class RollbackReport(Report):
    """The result of a rollback.

    Attributes:
        restored: the file that the application's manager loads; None if the rehearsal found a reason not to roll back.
        verified: the comparison of that file with the backup and the store.
        served: the comparison of what the started application serves with that file; None if that was not checked.
        hidden: how many conversations were deleted in the store, and stay deleted.
        written_meanwhile: conversations that were written to although the application was to be stopped.
        ignored: what was not applied of events in the log, and why; everything else is restored.
    """

    backup: Backup
    restored: Backup | None
    verified: Verification
    served: Verification | None = None
    started: bool = False
    hidden: int = 0
    written_meanwhile: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        is_served = self.served is None or not self.served.differences
        return self.restored is not None and not self.verified.differences and is_served and not self.written_meanwhile

    def values(self) -> Json:
        restored = self.restored and {"file": str(self.restored.path), "sha256": self.restored.sha256}
        return {
            "clean": self.is_clean,
            "backup": str(self.backup.path),
            "restored": restored,
            "verified": self.verified.values(),
            "started": self.started,
            "served": self.served and self.served.values(),
            "hidden": self.hidden,
            "written_meanwhile": self.written_meanwhile,
            "ignored": self.ignored,
        }

    def lines(self) -> Iterator[str]:
        yield f"Backup      {self.backup.path}"
        if self.restored is None:
            yield "NOT DONE    nothing was stopped: the data to restore is not complete"
        else:
            yield f"Restored    {self.restored.path}"
        yield from self.verified.lines("are restored as they were")
        if self.hidden:
            yield f"Hidden      {self.hidden:,} conversation(s) were deleted in the store and stay deleted"
        yield from list_lines("Ignored", self.ignored)
        if self.written_meanwhile:
            count = len(self.written_meanwhile)
            yield f"NOT DONE    {count:,} conversation(s) were written to meanwhile: stop the application"
            yield from list_lines("", self.written_meanwhile)
        if self.served is not None:
            yield from self.served.served_lines("as they were restored")
        if self.is_clean and self.restored is not None and not self.started:
            yield f"Next        start the application with {RESTORE}={self.restored.path}"


async def roll_back(
    store: EventStore,
    backup: Backup,
    into: Path,
    *,
    stop_command: str | None = None,
    start_command: str | None = None,
    url: str | None = None,
    seconds: float = 120.0,
    on_step: Callable[[str], None] = lambda step: None,
) -> RollbackReport:
    """Roll back to the backup, and everything that was written to the store since.

    Args:
        into: the file that the application's manager loads (:func:`restore_into`).
        stop_command, start_command: shell commands for the application; None if the operator does it by hand.
        url: where the application answers when it has started; None if that is not checked.
        on_step: called with a description of each step before it begins.

    Raises:
        BackupMismatch: the backup is of another tenant.
        CommandFailed: the application could not be stopped (then nothing was done), or not be started.
        SourceUnreadable: the started application does not serve the demo's endpoints.
        OSError: the file cannot be written.
    """
    check_tenant(backup, store.tenant)
    on_step("rehearsing")
    with TemporaryDirectory(prefix="eventstore-") as folder:
        rehearsal, _ = await _restore(store, backup, Path(folder) / f"rehearsal{SUFFIX}")
        if not rehearsal.is_clean:
            rehearsal.restored = None
            return rehearsal
    if stop_command is not None:
        on_step("stopping the application")
        await run_command(stop_command, seconds)
    on_step("restoring")
    report, merged = await _restore(store, backup, into)
    report.written_meanwhile = await merged.written_since()
    if report.restored is None or not report.is_clean or start_command is None:
        return report
    on_step("starting the application")
    environment = {RESTORE: str(report.restored.path.absolute())}
    await start_application(start_command, environment, url, seconds, into.with_name(LOG))
    report.started = True
    if url is not None:
        on_step("verifying what it serves")
        report.served = await verify_served(url, report.restored)
    return report


async def _restore(store: EventStore, backup: Backup, into: Path) -> tuple[RollbackReport, MergedSource]:
    """Write and verify the merged data."""
    merged = MergedSource(backup, store)
    written = await write_backup(merged, into, store.tenant, backup.time_zone)
    verified = await merged.verify(written)
    report = RollbackReport(backup, written, verified, hidden=len(merged.hidden), ignored=merged.ignored)
    return report, merged


class MergedSource(Source):
    """The conversations of a backup, merged with those in the store, and then those that began since.

    Attributes:
        hidden: conversations that were deleted in the store, and stay deleted.
        ignored: what was not applied of events in the log, and why.
    """

    def __init__(self, backup: Backup, store: EventStore) -> None:
        self.name = f"{backup.source}, and the store"
        self.hidden: set[str] = set()
        self.ignored: list[str] = []
        self._versions: dict[UUID, int] = {}
        self._backup = backup
        self._log = ServerLog(store)

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        only_stored = dict.fromkeys(await self._stored_ids())
        for conversation in self._backup.read():
            try:
                conversation_id = conversation_uuid(self._log.tenant, conversation.id)
            except InputError:  # it could not be stored under this id
                yield conversation
                continue
            only_stored.pop(conversation_id, None)
            stored = await self._read(conversation_id)
            if not stored.version:
                yield conversation
            elif not stored.is_deleted:
                yield _merged(conversation, stored.conversation)
        for conversation_id in only_stored:
            stored = await self._read(conversation_id)
            if not stored.is_deleted:
                yield stored.conversation

    async def agents(self) -> list[Json]:
        """Return the cards of the agents that are registered in the store."""
        cards = [canonical_card(card) for card in (await read_agents(self._log)).agents.values()]
        return list(cards_by_url(cards).values())

    async def _stored_ids(self) -> list[UUID]:
        """Return the ids of the store's conversations, deleted ones included, in the order in which they began."""
        store, tenant = self._log.store, self._log.tenant
        await catch_up(store)
        reserved = conversation_uuid(tenant, AGENTS)
        rows = all_items(
            Reader(store, tenant, on_primary=True).conversations, by="created", newest_first=False, deleted=True
        )
        return [row.id async for row in rows if row.id != reserved]

    async def _read(self, conversation_id: UUID) -> StoredConversation:
        stored = await read_stored(self._log, conversation_id)
        given_id = stored.conversation.id
        self._versions[conversation_id] = stored.version
        self.ignored += [f"conversation {given_id!r}: {reason}" for reason in stored.ignored]
        if stored.is_deleted:
            self.hidden.add(given_id)
        return stored

    async def written_since(self) -> list[str]:
        """Return the conversations of the store that were written to since they were read."""
        written = []
        for conversation_id in await self._stored_ids():
            stored = await read_stored(self._log, conversation_id)
            if stored.version != self._versions.get(conversation_id):
                written.append(stored.conversation.id)
        return written

    async def verify(self, restored: Backup) -> Verification:
        """Check that what was written has all of the backup, and all of the store as it was when it was read."""
        result = Verification()
        conversations = {conversation.id: conversation for conversation in restored.read()}
        for conversation in conversations.values():
            result.count(conversation)
        changes: dict[str, LocalChanges] = {}
        for conversation_id, version in self._versions.items():
            stored = await read_stored(self._log, conversation_id, version)
            if stored.version and not stored.is_deleted:
                given_id = stored.conversation.id
                changes[given_id] = stored.changes
                result.compare(stored.conversation, conversations.get(given_id))
        for conversation in self._backup.read():
            if conversation.id not in self.hidden:
                since_import = changes.get(conversation.id, LocalChanges())
                result.compare(conversation, conversations.get(conversation.id), since_import)
                if since_import:
                    result.changed[conversation.id] = since_import
        return result


def _merged(backup: SourceConversation, store: SourceConversation) -> SourceConversation:
    """Return the store's conversation with what only the backup has; each message follows its predecessor."""
    matches = match_messages(backup.messages, store.messages)
    messages = list(store.messages)
    position, added = 0, 0
    for message, match in zip(backup.messages, matches, strict=True):
        if match is None:
            messages.insert(position, message)
            added += 1
            position += 1
        else:
            position = max(position, match + added + 1)
    stored_tasks = {key for key, _ in keyed_tasks(store.tasks)}
    stored_events = {(event.type, event.id) for event in store.events}
    return replace(
        store,
        id=backup.id,
        created_at=store.created_at or backup.created_at,
        messages=messages,
        tasks=store.tasks + [task for key, task in keyed_tasks(backup.tasks) if key not in stored_tasks],
        events=[event for event in backup.events if (event.type, event.id) not in stored_events] + store.events,
    )


async def run_command(command: str, seconds: float) -> None:
    """Run a shell command to its end. Its output goes to standard error, because the report is on standard output."""
    process = await _start_process(command, {}, _STDERR)
    try:
        code = await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        raise CommandFailed(f"{command!r} has not ended within {seconds:g} seconds: correct it, run it again") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that the shell has started
            await process.wait()
    if code:
        raise CommandFailed(f"{command!r} failed with exit code {code}: correct it, then run this again")


async def start_application(
    command: str, environment: dict[str, str], url: str | None, seconds: float, log: Path
) -> None:
    """Run a shell command that starts the application; it may continue to run once the application answers.

    Its output goes to a file: the application outlives this process, and inherits no pipe that a caller reads to its
    end.
    """
    with append_private(log) as output:
        process = await _start_process(command, environment, output.fileno())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.returncode:
            reason = f"{command!r} failed with exit code {process.returncode}"
            raise CommandFailed(f"{reason}: see {log}, and start the application yourself")
        if url is None and process.returncode == 0:
            return
        if url is not None and await is_served(url):
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _POLL_SECONDS)
        if process.returncode == 0:
            await asyncio.sleep(_POLL_SECONDS)
    expected = "ended" if url is None else f"answered at {show_url(url)}"
    raise CommandFailed(f"{command!r} has not {expected} within {seconds:g} seconds: see {log}")


async def _start_process(command: str, environment: dict[str, str], output: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=os.environ | environment,
        start_new_session=True,
    )
