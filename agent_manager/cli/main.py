"""The entry point, which assembles the commands and prints errors in a line or two."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from eventstore.errors import EventStoreError

MODULES = {
    "up": "up",
    "project": "project",
    "import": "import_",
    "rollback": "rollback",
    "conversations": "conversations",
    "messages": "conversations",
    "tasks": "conversations",
    "history": "conversations",
    "conversation": "conversations",
    "pending": "pending",
    "tail": "tail",
    "status": "status",
    "stats": "stats",
    "search": "search",
    "migrate": "migrate",
    "seed": "seed",
    "rebuild": "rebuild",
    "verify": "verify",
    "backup": "backup",
    "parked": "parked",
    "retry": "parked",
    "tenants": "tenants",
    "users": "users",
    "keys": "keys",
}
"""The modules of this package that implement the commands, in the order of the help."""


@cache
def command(name: str) -> Any:
    """Import and return a command, or a group of commands."""
    implementation = getattr(
        import_module(f"agent_manager.cli.{MODULES[name]}"), "import_" if name == "import" else name
    )
    app = typer.Typer(rich_markup_mode=None)
    if isinstance(implementation, typer.Typer):
        app.add_typer(implementation, name=name)
    else:
        app.command(name)(implementation)
    group: Any = typer.main.get_group(app)
    return group.commands[name]


class Commands(Mapping[str, Any]):
    """All commands by name, imported when they are used, because some imports take a second."""

    def __getitem__(self, name: str) -> Any:
        return command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class CommandGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()


app = typer.Typer(
    name="eventstore",
    cls=CommandGroup,
    help="""Durable, event-sourced conversations, messages and tasks of A2A agents, in PostgreSQL.

    Every change is an event in an append-only log. Workers derive the tables conversations, messages and tasks from
    it; they can be rebuilt at any time.

    Getting started:

    \b
      eventstore up                   start everything, HTTP included; leave it running
      eventstore import chats.jsonl   in another terminal: import chat logs
      eventstore conversations        list them
      eventstore messages ID          read one
      eventstore history ID           show its audit trail
      eventstore stats                numbers by day, role, actor and status
      eventstore conversation ID --time 2026-01-31T09:30    as it was

    The server is configured by DATABASE_URL, or by POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and
    POSTGRES_PASSWORD, in the environment or in a file .env. Without them, a command starts an embedded PostgreSQL and
    stops it on exit; its data is in EVENTSTORE_DATA_DIR. EVENTSTORE_SCHEMA and EVENTSTORE_TENANT set schema and tenant.

    Exit codes: 0 success, 1 an error, printed to standard error, 2 wrong usage, 130 interrupted (up and project: 0).
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _callback() -> None:
    """Make the application a group although no command is added to it here: CommandGroup has them."""


def main() -> None:
    """Run the command ``eventstore``."""
    run_program(app, "eventstore")


def run_program(program: typer.Typer, name: str) -> None:
    """Run a command-line program; print an expected error in a line and exit with its code."""
    logging.basicConfig(level=logging.WARNING, format=f"{name}: %(message)s", stream=sys.stderr)
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # its warnings are raised as well
    _prepare_output()
    try:
        try:
            program(prog_name=name)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be handled, and not when Python exits
    except EventStoreError as error:
        typer.echo(f"{name}: error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of the output has exited, such as head or less
            typer.echo(f"{name}: error: {error}: free disk space, or write the output elsewhere", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush succeeds
        sys.exit(1)


def _prepare_output() -> None:
    """Keep commands from failing if standard output is closed, or cannot encode every character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
