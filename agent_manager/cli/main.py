"""The entry point: assembles the commands and prints errors in a line or two."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from eventstore.errors import EventStoreError

# Which module has which commands; it is imported only when one of them is wanted, for some take a second

MODULES = {
    "serve": ("up",),
    "project": ("project",),
    "imports": ("import", "rollback"),
    "conversations": ("conversations", "messages", "tasks", "history", "conversation", "pending"),
    "log": ("tail", "status"),
    "statistics": ("stats",),
    "search": ("search",),
    "schema": ("migrate", "seed"),
    "read_tables": ("rebuild", "verify", "parked", "retry"),
    "directory": ("tenants", "users", "keys"),
}
"""Of this package, with their commands, in the order in which the help lists them."""


def commands_of(module: str) -> dict[str, Any]:
    """The commands that a module of this package adds, by name."""
    app = typer.Typer(rich_markup_mode=None)
    import_module(f"agent_manager.cli.{module}").add_to(app)
    group: Any = typer.main.get_group(app)
    return dict(group.commands)


class Commands(Mapping[str, Any]):
    """All commands by name."""

    def __init__(self) -> None:
        self._modules = {name: module for module, names in MODULES.items() for name in names}
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known |= commands_of(self._modules[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class CommandGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()


# The entry point: assembles the commands, and turns errors into a line or two and an exit code

app = typer.Typer(
    name="eventstore",
    cls=CommandGroup,
    help="""Durable, event-sourced conversations, messages and tasks of A2A agents, in PostgreSQL.

    Every change is an event in an append-only log; the tables conversations, messages and tasks are derived from it
    by workers and can be rebuilt at any time.

    A first round:

    \b
      eventstore up                   start everything, HTTP included; leave it running
      eventstore import chats.jsonl   in another terminal: take in chat logs
      eventstore conversations        list them
      eventstore messages ID          read one
      eventstore history ID           its audit trail
      eventstore stats                numbers by day, role, actor and status
      eventstore conversation ID --time 2026-01-31T09:30    as it was

    The server is the one that DATABASE_URL names, or POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and
    POSTGRES_PASSWORD, also from a file .env. With neither, an embedded PostgreSQL is started while it is needed; it
    keeps its data in EVENTSTORE_DATA_DIR. EVENTSTORE_SCHEMA and EVENTSTORE_TENANT choose schema and tenant.

    Exit codes: 0 done, 1 an error said on standard error, 2 a command mistyped, 130 interrupted
    (up, project and tail end so when they are told to stop: 0).
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _nothing() -> None:
    """Makes a group of the application, to which nothing is added here: its commands are those of its class."""


def main() -> None:
    """Run the command ``eventstore``."""
    run_program(app, "eventstore")


def run_program(program: typer.Typer, name: str) -> None:
    """Run a command-line program; print an expected error in a line and exit with its code."""
    logging.basicConfig(level=logging.WARNING, format=f"{name}: %(message)s", stream=sys.stderr)
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # what it warns of is raised as well
    _prepare_output()
    try:
        try:
            program(prog_name=name)
        finally:
            sys.stdout.flush()  # here, where a reader that has left can be dealt with, and not when Python ends
    except EventStoreError as error:
        typer.echo(f"{name}: error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has left (head, less): there is nothing more to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        typer.echo(f"{name}: error: {error}: make room for the output, or write it elsewhere", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _prepare_output() -> None:
    """Lets no command fail over what its output can take: none at all, or not every character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
