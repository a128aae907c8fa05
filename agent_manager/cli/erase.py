"""The commands erase event, conversation, user, list and apply."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import typer
from typer import Argument, Option

from agent_manager.audit.proofs import find_position
from agent_manager.backup.erasures import apply_erasures
from agent_manager.cli.backup import Where, open_archive
from agent_manager.cli.conversations import ConversationId
from agent_manager.cli.ids import find_conversation
from agent_manager.cli.options import DataDir, Json, Tenant, User, read_settings, run
from agent_manager.cli.output import RowFormat, print_json, print_remark, print_result, print_rows, text
from agent_manager.cli.rows import versions_text
from agent_manager.erasing import finish_erasures
from agent_manager.settings import ServerSettings
from eventstore import Erasure, Event, EventStore
from eventstore.erasure import open_eraser
from eventstore.errors import InputError, NotFound, printable, translated
from eventstore.event_types import RECEIPTS
from projections import Reader

erase = typer.Typer(help="Erase events, conversations or users, irrevocably; proofs of the log still hold.")

Reason = Annotated[
    str, Option(metavar="TEXT", help="Why; kept in the receipt, which is never erased, so it should name nobody.")
]
ErasingActor = Annotated[str, Option("--actor", metavar="ACTOR", help="Who erases; kept in the receipt.")]
DryRun = Annotated[bool, Option("--dry-run", help="Erase nothing; count what would be erased.")]
Yes = Annotated[bool, Option("--yes", help="Do not ask for confirmation.")]
Work = Callable[[EventStore, bool], AsyncIterator[Erasure]]
"""The erasures of a command; the argument tells whether it is a dry run."""


@erase.command("event")
def erase_event(
    event: Annotated[str, Argument(metavar="EVENT", help="The id of the event or message, or its position.")],
    conversation: Annotated[
        str | None, Option(metavar="CONVERSATION", help="Its conversation: then it is found at once.")
    ] = None,
    reason: Reason = "",
    actor: ErasingActor = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Erase what an event holds, such as a message. Its place, its type and its digest stay."""

    async def work(store: EventStore, is_dry: bool) -> AsyncIterator[Erasure]:
        target = None
        if conversation is not None:
            target = await find_conversation(Reader(store, caller=store.caller(user=user)), conversation)
        position = await find_position(store, event, target)
        found = [each async for each in store.read_log(after=position - 1, until_position=position, user=user)]
        if not found:
            raise NotFound(f"no event is at position {position}: eventstore history shows positions")
        yield await store.erase(
            found[0].conversation_id, [found[0].id], reason=reason, actor=actor, user=user, dry_run=is_dry
        )

    _erase(work, f"event {event}", dry_run, yes, as_json, read_settings(data_dir, tenant), tenant)


