"""A run of the retention rules: erases what is due, collects files that nothing refers to, and leaves receipts.

Each conversation is erased in a transaction of its own, with a receipt of its own, and only if it is at the version at
which the rule has found it: a conversation that somebody continues meanwhile is left alone. So a run can be interrupted
at any instant; the next one continues. A run of a tenant ends with an event in its record, with the counts.

``eventstore up`` and ``project`` make a run every ``EVENTSTORE_RETENTION_HOURS``, whichever process is the first: a
lock lets one run at a time, and the rules hold the time of the last one. A run for one tenant has a lock of the tenant,
so it neither waits for others nor keeps them from theirs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from psycopg.types.json import Jsonb

from agent_manager.backup.create import exclusively
from agent_manager.backup.schedule import repeat
from agent_manager.erasing import finish_erasures
from agent_manager.retention.holds import PACKAGE, change
from agent_manager.retention.rules import Rule, Rules
from agent_manager.settings import server_settings
from eventstore import Erasure, EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import APP
from eventstore.database.queries import query
from eventstore.errors import (
    ConflictError,
    ConnectionLost,
    DiskFull,
    EventStoreError,
    OnLegalHold,
    PermissionDenied,
    RetryableError,
    ServerUnreachable,
    WrongExpectedVersion,
    translated,
)

ACTOR = "retention"
"""The actor of the receipts of runs that nobody started by hand."""
_PAGE = 1000
"""Conversations that one statement finds; files that one statement deletes."""
_log = logging.getLogger(__name__)


class RetentionRunning(ConflictError):
    """Another process is applying the rules of the same tenant, or of all."""

    TEXT = "another process is applying the retention rules: wait until it has ended"

    def __init__(self) -> None:
        super().__init__(self.TEXT)


@dataclass
class RuleResult:
    """The outcome of a rule in a run.

    Attributes:
        conversations: the number that were erased; in a dry run, that would be.
        events: of these.
        held: the number of conversations that a legal hold protects.
        skipped: the number that somebody was writing to: the next run looks at them again.
        failed: the number that could not be erased; the log says why.
    """

    rule: UUID
    conversations: int = 0
    events: int = 0
    held: int = 0
    skipped: int = 0
    failed: int = 0


@dataclass
class TenantResult:
    """The outcome of a run for a tenant.

    Attributes:
        files: the number of files that were deleted because no event referred to them, beside those that the erased
            events referred to.
        file_bytes: of these.
    """

    tenant: str
    rules: list[RuleResult] = field(default_factory=list)
    files: int = 0
    file_bytes: int = 0


async def apply_rules(
    store: EventStore, tenant: str | None = None, *, dry_run: bool = False, actor: str = ACTOR
) -> list[TenantResult]:
    """Erase what the rules demand, and delete files that no event refers to.

    Args:
        tenant: of this tenant only; None stands for all.
        dry_run: count only; nothing is changed.
        actor: the actor of the receipts.

    Raises:
        RetentionRunning: another process makes a run.
        PermissionDenied: the login may not erase.
    """
    if dry_run:
        return [await _apply(store, each, actor, dry_run=True) for each in await _tenants(store, tenant)]
    async with await store.connect(APP) as locking:
        with translated():
            of_all = exclusively(locking, store, "retention", RetentionRunning)
            async with of_all if tenant is None else nullcontext():
                began_at = datetime.now(UTC)
                results = {}
                for each in await _tenants(store, tenant):
                    try:
                        async with exclusively(locking, store, "retention", RetentionRunning, each):
                            results[each] = await _apply(store, each, actor)
                    except RetentionRunning:
                        if tenant is not None:
                            raise
                await _collect_files(store, tenant, results)
                for result in results.values():
                    receipt = {name: value for name, value in asdict(result).items() if name != "tenant"}
                    receipt["rules"] = [each | {"rule": str(each["rule"])} for each in receipt["rules"]]
                    given = {"began_at": began_at, "actor": actor, "receipt": Jsonb(receipt)}
                    await change(store, store.caller(result.tenant), "record_retention_run", given)
                return list(results.values())


async def _tenants(store: EventStore, tenant: str | None) -> Sequence[str]:
    if tenant is not None:
        return [tenant]
    return [row[0] for row in await store.pool.fetch(query(PACKAGE, "tenants_with_rules"))]


async def _apply(store: EventStore, tenant: str, actor: str, *, dry_run: bool = False) -> TenantResult:
    result = TenantResult(tenant)
    erasures: list[Erasure] = []
    for rule in await Rules(store, tenant).list():
        found = RuleResult(rule.id)
        result.rules.append(found)
        async for conversation, version, hold in _due(store, tenant, rule):
            if hold is not None:
                found.held += 1
                continue
            try:
                erasure = await store.erase(
                    conversation,
                    expected=version,
                    reason=f"retention rule {rule.id}" + (f": {rule.reason}" if rule.reason else ""),
                    actor=actor,
                    tenant=tenant,
                    dry_run=dry_run,
                )
            except OnLegalHold:  # placed meanwhile, or on somebody whose events the read tables do not have yet
                found.held += 1
            except (RetryableError, WrongExpectedVersion):
                found.skipped += 1
            except (ServerUnreachable, ConnectionLost, PermissionDenied, DiskFull):
                raise
            except EventStoreError as error:
                found.failed += 1
                fields = {"event": "retention_failed", "conversation_id": str(conversation)}
                _log.error("conversation %s is not erased: %s", conversation, error, extra=fields)
            else:
                found.conversations += 1
                found.events += erasure.events
                if erasure.not_refolded or not erasures:
                    erasures.append(erasure)
    for remark in await finish_erasures(store, server_settings(store.settings), erasures, tenant):
        _log.warning("erasure: %s", remark, extra={"event": "erasure_incomplete"})
    return result


async def _due(store: EventStore, tenant: str, rule: Rule) -> AsyncIterator[tuple[UUID, int, UUID | None]]:
    """Yield the conversations that a rule erases, each with its version, and a hold on it if there is one."""
    after_time, after_id = datetime.min.replace(tzinfo=UTC), UUID(int=0)
    while True:
        parameters = {
            "tenant": tenant, "rule": rule.id, "after_time": after_time, "after_id": after_id, "limit": _PAGE,
        }  # fmt: skip
        rows = await store.pool.fetch(query(PACKAGE, "due"), parameters, caller=store.caller(tenant))
        for conversation, version, _, hold in rows:
            yield conversation, version, hold
        if len(rows) < _PAGE:
            return
        after_id, _, after_time, _ = rows[-1]


async def _collect_files(store: EventStore, tenant: str | None, results: dict[str, TenantResult]) -> None:
    """Delete the files that no event refers to, and add their numbers to the results by tenant."""
    caller = None if tenant is None else store.caller(tenant)
    deleted = _PAGE
    while deleted >= _PAGE:
        async with store.pool.transaction(caller) as connection:
            cursor = await connection.execute(query(PACKAGE, "delete_orphaned_files"), {"limit": _PAGE})
            rows = await cursor.fetchall()
        for owner, files, size in rows:
            result = results.setdefault(owner, TenantResult(owner))
            result.files += files
            result.file_bytes += size
        deleted = sum(files for _, files, _ in rows)


@asynccontextmanager
async def retaining(store: EventStore) -> AsyncIterator[None]:
    """Apply the rules of all tenants as often as ``EVENTSTORE_RETENTION_HOURS`` says, until the end of the block."""
    seconds = server_settings(store.settings).retention_hours * 3600
    if not seconds:
        yield
        return
    last_run: float | None = None

    async def age() -> float | None:
        [(since_run,)] = await store.pool.fetch(query(PACKAGE, "seconds_since_run"))
        known = [since_run, None if last_run is None else monotonic() - last_run]
        return min((each for each in known if each is not None), default=None)

    async def work() -> str:
        nonlocal last_run
        results = await apply_rules(store)
        last_run = monotonic()
        for result in results:
            for rule in result.rules:
                _log.info("a retention rule was applied", extra={"event": "retention_applied", **_fields(result, rule)})
        return ""

    running = asyncio.create_task(repeat("retention run", seconds, age, work, [RetentionRunning.TEXT]))
    try:
        yield
    finally:
        await cancel_and_wait([running])


def _fields(result: TenantResult, rule: RuleResult) -> dict[str, str | int]:
    return {"tenant": result.tenant, **asdict(rule), "rule": str(rule.rule)}
