"""Files of chat logs into the log: several conversations to an append, and the culprit found where one is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, tzinfo
from pathlib import Path

from agent_manager.importing.beginnings import check_beginnings
from agent_manager.importing.checked import Checked, checked
from agent_manager.importing.continued import continued
from agent_manager.importing.lines import lines, total_bytes
from agent_manager.importing.report import ImportProblem, ImportProgress, ImportReport, ImportStopped
from eventstore import AppendResult, EventStore
from eventstore.caller import checked_tenant
from eventstore.errors import ConflictError, EventIdConflict, InputError, printable

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