@erase.command("conversation")
def erase_conversation(
    conversation: ConversationId,
    reason: Reason = "",
    actor: ErasingActor = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Erase what all events of a conversation hold, up to now. Forks show what they share of it as erased, too."""

    async def work(store: EventStore, is_dry: bool) -> AsyncIterator[Erasure]:
        target = await find_conversation(Reader(store, caller=store.caller(user=user)), conversation)
        yield await store.erase(target, reason=reason, actor=actor, user=user, dry_run=is_dry)

    _erase(work, f"conversation {conversation}", dry_run, yes, as_json, read_settings(data_dir, tenant), tenant)


@erase.command("user")
def erase_user(
    name: Annotated[str, Argument(metavar="USER", help="The user's id: the actor of the events they cause.")],
    reason: Reason = "",
    actor: ErasingActor = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Erase the conversations that a user owns, what they wrote in those of others, their name and their keys.

    Each conversation is erased by itself: after an interruption, repeat the command.
    """

    async def work(store: EventStore, is_dry: bool) -> AsyncIterator[Erasure]:
        async for erasure in store.erase_user(name, reason=reason, actor=actor, dry_run=is_dry):
            yield erasure

    _erase(work, f"user {name}", dry_run, yes, as_json, read_settings(data_dir, tenant), tenant)


@erase.command("list")
def erase_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the receipts of a tenant's erasures, oldest first: who erased which versions, when and why."""

    async def work(store: EventStore) -> list[Event]:
        return [event async for event in store.read_log(types=RECEIPTS)]

    print_rows(
        run(work, read_settings(data_dir, tenant), tenant),
        RowFormat(
            ("time", "actor", "conversation", "versions", "reason"),
            lambda row: (
                row.timestamp, row.actor, row.conversation_id,
                versions_text(row.content["versions"]),
                row.content.get("reason", ""),
            ),
            lambda row: {
                "id": row.id, "time": row.timestamp, "actor": row.actor, "conversation_id": row.conversation_id,
                "event_type": row.event_type, **row.content,
            },
        ),
        nothing="nothing was erased",
        as_json=as_json,
    )  # fmt: skip


@erase.command("apply")
def erase_apply(where: Where = None, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Erase again what the receipts beside the backups name, after a database was restored by other means.

    eventstore backup restore does so by itself. A restore by the server's own tools brings back what was erased since.
    """
    settings = read_settings(data_dir)
    records = open_archive(where, settings).erasures()

    async def work(store: EventStore) -> int:
        applied = 0
        async with open_eraser(store) as connection:
            for record in records:
                with translated():
                    async with connection.transaction():
                        applied += await apply_erasures(connection, store, [record])
        return applied

    applied = run(work, settings)
    message = f"{len(records):,} receipts: events of {applied:,} conversation(s) were erased again"
    print_result({"receipts": len(records), "erased_again": applied}, message, as_json=as_json)


def _erase(
    work: Work, what: str, dry_run: bool, yes: bool, as_json: bool, settings: ServerSettings, tenant: str | None
) -> None:
    """Show what would be erased, ask, erase it, and print what was done."""
    if not (dry_run or yes) and not sys.stdin.isatty():
        raise InputError("--yes: give it to erase without confirmation; --dry-run shows what would be erased")

    async def collect(store: EventStore, is_dry: bool) -> list[Erasure]:
        return [erasure async for erasure in work(store, is_dry)]

    if not yes:
        planned = run(lambda store: collect(store, True), settings, tenant)
        if dry_run and as_json:
            print_json([_value(erasure) for erasure in planned])
            return
        _print_plan(planned)
        if dry_run or not any(erasure.events for erasure in planned):
            return
        if not typer.confirm(f"Erase {printable(what)} irrevocably?", err=True):
            raise typer.Exit(1)

    async def erase_and_finish(store: EventStore) -> tuple[list[Erasure], list[str]]:
        done = await collect(store, False)
        return done, await finish_erasures(store, settings, done, store.tenant)

    done, remarks = run(erase_and_finish, settings, tenant)
    for remark in remarks:
        print_remark(remark)
    if as_json:
        print_json([_value(erasure) for erasure in done])
    else:
        events, conversations = sum(erasure.events for erasure in done), sum(erasure.events > 0 for erasure in done)
        typer.echo(f"erased {events:,} event(s) of {conversations:,} conversation(s)" if events else "nothing to erase")


def _print_plan(planned: list[Erasure]) -> None:
    rows: dict[str, int] = {}
    for erasure in planned:
        for table, number in erasure.rows.items():
            rows[table] = rows.get(table, 0) + number
    print_rows(
        list(rows.items()),
        RowFormat(("table", ">rows"), lambda row: row, lambda row: dict([row])),
        nothing="nothing to erase",
        as_json=False,
    )


def _value(erasure: Erasure) -> dict[str, Any]:
    return {
        "conversation_id": erasure.conversation_id,
        "events": erasure.events,
        "receipt": None if erasure.receipt is None else erasure.receipt.event_id,
        "position": None if erasure.receipt is None else erasure.receipt.position,
        "rows": erasure.rows,
        "not_refolded": {name: text(reason) for name, reason in erasure.not_refolded.items()},
    }
