"""Protection of a process's connections from the children that it forks.

A child of :func:`os.fork` inherits connections and event loops, but not the threads that run them. If it used a
connection, or only closed it, the parent would lose that connection or read the results of the child's queries.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Protocol

import psycopg
from psycopg.rows import TupleRow


class Inherited(Protocol):
    """An object that a child process must not use."""

    def abandon(self) -> None:
        """Become closed, without touching anything that the parent uses. Called in the child."""


_objects: weakref.WeakSet[Inherited] = weakref.WeakSet()
_connections: weakref.WeakSet[psycopg.AsyncConnection[TupleRow]] = weakref.WeakSet()


def abandon_in_child(inherited: Inherited) -> None:
    """Register an object whose ``abandon`` every child calls that this process forks from now on."""
    _objects.add(inherited)


def disconnect_in_child(connection: psycopg.AsyncConnection[TupleRow]) -> None:
    """Register a connection that is disconnected in every child that this process forks from now on."""
    _connections.add(connection)


def _after_fork() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for connection in list(_connections):
        with suppress(psycopg.Error, OSError):  # already closed
            os.dup2(null, connection.pgconn.socket, inheritable=False)
    os.close(null)
    for inherited in list(_objects):
        inherited.abandon()


os.register_at_fork(after_in_child=_after_fork)
