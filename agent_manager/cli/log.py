"""The commands tail and status, and events in their output."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import print_json, print_json_line, print_table, print_warnings, row_value, text
from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    ConversationShared,
    ConversationUnshared,
    Event,
    EventStore,
    MessageAdded,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskStatusChanged,
)
from eventstore.read import end_of_log
from projections import load_projections, read_status

EVENT_COLUMNS = (">position", ">version", "time", "actor", "type", "what changed")
_LONGEST_CHANGE = 200


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (tail, status):
        app.command()(command)


def tail(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new events as they arrive.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Begin with this many of the latest events.")] = 10,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show the latest events of the log.

    With --follow --json it prints JSON Lines: one event per line.
    """

    async def work(store: EventStore) -> None:
        latest = [event async for event in store.read_log(backwards=True, limit=limit)][::-1]
        if not follow:
            if as_json:
                print_json([event_value(event) for event in latest])
            else:
                nothing = "the log is empty" if limit else "--limit 0: no events to show"
                print_table(EVENT_COLUMNS, map(event_cells, latest), nothing=nothing)
            return
        position = latest[-1].position if latest else await end_of_log(store.connections.auditor)
        for event in latest:
            _print_event(event, as_json=as_json)
        async for event in store.subscribe(after=position):
            _print_event(event, as_json=as_json)

    run(work, read_settings(data_dir, tenant))


def status(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show the size of the log, and how far each projection is behind it."""

    async def work(store: EventStore) -> None:
        now = await read_status(store, load_projections(store.settings.projections))
        if as_json:
            print_json(now)
            return
        typer.echo(f"database       {now.database_url}, schema {now.db_schema}")
        typer.echo(f"server         PostgreSQL {now.server_version}")
        typer.echo(
            f"log            {now.events:,} events in {now.conversations:,} conversations, {now.bytes / 1e6:,.1f} MB, "
            f"last position {now.last_position:,}, final up to {now.horizon:,}"
        )
        print_warnings(now.warnings)
        slow = "; consumers are not notified, and poll every few seconds" if now.notify_queue_usage >= 0.5 else ""
        typer.echo(f"notifications  the server's queue is {now.notify_queue_usage:.0%} full{slow}")
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
            ("worker", "client", ">server process", "partitions"),
            [(w.application, w.client, w.pid, " ".join(map(str, w.partitions)) or "none free") for w in now.workers],
            nothing="no worker is running: eventstore up, or eventstore project",
        )

    run(work, read_settings(data_dir))


def _print_event(event: Event, *, as_json: bool) -> None:
    if as_json:
        print_json_line(event_value(event))
    else:
        cells = (*event_cells(event)[:5], event.conversation_id, what_changed(event))
        typer.echo("  ".join(map(text, cells)))


def event_value(event: Event) -> dict[str, Any]:
    """Return the members of an event in JSON."""
    members = row_value(event)
    members["metadata"] = members.pop("raw_metadata")
    return members | {"occurred_at": event.occurred_at, "what_changed": what_changed(event)}


def event_cells(event: Event) -> tuple[Any, ...]:
    """Return the cells of an event in a table."""
    return event.position, event.version, event.timestamp, event.actor, event.event_type, what_changed(event)


def what_changed(event: Event) -> str:
    """Return the change that an event made, in a line."""
    line = " ".join(_describe(event).split())
    return line if len(line) <= _LONGEST_CHANGE else line[: _LONGEST_CHANGE - 1] + "…"


def _describe(event: Event) -> str:
    match event.data:
        case ConversationCreated(name=name):
            return f"created as {name!r}" if name else "created"
        case ConversationRenamed(name=name):
            return f"renamed to {name!r}"
        case ConversationArchived():
            return "archived"
        case ConversationReactivated():
            return "reactivated"
        case ConversationDeleted():
            return "hidden"
        case ConversationForked(source_conversation_id=source, source_version=version):
            return f"continues {source} from version {version}"
        case ConversationShared(user=user, access=access):
            return f"shared with {user!r} to {access}"
        case ConversationUnshared(user=user):
            return f"no longer shared with {user!r}"
        case MessageAdded() as message:
            return f"{message.role}: {_text(message)}"
        case TaskCreated(description=description, status=status, task_id=task):
            return f"task {task} {status}: {description}"
        case TaskStatusChanged(status=status, task_id=task):
            return f"task {task} is {status}"
        case TaskDescribed(description=description, task_id=task):
            return f"task {task}: {description}" if description is not None else f"task {task} has further members"
        case TaskArtifactAdded(artifact_id=artifact, task_id=task):
            return f"task {task} has artifact {artifact!r}"
        case TaskArtifactExtended(artifact_id=artifact, task_id=task):
            return f"task {task} extends artifact {artifact!r}"
        case ApplicationEvent(content=content):
            return json.dumps(content, ensure_ascii=False)
        case _:
            return json.dumps(event.content, ensure_ascii=False)


def _text(message: MessageAdded) -> str:
    if message.content is not None:
        return message.content
    rest = {"parts": message.parts} if message.parts is not None else message.extra or {}
    return json.dumps(rest, ensure_ascii=False)
