"""Output that is closed, full or not Unicode, and tables that fit a terminal."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest
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
