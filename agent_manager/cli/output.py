"""Printing: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table
from rich.text import Text

errors = Console(stderr=True, highlight=False)
"""Where progress and remarks go, so that standard output holds only what was asked for."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def print_json(value: Any) -> None:
    """Prints a value, or a list of dataclasses or dicts, as JSON."""
    # A terminal that cannot show all characters gets them escaped.
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    sys.stdout.write(json.dumps(value, indent=2, default=_plain, ensure_ascii=ascii_only) + "\n")


def print_json_line(value: Any) -> None:
    """Prints a value as one line of JSON Lines, at once."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=ascii_only) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str) -> None:
    """Prints a table.

    Args:
        columns: the headings; one that begins with ``>`` is aligned to the right.
        nothing: what to say where there are no rows.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        fixed = column.lstrip(">") not in ("name", "content", "description", "what changed", "metadata")
        table.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=fixed, overflow="fold")
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    if table.row_count:
        # Into a file or a pipe nothing is cut or folded.
        Console(highlight=False, width=None if sys.stdout.isatty() else 100_000).print(table)
    else:
        errors.print(nothing)


def text(cell: Any) -> Text:
    """A cell's text. Control characters are shown, not sent to the terminal."""
    if cell is None:
        return Text("")
    if isinstance(cell, datetime):
        return Text(cell.astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(cell, bool):
        return Text("yes" if cell else "no")
    return Text(str(cell).translate(_CONTROLS))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
