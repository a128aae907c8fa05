"""From the errors that this store documents to the two outcomes that the checker tells apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from eventstore.check.adapter import Refused, Unknown, WrongVersion
from eventstore.database.translate import translate
from eventstore.errors import (
    ConflictError,
    ConnectionLost,
    DiskFull,
    EventStoreError,
    InputError,
    RetryableError,
    ServerUnreachable,
    WrongExpectedVersion,
)

_NOTHING_WRITTEN = (ConflictError, InputError, RetryableError, DiskFull)
# The second says that nothing was sent; the checker waits for the server and repeats it, as after the first.
_UNKNOWN = (ConnectionLost, ServerUnreachable)

_CONFLICTS = {"ES001": WrongVersion, "ES002": Refused}
"""What ``append_events`` raises because of what the log holds; only a caller that knows the append can type it."""


@contextmanager
def told_apart() -> Iterator[None]:
    """Raises :class:`Refused` or :class:`Unknown` for errors that say which; others pass as they are."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate in _CONFLICTS:
            raise _CONFLICTS[error.sqlstate](str(error)) from error
        raise _outcome(translate(error)) from error
    except EventStoreError as error:
        raise _outcome(error) from error


def _outcome(error: EventStoreError) -> Exception:
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, WrongExpectedVersion):
        return WrongVersion(said)
    if isinstance(error, _NOTHING_WRITTEN):
        return Refused(said)
    return Unknown(said) if isinstance(error, _UNKNOWN) else error
