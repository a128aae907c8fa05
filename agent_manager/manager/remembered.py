"""Which instance of a message is which accepted one: between being accepted and being processed it passes through the
application, which may hand on the instance or a copy.

Ids do not tell: they repeat. The instance does; else a message that is equal to one which nobody has processed yet.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from agent_manager.manager.views import Accepted, Json

KEPT = 10_000
"""Of the messages accepted last; older ones that come to be processed are accepted anew."""


@dataclass
class _Entry:
    message: Any  # held, so that no other instance gets its address
    accepted: Accepted
    is_taken: bool = False


class Remembered:
    """The messages that were accepted last. Any thread may use it."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._numbers = 0
        self._lock = Lock()

    def add(self, message: Any, accepted: Accepted) -> None:
        """An instance was accepted, and is to be processed."""
        self._keep(_Entry(message, accepted))

    def done(self, message: Any, accepted: Accepted) -> None:
        """An instance was accepted, and is being processed."""
        self._keep(_Entry(message, accepted, is_taken=True))

    def take(self, message: Any, sent: Json) -> Accepted | None:
        """What an instance that is to be processed was accepted as, the oldest such that nobody has processed.

        Where all that this very instance was accepted as is processed already, the last of it: it is answered once.
        """
        with self._lock:
            same = [entry for entry in self._entries.values() if entry.message is message]
            equal = (e for e in self._entries.values() if not e.is_taken and e.accepted.message == sent)
            entry = next((one for one in same if not one.is_taken), None) or (same[-1] if same else next(equal, None))
            if entry is None:
                return None
            entry.is_taken = True
            return entry.accepted

    def _keep(self, entry: _Entry) -> None:
        with self._lock:
            self._numbers += 1
            self._entries[self._numbers] = entry
            while len(self._entries) > KEPT:
                self._entries.popitem(last=False)
