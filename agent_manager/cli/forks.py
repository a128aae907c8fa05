"""The commands fork, compare and replay."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import fields
from typing import Annotated, Any
from uuid import UUID

import typer
from typer import Option

from agent_manager.cli.conversations import ConversationId, OptionalConversationId
from agent_manager.cli.ids import find_conversation
from agent_manager.cli.options import (
    Actor,
    DataDir,
    Json,
    Since,
    Tenant,
    Until,
    User,
    note_reading,
    read_settings,
    run,
    time_option,
)
from agent_manager.cli.output import print_json, print_json_line, print_result, print_table, text
from agent_manager.cli.rows import ALL_EVENTS, EVENTS, MESSAGES, TASKS
from eventstore import EventStore
from eventstore.errors import InputError, NotFound
from eventstore.pacing import paced
from projections import Comparison, Reader, all_items


def fork(
    conversation: ConversationId,
    version: Annotated[
        int | None, Option(min=0, help="The last version that the fork shares; the latest by default.")
    ] = None,
    before: Annotated[
        str | None, Option(metavar="MESSAGE", help="Share everything before the message with this id, to edit it.")
    ] = None,
    name: Annotated[str | None, Option(help="The name of the fork; by default that of the conversation.")] = None,
    fork_id: Annotated[
        UUID | None, Option("--id", metavar="UUID", help="The id of the fork; a new one by default.")
    ] = None,
    actor: Annotated[str, Option(metavar="ACTOR", help="The actor who forks it.")] = "",
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Begin a conversation that continues another one from a version on.

    Nothing is copied: the fork shows what the conversation held at that version, and then its own events.
    """
    if version is not None and before is not None:
        raise typer.BadParameter("choose one of --version and --before")

    async def work(store: EventStore) -> None:
        reader = Reader(store, caller=store.caller(user=user))
        found = await find_conversation(reader, conversation)
        source, at = found, version
        if before is not None:
            source, place = await reader.message_place(found, before)
            at = place - 1
        named = name
        if named is None:
            with suppress(NotFound):  # the workers have not applied its first event
                named = (await reader.conversation(found)).name or None
        result = await store.fork(
            source, at, conversation_id=fork_id, name=named, actor=actor, tenant=reader.tenant, user=user
        )
        forked = result.events[0].conversation_id
        members = {"conversation_id": forked, "source": source, "position": result.position}
        print_result(members, str(forked), as_json=as_json)

    run(work, read_settings(data_dir, tenant), tenant)


def compare(
    conversation: ConversationId,
    other: OptionalConversationId = None,
    version: Annotated[int | None, Option(min=1, help="Of the conversation; the latest by default.")] = None,
    other_version: Annotated[int | None, Option(min=1, help="Of the other one; the latest by default.")] = None,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show what differs between two conversations, such as forks, or between two versions of one.

    A line with - is only in the first, a line with + only in the second; ~ are the two states of a task or message.
    """
    if other is None and version is None and other_version is None:
        raise typer.BadParameter("give another conversation, or --version or --other-version")

    async def work(store: EventStore) -> None:
        reader = Reader(store, caller=store.caller(user=user))
        first = await find_conversation(reader, conversation)
        second = first if other is None else await find_conversation(reader, other)
        if version is not None or other_version is not None:
            await note_reading(store, "compare", conversation=first, other=second, version=version)
        found = await reader.compare(first, second, version=version, second_version=other_version)
        if as_json:
            print_json(_as_json(found))
        else:
            _print_comparison(found)

    run(work, read_settings(data_dir, tenant), tenant)


def _as_json(found: Comparison) -> dict[str, Any]:
    values: dict[str, Any] = {field.name: getattr(found, field.name) for field in fields(found)}
    values["shared"] = None if found.shared is None else found.shared._asdict()
    for name, value_of in (("removed", MESSAGES.value), ("added", MESSAGES.value), ("changed", MESSAGES.value)):
        tasks = f"{name}_tasks"
        for key, convert in ((name, value_of), (tasks, TASKS.value)):
            values[key] = [
                [convert(each) for each in row] if name == "changed" else convert(row) for row in values[key]
            ]
    return values


def _print_comparison(found: Comparison) -> None:
    if found.shared is None:
        typer.echo("they share nothing")
    else:
        typer.echo(f"both show {found.shared.conversation_id} up to version {found.shared.last_version}")
    rows: list[tuple[Any, ...]] = []
    for member, (first, second) in found.conversation.items():
        rows += [("-", member, first), ("+", member, second)]
    for mark, messages in (("-", found.removed), ("+", found.added)):
        rows += [(mark, message.role, MESSAGES.cells(message)[-1]) for message in messages]
    for first_message, second_message in found.changed:
        rows += [("~", each.role, MESSAGES.cells(each)[-1]) for each in (first_message, second_message)]
    for mark, tasks in (("-", found.removed_tasks), ("+", found.added_tasks)):
        rows += [(mark, "task", f"{task.status}: {task.description}") for task in tasks]
    for first_task, second_task in found.changed_tasks:
        rows += [("~", "task", f"{each.status}: {each.description}") for each in (first_task, second_task)]
    print_table(("", "what", "content"), rows, nothing="nothing differs")


def replay(
    conversation: OptionalConversationId = None,
    speed: Annotated[
        float, Option(metavar="FACTOR", help="1 is the original pace, 10 is ten times as fast; inf does not wait.")
    ] = 1.0,
    longest_pause: Annotated[
        float | None, Option(metavar="SECONDS", min=0, help="The longest pause between two events.")
    ] = None,
    after: Annotated[int, Option(metavar="POSITION", min=0, help="Only events of the log above this position.")] = 0,
    kind: Annotated[list[str] | None, Option("--type", help="Only events of this type; may be repeated.")] = None,
    actor: Actor = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show the events of a conversation, or of the log, at the pace at which they were appended.

    With --json it prints JSON Lines, one event per line as its time comes, for any program that reads them. A fork
    begins with the events that it shares.
    """
    if not speed > 0 or math.isnan(speed):
        raise typer.BadParameter("give a number above 0", param_hint="--speed")

    async def work(store: EventStore) -> None:
        reader = Reader(store, caller=store.caller(user=user))
        filters: dict[str, Any] = {
            "types": kind or None,
            "actor": actor,
            "since": time_option(since, "--since"),
            "until": time_option(until, "--until"),
        }
        await note_reading(store, "replay", conversation=conversation, after=after, **filters)
        if conversation is None:
            events = store.read_log(after=after, user=user, **filters)
        elif after:
            raise InputError("--after: is a position of the log: leave it out, or the conversation")
        else:
            found: UUID = await find_conversation(reader, conversation)
            events = all_items(reader.history, found, shared=True, **filters)
        async for event in paced(events, speed, longest_pause):
            if as_json:
                print_json_line(EVENTS.value(event))
            else:
                typer.echo("  ".join(map(text, ALL_EVENTS.cells(event))))

    run(work, read_settings(data_dir, tenant), tenant)
