"""The program ``python -m tools.checker``: its report, its exit code, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commandline import Program
from support.processes import Commands
from support.waiting import until

PROGRAM = "tools.checker"
LITTLE = ("--seconds", "1", "--writers", "1", "--readers", "1")


def test_the_report_is_readable_text(program: Program) -> None:
    result = program(*LITTLE, "--faults", "none", "--seed", "7")
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.lines] == [
        "server", "schema", "run", "appends", "log", "readers", "faults", "not", "not", "violations",
    ]  # fmt: skip
    assert "seed 7" in result.lines[2]
    assert result.lines[-1] == "violations    none"


def test_violations_are_reported_as_json(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "journals"
    naive = ("--reader", "tools.checker.eventstore_adapter:NaiveReader", "--folder", str(folder))
    result = program("--seconds", "2", *LITTLE[2:], "--faults", "terminate,foreign", "--json", *naive)
    assert result.code == 1
    report = json.loads(result.out)
    assert set(report["violations"]) <= {"missed", "passed"}
    assert sum(report["violations"].values()) > 0
    assert set(report["faults"]) <= {"terminate", "foreign"}
    assert report["appends"]["acknowledged"] > 0
    assert any(line["what"].startswith(("tries append", "sees position")) for line in report["shortest"][0]["history"])
    assert {path.suffix for path in folder.iterdir()} >= {".journal"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--faults", "earthquake"), "'earthquake' is not a valid Fault: choose among kill-writer"),
        (("--seconds", "0"), "seconds: 0.0 is too little: give at least 0.1"),
        (("--faults", "kill-server"), "(--restart-command)"),
        (("--store", "nowhere:Store"), "No module named 'nowhere': expected module:Class"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_invalid_arguments_are_refused(program: Program, arguments: tuple[str, ...], expected: str) -> None:
    result = program(*arguments)
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert expected in result.err


def test_an_interrupted_check_leaves_nothing_behind(programs: Commands, database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "journals"
    running = programs.start("--seconds", "60", "--folder", str(folder), DATABASE_URL=database_url)
    until(lambda: list(folder.glob("reader-1*.journal")) or running.ended, "a reader works")
    assert running.interrupt() == 130, running.err
    assert running.err == ""
