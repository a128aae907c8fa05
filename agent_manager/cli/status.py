"""The command status."""

from __future__ import annotations

import typer

from agent_manager.cli.options import DataDir, Json, read_settings, run
from agent_manager.cli.output import print_fields, print_json, print_table, print_warnings
from eventstore import EventStore
from projections import load_projections, read_status


def status(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show the size of the log, and how far each projection is behind it."""

    async def work(store: EventStore) -> None:
        now = await read_status(store, load_projections(store.settings.projections))
        if as_json:
            print_json(now)
            return
        slow = "; consumers are not notified, and poll every few seconds" if now.notify_queue_usage >= 0.5 else ""
        print_fields([
            ("version", now.version),
            ("database", f"{now.database_url}, schema {now.db_schema}"),
            ("server", f"PostgreSQL {now.server_version}"),
            ("log", f"{now.events:,} events in {now.conversations:,} conversations, {now.bytes / 1e6:,.1f} MB, "
                    f"last position {now.last_position:,}, final up to {now.horizon:,}"),
            ("notifications", f"the server's queue is {now.notify_queue_usage:.0%} full{slow}"),
            *(
                ("in flight", f"an append of {append.login or 'a prepared transaction'} (process {append.pid}, "
                              f"{append.application or 'no name'}, {append.state}) for {append.seconds:,.1f} s")
                for append in now.appends_in_flight
            ),
        ])  # fmt: skip
        print_warnings(now.warnings)
        typer.echo()
        print_table(
            (
                "projection", ">position", ">events behind", ">seconds behind", ">parked", "updated",
                "made by this version",
            ),
            [
                (p.name, p.position, p.lag_events, f"{p.lag_seconds:.1f}", p.parked, p.updated_at, p.is_current)
                for p in now.projections
            ],
            nothing="no projection has run yet: eventstore up",
        )  # fmt: skip
        typer.echo()
        print_table(
            ("worker", "client", ">server process", "partitions"),
            [(w.application, w.client, w.pid, " ".join(map(str, w.partitions)) or "none free") for w in now.workers],
            nothing="no worker is running: eventstore up, or eventstore project",
        )

    run(work, read_settings(data_dir))
