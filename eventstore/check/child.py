"""A process of the check: writers or a reader, until it is told to stop or the checker has gone.

Its first line of standard input is a :class:`~eventstore.check.task.Task` as JSON; a second one tells it to stop; the
end of its input means that nobody is there any more. It tells how far it has come by lines of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from eventstore.check.adapter import load
from eventstore.check.journal import Journal
from eventstore.check.reader import ReaderProcess
from eventstore.check.task import Task
from eventstore.check.writer import WriterProcess
from eventstore.ending import end

_TELL_SECONDS = 0.25


async def run(task: Task, stop: asyncio.Event, tell: Callable[[dict[str, Any]], None]) -> None:
    """Does the task until it is done or told to stop."""
    journal = Journal(task.journal)
    adapter = load("the adapter", task.adapter)(task.url, task.schema)
    process: WriterProcess | ReaderProcess
    process = (WriterProcess if task.role == "writer" else ReaderProcess)(task, adapter, journal)
    telling = asyncio.create_task(_tell_now_and_then(process, tell))
    try:
        await process.run(stop)
    finally:
        await end([telling])
        journal.close()
        with suppress(OSError):
            tell(process.progress())


async def _tell_now_and_then(process: WriterProcess | ReaderProcess, tell: Callable[[dict[str, Any]], None]) -> None:
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        tell(process.progress())


async def _main() -> None:
    lines = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    task = Task(**json.loads(await lines.readline()))
    stop = asyncio.Event()
    running = asyncio.create_task(run(task, stop, _print))
    told = asyncio.create_task(lines.readline())
    await asyncio.wait((running, told), return_when=asyncio.FIRST_COMPLETED)
    if told.done() and not await told:
        await end([running])  # the checker was killed
        return
    stop.set()
    await running
    await end([told])


def _print(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs one."""
    logging.disable(logging.WARNING)  # that connections are lost is no news under faults
    asyncio.run(_main())
