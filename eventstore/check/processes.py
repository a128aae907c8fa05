"""The processes of the check, from the checker's side: started, killed, started again, told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from eventstore.check.task import Task
from eventstore.ending import end

_PROGRAM = "from eventstore.check.child import main; main()"
_SECONDS_BEFORE_A_RESTART = 0.2
_MOST_CRASHES = 5
_MOST_REMARKS = 5
_MOST_PLACES = 4


class Process:
    """One process, through all its incarnations. It is started again whenever it ends, until it is done.

    Attributes:
        crashes: what it said when it ended by itself without having come to its end.
        unhandled: errors that ended no process, because nobody was there to handle them: who raised each, the
            exception, and the innermost places.
        remarks: what it wrote on standard error otherwise.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False
        self._closed = False
        self._killed = False
        self._first = 0.0
        self._began = 0.0
        self._before: dict[str, int] = {}
        self._now: dict[str, Any] = {}
        self.crashes: list[str] = []
        self.unhandled: list[tuple[str, list[str]]] = []
        self.remarks: list[str] = []

    @property
    def name(self) -> str:
        """Its name."""
        return self._task.name

    @property
    def role(self) -> str:
        """What it does."""
        return self._task.role

    @property
    def kind(self) -> str:
        """How it reads."""
        return self._task.kind

    @property
    def journal(self) -> Path:
        """Of its present incarnation."""
        return self._task.journal

    @property
    def incarnations(self) -> int:
        """How often it was started."""
        return self._task.incarnation

    @property
    def is_done(self) -> bool:
        """Whether it has ended for good."""
        return self._keeping is not None and self._keeping.done()

    @property
    def may_be_killed(self) -> bool:
        """Whether it works. One that reads from the start needs ever longer, and is left to live ever longer."""
        process = self._process
        if process is None or process.returncode is not None or not self._now or self._killed:
            return False
        now = asyncio.get_running_loop().time()
        return self.kind != "start" or now - self._began > self._began - self._first

    def count(self, what: str) -> int:
        """How many of something it has done in all its incarnations."""
        return self._before.get(what, 0) + int(self._now.get(what, 0))

    def start(self) -> None:
        """Starts it, and keeps it running."""
        self._first = asyncio.get_running_loop().time()
        self._keeping = asyncio.create_task(self._keep())

    def kill(self) -> None:
        """SIGKILL."""
        self._killed = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def tell_to_stop(self) -> None:
        """Asks it to end what it is about and go."""
        self._stopping = True
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(b"stop\n")

    async def wait(self, seconds: float) -> bool:
        """Waits until it has ended for good; whether it has."""
        if self._keeping is None:
            return True
        await asyncio.wait([self._keeping], timeout=seconds)
        return self._keeping.done()

    async def close(self) -> None:
        """Kills it for good."""
        self._stopping = self._closed = True
        self.kill()
        if self._keeping is not None and not await self.wait(10):
            await end([self._keeping])
        if self._keeping is not None and not self._keeping.cancelled():
            self._keeping.result()

    async def _keep(self) -> None:
        while not self._stopping and len(self.crashes) < _MOST_CRASHES:
            if await self._live():
                return
            for what in ("appends", "deliveries"):
                self._before[what] = self.count(what)
            highest = max(self._task.highest, int(self._now.get("position", 0)))
            self._now = {}
            self._task = replace(self._task, incarnation=self._task.incarnation + 1, highest=highest)
            await asyncio.sleep(_SECONDS_BEFORE_A_RESTART)

    async def _live(self) -> bool:
        """One incarnation; whether it came to its end."""
        self._killed = False
        self._began = asyncio.get_running_loop().time()
        said = Path(self._task.folder) / f"{self.name}.{self.incarnations:04d}.stderr"
        with said.open("wb") as stderr:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-c", _PROGRAM,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                # In a session of its own, so that Ctrl-C reaches only the checker, which ends it.
                start_new_session=True,
                # It imports what the checker imports, the module of an adapter included.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        if self._closed:  # while it was being started
            self.kill()
        with suppress(OSError):
            process.stdin.write(json.dumps(asdict(self._task)).encode() + b"\n")
            if self._stopping:
                process.stdin.write(b"stop\n")
        async for line in process.stdout:
            if line.endswith(b"\n"):
                self._now = json.loads(line)
        code = await process.wait()
        self._look_at(said, code)
        return code == 0

    def _look_at(self, said: Path, code: int) -> None:
        """What it wrote on standard error; a file that holds nothing is removed."""
        words = said.read_text(encoding="utf-8", errors="replace").splitlines()
        if code and not self._killed:
            self.crashes.append(f"{self.name} ended with {code}: {' '.join(words[-1:])}")
        elif (begins := next((n for n, line in enumerate(words) if line.startswith("Traceback")), None)) is not None:
            # An error in a task or a callback, which nobody was there to handle.
            self.unhandled.append((self.name, _short(words[begins + 1 :])))
        elif words and len(self.remarks) < _MOST_REMARKS:
            self.remarks.append(f"{self.name}: {' '.join(dict.fromkeys(words))}")
        if not words:
            said.unlink()


def _short(traceback: list[str]) -> list[str]:
    """The exception of a traceback, and its innermost places."""
    end = next((n for n, line in enumerate(traceback) if not line.startswith(" ")), len(traceback))
    places = [line.strip() for line in traceback[:end] if line.startswith("  File ")]
    return [*traceback[end : end + 1], *places[::-1][:_MOST_PLACES]]
