"""The key TAB: what Typer would complete, without the imports that take long."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.environment import TREE, child_environment

from agent_manager.cli.completion import FILE
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


def completed(shell: str, line: str, program: str = "from agent_manager.cli import main; main()") -> str:
    """Return what the program prints to a shell that asks for the words that complete a line."""
    words = f"eventstore {line}"
    variables = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words.rstrip() if shell == "powershell" else words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words.rpartition(" ")[2],
        "_EVENTSTORE_COMPLETE": f"complete_{shell}",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment(**variables),
        capture_output=True,
        text=True,
        cwd=TREE,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_description_of_the_commands_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == described(), "run python -m tools.commands"


@pytest.mark.parametrize("line", LINES)
def test_typer_completes_the_same_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.setenv("COMP_WORDS", f"eventstore {line}")
    monkeypatch.setenv("COMP_CWORD", str(f"eventstore {line}".count(" ")))
    monkeypatch.setenv("_EVENTSTORE_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        app(prog_name="eventstore")
    assert sorted(completed("bash", line).split()) == sorted(capsys.readouterr().out.split())


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
@pytest.mark.parametrize("line", ["", "keys add x --scope ", "stats --j", "import x "])
def test_every_shell_gets_its_form(shell: str, line: str) -> None:
    out = completed(shell, line)
    typers = completed(shell, line, "from agent_manager.cli.main import main; main()")
    assert [part.split("..")[0] for part in typers.split()[:2]] == out.split()[:2]
    assert out.count("\n") == typers.count("\n")
    assert "..." not in out


def test_a_completion_imports_nothing_that_takes_long() -> None:
    program = "import sys; from agent_manager.cli import main; main(); print(*sys.modules, sep='\\n')"
    loaded = set(completed("bash", "messages --", program).split())
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
