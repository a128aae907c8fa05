"""The commands hold add, list and remove."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from typer import Argument, Option

from agent_manager.cli.ids import find_conversation
from agent_manager.cli.options import DataDir, Json, Tenant, check_tenant_option, read_settings, run
from agent_manager.cli.output import RowFormat, print_result, print_rows
from agent_manager.retention import Hold, Holds
from eventstore import EventStore
from eventstore.errors import printable
from projections import Reader

hold = typer.Typer(
    help="Add, list, remove legal holds, which stop erasures.", no_args_is_help=True, rich_markup_mode=None
)

By = Annotated[str, Option("--actor", metavar="ACTOR", help="Who does it, for the record.")]
HoldId = Annotated[UUID, Argument(metavar="HOLD", help="The hold's id, as listed.")]


class Subject(StrEnum):
    """The subject of a hold."""

    CONVERSATION = "conversation"
    USER = "user"
    TENANT = "tenant"


@hold.command("add")
def hold_add(
    subject: Annotated[Subject, Argument(help="What the hold is on.")],
    subject_id: Annotated[
        str | None,
        Argument(metavar="[ID]", help="The conversation's id or its beginning, or the user's id; none for the tenant."),
    ] = None,
    reason: Annotated[
        str, Option(metavar="TEXT", help="Why nothing may be erased, such as the number of a case.")
    ] = "",
    actor: By = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Keep a conversation, all of a user, or the whole tenant from being erased, by request or by rule.

    A hold on a user covers the conversations that they own and those with events that they caused; one on a fork also
    what it shares with the conversations that it continues.
    """
    if (subject_id is None) != (subject is Subject.TENANT):
        raise typer.BadParameter("give the ID of the conversation or of the user, and none for the tenant")

    async def work(store: EventStore) -> Hold:
        holds = Holds(store)
        if subject is Subject.TENANT:
            await check_tenant_option(store, store.tenant)
        if subject is not Subject.CONVERSATION:
            return await holds.place(user=subject_id, reason=reason, actor=actor)
        conversation = await find_conversation(Reader(store), str(subject_id))
        return await holds.place(conversation_id=conversation, reason=reason, actor=actor)

    placed = run(work, read_settings(data_dir, tenant), tenant)
    print_result(placed, f"hold {placed.id} placed on {printable(placed.subject)}", as_json=as_json)


@hold.command("list")
def hold_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the holds in force, the oldest first."""
    print_rows(
        run(lambda store: Holds(store).list(), read_settings(data_dir, tenant), tenant),
        RowFormat(
            ("id", "on", "placed", "by", "reason"),
            lambda row: (row.id, row.subject, row.placed_at, row.placed_by, row.reason),
        ),
        nothing="no holds: eventstore hold add user USER --reason TEXT places one",
        as_json=as_json,
    )


@hold.command("remove")
def hold_remove(
    hold_id: HoldId,
    reason: Annotated[str, Option(metavar="TEXT", help="Why it is not needed any more.")] = "",
    actor: By = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Release a hold: what it covered may be erased again."""
    settings = read_settings(data_dir, tenant)
    released = run(lambda store: Holds(store).release(hold_id, reason=reason, actor=actor), settings, tenant)
    print_result(released, f"hold {released.id} on {printable(released.subject)} released", as_json=as_json)
