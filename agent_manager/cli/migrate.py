"""The commands migrate up, roles, down and status."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from agent_manager.cli.options import DataDir, Json, read_settings
from agent_manager.cli.output import RowFormat, print_rows, print_warnings
from eventstore.database.server import Server

migrate = typer.Typer(help="Apply, revert or list the migrations of the schema.")


@migrate.command("up")
def migrate_up(data_dir: DataDir = None) -> None:
    """Apply the migrations that are missing. Creates the database and the schema if they do not exist.

    Warns if row-level security is not in force, or if the database lacks something that the migrations create.
    """
    with Server(read_settings(data_dir), migrate=False) as server:
        migrator = server.migrator()
        applied = migrator.up()
        findings = migrator.findings()
    for version in applied:
        typer.echo(f"applied {version}")
    if not applied:
        typer.echo("nothing to apply: the schema is up to date")
    print_warnings(findings)


@migrate.command("roles")
def migrate_roles(data_dir: DataDir = None) -> None:
    """Enable full row-level security in a database that was migrated or restored without its roles.

    Applications may continue to work; their connections as this login are terminated once, and they connect again. The
    login needs CREATEROLE, or the roles as docs/concepts/roles.md lists them. Repeating the command changes nothing.
    """
    with Server(read_settings(data_dir), migrate=False) as server:
        migrator = server.migrator()
        statements = migrator.make_roles()
        findings = migrator.findings()
    typer.echo(f"executed {len(statements)} statements" if statements else "nothing to do: the roles are in place")
    print_warnings(findings)


@migrate.command("down")
def migrate_down(
    data_dir: DataDir = None,
    every: Annotated[bool, Option("--all", help="Revert all migrations, not only the latest.")] = False,
    destroy_events: Annotated[
        bool, Option("--destroy-events", help="Even if that drops a log with events, or the tenants, users and keys.")
    ] = False,
) -> None:
    """Revert the latest migration. Stop workers and applications first.

    Only "eventstore migrate up" applies it again: no other command undoes this.

    The read tables can be dropped and rebuilt at any time; the log, and the directory of tenants, users and keys,
    cannot. Reverting a migration that would drop one of these with its content requires --destroy-events.
    """
    with Server(read_settings(data_dir), migrate=False) as server:
        migrator = server.migrator()
        if every and not destroy_events:
            migrator.refuse_to_lose()
        while (version := migrator.down(destroy_events=destroy_events)) is not None:
            typer.echo(f"reverted {version}")
            if not every:
                return
    typer.echo("nothing to revert")


@migrate.command("status")
def migrate_status(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the migrations and which of them are applied.

    Warns as "migrate up" does.
    """
    with Server(read_settings(data_dir), migrate=False) as server:
        migrator = server.migrator()
        migrations, findings = migrator.status(), migrator.findings()
    print_rows(
        migrations,
        RowFormat(("version", "name", "applied"), lambda row: (row.version, row.name, row.applied)),
        nothing="no migrations",
        as_json=as_json,
    )
    print_warnings(findings)
