"""The commands audit trail and audit causes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from typer import Argument, Option

from agent_manager.audit.proofs import find_position
from agent_manager.audit.trail import Causation, read_causation, through, why
from agent_manager.audit.trail_export import Exported, export_trail
from agent_manager.cli.conversations import OptionalConversationId
from agent_manager.cli.ids import find_conversation, names_of_conversations
from agent_manager.cli.options import (
    DEFAULT_LIMIT,
    Actor,
    DataDir,
    Json,
    ListOptions,
    Tenant,
    User,
    note_reading,
    read_settings,
    run,
    with_list_options,
)
from agent_manager.cli.output import RowFormat, print_json, print_remark, print_result, text
from agent_manager.cli.rows import ALL_EVENTS, what_changed
from eventstore import Event, EventStore
from eventstore.administration import ADMINISTRATION, SYSTEM_TENANT
from eventstore.errors import NotFound
from eventstore.ids import parse_uuid
from projections import Reader


def _value(event: Event) -> dict[str, Any]:
    metadata = event.metadata
    members: dict[str, Any] = ALL_EVENTS.value(event)
    return members | {
        "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id,
        "reason": why(event),
        "via": through(event),
    }


TRAIL: RowFormat[Event] = RowFormat(
    (">position", "time", "actor", "type", "conversation", "?reason", "?via", "?cause", "?correlation", "what changed"),
    lambda e: (
        e.position, e.timestamp, e.actor, e.event_type, e.conversation_id, why(e), through(e),
        e.metadata.causation_id, e.metadata.correlation_id, what_changed(e),
    ),
    _value,
)  # fmt: skip


@with_list_options
def trail(
    conversation: OptionalConversationId = None,
    actor: Actor = None,
    kind: Annotated[list[str] | None, Option("--type", help="Only events of this type; may be repeated.")] = None,
    correlation: Annotated[str | None, Option(metavar="ID", help="Only events with this correlation id.")] = None,
    acts: Annotated[
        bool, Option("--acts", help="Only administrative acts: of keys, users, tenants, rebuilds and the like.")
    ] = False,
    system: Annotated[bool, Option("--system", help="The administrative acts that concern all tenants.")] = False,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE", help="Export it to this file: .jsonl, .csv or .parquet."),
    ] = None,
    *,
    options: ListOptions,
) -> None:
    """Show who did what, when, why and through what, of a conversation or of all.

    With --output it writes the events to a file, and beside it a proof that audit check FILE verifies without the
    database; events that are not sealed yet are left out. Where EVENTSTORE_AUDIT_READS is set, reading it is recorded.
    """
    if conversation is not None and (acts or system):
        raise typer.BadParameter("choose one of a conversation, --acts and --system")
    if output is not None and (options.after or options.newest):
        raise typer.BadParameter("an export has all events, the oldest first: leave out --after and --newest")
    options = replace(options, tenant=SYSTEM_TENANT) if system else options

    async def work(store: EventStore) -> None:
        reader = options.reader(store)
        found = None if conversation is None else await find_conversation(reader, conversation)
        found = ADMINISTRATION if acts or system else found
        filters = {"types": kind or None, "actor": actor, "correlation_id": correlation, **options.filters(found)}
        await note_reading(store, "audit trail", conversation=found, output=output, **filters)
        if output is not None:
            del filters["newest_first"]
            exported = await export_trail(
                store, output, caller=reader.caller, conversation_id=found, limit=options.limit, **filters
            )
            _print_export(exported, as_json=options.as_json)
            return
        await options.print(
            partial(reader.history, found), TRAIL, nothing="no such events",
            default_limit=None if found else DEFAULT_LIMIT, names=partial(names_of_conversations, reader), **filters,
        )  # fmt: skip

    run(work, read_settings(options.data_dir, options.tenant), None if system else options.tenant)


def _print_export(exported: Exported, *, as_json: bool) -> None:
    if exported.unsealed:
        print_remark(f"{exported.unsealed:,} further event(s) are not sealed yet and are left out")
    if exported.proof is None:
        print_remark("nothing is sealed, so there is no proof: set EVENTSTORE_AUDIT_KEY for eventstore up or project")
    line = f"{exported.file}: {exported.events:,} event(s)" + (
        f"; {exported.proof}: their proof" if exported.proof else ""
    )
    value = {
        "file": str(exported.file),
        "proof": exported.proof and str(exported.proof),
        "events": exported.events,
        "unsealed": exported.unsealed,
        "size": exported.size,
    }
    print_result(value, line, as_json=as_json)


def causes(
    event: Annotated[str, Argument(metavar="ID", help="The id of a message or of another event, or a position.")],
    conversation: Annotated[
        str | None, Option(metavar="ID", help="The conversation of the event: finds it faster, if it is not a message.")
    ] = None,
    across: Annotated[
        bool,
        Option("--across", help="Follow them into other conversations, too: reads the log from there on."),
    ] = False,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show what caused an event, and what it caused: of a message its task, the artifacts and the reply."""

    async def work(store: EventStore) -> Causation:
        given: UUID | None = None if conversation is None else parse_uuid(conversation, "--conversation")
        position = await find_position(store, event, given)
        caller = Reader(store, caller=store.caller(user=user)).caller
        async for found in store.read_log(after=position - 1, until_position=position, user=user):
            await note_reading(store, "audit causes", event=found.id, conversation=found.conversation_id)
            return await read_causation(store, caller, found.conversation_id, found.id, across=across)
        raise NotFound(f"no event that you may see has the position {position}: eventstore history shows positions")

    tree = run(work, read_settings(data_dir, tenant), tenant)
    if as_json:
        print_json(
            {
                "causes": [_value(each) for each in tree.causes],
                "effects": [
                    {"depth": each.depth, "cause_id": each.cause_id, **_value(each.event)} for each in tree.effects
                ],
            }
        )
        return
    asked_in = tree.effects[0].event.conversation_id
    for each in tree.causes:
        typer.echo(f"caused by {_line(each, asked_in)}")
    for effect in tree.effects:
        typer.echo("  " * effect.depth + _line(effect.event, asked_in))


def _line(event: Event, asked_in: UUID) -> str:
    cells = [event.timestamp, event.actor or "no actor", event.event_type, what_changed(event)]
    if event.conversation_id != asked_in:
        cells.insert(0, f"in conversation {event.conversation_id}:")
    return "  ".join(map(text, cells))
