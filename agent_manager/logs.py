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
from contextvars import ContextVar
from datetime import UTC, datetime
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

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the HTTP request that is being handled; empty outside of requests."""

_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}
"""The attributes of a record that are not fields."""
_PLAIN_VALUE = re.compile(r'[^\s"=]+')


def configure(log_format: LogFormat, level: LogLevel) -> None:
    """Write the records of this process to standard error in a format, from a level on."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())


def is_json() -> bool:
    """Return whether the records of this process are written as JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


class _Handler(logging.StreamHandler[Any]):
    """A handler whose errors, such as a closed pipe, do not concern the program."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of logging
        """Discard a line that cannot be written and, if nothing reads them any more, all that follow."""
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        elif not isinstance(error, OSError | ValueError):  # ValueError: the stream is closed
            super().handleError(record)


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
