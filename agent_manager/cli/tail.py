"""The command tail."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

import typer
from typer import Option

from agent_manager.cli.ids import given_ids, names_of_conversations
from agent_manager.cli.options import DataDir, Json, LogFormat, LogLevel, Tenant, note_reading, read_settings, run
from agent_manager.cli.output import in_pages, print_json_line, print_pages, text
from agent_manager.cli.rows import ALL_EVENTS, EVENTS
from eventstore import ConversationCreated, Event, EventStore
from eventstore.read import end_of_log
from projections import Reader
from projections.pages import PAGE_SIZE


def tail(
    follow: Annotated[bool, Option("--follow", "-f", help="Continue with new events as they arrive.")] = False,
    limit: Annotated[int, Option("--limit", "-n", min=0, help="Begin with this many of the latest events.")] = 10,
    as_json: Json = False,
    data_dir: DataDir = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    tenant: Tenant = None,
) -> None:
    """Show the latest events of the log, the newest last.

    It ends after them; with --follow it goes on until Ctrl-C, which ends it with exit code 130, or until the reader of
    its output exits. With --follow --json it prints JSON Lines: one event per line.
    """

    async def work(store: EventStore) -> None:
        reader = Reader(store)
        await note_reading(store, "tail", follow=follow, limit=limit)
        end = await end_of_log(store.connections.auditor)
        first = end + 1
        async for event in store.read_log(until_position=end, backwards=True, limit=limit):
            first = event.position
        if follow:
            names: dict[UUID, str] = {}
            async for event in store.subscribe(after=first - 1):
                if as_json:
                    print_json_line(EVENTS.value(event))
                    continue
                await add_name(names, event, reader)
                typer.echo("  ".join(map(text, ALL_EVENTS.with_names(names).cells(event))))
        else:
            nothing = "the log is empty" if limit else "--limit 0: no events to show"
            latest = in_pages(store.read_log(after=first - 1, until_position=end), lambda event: event.size)
            names_of = partial(names_of_conversations, reader)
            await print_pages(latest, ALL_EVENTS, nothing=nothing, as_json=as_json, names=names_of)

    run(work, read_settings(data_dir, tenant, log_format=log_format, log_level=log_level), tenant)


async def add_name(names: dict[UUID, str], event: Event, reader: Reader) -> None:
    """Add the id that a client gave to the conversation of an event; that of a new one is in the event."""
    match event.data:
        case ConversationCreated(given_id=str(given_id)):
            names[event.conversation_id] = given_id
    if event.conversation_id in names:
        return
    if len(names) >= PAGE_SIZE:
        names.clear()
    names[event.conversation_id] = str(event.conversation_id)
    names.update(await given_ids(reader, [event.conversation_id]))
