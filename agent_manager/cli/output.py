"""Output of the commands: tables and charts for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import repeat, zip_longest
from shutil import get_terminal_size
from typing import Any, Generic, TypeVar
from uuid import UUID

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from eventstore import EventStore
from eventstore.read import end_of_log
from projections import Page, applied_position

Row = TypeVar("Row")

_PLAIN = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
"""Whether a terminal gets no styles."""

errors = Console(stderr=True, highlight=False, color_system=None if _PLAIN else "auto")
"""Standard error, for progress and remarks: standard output has the result alone."""

_FREE_TEXT = ("name", "content", "snippet", "description", "what changed", "error", "progress", "partitions", "remark")
"""Columns whose text is wrapped to fit a terminal. The others have ids, numbers, times and words of ours."""
_NARROWEST_TEXT = 20
"""Characters of a line that are pleasant to read; a column of text is narrower only if all of it is."""
_GAP = _INDENT = "  "
_SEPARATORS = (0x2028, 0x2029)  # ends of lines, for some programs
_REORDERING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that make a terminal show the text beside them in another order."""
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(127, 160), *_SEPARATORS, *_REORDERING)}
"""The characters that json.dumps does not escape by itself."""
_CONTROLS = (
    {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
    | {code: f"\\u{code:04x}" for code in (*_SEPARATORS, *_REORDERING)}
    | {9: "\\t", 10: "\\n", 13: "\\r"}
)
_CONTROLS_IN_LINES = {code: escaped for code, escaped in _CONTROLS.items() if code != 10}


def print_json(value: Any) -> None:
    """Print a value, or a list of dataclasses or dicts, as JSON."""
    sys.stdout.write(_json(value, indent=2) + "\n")


def print_page(items: Iterable[Any], cursor: str | None = None, **more: Any) -> None:
    """Print items as a page in JSON: ``{"items": […], "next": …}``, and further members."""
    print_json({"items": list(items), "next": cursor, **more})


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

    def with_names(self, names: Mapping[UUID, str]) -> RowFormat[Row]:
        """Return a format whose cells have names in place of the ids that have one."""
        return dataclasses.replace(self, cells=lambda row: tuple(names.get(cell, cell) for cell in self.cells(row)))


def print_rows(rows: Sequence[Row], row_format: RowFormat[Row], *, nothing: str, as_json: bool) -> None:
    """Print rows as a table, and the cursor of the next page on standard error; or both as a page in JSON."""
    cursor = rows.next if isinstance(rows, Page) else None
    if as_json:
        print_page(map(row_format.value, rows), cursor)
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


def print_error(program: str, message: str) -> None:
    """Print an error to standard error."""
    errors.print(Text.assemble((f"{program}: error:", "bold red"), f" {message}"), soft_wrap=True)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print each warning as a line to standard error."""
    for warning in warnings:
        print_remark(f"warning: {warning}", "yellow")


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


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str, is_continued: bool = False
) -> None:
    """Print a table: on a terminal so that it fits, elsewhere a line per row with every column.

    Args:
        columns: the headings; one that begins with ``>`` is aligned to the right, and one that begins with ``?`` is
            left out on a terminal that is too narrow for all.
        nothing: what to print to standard error if there are no rows.
        is_continued: whether these are further rows of the table that was printed last.
    """
    cells = list(zip(*rows, strict=True))
    if not cells:
        if not is_continued:
            print_remark(nothing)
        return
    table = [_Column(column, values) for column, values in zip(columns, cells, strict=True)]
    if _in_terminal():
        _print_fitting(table, get_terminal_size().columns, is_continued)
    else:
        _print_aligned(table, is_continued)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print values below each other, with their headings."""
    if _in_terminal():
        _print_list([_Column(heading, [value]) for heading, value in fields], 0, get_terminal_size().columns)
    else:
        indent = max(len(heading) for heading, _ in fields)
        sys.stdout.writelines(f"{heading:<{indent}}{_GAP}{text(value)}\n" for heading, value in fields)


def print_paragraph(line: str) -> None:
    """Print a line, on a terminal wrapped between words."""
    lines = _wrapped(line, get_terminal_size().columns) if _in_terminal() else [line]
    sys.stdout.writelines(f"{each}\n" for each in lines)


class _Column:
    """A column of a table: how it is printed, and the texts of its cells."""

    def __init__(self, column: str, values: Iterable[Any]) -> None:
        self.heading = column.lstrip(">?")
        self.is_right, self.is_extra = column.startswith(">"), column.startswith("?")
        self.is_text = self.heading in _FREE_TEXT
        self.cells = [text(value, keep_lines=self.is_text and _in_terminal()) for value in values]

    def pad(self, cell: str, width: int) -> str:
        space = " " * (width - cell_len(cell))
        return space + cell if self.is_right else cell + space


def _print_fitting(columns: list[_Column], width: int, is_continued: bool) -> None:
    """Print rows in the first of these forms that fits. In all of them ids, numbers and times stay whole.

    A table of all columns; without those that may be left out; with the text under its row; a list for each row.
    """
    main = [column for column in columns if not column.is_extra]
    for table in (columns, main):
        if (widths := _widths(table, width)) is not None:
            _print_table(table, widths, is_continued)
            return
    if texts := [column for column in main if column.is_text]:
        others = [column for column in main if column is not texts[-1]]
        if others and (widths := _widths(others, width)) is not None:
            _print_table(others, widths, is_continued, texts[-1], width)
            return
    listed = list({column.heading: column for column in reversed(columns)}.values())[::-1]  # a chart repeats a heading
    for row in range(len(listed[0].cells)):
        if row or is_continued:
            sys.stdout.write("\n")
        _print_list(listed, row, width)


def _widths(columns: list[_Column], width: int) -> list[int] | None:
    """Return the widths of columns beside each other; None if they do not fit. Texts share what the others leave."""
    for breaks_headings in (False, True):
        natural = []
        for column in columns:
            heading = column.heading.split() if breaks_headings else [column.heading]
            lines = (line for cell in column.cells for line in cell.split("\n"))
            natural.append(max(map(cell_len, (*heading, *lines))))
        widths = [min(n, _NARROWEST_TEXT) if column.is_text else n for n, column in zip(natural, columns, strict=True)]
        free = width - sum(widths) - len(_GAP) * (len(columns) - 1)
        if free < 0:
            continue
        short = [number for number, least in enumerate(widths) if natural[number] > least]
        for rest, number in zip(range(len(short), 0, -1), short, strict=True):
            more = min(natural[number] - widths[number], free // rest)
            widths[number] += more
            free -= more
        return widths
    return None


def _print_table(
    columns: list[_Column], widths: list[int], is_continued: bool, under: _Column | None = None, width: int = 0
) -> None:
    """Print columns beside each other on a terminal, and a text under each row."""
    texts = [under.heading, *under.cells] if under else repeat("")
    rows = zip(*([column.heading, *column.cells] for column in columns), strict=True)
    for number, (row, text_under) in enumerate(zip(rows, texts, strict=False)):
        if is_continued and number == 0:
            continue
        lines = []
        for parts in zip_longest(*map(_wrapped, row, widths), fillvalue=""):
            padded = [column.pad(part, wide) for column, part, wide in zip(columns, parts, widths, strict=True)]
            lines.append(_GAP.join(padded).rstrip())
        if under:
            lines += [_INDENT + line for line in _wrapped(text_under, width - len(_INDENT))]
        sys.stdout.writelines(f"{line if number else _bold(line)}\n" for line in lines)


def _print_list(columns: list[_Column], row: int, width: int) -> None:
    """Print the values of a row below each other on a terminal, if need be under their headings."""
    indent = max(cell_len(column.heading) for column in columns) + len(_GAP)
    for column in columns:
        if not (cell := column.cells[row]):
            continue
        whole, word = cell_len(cell), max(map(cell_len, cell.split()), default=0)
        needed = min(word, _NARROWEST_TEXT) if column.is_text else whole if whole <= width - len(_INDENT) else word
        is_under = width - indent < needed
        room = width - (len(_INDENT) if is_under else indent)
        first, *more = _wrapped(cell, room)
        gap = f"\n{_INDENT}" if is_under else " " * (indent - cell_len(column.heading))
        sys.stdout.write(f"{_bold(column.heading)}{gap}{first}".rstrip() + "\n")
        sys.stdout.writelines(f"{_INDENT if is_under else ' ' * indent}{line}\n" for line in more)


def _wrapped(cell: str, width: int) -> list[str]:
    """Return the lines of a text on a terminal; a word that is longer than a line is broken."""
    if cell_len(cell) <= width and "\n" not in cell:
        return [cell]
    return [line.plain.rstrip() for line in Text(cell).wrap(errors, width)]


def _in_terminal() -> bool:
    return sys.stdout.isatty()


def _bold(line: str) -> str:
    return typer.style(line, bold=True) if line and not _PLAIN else line


def _print_aligned(columns: list[_Column], is_continued: bool) -> None:
    """Print a row per line for files and pipes: nothing is cut, and the last column is not padded."""
    widths = [max(map(cell_len, (column.heading, *column.cells))) for column in columns]
    widths[-1] = 0
    for row in zip(*([column.heading, *column.cells][is_continued:] for column in columns), strict=True):
        padded = (column.pad(cell, width) for column, cell, width in zip(columns, row, widths, strict=True))
        sys.stdout.write(_GAP.join(padded) + "\n")


def text(value: Any, *, keep_lines: bool = False) -> str:
    """Return the text of a value, with control characters escaped, except the ends of lines if these are kept."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).expandtabs(4).translate(_CONTROLS_IN_LINES) if keep_lines else str(value).translate(_CONTROLS)


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
