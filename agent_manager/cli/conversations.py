"""The commands conversations, messages, tasks, history, conversation and pending."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from uuid import UUID

import typer

from agent_manager.agents import agent_from_settings
from agent_manager.cli.log import EVENT_COLUMNS, event_cells, event_value
from agent_manager.cli.options import (
    After,
    DataDir,
    Json,
    Limit,
    Since,
    Tenant,
    Until,
    parse_time,
    read_settings,
    run,
)
from agent_manager.cli.output import (
    MESSAGE_COLUMNS,
    TASK_COLUMNS,
    errors,
    message_cells,
    message_value,
    print_json,
    print_page,
    print_rows,
    print_table,
    row_value,
    task_cells,
)
from agent_manager.factory import AsyncManager
from eventstore import EventStore
from eventstore.errors import SettingsError
from eventstore.events import HIGHEST_POSITION
from eventstore.read import end_of_log
from projections import Reader, applied_position
from projections.reading import WAIT_SECONDS, not_found

_DEFAULT_LIMIT = 50
"""Of lists over all conversations."""

ConversationId = Annotated[
    str, typer.Argument(metavar="ID", help="A conversation's id, or the id that its client gave it.")
]
OptionalConversationId = Annotated[
    str | None,
    typer.Argument(
        metavar="ID",
        help="A conversation's id, or the id that its client gave it; all conversations by default.",
        show_default=False,
    ),
]
Actor = Annotated[
    str | None, typer.Option("--user", metavar="ACTOR", help="Only what this actor caused.", show_default=False)
]
OfDeleted = Annotated[
    bool, typer.Option("--deleted", help="Include deleted conversations, if all conversations are listed.")
]
Newest = Annotated[bool | None, typer.Option("--newest/--oldest", help="Newest or oldest first.", show_default=False)]
AsPage = Annotated[
    bool, typer.Option("--page", help='Print JSON with the cursor of the next page: {"rows": […], "next": …}.')
]
AtLeast = Annotated[
    int | None,
    typer.Option(
        "--at-least",
        metavar="POSITION",
        min=0,
        help="Wait until the workers have applied this position of the log.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long --at-least waits at most.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (conversations, messages, tasks, history, conversation, pending):
        app.command()(command)


def conversations(
    active: Annotated[
        bool | None,
        typer.Option("--active/--archived", help="Only active, or only archived ones.", show_default=False),
    ] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Include deleted ones.")] = False,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="ACTOR", help="Only those in which this actor appears.", show_default=False),
    ] = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[str, typer.Option("--by", metavar="updated|created", help="The time to sort by.")] = "updated",
    newest: Newest = None,
    limit: Limit = None,
    after: After = None,
    at_least: AtLeast = None,
    timeout: Timeout = WAIT_SECONDS,
    as_page: AsPage = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """List conversations, the latest updated first.

    Sorted by the time of creation, the pages contain each conversation exactly once, whatever is written meanwhile.
    """

    async def work(store: EventStore) -> None:
        page = await Reader(store, timeout=timeout).conversations(
            active=active, deleted=deleted, actor=user, since=parse_time(since, "--since"),
            until=parse_time(until, "--until"), by=cast("Literal['updated', 'created']", by),
            newest_first=newest is not False, limit=limit, after=after, at_least=at_least,
        )  # fmt: skip
        is_filtered = active is not None or user or since or until or after
        print_page(
            page,
            columns=("id", "name", ">messages", "active", "updated", "given id"),
            cells=lambda c: (c.id, c.name, c.message_count, c.is_active, c.updated_at, c.given_id),
            value=row_value,
            nothing="no such conversations"
            if is_filtered
            else "no conversations yet: eventstore seed or eventstore import FILE.jsonl adds some",
            as_json=as_json,
            as_page=as_page,
        )
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def messages(
    conversation: OptionalConversationId = None,
    role: Annotated[str | None, typer.Option("--role", help="Only with this role.", show_default=False)] = None,
    user: Actor = None,
    deleted: OfDeleted = False,
    since: Since = None,
    until: Until = None,
    newest: Newest = None,
    limit: Limit = None,
    after: After = None,
    at_least: AtLeast = None,
    timeout: Timeout = WAIT_SECONDS,
    as_page: AsPage = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show the messages of a conversation in their order, or the newest of all.

    With --json each object also has the member sent: the message exactly as it was sent.
    """

    async def work(store: EventStore) -> None:
        reader = Reader(store, timeout=timeout)
        found = await _resolve(reader, conversation, at_least)
        page = await reader.messages(
            found, role=role, actor=user, since=parse_time(since, "--since"), until=parse_time(until, "--until"),
            newest_first=_newest_first(newest, found), limit=_limit(limit, found), after=after, at_least=at_least,
            deleted=deleted,
        )  # fmt: skip
        print_page(
            page,
            columns=MESSAGE_COLUMNS if found else ("created", "conversation", *MESSAGE_COLUMNS[1:]),
            cells=message_cells if found else lambda m: (m.created_at, m.conversation_id, *message_cells(m)[1:]),
            value=message_value,
            nothing="the conversation has no such messages" if found else "no such messages",
            as_json=as_json,
            as_page=as_page,
        )
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def tasks(
    conversation: OptionalConversationId = None,
    status: Annotated[str | None, typer.Option("--status", help="Only with this status.", show_default=False)] = None,
    deleted: OfDeleted = False,
    since: Since = None,
    until: Until = None,
    newest: Newest = None,
    limit: Limit = None,
    after: After = None,
    at_least: AtLeast = None,
    timeout: Timeout = WAIT_SECONDS,
    as_page: AsPage = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """List the tasks of a conversation, the oldest first, or the newest of all."""

    async def work(store: EventStore) -> None:
        reader = Reader(store, timeout=timeout)
        found = await _resolve(reader, conversation, at_least)
        page = await reader.tasks(
            found, status=status, since=parse_time(since, "--since"), until=parse_time(until, "--until"),
            newest_first=_newest_first(newest, found), limit=_limit(limit, found), after=after, at_least=at_least,
            deleted=deleted,
        )  # fmt: skip
        print_page(
            page,
            columns=TASK_COLUMNS if found else (*TASK_COLUMNS, "conversation"),
            cells=task_cells if found else lambda t: (*task_cells(t), t.conversation_id),
            value=row_value,
            nothing="the conversation has no such tasks" if found else "no such tasks",
            as_json=as_json,
            as_page=as_page,
        )
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def history(
    conversation: OptionalConversationId = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only events of this type; may be repeated.", show_default=False),
    ] = None,
    user: Actor = None,
    since: Since = None,
    until: Until = None,
    newest: Newest = None,
    limit: Limit = None,
    after: After = None,
    as_page: AsPage = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show the audit trail of a conversation, or of all: every event, from the log itself."""

    async def work(store: EventStore) -> None:
        reader = Reader(store)
        found = None if conversation is None else await _resolve_in_log(store, reader, conversation)
        page = await reader.history(
            found, types=kind or None, actor=user, since=parse_time(since, "--since"),
            until=parse_time(until, "--until"), newest_first=_newest_first(newest, found), limit=_limit(limit, found),
            after=after,
        )  # fmt: skip
        print_page(
            page,
            columns=EVENT_COLUMNS if found else (*EVENT_COLUMNS[:-1], "conversation", EVENT_COLUMNS[-1]),
            cells=event_cells if found else lambda e: (*event_cells(e)[:-1], e.conversation_id, event_cells(e)[-1]),
            value=event_value,
            nothing="no such events",
            as_json=as_json,
            as_page=as_page,
        )

    run(work, read_settings(data_dir, tenant))


async def _resolve(reader: Reader, conversation: str | None, at_least: int | None) -> UUID | None:
    return None if conversation is None else (await reader.conversation(conversation, at_least=at_least)).id


async def _resolve_in_log(store: EventStore, reader: Reader, conversation: str) -> UUID:
    """Return the id of a conversation, without the read tables and so without a worker."""
    for candidate in reader.candidates(conversation):
        async for _ in store.read(candidate, limit=1):
            return candidate
    raise not_found(conversation)


def _newest_first(option: bool | None, conversation: UUID | None) -> bool:
    return conversation is None if option is None else option


def _limit(option: int | None, conversation: UUID | None) -> int | None:
    return _DEFAULT_LIMIT if option is None and conversation is None else option


async def mention_lag(store: EventStore) -> None:
    """Print a remark to standard error if the read tables are behind the log."""
    applied = await applied_position(store)
    if applied < await end_of_log(store.connections.auditor):
        errors.print(
            "the read tables are behind the log: eventstore up or eventstore project brings them up to date",
            soft_wrap=True,
        )


def conversation(
    conversation: ConversationId,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="As it was at this version.", show_default=False)
    ] = None,
    position: Annotated[
        int | None,
        typer.Option("--position", min=1, help="As it was at this position of the log.", show_default=False),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="As it was known at this time, ISO 8601.", show_default=False),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show a conversation with its messages and tasks, as it is or as it was, computed from the log itself."""
    at: dict[str, Any] = {"version": version, "position": position, "time": parse_time(time, "--time")}
    if all(value is None for value in at.values()):
        at["position"] = HIGHEST_POSITION
    settings = read_settings(data_dir, tenant)
    state = run(lambda store: Reader(store).conversation_at(conversation, **at), settings)
    if as_json:
        print_json({
            "conversation": row_value(state.conversation),
            "messages": [message_value(message) for message in state.messages],
            "tasks": [row_value(task) for task in state.tasks],
        })  # fmt: skip
        return
    found = state.conversation
    print_table(
        ("id", "name", ">version", "active", "deleted", "updated"),
        [(found.id, found.name, found.version, found.is_active, found.is_deleted, found.updated_at)],
        nothing="",
    )
    typer.echo()
    print_table(MESSAGE_COLUMNS, map(message_cells, state.messages), nothing="no messages")
    if state.tasks:
        typer.echo()
        print_table(TASK_COLUMNS, map(task_cells, state.tasks), nothing="")


def pending(
    answer: Annotated[
        bool, typer.Option("--answer", help="Let the agent that EVENTSTORE_ANSWER names answer them.")
    ] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Abandon them, without an answer.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the messages that await an answer; let an agent answer them, or abandon them.

    After a restart these are the messages whose processing was interrupted. Messages that another process is answering
    are left to it; it takes some seconds to notice that a process has ended.
    """
    if answer and abandon:
        raise typer.BadParameter("choose one of --answer and --abandon")
    settings = read_settings(data_dir)
    agent = agent_from_settings(settings)
    if answer and agent is None:
        raise SettingsError(
            "EVENTSTORE_ANSWER: names no agent: give an agent's URL, package.module:function, or echo for a test"
        )

    async def work(store: EventStore) -> None:
        async with AsyncManager(store, answer=agent, runs_worker=False) as manager:
            if answer:
                await _answer_pending(manager)
                return
            rows = await manager.pending()
            if abandon:
                for row in rows:
                    await manager.abandon(row)
                typer.echo(f"{len(rows)} abandoned")
            else:
                print_rows(
                    rows,
                    ("since", "conversation", "message", "status", ">position"),
                    lambda row: (row.since, row.conversation_id, row.message_id, row.status, row.position),
                    nothing="nothing is pending",
                    as_json=as_json,
                )

    run(work, settings)


async def _answer_pending(manager: AsyncManager) -> None:
    answered = await manager.answer_pending()
    failed = [(row, error) for row, error in answered if error is not None]
    for row, error in failed:
        typer.echo(f"message {row.message_id} of {row.conversation_id}: {error}", err=True)
    typer.echo(f"{len(answered) - len(failed)} answered, {len(failed)} failed")
    if left := await manager.pending():
        typer.echo(f"{len(left)} more are being answered by another process, or have just arrived", err=True)
    if failed:
        raise typer.Exit(1)
