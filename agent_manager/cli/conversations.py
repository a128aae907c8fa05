"""The commands conversations, messages, tasks, history and conversation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from uuid import UUID

import typer
from typer import Argument, Option

from agent_manager.cli.options import (
    DataDir,
    Json,
    ListOptions,
    Tenant,
    parse_time,
    read_settings,
    run,
    with_list_options,
)
from agent_manager.cli.output import print_json, print_lag, print_table, row_value
from agent_manager.cli.rows import ALL_EVENTS, ALL_MESSAGES, ALL_TASKS, CONVERSATIONS, EVENTS, MESSAGES, TASKS
from eventstore import EventStore
from eventstore.events import HIGHEST_POSITION
from projections import Reader
from projections.reading import WAIT_SECONDS, not_found

_LATEST = 2**63 - 1

ConversationId = Annotated[str, Argument(metavar="ID", help="A conversation's id, or the id that its client gave it.")]
OptionalConversationId = Annotated[
    str | None,
    Argument(
        metavar="ID", help="A conversation's id, or the id that its client gave it; all conversations by default."
    ),
]
Actor = Annotated[str | None, Option(metavar="ACTOR", help="Only what this actor caused.")]
OfDeleted = Annotated[bool, Option("--deleted", help="Include deleted conversations, if all conversations are listed.")]
AtLeast = Annotated[
    int | None, Option(metavar="POSITION", min=0, help="Wait until the workers have applied this position of the log.")
]
Timeout = Annotated[float, Option(metavar="SECONDS", min=0, help="How long --at-least waits at most.")]


@with_list_options
def conversations(
    active: Annotated[bool | None, Option("--active/--archived", help="Only active, or only archived ones.")] = None,
    deleted: Annotated[bool, Option("--deleted", help="Include deleted ones.")] = False,
    user: Annotated[str | None, Option(metavar="ACTOR", help="Only those in which this actor appears.")] = None,
    by: Annotated[str, Option(metavar="updated|created", help="The time to sort by.")] = "updated",
    at_least: AtLeast = None,
    timeout: Timeout = WAIT_SECONDS,
    *,
    options: ListOptions,
) -> None:
    """List conversations, the latest updated first.

    Sorted by the time of creation, the pages contain each conversation exactly once, whatever is written meanwhile.
    """

    async def work(store: EventStore) -> None:
        filters = options.filters(None) | {"limit": options.limit}
        order = cast("Literal['updated', 'created']", by)
        page = await Reader(store, timeout=timeout).conversations(
            active=active, deleted=deleted, actor=user, by=order, at_least=at_least, **filters
        )
        is_filtered = active is not None or user or options.since or options.until or options.after
        nothing = (
            "no such conversations"
            if is_filtered
            else "no conversations yet: eventstore seed or eventstore import FILE.jsonl adds some"
        )
        options.print(page, CONVERSATIONS, nothing=nothing)
        await print_lag(store)

    options.run(work)


@with_list_options
def messages(
    conversation: OptionalConversationId = None,
    role: Annotated[str | None, Option(help="Only with this role.")] = None,
    user: Actor = None,
    deleted: OfDeleted = False,
    at_least: AtLeast = None,
    timeout: Timeout = WAIT_SECONDS,
    *,
    options: ListOptions,
) -> None:
    """Show the messages of a conversation in their order, or the newest of all.

    With --json each object also has the member sent: the message exactly as it was sent.
    """

    async def work(store: EventStore) -> None:
        reader = Reader(store, timeout=timeout)
        found = await _resolve(reader, conversation, at_least)
        page = await reader.messages(
            found, role=role, actor=user, deleted=deleted, at_least=at_least, **options.filters(found)
        )
        nothing = "the conversation has no such messages" if found else "no such messages"
        options.print(page, MESSAGES if found else ALL_MESSAGES, nothing=nothing)
        await print_lag(store)

    options.run(work)


@with_list_options
def tasks(
    conversation: OptionalConversationId = None,
    status: Annotated[str | None, Option(help="Only with this status.")] = None,
    deleted: OfDeleted = False,
    at_least: AtLeast = None,
    timeout: Timeout = WAIT_SECONDS,
    *,
    options: ListOptions,
) -> None:
    """List the tasks of a conversation, the oldest first, or the newest of all."""

    async def work(store: EventStore) -> None:
        reader = Reader(store, timeout=timeout)
        found = await _resolve(reader, conversation, at_least)
        page = await reader.tasks(found, status=status, deleted=deleted, at_least=at_least, **options.filters(found))
        nothing = "the conversation has no such tasks" if found else "no such tasks"
        options.print(page, TASKS if found else ALL_TASKS, nothing=nothing)
        await print_lag(store)

    options.run(work)


@with_list_options
def history(
    conversation: OptionalConversationId = None,
    kind: Annotated[list[str] | None, Option("--type", help="Only events of this type; may be repeated.")] = None,
    user: Actor = None,
    *,
    options: ListOptions,
) -> None:
    """Show the audit trail of a conversation, or of all: every event, from the log itself."""

    async def work(store: EventStore) -> None:
        reader = Reader(store)
        found = None if conversation is None else await _resolve_in_log(store, reader, conversation)
        page = await reader.history(found, types=kind or None, actor=user, **options.filters(found))
        options.print(page, EVENTS if found else ALL_EVENTS, nothing="no such events")

    options.run(work)


async def _resolve(reader: Reader, conversation: str | None, at_least: int | None) -> UUID | None:
    return None if conversation is None else (await reader.conversation(conversation, at_least=at_least)).id


async def _resolve_in_log(store: EventStore, reader: Reader, conversation: str) -> UUID:
    """Return the id of a conversation, without the read tables and so without a worker."""
    for candidate in reader.candidates(conversation):
        async for _ in store.read(candidate, limit=1):
            return candidate
    raise not_found(conversation)


def conversation(
    conversation: ConversationId,
    version: Annotated[int | None, Option(min=1, help="As it was at this version.")] = None,
    position: Annotated[int | None, Option(min=1, help="As it was at this position of the log.")] = None,
    time: Annotated[str | None, Option(metavar="TIME", help="As it was known at this time, ISO 8601.")] = None,
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
            "messages": list(map(MESSAGES.value, state.messages)),
            "tasks": list(map(TASKS.value, state.tasks)),
        })  # fmt: skip
        return
    found = state.conversation
    print_table(
        ("id", "name", ">version", "active", "deleted", "updated", "?uuid"),
        [
            (found.given_id or found.id, found.name, found.version, found.is_active, found.is_deleted,
             found.updated_at, found.id)
        ],
        nothing="",
    )  # fmt: skip
    typer.echo()
    print_table(MESSAGES.columns, map(MESSAGES.cells, state.messages), nothing="no messages")
    if state.tasks:
        typer.echo()
        print_table(TASKS.columns, map(TASKS.cells, state.tasks), nothing="")
