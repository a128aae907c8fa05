"""Whole conversations that are read again and again, for those who read them: a cache for each caller."""

from __future__ import annotations

from cachetools import LRUCache

from eventstore import Caller
from projections import ConversationCache, Reader

CALLERS = 100
_BYTES = 2 * 1024 * 1024
"""Of what is kept for one caller; bodies that nothing has changed since are kept beside that, for all."""


class States:
    """The caches of those who asked last."""

    def __init__(self, callers: int = CALLERS) -> None:
        self._caches: LRUCache[Caller, ConversationCache] = LRUCache(callers)

    def of(self, reader: Reader) -> ConversationCache:
        """The cache of a reader's caller."""
        cache = self._caches.get(reader.caller)
        if cache is None:
            cache = self._caches[reader.caller] = ConversationCache(reader, _BYTES)
        return cache
