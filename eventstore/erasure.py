"""Erasing what events hold on request, in place: docs/guides/erasure.md.

An erased event keeps its place, its type, its ids and its digest; its content, metadata and actor become what the
structure of the conversation needs (``erased_content``), and its salt is destroyed, so that the digest reveals nothing.
Each conversation has a transaction of its own, under the lock of its appends: the events are changed, the read tables
are made again from the log, and the receipt is appended last, so that readers of the log wait for one append, not for
the erasure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from eventstore.database.connection import ERASER, PROJECTOR, Connection, set_role
from eventstore.database.queries import query
from eventstore.errors import (
    ConversationLocked,
    EventStoreError,
    InputError,
    NotFound,
    PermissionDenied,
    WrongExpectedVersion,
    conversation_not_found,
    translated,
)
from eventstore.events import Appended
from eventstore.ids import parse_uuid
from eventstore.json_text import check_text
from eventstore.scope import MAX_NAME_CHARACTERS, Caller

if TYPE_CHECKING:
    from eventstore.store import EventStore

MAX_REASON_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Erasure:
    """The outcome of an erasure of events of one conversation, or of its dry run.

    Attributes:
        events: the number of events that were erased; 0 if nothing was left to erase.
        receipt: the place of the receipt; None if there is none, as of a dry run.
        rows: of a dry run, the number of rows by the name of their table that would be changed or removed.
        not_refolded: the projections that could not make the rows of the conversation again, each with the reason. What
            the rows held is gone; the conversation is parked there, or the projection must be rebuilt.
    """

    conversation_id: UUID
    events: int
    receipt: Appended | None = None
    rows: dict[str, int] = field(default_factory=dict)
    not_refolded: dict[str, str] = field(default_factory=dict)


class Selection(NamedTuple):
    """The events of a conversation that are to be erased.

    Attributes:
        versions: a multirange as PostgreSQL writes it; None selects all.
        until: none that is later; None does not limit them.
        erases_members: whether the names of the conversation's members are erased, too.
        is_whole: whether the receipt states that the conversation was erased, not single events.
    """

    versions: str | None = None
    until: datetime | None = None
    erases_members: bool = False
    is_whole: bool = False


async def erase(
    store: EventStore,
    caller: Caller,
    conversation_id: UUID | str,
    event_ids: Sequence[UUID | str] | None,
    *,
    expected: int | None,
    reason: str,
    actor: str,
    dry_run: bool,
) -> Erasure:
    """See :meth:`EventStore.erase`."""
    target = parse_uuid(conversation_id, "conversation_id")
    _check(reason, actor)
    async with open_eraser(store, caller.tenant) as connection:
        async with _transaction(store, connection, caller, target):
            versions = None
            if event_ids is not None:
                versions = await _versions(connection, caller.tenant, target, event_ids)
            elif not await _value(connection, "has_events", {"tenant": caller.tenant, "conversation_id": target}):
                raise conversation_not_found(target)
            selection = Selection(versions, is_whole=versions is None)
            if dry_run:
                return await _erasable(store, connection, caller, target, selection)
            await _check_permission(connection, caller, target, selection)
            version = await _value(connection, "version_of", {"tenant": caller.tenant, "conversation_id": target})
            if expected not in (None, version):  # before the name of a fork is erased
                raise WrongExpectedVersion(target, expected, version)
        return await _erase_with_forks(store, connection, caller, target, selection, reason, actor, expected)


async def erase_user(
    store: EventStore, caller: Caller, name: str, *, reason: str, actor: str, dry_run: bool
) -> AsyncIterator[Erasure]:
    """See :meth:`EventStore.erase_user`."""
    check_text(name, "name", longest=MAX_NAME_CHARACTERS)
    _check(reason, actor)
    given = {"tenant": caller.tenant, "name": name}
    async with open_eraser(store, caller.tenant) as connection:
        async with _transaction(store, connection, caller):
            await _value(connection, "check_holds_of_user", given)
            if not dry_run:  # first, so that their keys write nothing meanwhile
                await _value(connection, "erase_identity", given)
            rows = await (await connection.execute(query("eventstore", "erasure_of_user"), given)).fetchall()
        author = "" if actor == name else actor
        # For the tenant: a user owns their conversations, and caused the selected events in those of others.
        tenant = Caller(caller.tenant)
        for target, versions, erases_members in rows:
            selection = Selection(versions, erases_members=erases_members, is_whole=versions is None)
            if dry_run:
                async with _transaction(store, connection, tenant, target):
                    erasure = await _erasable(store, connection, tenant, target, selection)
            else:
                erasure = await _erase_with_forks(store, connection, tenant, target, selection, reason, author)
            if erasure.events:
                yield erasure


async def erase_again(
    connection: Connection, store: EventStore, caller: Caller, target: UUID, selection: Selection, reason: str
) -> Erasure:
    """Apply a receipt to a log that was restored, in the transaction of a connection that may become the eraser."""
    await set_role(connection, store.settings, ERASER)
    await _set_caller(connection, caller)
    return await _erase_events(store, connection, caller, target, selection, reason, "")


def _check(reason: str, actor: str) -> None:
    check_text(reason, "reason", longest=MAX_REASON_CHARACTERS)
    check_text(actor, "actor", longest=MAX_NAME_CHARACTERS)


@asynccontextmanager
async def open_eraser(store: EventStore, tenant: str | None = None) -> AsyncIterator[Connection]:
    """Open a connection under the role that erases, for a tenant.

    Raises:
        PermissionDenied: the login may not take it.
    """
    async with store.connections.separate(ERASER, tenant) as connection:
        if connection.role != ERASER and await _value(connection, "has_eraser"):
            login = connection.info.user
            raise PermissionDenied(
                f"the login {login} may not erase, and nothing was erased: run GRANT {ERASER}, {PROJECTOR} TO {login} "
                "as a superuser, or as a login that may grant these roles"
            )
        yield connection


@asynccontextmanager
async def _transaction(
    store: EventStore, connection: Connection, caller: Caller, target: UUID | None = None
) -> AsyncIterator[None]:
    """Hold a transaction of a caller until the end of the block.

    Raises:
        ConversationLocked: another transaction held the conversation's lock for too long.
    """
    try:
        with translated():
            async with connection.transaction():
                await set_role(connection, store.settings, ERASER)  # a pooler may lend another session
                await _set_caller(connection, caller)
                yield
    except EventStoreError as error:
        if target is not None and getattr(error.__cause__, "sqlstate", "") == "55P03":
            raise ConversationLocked(target, store.settings.append_seconds) from error
        raise


async def _set_caller(connection: Connection, caller: Caller) -> None:
    await connection.execute(
        query("eventstore", "set_eraser_scope"), {"tenant": caller.tenant, "user": caller.user or ""}
    )


async def _versions(connection: Connection, tenant: str, target: UUID, event_ids: Sequence[UUID | str]) -> str:
    ids = [parse_uuid(each, "event_ids") for each in event_ids]
    if not ids:
        raise InputError("event_ids: is empty: name at least one event, or None for the whole conversation")
    given = {"tenant": tenant, "conversation_id": target, "ids": ids}
    found: dict[UUID, int] = dict(
        await (await connection.execute(query("eventstore", "versions_of_events"), given)).fetchall()
    )
    if missing := [each for each in ids if each not in found]:
        raise NotFound(
            f"conversation {target} has no event {missing[0]} that can be erased: eventstore history shows their ids"
        )
    return "{" + ",".join(f"[{version},{version}]" for version in found.values()) + "}"


async def _check_permission(connection: Connection, caller: Caller, target: UUID, selection: Selection) -> None:
    given = {"tenant": caller.tenant, "conversation_id": target, "versions": selection.versions}
    await connection.execute(query("eventstore", "check_erasure"), given)
    await connection.execute(query("eventstore", "check_holds"), given)


async def _erasable(
    store: EventStore, connection: Connection, caller: Caller, target: UUID, selection: Selection
) -> Erasure:
    """Return what would be erased."""
    given = {"tenant": caller.tenant, "conversation_id": target, "versions": selection.versions}
    await _check_permission(connection, caller, target, selection)
    await set_role(connection, store.settings, PROJECTOR)
    rows: dict[str, int] = dict(
        await (await connection.execute(query("eventstore", "erasable_rows"), given)).fetchall()
    )
    return Erasure(target, rows.get("events", 0), rows=rows)


async def _erase_with_forks(
    store: EventStore,
    connection: Connection,
    caller: Caller,
    target: UUID,
    selection: Selection,
    reason: str,
    actor: str,
    expected: int | None = None,
) -> Erasure:
    """Erase events of a conversation, and first its name in the forks that repeat it, each in its own transaction."""
    tenant = Caller(caller.tenant)
    given = {"tenant": caller.tenant, "conversation_id": target, "versions": selection.versions}
    async with _transaction(store, connection, tenant, target):
        forks = await (await connection.execute(query("eventstore", "forks_with_the_name"), given)).fetchall()
    for (fork,) in forks:
        async with _transaction(store, connection, tenant, fork):
            await _erase_events(store, connection, tenant, fork, Selection("{[1,1]}"), reason, actor)
    async with _transaction(store, connection, caller, target):
        erasure = await _erase_events(store, connection, caller, target, selection, reason, actor)
        if expected is not None and erasure.receipt is not None and erasure.receipt.version != expected + 1:
            raise WrongExpectedVersion(target, expected, erasure.receipt.version - 1)
        return erasure


async def _erase_events(
    store: EventStore,
    connection: Connection,
    caller: Caller,
    target: UUID,
    selection: Selection,
    reason: str,
    actor: str,
) -> Erasure:
    settings = store.settings
    given: dict[str, Any] = {
        "tenant": caller.tenant,
        "conversation_id": target,
        "milliseconds": round(1000 * settings.append_seconds),
        "id": uuid4(),
        "reason": reason,
        "actor": actor,
        **selection._asdict(),
    }
    [(erased, until, events)] = await (await connection.execute(query("eventstore", "erase_events"), given)).fetchall()
    if not events:
        return Erasure(target, 0)
    await set_role(connection, settings, PROJECTOR)
    refolded = await (await connection.execute(query("eventstore", "refold_conversation"), given)).fetchall()
    problems = {f"{name} ({stage})" if stage != "live" else name: problem for name, stage, problem in refolded}
    await set_role(connection, settings, ERASER)
    given |= {"erased": erased, "until": until}
    [(position, version, timestamp)] = await (
        await connection.execute(query("eventstore", "append_erasure"), given)
    ).fetchall()
    receipt = Appended(target, given["id"], position, version, timestamp, is_new=True)
    return Erasure(target, events, receipt, not_refolded=problems)


async def _value(connection: Connection, name: str, given: dict[str, Any] | None = None) -> Any:
    [(value,)] = await (await connection.execute(query("eventstore", name), given)).fetchall()
    return value
