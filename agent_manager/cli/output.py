"""Output of the commands: tables and charts for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Any, TypeVar
from uuid import UUID

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from projections import Message, Page, Task

Row = TypeVar("Row")

errors = Console(stderr=True, highlight=False)
"""Standard error, for progress and remarks: standard output has the result alone."""

_FREE_TEXT = ("name", "content", "description", "what changed")
"""Columns whose text may be folded to fit a terminal."""
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(127, 160)}  # json.dumps escapes the others
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def print_json(value: Any) -> None:
    """Print a value, or a list of dataclasses or dicts, as JSON."""
    sys.stdout.write(_json(value, indent=2) + "\n")


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON Lines, immediately."""
    sys.stdout.write(_json(value, indent=None) + "\n")
    sys.stdout.flush()


def _json(value: Any, *, indent: int | None) -> str:
    # Escapes what the terminal cannot show, and control characters everywhere.
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    return json.dumps(value, indent=indent, default=_plain, ensure_ascii=ascii_only).translate(_JSON_CONTROLS)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return row_value(value)
    if isinstance(value, date):  # datetime is a subclass
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_rows(
    rows: Sequence[Row],
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[Any]],
    *,
    nothing: str,
    as_json: bool,
) -> None:
    """Print rows as JSON, or as a table of their cells."""
    if as_json:
        print_json(rows)
    else:
        print_table(columns, map(cells, rows), nothing=nothing)


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
    """Print a page as a table, as a list in JSON, or as a list and a cursor in JSON.

    With a table the cursor goes to standard error. A list has no place for it; programs that continue use pages.
    """
    if as_page:
        print_json({"rows": [value(row) for row in page], "next": page.next})
    elif as_json:
        print_json([value(row) for row in page])
    else:
        print_table(columns, map(cells, page), nothing=nothing)
        print_cursor(page.next)


def print_cursor(cursor: str | None) -> None:
    """Print the cursor of the next page, if there is one, to standard error."""
    if cursor is not None:
        errors.print(f"there is more: --after {cursor}", soft_wrap=True, markup=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str) -> None:
    """Print a table.

    Args:
        columns: the headings; one that begins with ``>`` is aligned to the right.
        nothing: what to print to standard error if there are no rows.
    """
    headings = [column.lstrip(">") for column in columns]
    right = [column.startswith(">") for column in columns]
    cells = [[text(cell) for cell in row] for row in rows]
    if not cells:
        errors.print(nothing, soft_wrap=True)
    elif sys.stdout.isatty():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading, is_right in zip(headings, right, strict=True):
            is_free = heading in _FREE_TEXT
            table.add_column(heading, justify="right" if is_right else "left", no_wrap=not is_free, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        Console(highlight=False).print(table)
    else:
        _print_aligned([headings, *cells], right)


def _print_aligned(lines: list[list[str]], right: list[bool]) -> None:
    """Print a row per line for files and pipes: nothing is cut, and the last column is not padded."""
    lines = [[cell.replace("\n", "\\n") for cell in line] for line in lines]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(right) - 1)] + [0]
    for line in lines:
        padded = []
        for cell, width, is_right in zip(line, widths, right, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if is_right else cell + space)
        sys.stdout.write("  ".join(padded) + "\n")


def text(cell: Any) -> str:
    """Return the text of a cell, with control characters escaped."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return str(cell).translate(_CONTROLS)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print each warning as a line to standard error."""
    for warning in warnings:
        errors.print(f"warning: {warning}", soft_wrap=True, markup=False)


# Rows of the read tables, in JSON and in a table

MESSAGE_COLUMNS = ("created", "role", "content")
TASK_COLUMNS = ("id", "status", "description", ">artifacts", "updated")


def row_value(row: Any) -> dict[str, Any]:
    """Return the members of a row."""
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


def message_value(message: Message) -> dict[str, Any]:
    """Return the members of a message, and the message as it was sent."""
    return row_value(message) | {"sent": message.sent}


def message_cells(message: Message) -> tuple[Any, ...]:
    """Return the cells of a message in a table."""
    calls = (message.extra or {}).get("tool_calls")
    shown = message.content or (
        f"tool calls: {json.dumps(calls, ensure_ascii=False)}" if calls else str(message.parts or message.extra or "")
    )
    return message.created_at, message.role, shown


def task_cells(task: Task) -> tuple[Any, ...]:
    """Return the cells of a task in a table."""
    return task.id, task.status, task.description, len(task.artifacts), task.updated_at


# Charts and durations

_BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNITS = (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0))


def bars(values: list[int]) -> list[str]:
    """Return a bar for each value: the longest for the largest, an empty one for zero, a visible one for all others."""
    largest = max(values, default=0)
    return [_bar(value / largest) if value else "" for value in values]


def _bar(fraction: float) -> str:
    if "utf" not in (sys.stdout.encoding or "").lower():
        return "#" * max(1, round(fraction * _BAR_WIDTH))
    full, eighths = divmod(max(1, round(fraction * _BAR_WIDTH * 8)), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def duration(seconds: float | None) -> str:
    """Return a duration in the largest unit that it fills; empty for None."""
    if seconds is None:
        return ""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 or not seconds else f"{seconds * 1000:.1f} ms"
