"""Printing: tables, JSON, charts."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import date, datetime
from typing import Any
from uuid import UUID

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from projections import Message, Task

# Small charts out of characters, and durations in words

_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNITS = (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0))


def bars(values: list[int]) -> list[str]:
    """A bar for each value, the longest for the largest; none for zero, and at least a trace for anything else."""
    most = max(values, default=0)
    return [_bar(value / most) if value else "" for value in values]


def _bar(share: float) -> str:
    if "utf" not in (sys.stdout.encoding or "").lower():
        return "#" * max(1, round(share * _WIDTH))
    full, eighths = divmod(max(1, round(share * _WIDTH * 8)), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def duration(seconds: float | None) -> str:
    """Seconds as people say them, in the largest unit that there is one of; empty for None."""
    if seconds is None:
        return ""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 or not seconds else f"{seconds * 1000:.1f} ms"


# Printing: tables for people, JSON for programs

errors = Console(stderr=True, highlight=False)
"""Where progress and remarks go, so that standard output holds only what was asked for."""

_FREE_TEXT = ("name", "content", "description", "what changed")
"""Columns whose text may be folded to fit a terminal."""
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(127, 160)}  # JSON escapes the others by itself
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def print_json(value: Any) -> None:
    """Prints a value, or a list of dataclasses or dicts, as JSON."""
    sys.stdout.write(_json(value, indent=2) + "\n")


def print_json_line(value: Any) -> None:
    """Prints a value as one line of JSON Lines, at once."""
    sys.stdout.write(_json(value, indent=None) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str) -> None:
    """Prints a table.

    Args:
        columns: the headings; one that begins with ``>`` is aligned to the right.
        nothing: what to say where there are no rows.
    """
    headings = [column.lstrip(">") for column in columns]
    right = [column.startswith(">") for column in columns]
    cells = [[text(cell) for cell in row] for row in rows]
    if not cells:
        errors.print(nothing, soft_wrap=True)
    elif sys.stdout.isatty():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading, is_right in zip(headings, right, strict=True):
            free = heading in _FREE_TEXT
            table.add_column(heading, justify="right" if is_right else "left", no_wrap=not free, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        Console(highlight=False).print(table)
    else:
        _print_aligned([headings, *cells], right)


def _print_aligned(lines: list[list[str]], right: list[bool]) -> None:
    """Into a file or a pipe a row is a line: nothing is cut, and the last column is not padded."""
    lines = [[cell.replace("\n", "\\n") for cell in line] for line in lines]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(right) - 1)] + [0]
    for line in lines:
        padded = []
        for cell, width, is_right in zip(line, widths, right, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if is_right else cell + space)
        sys.stdout.write("  ".join(padded) + "\n")


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings to standard error, each in a line of its own."""
    for warning in warnings:
        errors.print(f"warning: {warning}", soft_wrap=True, markup=False)


def text(cell: Any) -> str:
    """A cell's text. Control characters are shown, not sent to the terminal."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return str(cell).translate(_CONTROLS)


def _json(value: Any, *, indent: int | None) -> str:
    # A terminal that cannot show all characters gets them escaped; and none gets control characters.
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    return json.dumps(value, indent=indent, default=_plain, ensure_ascii=ascii_only).translate(_JSON_CONTROLS)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, date):  # or a datetime, which is one
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# Rows of the read tables as the commands show them: in JSON, and in a table

MESSAGE_COLUMNS = ("created", "role", "content")
TASK_COLUMNS = ("id", "status", "description", ">artifacts", "updated")


def row_value(row: Any) -> dict[str, Any]:
    """A row as JSON shows it."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


def message_value(message: Message) -> dict[str, Any]:
    """A message as JSON shows it, and as it was sent."""
    return row_value(message) | {"sent": message.sent}


def message_cells(message: Message) -> tuple[Any, ...]:
    """A message in a table."""
    calls = (message.extra or {}).get("tool_calls")
    shown = message.content or (
        f"tool calls: {json.dumps(calls, ensure_ascii=False)}" if calls else str(message.parts or message.extra or "")
    )
    return message.created_at, message.role, shown


def task_cells(task: Task) -> tuple[Any, ...]:
    """A task in a table."""
    return task.id, task.status, task.description, len(task.artifacts), task.updated_at
