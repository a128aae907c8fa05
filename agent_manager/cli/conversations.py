"""The commands conversations, messages, tasks, history and conversation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from uuid import UUID

import typer
from typer import Argument, Option

from agent_manager.cli.ids import find_conversation, given_ids
from agent_manager.cli.options import (
    Actor,
    DataDir,
    Json,
    ListOptions,
    Tenant,
    User,
    parse_time,
    read_settings,
    run,
    with_list_options,
)
from agent_manager.cli.output import print_json, print_lag, print_table, row_value
from agent_manager.cli.rows import ALL_EVENTS, ALL_MESSAGES, ALL_TASKS, CONVERSATIONS, EVENTS, MESSAGES, TASKS
from eventstore import EventStore
from eventstore.events import HIGHEST_POSITION
from projections import ConversationState, Reader
from projections.reading import WAIT_SECONDS

_ID = "A conversation's id, or the id that its client gave it, or as much of its beginning as no other id has."
ConversationId = Annotated[str, Argument(metavar="ID", help=_ID)]
OptionalConversationId = Annotated[str | None, Argument(metavar="ID", help=f"{_ID} All conversations by default.")]
OfDeleted = Annotated[bool, Option("--deleted", help="Include deleted conversations, if all conversations are listed.")]
AtLeast = Annotated[
    int | None, Option(metavar="POSITION", min=0, help="Wait until the workers have applied this position of the log.")
]
Timeout = Annotated[float, Option(metavar="SECONDS", min=0, help="How long --at-least waits at most.")]


@with_list_options
def conversations(
    active: Annotated[bool | None, Option("--active/--archived", help="Only active, or only archived ones.")] = None,
    deleted: Annotated[bool, Option("--deleted", help="Include deleted ones.")] = False,
    actor: Annotated[
        str | None, Option(metavar="ACTOR", help="Only those in which this actor caused an event.")
    ] = None,
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
        page = await options.reader(store, timeout).conversations(
            active=active, deleted=deleted, actor=actor, by=order, at_least=at_least, **filters
        )
        is_filtered = active is not None or actor or options.user or options.since or options.until or options.after
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
    actor: Actor = None,
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
        reader = options.reader(store, timeout)
        found = await _find(reader, conversation)
        page = await reader.messages(
            found, role=role, actor=actor, deleted=deleted, at_least=at_least, **options.filters(found)
        )
        nothing = "the conversation has no such messages" if found else "no such messages"
        names = {} if found else await given_ids(reader, (row.conversation_id for row in page))
        options.print(page, MESSAGES if found else ALL_MESSAGES.with_names(names), nothing=nothing)
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
        reader = options.reader(store, timeout)
        found = await _find(reader, conversation)
        page = await reader.tasks(found, status=status, deleted=deleted, at_least=at_least, **options.filters(found))
        nothing = "the conversation has no such tasks" if found else "no such tasks"
        names = {} if found else await given_ids(reader, (row.conversation_id for row in page))
        options.print(page, TASKS if found else ALL_TASKS.with_names(names), nothing=nothing)
        await print_lag(store)

    options.run(work)


@with_list_options
def history(
    conversation: OptionalConversationId = None,
    kind: Annotated[list[str] | None, Option("--type", help="Only events of this type; may be repeated.")] = None,
    actor: Actor = None,
    *,
    options: ListOptions,
) -> None:
    """Show the audit trail of a conversation, or of all: every event, from the log itself."""

    async def work(store: EventStore) -> None:
        reader = options.reader(store)
        found = await _find(reader, conversation)
        page = await reader.history(found, types=kind or None, actor=actor, **options.filters(found))
        names = {} if found else await given_ids(reader, (row.conversation_id for row in page))
        options.print(page, EVENTS if found else ALL_EVENTS.with_names(names), nothing="no such events")

    options.run(work)


async def _find(reader: Reader, conversation: str | None) -> UUID | None:
    return None if conversation is None else await find_conversation(reader, conversation)


def conversation(
    conversation: ConversationId,
    version: Annotated[int | None, Option(min=1, help="As it was at this version.")] = None,
    position: Annotated[int | None, Option(min=1, help="As it was at this position of the log.")] = None,
    time: Annotated[str | None, Option(metavar="TIME", help="As it was known at this time, ISO 8601.")] = None,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show a conversation with its messages and tasks, as it is or as it was, computed from the log itself."""
    at: dict[str, Any] = {"version": version, "position": position, "time": parse_time(time, "--time")}
    if all(value is None for value in at.values()):
        at["position"] = HIGHEST_POSITION
    settings = read_settings(data_dir, tenant)

    async def read(store: EventStore) -> ConversationState:
        reader = Reader(store, caller=store.caller(user=user))
        return await reader.conversation_at(await find_conversation(reader, conversation), **at)

    state = run(read, settings)
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
