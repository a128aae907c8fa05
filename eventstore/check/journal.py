"""Journals: what a process of the check did, in a file that survives its SIGKILL.

A line is handed to the operating system before the step that it announces, and after the step whose outcome it tells.
Writers and the checker write JSON, one object a line. Readers, which have far more to say, write words::

    kind KIND [TENANT]                               how it reads, and whose events, if not everybody's
    start AFTER                                      reading begins after this position
    @ TIME                                           when what follows was seen
    + POSITION TENANT CONVERSATION VERSION ID INTACT an event was delivered
    check POSITION                                   the checkpoint was moved there
    error TEXT                                       the reader raised what it should not
    end                                              the last event of the check was seen
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KEPT_BYTES = 64 * 1024
_SAME_TIME = 0.001


class Journal:
    """A journal that is being written, each in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._kept: list[str] = []
        self._bytes = 0
        self._time = 0.0

    def note(self, **values: Any) -> None:
        """Writes an object with the time, at once."""
        self._write(json.dumps({"t": round(time.time(), 6), **values}, separators=(",", ":")) + "\n")

    def keep(self, line: str) -> None:
        """Keeps a line until :meth:`flush`, or until there are many."""
        if (now := time.time()) - self._time > _SAME_TIME:
            self._time = now
            line = f"@ {now:.6f}\n{line}"
        self._kept.append(line + "\n")
        self._bytes += len(line)
        if self._bytes > _KEPT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hands what was kept to the operating system."""
        if self._kept:
            self._write("".join(self._kept))
            self._kept.clear()
            self._bytes = 0

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        os.close(self._fd)

    def _write(self, text: str) -> None:
        left = text.encode()
        while left:
            left = left[os.write(self._fd, left) :]


def lines(path: Path) -> Iterator[str]:
    """The lines of a journal; one that its writer did not live to end is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield line[:-1]
