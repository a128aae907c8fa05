"""The commands conversations, messages, tasks, history and conversation."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer
from typer import Argument, Option

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
    time_option,
    with_list_options,
)
from agent_manager.cli.output import Lag, Table, in_pages, json_text, print_json_rows, print_pages, print_table
from agent_manager.cli.rows import ALL_EVENTS, ALL_MESSAGES, ALL_TASKS, CONVERSATIONS, EVENTS, MESSAGES, TASKS
from eventstore import EventStore
from eventstore.events import HIGHEST_POSITION
from projections import Reader
from projections.conversation_snapshot import ConversationSnapshot
from projections.reading import WAIT_SECONDS

_ID = "A conversation's id, or the id that its client gave it, or as much of its beginning as no other id has."
ConversationId = Annotated[str, Argument(metavar="ID", help=_ID)]
OptionalConversationId = Annotated[str | None, Argument(metavar="ID", help=f"{_ID} All conversations by default.")]
OfDeleted = Annotated[bool, Option("--deleted", help="Include deleted conversations, if all conversations are listed.")]
AtLeast = Annotated[
    int | None, Option(metavar="POSITION", min=0, help="Wait until the workers have applied this position of the log.")
]
Timeout = Annotated[float, Option(metavar="SECONDS", min=0, help="How long to wait for the workers at most.")]


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
        lag = await Lag.wait(store, "conversations", *(["actors"] if actor is not None else []), timeout=timeout)
        is_filtered = (
            active is not None or actor is not None or options.user or options.since or options.until or options.after
        )
        nothing = (
            "no such conversations"
            if is_filtered
            else "no conversations yet: eventstore seed or eventstore import FILE.jsonl adds some"
        )
        await options.print(
            options.reader(store, timeout).conversations, CONVERSATIONS, nothing=nothing,
            active=active, deleted=deleted, actor=actor, by=by, at_least=at_least, **options.filters(None),
        )  # fmt: skip
        lag.print()

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
        lag = await Lag.wait(store, "conversations", "messages", timeout=timeout)
        reader = options.reader(store, timeout)
        found = await _find(reader, conversation)
        nothing = "the conversation has no such messages" if found else "no such messages"
        await options.print(
            partial(reader.messages, found), MESSAGES if found else ALL_MESSAGES, nothing=nothing,
            role=role, actor=actor, deleted=deleted, at_least=at_least, **_list_of(reader, found),
            **options.filters(found),
        )  # fmt: skip
        lag.print()

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
        lag = await Lag.wait(store, "conversations", "tasks", timeout=timeout)
        reader = options.reader(store, timeout)
        found = await _find(reader, conversation)
        nothing = "the conversation has no such tasks" if found else "no such tasks"
        await options.print(
            partial(reader.tasks, found), TASKS if found else ALL_TASKS, nothing=nothing,
            status=status, deleted=deleted, at_least=at_least, **_list_of(reader, found), **options.filters(found),
        )  # fmt: skip
        lag.print()

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
        filters = {"types": kind or None, "actor": actor, **options.filters(found)}
        await note_reading(store, "history", conversation=found, **filters)
        await options.print(
            partial(reader.history, found), EVENTS if found else ALL_EVENTS, nothing="no such events",
            **_list_of(reader, found), **filters,
        )  # fmt: skip

    options.run(work)


async def _find(reader: Reader, conversation: str | None) -> UUID | None:
    return None if conversation is None else await find_conversation(reader, conversation)


def _list_of(reader: Reader, conversation: UUID | None) -> dict[str, Any]:
    """Return how a list is printed: a conversation whole, or the newest of all with the ids that clients gave them."""
    if conversation is not None:
        return {}
    return {"default_limit": DEFAULT_LIMIT, "names": partial(names_of_conversations, reader)}


def conversation(
    conversation: ConversationId,
    version: Annotated[int | None, Option(min=1, help="As it was at this version.")] = None,
    position: Annotated[int | None, Option(min=1, help="As it was at this position of the log.")] = None,
    time: Annotated[
        str | None, Option(metavar="TIME", help="As it was known at this time; ISO 8601, in UTC without an offset.")
    ] = None,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show a conversation with its messages and tasks, as it is or as it was, computed from the log itself."""
    at: dict[str, Any] = {"version": version, "position": position, "time": time_option(time, "--time")}
    if all(value is None for value in at.values()):
        at["position"] = HIGHEST_POSITION

    async def work(store: EventStore) -> None:
        reader = Reader(store, caller=store.caller(user=user))
        found = await find_conversation(reader, conversation)
        await note_reading(store, "conversation", conversation=found, **at)
        async with reader.snapshot_at(found, **at) as snapshot:
            await (_print_as_json if as_json else _print_as_tables)(snapshot)

    run(work, read_settings(data_dir, tenant), tenant)


async def _print_as_json(snapshot: ConversationSnapshot) -> None:
    conversation = json_text({"conversation": snapshot.conversation}).removesuffix("\n}")
    messages = (MESSAGES.value(message) async for message in snapshot.messages())
    tasks = (TASKS.value(task) async for task in snapshot.tasks())
    await print_json_rows(messages, before=f'{conversation},\n  "messages": ')
    await print_json_rows(tasks, before=',\n  "tasks": ')
    sys.stdout.write("\n}\n")


async def _print_as_tables(snapshot: ConversationSnapshot) -> None:
    found = snapshot.conversation
    print_table(
        ("id", "name", ">version", "active", "deleted", "updated", "?uuid"),
        [
            (found.given_id or found.id, found.name, found.version, found.is_active, found.is_deleted,
             found.updated_at, found.id)
        ],
        nothing="",
    )  # fmt: skip
    typer.echo()
    messages = in_pages(snapshot.messages(), lambda message: len(message.content or ""))
    await print_pages(messages, MESSAGES, nothing="no messages", as_json=False)
    tasks = Table(TASKS.columns)
    async for page in in_pages(snapshot.tasks(), lambda task: len(task.description)):
        if page and not tasks.has_rows:
            typer.echo()
        tasks.print(map(TASKS.cells, page))
