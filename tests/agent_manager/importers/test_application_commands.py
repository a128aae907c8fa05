"""Commands that stop an application for a rollback end with everything that they have started."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from agent_manager.importers.rollback import CommandFailed, run_command


async def test_a_command_that_takes_too_long_is_stopped_with_its_processes(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(CommandFailed, match="has not ended within 1 seconds"):
            await run_command(f"exec 3>{fifo}; echo started >&3; sleep 60 & wait", 1)
        assert os.read(reader, 100) == b"started\n"
        assert select.select([reader], [], [], 30)[0], "a process of the command still runs"
        assert os.read(reader, 100) == b"", "the end of the last process that has the file open"
    finally:
        os.close(reader)


async def test_a_command_that_fails_is_an_error() -> None:
    with pytest.raises(CommandFailed, match="'exit 3' failed with exit code 3"):
        await run_command("exit 3", 30)
