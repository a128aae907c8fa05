"""Stopping and starting the application, by the commands that its operator gives."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

from agent_manager.migrating.endpoints import EndpointSource
from agent_manager.migrating.private_files import append_private
from agent_manager.migrating.source import SourceUnreadable
from eventstore.errors import InputError
from eventstore.urls import show_url

_LOOK_SECONDS = 0.1
_STDERR = 2


class CommandFailed(InputError):
    """A command to stop or start the application failed."""


async def run_command(command: str, seconds: float) -> None:
    """Runs a command of the shell to its end. What it says goes to standard error: the report stands on the other.

    Raises:
        CommandFailed: it failed, or took longer.
    """
    process = await _started(command, {}, _STDERR)
    try:
        code = await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        raise CommandFailed(f"{command!r} has not ended within {seconds:g} seconds: correct it, run it again") from None
    if code:
        raise CommandFailed(f"{command!r} failed with exit code {code}: correct it, then run this again")


async def start_application(
    command: str, environment: dict[str, str], url: str | None, seconds: float, log: Path
) -> None:
    """Runs a command that starts the application; it may go on running once the application answers at the URL.

    Args:
        log: takes what it says. It outlives this command, and whoever reads this one's output waits for its end.

    Raises:
        CommandFailed: it failed, or the application does not answer in time.
    """
    with append_private(log) as output:
        process = await _started(command, environment, output.fileno())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.returncode:
            why = f"{command!r} failed with exit code {process.returncode}"
            raise CommandFailed(f"{why}: see {log}, and start the application yourself")
        if url is None and process.returncode == 0:
            return
        if url is not None and await _answers(url):
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _LOOK_SECONDS)
        if process.returncode == 0:
            await asyncio.sleep(_LOOK_SECONDS)
    waited = "ended" if url is None else f"answered at {show_url(url)}"
    raise CommandFailed(f"{command!r} has not {waited} within {seconds:g} seconds: see {log}")


async def _started(command: str, environment: dict[str, str], output: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=os.environ | environment,
        start_new_session=True,
    )


async def _answers(url: str) -> bool:
    try:
        async with EndpointSource(url) as application:
            await application.ask("conversation/list")
    except SourceUnreadable:
        return False
    return True
