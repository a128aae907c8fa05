"""Options that commands share, pages, and opening the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from agent_manager.cli.output import errors, print_json, print_table
from agent_manager.settings import ServerSettings
from eventstore import EventStore, Settings
from eventstore.errors import InputError
from projections import Page
from projections.reading import WAIT_SECONDS

# Options that several commands share, and opening the store as they say

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the embedded server keeps its data (EVENTSTORE_DATA_DIR). Ignored where a server is named.",
        show_default=False,
    ),
]
PgPort = Annotated[
    int | None,
    typer.Option(
        "--pg-port",
        min=1,
        max=65535,
        help="Let the embedded server listen on this port of 127.0.0.1 too, with a password. Off by default.",
        show_default=False,
    ),
]
AllowSuperuser = Annotated[
    bool,
    typer.Option(
        "--allow-superuser",
        help="Connect even as a superuser or a login with BYPASSRLS, for which row-level security does not hold "
        "(EVENTSTORE_ALLOW_SUPERUSER).",
    ),
]
Tenant = Annotated[
    str | None, typer.Option("--tenant", help="Whose data (EVENTSTORE_TENANT; 'default').", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many.", show_default=False)]
ConversationId = Annotated[
    str, typer.Argument(metavar="ID", help="A conversation's id, or the id that its client gave it.")
]


def read_settings(
    data_dir: Path | None = None,
    tenant: str | None = None,
    pg_port: int | None = None,
    *,
    allow_superuser: bool = False,
) -> ServerSettings:
    """The settings of the environment, with what the command line says instead."""
    given: dict[str, Any] = {
        "data_dir": data_dir,
        "tenant": tenant,
        "pg_port": pg_port,
        "allow_superuser": allow_superuser or None,
    }
    return ServerSettings(**{name: value for name, value in given.items() if value is not None})


def run(work: Callable[[EventStore], Coroutine[Any, Any, None]], settings: Settings) -> None:
    """Opens the store and does the work of a command with it."""

    async def with_store() -> None:
        async with EventStore(settings) as store:
            await work(store)

    asyncio.run(with_store())


# Options of commands that show lists in pages, and printing a page

Row = TypeVar("Row")

SHOWN = 50
"""Rows of a list of all conversations where no limit is said."""

Newest = Annotated[bool | None, typer.Option("--newest/--oldest", help="Newest or oldest first.", show_default=False)]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="The page after the one that said this cursor.", show_default=False),
]
AsPage = Annotated[
    bool, typer.Option("--page", help='Print JSON with the cursor of the next page: {"rows": […], "next": …}.')
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only from this time on, ISO 8601.", show_default=False),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only before this time.", show_default=False)
]
AtLeast = Annotated[
    int | None,
    typer.Option(
        "--at-least",
        metavar="POSITION",
        min=0,
        help="Wait until the workers have applied this position of the log.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long --at-least waits at most.")
]
TIMEOUT = WAIT_SECONDS


def moment(text: str | None, option: str) -> datetime | None:
    """The time that an option says; without a zone it is local time, as in the tables.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.strip())
        return time if time.tzinfo is not None else time.astimezone()
    except (ValueError, OverflowError):
        raise InputError(f"{option} {text}: is no time; write it like 2026-01-31T09:30:00Z or 2026-01-31") from None


def print_page(
    page: Page[Row],
    *,
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[Any]],
    value: Callable[[Row], Any],
    nothing: str,
    as_json: bool,
    as_page: bool,
) -> None:
    """Prints a page as a table, a list in JSON, or a list and a cursor in JSON.

    With a table the cursor is said on standard error. A list alone does not say it: programs that
    go on ask for a page.
    """
    if as_page:
        print_json({"rows": [value(row) for row in page], "next": page.next})
    elif as_json:
        print_json([value(row) for row in page])
    else:
        print_table(columns, [cells(row) for row in page], nothing=nothing)
        if page.next is not None:
            errors.print(f"there is more: --after {page.next}", soft_wrap=True, markup=False)
