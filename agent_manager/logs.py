"""Structured log output: a record is one line, as text or JSON, on standard error.

A record that operators look for has a stable name and fields, in ``extra`` of the logging call: ``event`` is the name,
all other members are fields. Both formats show them, with the request and the trace that the record belongs to.

No content of a conversation is written. The texts of exceptions may quote it, as PostgreSQL's and an agent's do, so of
an exception only the types and the places in the code are shown; of the records of other libraries, which may quote an
exception in further lines, only the first line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any, Literal

from eventstore.errors import printable
from eventstore.tracing import current_trace

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
OWN_LOGGERS = ("eventstore", "projections", "agent_manager")
"""The packages whose records have the level that is set. Other libraries' have at least the level WARNING: httpx, for
one, logs the URL of every request as information."""
MAX_CHARACTERS = 2000
"""The longest text in a record; a longer one loses its middle part."""
MAX_FRAMES = 50
MAX_LINES = 10_000
"""Lines that wait until they are written."""
CLOSE_SECONDS = 2.0
"""Seconds that the end of the process waits for that."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the HTTP request that is being handled; empty outside of requests."""

_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}
"""The attributes of a record that are not fields."""
_PLAIN_VALUE = re.compile(r'[^\s"=]+')


def configure(log_format: LogFormat, level: LogLevel) -> None:
    """Write the records of this process to standard error in a format, from a level on."""
    handler = _Output()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())


def is_json() -> bool:
    """Return whether the records of this process are written as JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


class _Output(logging.Handler):
    """A handler that writes lines in a thread of its own.

    A reader of standard error that stops reading, such as a log shipper that hangs, blocks that thread only: lines are
    dropped once :data:`MAX_LINES` wait, and counted. If the reader has ended, what follows is discarded.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self._file = sys.stderr.fileno()
        except OSError:  # it is not a file, as in a notebook
            self._file = 2
        self._lines: Queue[str | None] = Queue(MAX_LINES)
        self._dropped = 0
        self._counting = Lock()  # not the handler's, which logging holds while it closes the handler
        self._thread = Thread(target=self._write_lines, name="eventstore-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        try:
            self._lines.put_nowait(self.format(record))
        except Full:
            with self._counting:
                self._dropped += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Wait until the lines are written, but not long."""
        super().close()
        with suppress(Full):
            self._lines.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)

    def _write_lines(self) -> None:
        for line in iter(self._lines.get, None):
            self._write(line)
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                fields = {"event": "lines_dropped", "lines": dropped, "name": __name__, "levelname": "WARNING"}
                text = "lines were dropped: standard error is read too slowly"
                self._write(self.format(logging.makeLogRecord(fields | {"msg": text})))

    def _write(self, line: str) -> None:
        # To the file itself: a blocked write to sys.stderr would hold its lock when Python exits.
        data = f"{line}\n".encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file)
        except OSError:
            pass  # a full disk: later lines may find room


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object in one line of ASCII characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        members = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps(members | _members(record) | _error(record), default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as a line of text; the frames of an exception follow in indented lines.

    Control characters and ends of lines are escaped, and values in which a reader could see another field are quoted.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        members = _members(record) | _error(record)
        message, event = members.pop("message"), members.pop("event", None)
        stack = members.pop("stack", ())
        what = f"{event}: {message}" if event else message
        fields = "".join(f" {name}={_quoted(value)}" for name, value in members.items())
        frames = "".join(f"\n    {_one_line(frame)}" for frame in stack)
        return f"{_time(record)} {record.levelname} {what}{fields}{frames}"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _members(record: logging.LogRecord) -> dict[str, Any]:
    """Return the message of a record, the name of its event, its fields, and the request and trace it belongs to."""
    event: str | None = getattr(record, "event", None)
    message = record.getMessage() if event else record.getMessage().partition("\n")[0]
    members = {"message": _one_line(message)} | ({"event": event} if event else {})
    members |= {name: value for name, value in vars(record).items() if name not in _ATTRIBUTES and value is not None}
    if identifier := request_id.get():
        members["request_id"] = identifier
    return members | current_trace()


def _error(record: logging.LogRecord) -> dict[str, Any]:
    """Return the types of the exceptions of a record, and the frames of the code, from the outermost in."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    return {
        "error": " from ".join(type(each).__qualname__ for each in _chain(error)),
        "stack": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(MAX_FRAMES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _one_line(text: str) -> str:
    return printable(text, MAX_CHARACTERS)


def _quoted(value: Any) -> str:
    text = _one_line(str(value))
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
