"""Output of the commands: tables and charts for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from eventstore import EventStore
from eventstore.read import end_of_log
from projections import Page, applied_position

Row = TypeVar("Row")

errors = Console(stderr=True, highlight=False)
"""Standard error, for progress and remarks: standard output has the result alone."""

_FREE_TEXT = ("name", "content", "description", "what changed")
"""Columns whose text may be folded to fit a terminal."""
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(127, 160), 0x2028, 0x2029)}
"""Escapes of the control characters and line separators that json.dumps does not escape."""
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


@dataclass(frozen=True)
class RowFormat(Generic[Row]):
    """How rows are printed: the columns of a table, the cells of a row in them, and its value in JSON."""

    columns: tuple[str, ...]
    cells: Callable[[Row], tuple[Any, ...]]
    value: Callable[[Row], Any] = lambda row: row


def print_rows(
    rows: Sequence[Row], row_format: RowFormat[Row], *, nothing: str, as_json: bool, as_page: bool = False
) -> None:
    """Print rows as a table, as a list in JSON, or, of a page, as a list and a cursor in JSON.

    With a table the cursor of a page goes to standard error. A list has no place for it; programs that continue use
    pages.
    """
    cursor = rows.next if isinstance(rows, Page) else None
    if as_page or as_json:
        values = [row_format.value(row) for row in rows]
        print_json({"rows": values, "next": cursor} if as_page else values)
    else:
        print_table(row_format.columns, map(row_format.cells, rows), nothing=nothing)
        print_cursor(cursor)


def print_result(value: Any, line: str, *, as_json: bool) -> None:
    """Print what a command changed: as JSON, or as a line."""
    if as_json:
        print_json(value)
    else:
        typer.echo(line)


def print_cursor(cursor: str | None) -> None:
    """Print the cursor of the next page, if there is one, to standard error."""
    if cursor is not None:
        print_remark(f"there is more: --after {cursor}")


def print_remark(line: str, style: str | None = None) -> None:
    """Print a line to standard error, as it is."""
    errors.print(line, style=style, soft_wrap=True, markup=False)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print each warning as a line to standard error."""
    for warning in warnings:
        print_remark(f"warning: {warning}")


async def print_lag(store: EventStore) -> None:
    """Print a remark if the read tables are behind the log."""
    if await applied_position(store) < await end_of_log(store.connections.auditor):
        print_remark("the read tables are behind the log: eventstore up or eventstore project brings them up to date")


def progress_bars(*columns: ProgressColumn) -> Progress:
    """Return progress bars on standard error, which are shown on a terminal only and disappear at the end."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *columns,
        console=errors, transient=True, disable=not errors.is_terminal,
    )  # fmt: skip


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
        print_remark(nothing)
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


def row_value(row: Any) -> dict[str, Any]:
    """Return the members of a row."""
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


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
