"""The entry point, which assembles the commands and prints errors in a line or two.

It imports nothing that takes long, so that completion and help answer immediately.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agent_manager.cli.completion import description
from agent_manager.cli.interrupts import INTERRUPTED, ExitOnInterrupt, exit_on_interrupt

GROUPS = {
    "Start": {"up": "up", "project": "project"},
    "Read": {
        "conversations": "conversations",
        "conversation": "conversations",
        "messages": "conversations",
        "tasks": "conversations",
        "history": "conversations",
        "compare": "forks",
        "replay": "forks",
        "tail": "tail",
        "search": "search",
        "stats": "stats",
    },
    "Write": {"seed": "import_", "import": "import_", "fork": "forks", "pending": "answers", "cancel": "answers"},
    "Operate": {
        "status": "status",
        "doctor": "doctor",
        "migrate": "migrate",
        "rebuild": "read_tables",
        "verify": "read_tables",
        "pause": "read_tables",
        "resume": "read_tables",
        "parked": "read_tables",
        "retry": "read_tables",
        "rollback": "rollback",
        "backup": "backup",
        "audit": "audit",
    },
    "Administer": {
        "tenants": "directory",
        "users": "directory",
        "keys": "directory",
        "erase": "erase",
        "retention": "retention",
        "hold": "retention",
    },
}
"""The commands in the order of the help, with the modules of this package that implement them."""
MODULES = {name: module for group in GROUPS.values() for name, module in group.items()}


class _Group(TyperGroup):
    """A group whose help shows the first sentence of each command whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sentences = {name: child.get_short_help_str(1_000) for name, child in self.commands.items()}
        _write_commands(formatter, {"Commands": sentences})


_MAY_BE_EMPTY = "--actor"
"""The option that an empty value has a meaning for: what was appended without an actor."""


class CommandGroup(_Group):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        described = description()["commands"]
        _write_commands(
            formatter, {title: {name: described[name]["help"] for name in names} for title, names in GROUPS.items()}
        )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse empty values of options, which unset variables of a shell leave behind, before they are converted."""
        for option, value in pairwise(("", *args)):
            if option == "--":
                break
            if not value and option.startswith("-"):
                option += " ''"
            elif re.fullmatch("--[^=]+=", value):
                option = value
            else:
                continue
            if not option.startswith(_MAY_BE_EMPTY):
                raise typer.BadParameter(f"{option}: is empty: give a value, or leave out the option")
        return super().parse_args(ctx, args)


def _write_commands(formatter: Any, groups: dict[str, dict[str, str]]) -> None:
    widest = max(len(name) for names in groups.values() for name in names)
    for title, sentences in groups.items():
        with formatter.section(title):
            formatter.write_dl([(name.ljust(widest), sentence) for name, sentence in sentences.items()])


@cache
def command(name: str) -> Any:
    """Import and return a command, or a group of commands."""
    with ExitOnInterrupt():
        module = import_module(f"agent_manager.cli.{MODULES[name]}")
    implementation = getattr(module, "import_" if name == "import" else name)
    app = typer.Typer(rich_markup_mode=None)
    if isinstance(implementation, typer.Typer):
        app.add_typer(implementation, name=name, cls=_Group, no_args_is_help=True)
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


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from eventstore import __version__

        typer.echo(f"eventstore {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="eventstore",
    cls=CommandGroup,
    help="""Durable, event-sourced conversations, messages and tasks of A2A agents, in PostgreSQL.

    Every change is an event in an append-only log. Workers derive the tables conversations, messages and tasks from
    it; they can be rebuilt at any time.

    Getting started:

    \b
      eventstore up                   start everything; leave it running
      eventstore import chats.jsonl   in another terminal: import chat logs
      eventstore conversations        list them
      eventstore messages ID          read one; the beginning of an id is enough
      eventstore history ID           show its audit trail
      eventstore stats                numbers by day, role, actor and status

    The server is configured by DATABASE_URL, or by POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and
    POSTGRES_PASSWORD, in the environment or in a file .env. Without them, a command starts an embedded PostgreSQL and
    stops it on exit; its data is in EVENTSTORE_DATA_DIR. EVENTSTORE_SCHEMA and EVENTSTORE_TENANT set schema and tenant.

    --user USER reads on behalf of a user: only what they own and what is shared with them. --actor ACTOR selects what
    an actor (a user, an agent, the system) caused.

    Exit codes: 0 success, 1 an error, printed to standard error, 2 wrong usage, 130 interrupted (up and project: 0).
    Those of doctor are for monitoring: eventstore doctor --help.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Make the application a group although no command is added to it here: CommandGroup has them."""


def main() -> None:
    """Run the command ``eventstore``."""
    try:
        run_program(app, "eventstore")
    finally:
        exit_on_interrupt()


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
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from agent_manager.cli.output import print_error
        from agent_manager.logs import is_json
        from eventstore.errors import EventStoreError

        def report(text: str) -> None:
            if is_json():
                logging.getLogger(__name__).error(text, extra={"event": "command_failed"})  # noqa: TRY400 - the text says all
            else:
                print_error(name, text)

        if isinstance(error, EventStoreError):
            report(str(error))
        elif isinstance(error, OSError):
            if not isinstance(error, BrokenPipeError):  # the reader of the output has exited, such as head or less
                report(f"{error}: free disk space, or write the output elsewhere")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush succeeds
        else:
            raise
        sys.exit(1)


def _prepare_output() -> None:
    """Keep commands from failing if standard output is closed, or cannot encode every character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
