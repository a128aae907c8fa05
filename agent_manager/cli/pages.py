"""Options of commands that show lists in pages, and printing a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from agent_manager.cli.output import errors, print_json, print_table
from eventstore.errors import InputError
from projections import Page
from projections.reading import WAIT_SECONDS

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
