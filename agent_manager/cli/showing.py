"""The commands that show what is stored."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Annotated, Any

import typer

from agent_manager.cli.options import ConversationId, DataDir, Json, Limit, Tenant, read_settings, run
from agent_manager.cli.output import errors, print_json, print_json_line, print_table, text
from agent_manager.cli.summary import what_changed
from eventstore import Event, EventStore
from eventstore.errors import NotFound
from eventstore.read import horizon, last_event
from projections import Message, Reader, applied_position, load, read_status

_EVENT_COLUMNS = (">position", ">version", "time", "actor", "type", "what changed")


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (conversations, messages, tasks, history, tail, status):
        app.command()(command)


def conversations(
    archived: Annotated[bool, typer.Option("--archived", help="Only archived ones.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Hidden ones too.")] = False,
    limit: Limit = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """List conversations, the latest updated first."""

    async def work(store: EventStore) -> None:
        rows = await Reader(store).conversations(active=False if archived else None, deleted=deleted, limit=limit)
        if as_json:
            print_json(rows)
        else:
            print_table(
                ("id", "name", ">messages", "active", "updated", "given id"),
                [(c.id, c.name, c.message_count, c.is_active, c.updated_at, c.given_id) for c in rows],
                nothing="no conversations yet: eventstore seed or eventstore import FILE.jsonl puts some in",
            )
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def messages(
    conversation: ConversationId,
    role: Annotated[str | None, typer.Option("--role", help="Only of this role.", show_default=False)] = None,
    limit: Limit = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show the messages of a conversation in their order.

    With --json each object also has the member sent: the message exactly as it was sent.
    """

    async def work(store: EventStore) -> None:
        reader = Reader(store)
        found = await reader.conversation(conversation)
        rows = await reader.messages(found.id, role=role, limit=limit)
        if as_json:
            print_json([_row(message) | {"sent": message.sent} for message in rows])
        else:
            print_table(
                ("created", "role", "content"),
                [(m.created_at, m.role, _shown(m)) for m in rows],
                nothing="the conversation has no such messages",
            )
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def tasks(
    conversation: ConversationId,
    status: Annotated[str | None, typer.Option("--status", help="Only in this status.", show_default=False)] = None,
    limit: Limit = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """List the tasks of a conversation, the oldest first."""

    async def work(store: EventStore) -> None:
        reader = Reader(store)
        found = await reader.conversation(conversation)
        rows = await reader.tasks(found.id, status=status, limit=limit)
        if as_json:
            print_json(rows)
        else:
            print_table(
                ("id", "status", "description", ">artifacts", "updated"),
                [(t.id, t.status, t.description, len(t.artifacts), t.updated_at) for t in rows],
                nothing="the conversation has no such tasks",
            )
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def history(
    conversation: ConversationId,
    limit: Limit = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show the audit trail of a conversation: every event, from the log itself."""

    async def work(store: EventStore) -> None:
        reader = Reader(store)
        events: list[Event] = []
        for candidate in reader.candidates(conversation):
            events = [event async for event in store.read(candidate, limit=limit)]
            if events:
                break
        else:
            raise NotFound(f"no conversation has the id {conversation!r}: eventstore conversations lists them")
        if as_json:
            print_json([_event(event) for event in events])
        else:
            print_table(_EVENT_COLUMNS, map(_event_row, events), nothing="")

    run(work, read_settings(data_dir, tenant))


def tail(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Begin with the last so many events.")] = 10,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show the latest events of the log.

    With --follow --json it prints JSON Lines, an event a line.
    """

    async def work(store: EventStore) -> None:
        latest = [event async for event in store.read_log(backwards=True, limit=limit)][::-1]
        if not follow:
            if as_json:
                print_json([_event(event) for event in latest])
            else:
                print_table(
                    _EVENT_COLUMNS,
                    map(_event_row, latest),
                    nothing="the log is empty" if limit else "no events asked for",
                )
            return
        seen = latest[-1].position if latest else await last_event(store.pool, await horizon(store.pool))
        for event in latest:
            _print_event(event, as_json=as_json)
        coming: AsyncIterator[Event] = store.subscribe(after=seen)
        async for event in coming:
            _print_event(event, as_json=as_json)

    run(work, read_settings(data_dir, tenant))


def status(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show the size of the log, and how far each projection is behind it."""

    async def work(store: EventStore) -> None:
        now = await read_status(store, load(store.settings.projections))
        if as_json:
            print_json(now)
            return
        typer.echo(f"database       {now.database_url}, schema {now.db_schema}")
        typer.echo(f"server         PostgreSQL {now.server_version}")
        typer.echo(
            f"log            {now.events:,} events in {now.conversations:,} conversations, {now.bytes / 1e6:,.1f} MB, "
            f"last position {now.last_position:,}, final up to {now.horizon:,}"
        )
        for append in now.appends_in_flight:
            typer.echo(
                f"in flight      an append of {append.login or 'a prepared transaction'} "
                f"(process {append.pid}, {append.application or 'no name'}, {append.state}) for {append.seconds:,.1f} s"
            )
        typer.echo()
        print_table(
            (
                "projection", ">position", ">events behind", ">seconds behind", ">parked", "updated",
                "made by this version",
            ),
            [
                (p.name, p.position, p.lag_events, f"{p.lag_seconds:.1f}", p.parked, p.updated_at, p.is_current)
                for p in now.projections
            ],
            nothing="no projection has run yet: eventstore up",
        )  # fmt: skip
        typer.echo()
        print_table(
            ("worker", "client", ">server process", "shares of the conversations"),
            [(w.application, w.client, w.pid, " ".join(map(str, w.shares)) or "none free") for w in now.workers],
            nothing="no worker runs: eventstore up, or eventstore project",
        )

    run(work, read_settings(data_dir))


async def mention_lag(store: EventStore) -> None:
    """Says on standard error so, where the read tables are behind the log."""
    applied = await applied_position(store)
    if applied < await last_event(store.pool, await horizon(store.pool)):
        errors.print(
            "the read tables are behind the log: eventstore up or eventstore project brings them up", soft_wrap=True
        )


def _row(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row)}


def _shown(message: Message) -> str:
    calls = (message.extra or {}).get("tool_calls")
    return message.content or (
        f"tool calls: {json.dumps(calls, ensure_ascii=False)}" if calls else str(message.parts or message.extra or "")
    )


def _event(event: Event) -> dict[str, Any]:
    shown = _row(event)
    shown["metadata"] = shown.pop("raw_metadata")
    return shown | {"occurred_at": event.occurred_at, "what_changed": what_changed(event)}


def _event_row(event: Event) -> tuple[Any, ...]:
    return event.position, event.version, event.timestamp, event.actor, event.event_type, what_changed(event)


def _print_event(event: Event, *, as_json: bool) -> None:
    if as_json:
        print_json_line(_event(event))
    else:
        typer.echo(
            "  ".join(text(cell) for cell in (*_event_row(event)[:5], event.conversation_id, what_changed(event)))
        )
