"""The command tail."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import print_json_line, print_rows, text
from agent_manager.cli.rows import ALL_EVENTS, EVENTS
from eventstore import Event, EventStore
from eventstore.read import end_of_log


def tail(
    follow: Annotated[bool, Option("--follow", "-f", help="Continue with new events as they arrive.")] = False,
    limit: Annotated[int, Option("--limit", "-n", min=0, help="Begin with this many of the latest events.")] = 10,
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
            nothing = "the log is empty" if limit else "--limit 0: no events to show"
            print_rows(latest, EVENTS, nothing=nothing, as_json=as_json)
            return
        position = latest[-1].position if latest else await end_of_log(store.connections.auditor)
        for event in latest:
            print_event(event)
        async for event in store.subscribe(after=position):
            print_event(event)

    def print_event(event: Event) -> None:
        if as_json:
            print_json_line(EVENTS.value(event))
        else:
            typer.echo("  ".join(map(text, ALL_EVENTS.cells(event))))

    run(work, read_settings(data_dir, tenant))
