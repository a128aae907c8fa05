"""The table of the commands lists what the modules add, and a command imports only its own module."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.environment import TREE, child_environment

from agent_manager.cli.main import MODULES, commands_of

pytestmark = pytest.mark.any_server


@pytest.mark.parametrize("module", MODULES)
def test_the_table_lists_the_commands_of_each_module(module: str) -> None:
    assert sorted(commands_of(module)) == sorted(MODULES[module])


def test_every_module_that_adds_commands_is_in_the_table() -> None:
    modules = (TREE / "agent_manager/cli").glob("*.py")
    assert {path.stem for path in modules if "\ndef add_to(" in path.read_text(encoding="utf-8")} == set(MODULES)


@pytest.mark.parametrize("command", ["project", "status", "messages"])
def test_a_command_imports_only_what_it_needs(command: str) -> None:
    script = "import sys; from agent_manager.cli.main import app; app(['%s', '--help'], standalone_mode=False)"
    ask = f"{script % command}; sys.exit(bool({{'fastapi', 'uvicorn', 'httpx'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=child_environment(), capture_output=True, cwd=TREE, check=False
    )
    assert done.returncode == 0, done.stderr
