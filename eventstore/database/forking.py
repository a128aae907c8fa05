"""Protects what a process uses from the children that it forks.

A child made by :func:`os.fork` inherits connections and event loops, but not the threads that run them. If it used a
connection, or only closed it, its parent would lose that connection or read the answers to somebody else's queries.
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
        """Be closed from now on, without touching anything that the parent uses. Called in the child."""


_objects: weakref.WeakSet[Inherited] = weakref.WeakSet()
_connections: weakref.WeakSet[psycopg.AsyncConnection[TupleRow]] = weakref.WeakSet()


def abandon_in_child(inherited: Inherited) -> None:
    """Have an object abandoned in every child that this process forks from now on."""
    _objects.add(inherited)


def disconnect_in_child(connection: psycopg.AsyncConnection[TupleRow]) -> None:
    """Have a connection lead nowhere in every child that this process forks from now on."""
    _connections.add(connection)


def _after_fork() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_connections):
        with suppress(psycopg.Error, OSError):  # it is closed
            os.dup2(nowhere, connection.pgconn.socket, inheritable=False)
    os.close(nowhere)
    for inherited in list(_objects):
        inherited.abandon()


os.register_at_fork(after_in_child=_after_fork)
