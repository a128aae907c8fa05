"""The commands that list what is stored: conversations, messages, tasks, the audit trail."""

from __future__ import annotations

from typing import Annotated, Literal, cast
from uuid import UUID

import typer

from agent_manager.cli.options import DataDir, Json, Limit, Tenant, read_settings, run
from agent_manager.cli.output import errors
from agent_manager.cli.pages import (
    SHOWN,
    TIMEOUT,
    After,
    AsPage,
    AtLeast,
    Newest,
    Since,
    Timeout,
    Until,
    moment,
    print_page,
)
from agent_manager.cli.rows import (
    MESSAGE_COLUMNS,
    TASK_COLUMNS,
    message_cells,
    message_value,
    row_value,
    task_cells,
)
from agent_manager.cli.showing import EVENT_COLUMNS, event_row, event_value
from eventstore import EventStore
from eventstore.read import end_of_log
from projections import Reader, applied_position
from projections.reading import not_found

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


def add_to(app: typer.Typer) -> None:
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
    if applied < await end_of_log(store.parts.auditor):
        errors.print(
            "the read tables are behind the log: eventstore up or eventstore project brings them up", soft_wrap=True
        )
