"""The commands conversation, conversations, messages, tasks, history, pending."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from uuid import UUID

import typer

from agent_manager.agents import agent_from_settings
from agent_manager.cli.log import EVENT_COLUMNS, event_row, event_value
from agent_manager.cli.options import (
    SHOWN,
    TIMEOUT,
    After,
    AsPage,
    AtLeast,
    ConversationId,
    DataDir,
    Json,
    Limit,
    Newest,
    Since,
    Tenant,
    Timeout,
    Until,
    moment,
    print_page,
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
    print_table,
    row_value,
    task_cells,
)
from agent_manager.factory import AsyncManager
from eventstore import EventStore
from eventstore.errors import SettingsError
from eventstore.read import end_of_log
from projections import Reader, applied_position
from projections.reading import not_found

# The command that shows one conversation, as it is or as it was

_LATEST = 2**63 - 1


def _add_as_of(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(conversation)


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
    """Show a conversation with its messages and tasks, as it is or as it was, folded from the log itself."""
    given: dict[str, Any] = {"version": version, "position": position, "time": moment(time, "--time")}
    if all(value is None for value in given.values()):
        given["position"] = _LATEST

    async def work(store: EventStore) -> None:
        state = await Reader(store).conversation_at(conversation, **given)
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

    run(work, read_settings(data_dir, tenant))


# The commands that list what is stored: conversations, messages, tasks, the audit trail

MaybeConversation = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]",
        help="A conversation's id, or the id that its client gave it; without one, all conversations.",
        show_default=False,
    ),
]
User = Annotated[
    str | None, typer.Option("--user", metavar="ACTOR", help="Only what this actor caused.", show_default=False)
]


OfDeleted = Annotated[
    bool, typer.Option("--deleted", help="Those of deleted conversations too, where no conversation is named.")
]


def _add_listing(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (conversations, messages, tasks, history):
        app.command()(command)


def conversations(
    active: Annotated[
        bool | None,
        typer.Option("--active/--archived", help="Only active, or only archived ones.", show_default=False),
    ] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones too.")] = False,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="ACTOR", help="Only those in which this actor appears.", show_default=False),
    ] = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[str, typer.Option("--by", metavar="updated|created", help="By which time.")] = "updated",
    newest: Newest = None,
    limit: Limit = None,
    after: After = None,
    at_least: AtLeast = None,
    timeout: Timeout = TIMEOUT,
    as_page: AsPage = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """List conversations, the latest updated first.

    By the time of creation, pages bring each conversation exactly once, whatever happens meanwhile.
    """

    async def work(store: EventStore) -> None:
        page = await Reader(store, timeout=timeout).conversations(
            active=active, deleted=deleted, actor=user, since=moment(since, "--since"), until=moment(until, "--until"),
            by=cast("Literal['updated', 'created']", by), newest_first=newest is not False, limit=limit, after=after,
            at_least=at_least,
        )  # fmt: skip
        print_page(
            page,
            columns=("id", "name", ">messages", "active", "updated", "given id"),
            cells=lambda c: (c.id, c.name, c.message_count, c.is_active, c.updated_at, c.given_id),
            value=row_value,
            nothing="no such conversations"
            if active is not None or user or since or until or after
            else "no conversations yet: eventstore seed or eventstore import FILE.jsonl puts some in",
            as_json=as_json,
            as_page=as_page,
        )
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def messages(
    conversation: MaybeConversation = None,
    role: Annotated[str | None, typer.Option("--role", help="Only of this role.", show_default=False)] = None,
    user: User = None,
    deleted: OfDeleted = False,
    since: Since = None,
    until: Until = None,
    newest: Newest = None,
    limit: Limit = None,
    after: After = None,
    at_least: AtLeast = None,
    timeout: Timeout = TIMEOUT,
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
        found = await _named(reader, conversation, at_least)
        page = await reader.messages(
            found, role=role, actor=user, since=moment(since, "--since"), until=moment(until, "--until"),
            newest_first=_newest(newest, found), limit=_limit(limit, found), after=after, at_least=at_least,
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
    conversation: MaybeConversation = None,
    status: Annotated[str | None, typer.Option("--status", help="Only in this status.", show_default=False)] = None,
    deleted: OfDeleted = False,
    since: Since = None,
    until: Until = None,
    newest: Newest = None,
    limit: Limit = None,
    after: After = None,
    at_least: AtLeast = None,
    timeout: Timeout = TIMEOUT,
    as_page: AsPage = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """List the tasks of a conversation, the oldest first, or the newest of all."""

    async def work(store: EventStore) -> None:
        reader = Reader(store, timeout=timeout)
        found = await _named(reader, conversation, at_least)
        page = await reader.tasks(
            found, status=status, since=moment(since, "--since"), until=moment(until, "--until"),
            newest_first=_newest(newest, found), limit=_limit(limit, found), after=after, at_least=at_least,
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
    conversation: MaybeConversation = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only events of this type; may be repeated.", show_default=False),
    ] = None,
    user: User = None,
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
        found = None if conversation is None else await _with_events(store, reader, conversation)
        page = await reader.history(
            found, types=kind or None, actor=user, since=moment(since, "--since"), until=moment(until, "--until"),
            newest_first=_newest(newest, found), limit=_limit(limit, found), after=after,
        )  # fmt: skip
        print_page(
            page,
            columns=EVENT_COLUMNS if found else (*EVENT_COLUMNS[:-1], "conversation", EVENT_COLUMNS[-1]),
            cells=event_row if found else lambda e: (*event_row(e)[:-1], e.conversation_id, event_row(e)[-1]),
            value=event_value,
            nothing="no such events",
            as_json=as_json,
            as_page=as_page,
        )

    run(work, read_settings(data_dir, tenant))


async def _named(reader: Reader, conversation: str | None, at_least: int | None) -> UUID | None:
    return None if conversation is None else (await reader.conversation(conversation, at_least=at_least)).id


async def _with_events(store: EventStore, reader: Reader, conversation: str) -> UUID:
    """The trail needs no read table, and so no worker."""
    for candidate in reader.candidates(conversation):
        async for _ in store.read(candidate, limit=1):
            return candidate
    raise not_found(conversation)


def _newest(said: bool | None, conversation: UUID | None) -> bool:
    return conversation is None if said is None else said


def _limit(said: int | None, conversation: UUID | None) -> int | None:
    return SHOWN if said is None and conversation is None else said


async def mention_lag(store: EventStore) -> None:
    """Says on standard error so, where the read tables are behind the log."""
    applied = await applied_position(store)
    if applied < await end_of_log(store.connections.auditor):
        errors.print(
            "the read tables are behind the log: eventstore up or eventstore project brings them up", soft_wrap=True
        )


# The command about messages that await an answer, such as those that a killed process left: pending


def _add_pending(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(pending)


def pending(
    answer: Annotated[
        bool, typer.Option("--answer", help="Have them answered by what EVENTSTORE_ANSWER names.")
    ] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Have them wait no longer, unanswered.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the messages that await an answer; have them answered, or given up.

    After a restart these are the messages whose answering was cut off. Messages that another process is answering
    are left to it; whether that process is still alive shows within some seconds.
    """
    if answer and abandon:
        raise typer.BadParameter("choose one of --answer and --abandon")
    settings = read_settings(data_dir)
    agent = agent_from_settings(settings)
    if answer and agent is None:
        raise SettingsError(
            "EVENTSTORE_ANSWER: names nobody who could answer: an agent's URL, package.module:function or echo"
        )

    async def work(store: EventStore) -> None:
        async with AsyncManager(store, answer=agent, runs_worker=False) as manager:
            if answer:
                answered = await manager.answer_pending()
                failed = [(one, error) for one, error in answered if error is not None]
                for one, error in failed:
                    typer.echo(f"message {one.message_id} of {one.conversation_id}: {error}", err=True)
                typer.echo(f"{len(answered) - len(failed)} answered, {len(failed)} failed")
                if left := await manager.pending():
                    typer.echo(f"{len(left)} more are being answered by another process, or have just come", err=True)
                if failed:
                    raise typer.Exit(1)
                return
            rows = await manager.pending()
            if abandon:
                for one in rows:
                    await manager.abandon(one)
                typer.echo(f"{len(rows)} given up")
            elif as_json:
                print_json(rows)
            else:
                print_table(
                    ("since", "conversation", "message", "status", ">position"),
                    [(one.since, one.conversation_id, one.message_id, one.status, one.position) for one in rows],
                    nothing="nothing is pending",
                )

    run(work, settings)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    _add_listing(app)
    _add_as_of(app)
    _add_pending(app)
