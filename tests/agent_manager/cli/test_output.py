"""Output that is closed, full or not Unicode, and tables that fit a terminal."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from support.environment import child_environment
from support.processes import EVENTSTORE

from agent_manager.cli.output import print_table


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_table_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    print_table((">n", "content"), [(1, "word " * 20), (22, "[bold]\x1b[31m")], nothing="")
    lines = [re.sub(r"\x1b\[\d*m", "", line).rstrip() for line in terminal.getvalue().splitlines()]
    assert max(map(len, lines)) <= 40
    assert lines[0].split() == ["n", "content"]
    assert "[bold]\\x1b[31m" in terminal.getvalue()


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_table_may_be_printed_in_parts(monkeypatch: pytest.MonkeyPatch, width: int, kind: type[io.StringIO]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [(number, f"id-{number}", "text " * 8, "x") for number in range(10, 14)]
    columns = (">position", "id", "content", "type")
    outputs = []
    for parts in ([rows], [rows[:2], rows[2:], []]):
        output = kind()
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", output)
            for number, part in enumerate(parts):
                print_table(columns, part, nothing="nothing", is_continued=number > 0)
        outputs.append(output.getvalue())
    assert outputs[0] == outputs[1]


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
