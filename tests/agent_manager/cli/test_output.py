"""Output that is closed, full or not Unicode, and tables that fit a terminal."""

from __future__ import annotations

import io
import re
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from support.environment import child_environment
from support.processes import EVENTSTORE

from agent_manager.cli.output import Table, print_table, text


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return standard output, which is a terminal of 40 columns from now on."""
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    return terminal


def lines_of(terminal: Terminal) -> list[str]:
    return [re.sub(r"\x1b\[\d*m", "", line) for line in terminal.getvalue().splitlines()]


def test_a_terminal_gets_a_table_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    print_table((">n", "content"), [(1, "word " * 20), (22, "[bold]\x1b[31m")], nothing="")
    lines = lines_of(terminal)
    assert max(map(len, lines)) <= 40
    assert lines[0].split() == ["n", "content"]
    assert "[bold]\\x1b[31m" in terminal.getvalue()


def test_the_first_page_of_a_table_decides_how_the_next_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    table = Table((">n", "type", "content"))
    table.print([(10, "message", "first " * 8)])
    table.print([(9, "task", "second")])
    assert lines_of(terminal) == [
        " n  type     content",
        "10  message  first first first first",
        "             first first first first",
        " 9  task     second",
    ]


def test_a_table_whose_numbers_grow_too_wide_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    table = Table((">n", "content"))
    for number in (8, 9, 10, 11):
        table.print([(number, "word")])
    assert lines_of(terminal) == ["n  content", "8  word", "9  word", " n  content", "10  word", "11  word"]


def test_a_list_of_rows_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    table = Table(("id", "conversation"))
    table.print([("x" * 30, "y" * 30)])
    table.print([("1", "2")])
    assert lines_of(terminal)[-3:] == ["", "id            1", "conversation  2"]


def test_a_pipe_gets_the_headings_once(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table((">n", "type", "content"))
    for number in (9, 10):
        table.print([(number, "task", "word")])
    assert capsys.readouterr().out.splitlines() == ["n  type  content", "9  task  word", "10  task  word"]


def test_times_are_shown_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Sao_Paulo")
    assert text(datetime(2026, 1, 31, 9, 30, 1, 999999, timezone(timedelta(hours=-3)))) == "2026-01-31 12:30:01Z"
    assert text(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01 00:00:00Z"


COLUMNS = [">position", "id", "name", "content", "what changed", "?uuid", "updated"]
TEXTS = st.text(
    st.sampled_from("ab 東👍\n\t\x1b\u202e\u3000\u00a0-") | st.characters(exclude_categories=["Cs"]), max_size=80
)


@given(data=st.data(), width=st.integers(20, 200))
def test_any_text_fits_any_terminal(data: st.DataObject, width: int) -> None:
    columns = data.draw(st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True))
    rows = data.draw(st.lists(st.tuples(*(TEXTS for _ in columns)), min_size=1, max_size=3))
    terminal = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setattr("sys.stdout", terminal)
        print_table(columns, rows, nothing="")
    out = re.sub(r"\x1b\[[01]m", "", terminal.getvalue())
    assert max(map(cell_len, out.split("\n"))) <= width
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", out)
    kept = "".join(cell for row in rows for column, cell in zip(columns, row, strict=True) if column != "?uuid")
    assert all(out.count(character) >= kept.count(character) for character in "ab東👍")


@pytest.mark.parametrize(
    ("command", "redirection"),
    [
        ("conversations", ">&-"),
        ("conversations --json", ">/dev/full"),
        *(pytest.param("--help", redirection, marks=pytest.mark.slow) for redirection in (">&-", ">/dev/full")),
    ],
)
def test_a_closed_or_full_output_is_reported_without_a_traceback(
    clean_environment: None, library_url: str, tmp_path: Path, command: str, redirection: str
) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{' '.join(map(repr, EVENTSTORE))} {command} {redirection}"],
        capture_output=True,
        text=True,
        env=child_environment(DATABASE_URL=library_url),
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
