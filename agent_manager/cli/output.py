"""Output of the commands: tables and charts for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice, repeat, zip_longest
from shutil import get_terminal_size
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from eventstore import EventStore
from projections import Page, select_projections
from projections.pages import PAGE_BYTES, PAGE_SIZE
from projections.read_your_writes import wait_for_log, why_behind
from projections.reading import WAIT_SECONDS

Row = TypeVar("Row")

_PLAIN = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
"""True if a terminal gets no styles."""

errors = Console(stderr=True, highlight=False, color_system=None if _PLAIN else "auto")
"""Standard error, for progress and remarks: standard output has the result alone."""

_FREE_TEXT = (
    "name",
    "content",
    "snippet",
    "description",
    "what changed",
    "error",
    "progress",
    "partitions",
    "remark",
    "reason",
)
"""Columns whose text is wrapped to fit a terminal. The others have ids, numbers, times and words of ours."""
_NARROWEST_TEXT = 20
"""Characters of a line that are pleasant to read; a column of text is narrower only if all of it is."""
_GAP = _INDENT = "  "
_SEPARATORS = (0x2028, 0x2029)  # ends of lines, for some programs
_REORDERING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that make a terminal show the text beside them in another order."""
_JSON_CONTROLS = re.compile(f"[{''.join(map(chr, (*range(127, 160), *_SEPARATORS, *_REORDERING)))}]")
"""The characters that json.dumps does not escape by itself."""
_CONTROLS = (
    {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
    | {code: f"\\u{code:04x}" for code in (*_SEPARATORS, *_REORDERING)}
    | {9: "\\t", 10: "\\n", 13: "\\r"}
)
_CONTROLS_IN_LINES = {code: escaped for code, escaped in _CONTROLS.items() if code != 10}


def print_json(value: Any) -> None:
    """Print a value, or a list of dataclasses or dicts, as JSON."""
    sys.stdout.write(json_text(value) + "\n")


def print_page(items: Iterable[Any], cursor: str | None = None, **more: Any) -> None:
    """Print items as a page in JSON: ``{"items": […], "next": …}``, and further members."""
    print_json({"items": list(items), "next": cursor, **more})


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON Lines, immediately."""
    sys.stdout.write(json_text(value, indent=None) + "\n")
    sys.stdout.flush()


async def print_json_rows(rows: AsyncIterable[Any], *, before: str) -> None:
    """Print a list that is a member of an object as :func:`print_json` does, one row after the other.

    Args:
        before: what is printed before it, once its first row is there or it is known to be empty.
    """
    is_empty = True
    async for row in rows:
        sys.stdout.write(f"{before}[" if is_empty else ",")
        sys.stdout.write(f"\n{json_text(row)}".replace("\n", "\n    "))
        is_empty = False
    sys.stdout.write(f"{before}[]" if is_empty else "\n  ]")


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Return a value as JSON."""
    # Escapes what the terminal cannot show, and control characters everywhere.
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    written = json.dumps(value, indent=indent, default=_plain, ensure_ascii=ascii_only)
    return _JSON_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


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
    """The form in which rows are printed: the columns of a table, the cells of a row in them, and its value in JSON."""

    columns: tuple[str, ...]
    cells: Callable[[Row], tuple[Any, ...]]
    value: Callable[[Row], Any] = lambda row: row

    def with_names(self, names: Mapping[UUID, str]) -> RowFormat[Row]:
        """Return a format whose cells have names in place of the ids that have one."""
        return dataclasses.replace(self, cells=lambda row: tuple(names.get(cell, cell) for cell in self.cells(row)))


def print_rows(rows: Iterable[Row], row_format: RowFormat[Row], *, nothing: str, as_json: bool) -> None:
    """Print rows as a table, or as a page in JSON."""
    if as_json:
        print_page(map(row_format.value, rows))
    else:
        print_table(row_format.columns, map(row_format.cells, rows), nothing=nothing)


async def print_pages(
    pages: AsyncIterable[Sequence[Row]],
    row_format: RowFormat[Row],
    *,
    nothing: str,
    as_json: bool,
    names: Callable[[Sequence[Row]], Awaitable[Mapping[UUID, str]]] | None = None,
) -> None:
    """Print the rows of pages, holding one page at a time, as one table or as one page in JSON.

    The cursor of the next page is the last member of the JSON; with a table it goes to standard error.

    Args:
        names: returns the names that a table shows in place of the ids in a page.
    """
    cursor: str | None = None

    async def values() -> AsyncIterator[Any]:
        nonlocal cursor
        async for page in pages:
            for row in page:
                yield row_format.value(row)
            cursor = page.next if isinstance(page, Page) else None

    if as_json:
        await print_json_rows(values(), before='{\n  "items": ')
        sys.stdout.write(f',\n  "next": {json_text(cursor)}\n}}\n')
        return
    table = Table(row_format.columns)
    async for page in pages:
        named = row_format if names is None else row_format.with_names(await names(page))
        table.print(map(named.cells, page))
        cursor = page.next if isinstance(page, Page) else None
    if not table.has_rows:
        print_remark(nothing)
    print_cursor(cursor)


async def in_pages(rows: AsyncIterable[Row], size_of: Callable[[Row], int]) -> AsyncIterator[list[Row]]:
    """Yield rows in lists of limited length and size: at least one list, which may be empty."""
    page: list[Row] = []
    size = 0
    async for row in rows:
        if len(page) >= PAGE_SIZE or size > PAGE_BYTES:
            yield page
            page, size = [], 0
        page.append(row)
        size += size_of(row)
    yield page


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


@dataclass(frozen=True)
class Lag:
    """The events that a command does not see in the read tables: their number by projection, and the reason."""

    events: dict[str, int]
    reason: str

    @classmethod
    async def wait(cls, store: EventStore, *projections: str, timeout: float = WAIT_SECONDS) -> Self:
        """Wait until the read tables hold what the log holds now, if a worker is running, and return what is missing.

        Args:
            projections: those whose tables the command reads.
            timeout: seconds to wait at most.
        """
        found = select_projections(projections)
        with errors.status("waiting for the workers …"):
            behind = await wait_for_log(store, store.tenant, found, timeout=timeout)
        return cls(behind, await why_behind(store, found) if behind else "")

    def print(self) -> None:
        """Print a remark if anything is missing."""
        if self.events:
            numbers = ", ".join(f"{name} by {number:,} event(s)" for name, number in sorted(self.events.items()))
            print_remark(f"read tables are behind the log ({numbers}): {self.reason}")


def progress_bars(*columns: ProgressColumn) -> Progress:
    """Return progress bars on standard error, which are shown on a terminal only and disappear at the end."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *columns,
        console=errors, transient=True, disable=not errors.is_terminal,
    )  # fmt: skip


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str) -> None:
    """Print a table: see :class:`Table`.

    Args:
        nothing: what to print to standard error if there are no rows.
    """
    table = Table(columns)
    table.print(rows)
    if not table.has_rows:
        print_remark(nothing)


class Table:
    """A table, printed at once or page by page: on a terminal so that it fits, elsewhere each row as a line.

    The first rows decide the layout. If ids, numbers or times of later rows are too wide for it, a new table begins.

    Args:
        columns: the headings; one that begins with ``>`` is aligned to the right, and one that begins with ``?``, or
            with both (``?>``), is left out on a terminal that is too narrow for all.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._layout: _Layout | None = None
        self._widths: list[int] = []  # elsewhere than on a terminal

    @property
    def has_rows(self) -> bool:
        """True if rows have been printed."""
        return self._layout is not None or bool(self._widths)

    def print(self, rows: Iterable[Sequence[Any]]) -> None:
        """Print further rows."""
        cells = list(zip(*rows, strict=True))
        if not cells:
            return
        columns = [_Column(column, values) for column, values in zip(self._columns, cells, strict=True)]
        if not _in_terminal():
            self._print_aligned(columns)
            return
        width = get_terminal_size().columns
        is_continued = self._layout is not None and self._layout.fits(columns)
        if self._layout is None or not is_continued:
            self._layout = _fitting_layout(columns, width)
        self._layout.print(columns, width, is_continued=is_continued)

    def _print_aligned(self, columns: list[_Column]) -> None:
        """Print a row per line for files and pipes: nothing is cut, and the last column is not padded."""
        is_continued = self.has_rows
        if not is_continued:
            self._widths = [max(map(cell_len, (column.heading, *column.cells))) for column in columns[:-1]] + [0]
        for row in islice(_rows_of(columns), is_continued, None):
            padded = (column.pad(cell, width) for column, cell, width in zip(columns, row, self._widths, strict=True))
            sys.stdout.write(_GAP.join(padded) + "\n")


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
        self.is_right, self.is_extra = column.lstrip("?").startswith(">"), column.startswith("?")
        self.is_text = self.heading in _FREE_TEXT
        self.cells = [text(value, keep_lines=self.is_text and _in_terminal()) for value in values]

    def pad(self, cell: str, width: int) -> str:
        space = " " * (width - cell_len(cell))
        return space + cell if self.is_right else cell + space


def _rows_of(columns: Sequence[_Column]) -> Iterator[tuple[str, ...]]:
    return zip(*([column.heading, *column.cells] for column in columns), strict=True)


@dataclass(frozen=True)
class _Layout:
    """The way in which rows are printed on a terminal.

    Attributes:
        shown: the numbers of the columns that are printed.
        widths: those of columns beside each other; None for a list for each row.
        under: the number of the column whose text is printed under each row.
    """

    shown: list[int]
    widths: list[int] | None
    under: int | None = None

    def fits(self, columns: Sequence[_Column]) -> bool:
        """Return whether the ids, numbers and times of rows stay whole."""
        return self.widths is None or all(
            columns[number].is_text or max(map(cell_len, columns[number].cells)) <= width
            for number, width in zip(self.shown, self.widths, strict=True)
        )

    def print(self, columns: Sequence[_Column], width: int, *, is_continued: bool) -> None:
        """Print rows; if they are continued, without the headings."""
        shown = [columns[number] for number in self.shown]
        if self.widths is not None:
            under = None if self.under is None else columns[self.under]
            _print_table(shown, self.widths, under, width, is_continued=is_continued)
            return
        for row in range(len(shown[0].cells)):
            if row or is_continued:
                sys.stdout.write("\n")
            _print_list(shown, row, width)


def _fitting_layout(columns: list[_Column], width: int) -> _Layout:
    """Return the first of these forms that fits. In all of them ids, numbers and times stay whole.

    A table of all columns; without those that may be left out; with the text under its row; a list for each row.
    """

    def widths_of(shown: list[int]) -> list[int] | None:
        return _widths([columns[number] for number in shown], width)

    main = [number for number, column in enumerate(columns) if not column.is_extra]
    for shown in (list(range(len(columns))), main):
        if (widths := widths_of(shown)) is not None:
            return _Layout(shown, widths)
    if texts := [number for number in main if columns[number].is_text]:
        others = [number for number in main if number != texts[-1]]
        if others and (widths := widths_of(others)) is not None:
            return _Layout(others, widths, texts[-1])
    listed = {column.heading: number for number, column in reversed(list(enumerate(columns)))}
    return _Layout(sorted(listed.values()), None)  # a chart repeats a heading


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
    columns: list[_Column], widths: list[int], under: _Column | None, width: int, *, is_continued: bool
) -> None:
    """Print columns beside each other on a terminal, and a text under each row."""
    texts = [under.heading, *under.cells] if under else repeat("")
    rows = enumerate(zip(_rows_of(columns), texts, strict=False))
    for number, (row, text_under) in islice(rows, is_continued, None):
        lines = []
        for parts in zip_longest(*map(_wrapped, row, widths), fillvalue=""):
            padded = [column.pad(part, wide) for column, part, wide in zip(columns, parts, widths, strict=True)]
            lines.append(_GAP.join(padded).rstrip())
        if under and text_under:
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


def text(value: Any, *, keep_lines: bool = False) -> str:
    """Return the text of a value, with control characters escaped, except the ends of lines if these are kept."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(" ", "seconds").replace("+00:00", "Z")
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
