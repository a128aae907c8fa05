"""The key TAB: what Typer would complete, without the imports that take long."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
from support.environment import TREE, child_environment

from agent_manager.cli import completion
from agent_manager.cli.main import app
from agent_manager.cli.main import main as run
from tools.commands import described

pytestmark = pytest.mark.any_server

LINES = [
    "",
    "con",
    "nothing",
    "keys ",
    "keys re",
    "messages --",
    "messages trip -",
    "conversations --a",
    "conversations --active --a",
    "keys add x --scope r",
    "keys add x --scope read --s",
    "keys add --scope=w",
    "stats --by ",
    "stats --by day --",
    "stats --by day --by",
    "--",
    "migrate down --",
    "import file.jsonl ",
    "messages -- -",
    "history --type 'message added",
]


Complete: TypeAlias = Callable[[Callable[[], Any], str, str], str]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """Return what a program prints to a shell that asks for the words that complete a line."""

    def run_program(program: Callable[[], Any], shell: str, line: str) -> str:
        for name, value in request(shell, line).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        with suppress(SystemExit):
            program()
        return capsys.readouterr().out

    return run_program


def request(shell: str, line: str) -> dict[str, str]:
    """Return the environment in which a shell asks for the words that complete a line."""
    words = f"eventstore {line}"
    return {
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words.rstrip() if shell == "powershell" else words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words.rpartition(" ")[2],
        "_EVENTSTORE_COMPLETE": f"complete_{shell}",
    }


def typer() -> None:
    """Let Typer complete."""
    app(prog_name="eventstore")


def test_the_description_of_the_commands_is_up_to_date() -> None:
    assert completion.FILE.read_text(encoding="utf-8") == described(), "run python -m tools.commands"


@pytest.mark.parametrize("line", LINES)
def test_typer_completes_the_same_words(complete: Complete, line: str) -> None:
    assert sorted(complete(completion.main, "bash", line).split()) == sorted(complete(typer, "bash", line).split())


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
@pytest.mark.parametrize("line", ["", "keys add x --scope ", "stats --j", "import x "])
def test_every_shell_gets_its_form(complete: Complete, shell: str, line: str) -> None:
    out, typers = complete(completion.main, shell, line), complete(typer, shell, line)
    assert [part.split("..")[0] for part in typers.split()[:2]] == out.split()[:2]
    assert out.count("\n") == typers.count("\n")
    assert "..." not in out


def test_fish_asks_first_whether_there_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for line, code in (("con", 0), ("import ", 1)):
        for name, value in (request("fish", line) | {"_TYPER_COMPLETE_FISH_ACTION": "is-args"}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as exited:
            completion.main()
        assert exited.value.code == code


def test_a_completion_imports_nothing_that_takes_long() -> None:
    program = "import sys; from agent_manager.cli import main; main(); print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment(**request("bash", "messages --")),
        capture_output=True, text=True, cwd=TREE, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert "agent_manager.cli.completion" in loaded
    assert not loaded & {"typer", "rich", "pydantic", "psycopg", "eventstore", "projections"}


def test_help_imports_no_command() -> None:
    leave = "atexit.register(lambda: print('modules', *sys.modules))"
    program = f"import atexit, sys; from agent_manager.cli import main; {leave}; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        env=child_environment(), capture_output=True, text=True, cwd=TREE, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.partition("modules ")[2].split())
    assert "typer" in loaded
    assert not loaded & {"psycopg", "eventstore", "projections"}


def test_bash_completes_by_the_script_that_is_installed() -> None:
    show = "from agent_manager.cli import main; main()"
    script = subprocess.run(
        [sys.executable, "-c", show, "--show-completion", "bash"],
        env=child_environment(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"),
        capture_output=True, text=True, cwd=TREE, check=True,
    ).stdout  # fmt: skip
    program = f"eventstore() {{ {sys.executable} -c {json.dumps(show)}; }}; export -f eventstore; "
    line = "COMP_WORDS=(eventstore keys add x --scope a); COMP_CWORD=5; _eventstore_completion bash; "
    script = script.replace("complete_bash $1", "complete_bash bash -c eventstore")
    done = subprocess.run(
        ["bash", "-c", f"{program}{script}\n{line}echo ${{COMPREPLY[@]}}"],
        env=child_environment(), capture_output=True, text=True, cwd=TREE, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("audit admin\n", "")


def test_another_request_is_left_to_typer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_EVENTSTORE_COMPLETE", "source_bash")
    monkeypatch.setattr("sys.argv", ["eventstore"])
    with pytest.raises(SystemExit):
        run()
    assert "complete -o default -F _eventstore_completion eventstore" in capsys.readouterr().out
