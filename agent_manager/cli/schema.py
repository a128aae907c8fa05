"""The commands migrate and seed."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Annotated

import typer

from agent_manager.cli.imports import import_chat_logs
from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import print_rows, print_warnings
from eventstore import EventStore
from eventstore.database.server import Server

migrate = typer.Typer(
    help="Apply, revert or list the migrations of the schema.", no_args_is_help=True, rich_markup_mode=None
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(migrate, name="migrate")
    app.command()(seed)


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
    every: Annotated[bool, typer.Option("--all", help="Revert all migrations, not only the latest.")] = False,
    destroy_events: Annotated[
        bool,
        typer.Option("--destroy-events", help="Even if that drops a log with events, or the tenants, users and keys."),
    ] = False,
) -> None:
    """Revert the latest migration. Stop workers and applications first.

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
        ("version", "name", "applied"),
        lambda migration: (migration.version, migration.name, migration.applied),
        nothing="no migrations",
        as_json=as_json,
    )
    print_warnings(findings)


def seed(data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Import a small sample: two conversations, one with tool calls, one in Portuguese.

    Repeating the command adds nothing.
    """

    async def work(store: EventStore) -> None:
        with as_file(files("agent_manager").joinpath("sample.jsonl")) as sample:
            await import_chat_logs(store, [str(sample)], tenant=tenant, strict=True)

    run(work, read_settings(data_dir, tenant))
