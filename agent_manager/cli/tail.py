"""The command tail."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from agent_manager.cli.options import DataDir, Json, LogFormat, LogLevel, Tenant, read_settings, run
from agent_manager.cli.output import in_pages, print_json_line, print_pages, text
from agent_manager.cli.rows import ALL_EVENTS, EVENTS
from eventstore import Event, EventStore
from eventstore.read import end_of_log


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
        end = await end_of_log(store.connections.auditor)
        first = end + 1
        async for event in store.read_log(until_position=end, backwards=True, limit=limit):
            first = event.position
        if follow:
            async for event in store.subscribe(after=first - 1):
                print_event(event)
        else:
            nothing = "the log is empty" if limit else "--limit 0: no events to show"
            latest = store.read_log(after=first - 1, until_position=end)
            await print_pages(in_pages(latest, lambda event: event.size), EVENTS, nothing=nothing, as_json=as_json)

    def print_event(event: Event) -> None:
        if as_json:
            print_json_line(EVENTS.value(event))
        else:
            typer.echo("  ".join(map(text, ALL_EVENTS.cells(event))))

    run(work, read_settings(data_dir, tenant, log_format=log_format, log_level=log_level), tenant)
