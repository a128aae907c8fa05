"""The commands parked and retry."""

from __future__ import annotations

import typer

from agent_manager.cli.options import DataDir, Json, Reason, read_settings, run
from agent_manager.cli.output import RowFormat, print_rows
from agent_manager.cli.rebuild import Names
from projections import load_projections, read_parked, retry_parked, select_projections


def parked(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the conversations that a projection has parked because their events could not be applied, and why."""
    settings = read_settings(data_dir)
    print_rows(
        run(lambda store: read_parked(store, load_projections(settings.projections)), settings),
        RowFormat(
            ("projection", "conversation", ">version", ">position", "type", "parked", ">tries", "error"),
            lambda row: (
                row.projection, row.conversation_id, row.version, row.position, row.event_type,
                row.parked_at, row.tries, f"{row.sqlstate} {row.error}",
            ),
        ),
        nothing="nothing is parked",
        as_json=as_json,
    )  # fmt: skip


def retry(names: Names = None, reason: Reason = None, data_dir: DataDir = None) -> None:
    """Apply the events of parked conversations, after the cause is fixed. Exit code 1: some failed again."""
    settings = read_settings(data_dir, reason=reason)
    projections = select_projections(names or [], load_projections(settings.projections))
    result = run(lambda store: retry_parked(store, projections), settings)
    typer.echo(f"applied {result.applied}, still parked {result.parked}")
    if result.parked:
        raise typer.Exit(1)
