"""A command imports only its own module."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.environment import TREE, child_environment

pytestmark = pytest.mark.any_server


@pytest.mark.parametrize("command", ["project", "status", "messages"])
def test_a_command_imports_only_what_it_needs(command: str) -> None:
    script = "import sys; from agent_manager.cli.main import app; app(['%s', '--help'], standalone_mode=False)"
    ask = f"{script % command}; sys.exit(bool({{'fastapi', 'uvicorn', 'httpx'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=child_environment(), capture_output=True, cwd=TREE, check=False
    )
    assert done.returncode == 0, done.stderr
