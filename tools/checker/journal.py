"""Journals: what a process of the check did, in a file that survives its SIGKILL.

A line is handed to the operating system before the step that it announces, and after the step whose outcome it records.
Writers and the checker write JSON, one object a line. Readers, which have far more to record, write words::

    kind KIND [TENANT]                               how it reads, and whose events, if not every tenant's
    start AFTER                                      reading begins after this position
    @ TIME                                           time of the following lines
    + POSITION TENANT CONVERSATION VERSION ID INTACT an event was delivered
    check POSITION                                   the checkpoint was moved to this position
    error TEXT                                       the reader raised an undocumented error
    end                                              the last event of the check was delivered
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BUFFER_BYTES = 64 * 1024
_SAME_TIME = 0.001


class Journal:
    """A journal to write, each in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._buffer: list[str] = []
        self._bytes = 0
        self._time = 0.0

    def write(self, **values: Any) -> None:
        """Write an object with the time, immediately."""
        self._write(json.dumps({"t": round(time.time(), 6), **values}, separators=(",", ":")) + "\n")

    def buffer(self, line: str) -> None:
        """Buffer a line until :meth:`flush`, or until the buffer is full."""
        if (now := time.time()) - self._time > _SAME_TIME:
            self._time = now
            line = f"@ {now:.6f}\n{line}"
        self._buffer.append(line + "\n")
        self._bytes += len(line)
        if self._bytes > _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand buffered lines to the operating system."""
        if self._buffer:
            self._write("".join(self._buffer))
            self._buffer.clear()
            self._bytes = 0

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        os.close(self._fd)

    def _write(self, text: str) -> None:
        left = text.encode()
        while left:
            left = left[os.write(self._fd, left) :]


def read_lines(path: Path) -> Iterator[str]:
    """Yield the complete lines of a journal."""
    return (line for _, line in read_lines_with_offsets(path))


def read_lines_with_offsets(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the complete lines of a journal with their offsets in bytes; a killed process may leave a truncated one."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield offset, line[:-1].decode()
            offset += len(line)
