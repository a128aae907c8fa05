"""Protection of a process's connections from the children that it forks.

A child of :func:`os.fork` inherits connections and event loops, but not the threads that run them. If it used a
connection, or only closed it, the parent would lose that connection or read the results of the child's queries.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """An object that a child process must not use."""

    def abandon(self) -> None:
        """Become closed, without touching anything that the parent uses. Called in the child."""


_objects: weakref.WeakSet[Inherited] = weakref.WeakSet()


def abandon_in_child(inherited: Inherited) -> None:
    """Register an object whose ``abandon`` every child calls that this process forks from now on."""
    _objects.add(inherited)


def _after_fork() -> None:
    for inherited in list(_objects):
        inherited.abandon()


os.register_at_fork(after_in_child=_after_fork)
