"""Results of reads that take long, kept for a while, so that pages come at once.

A page waits only a moment for such a result. If it takes longer, the page comes without it, and requests the part that
shows it, which waits as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from cachetools import TTLCache

from agent_manager.server.context import RequestContext, ServerContext

PAGE_SECONDS = 0.05
"""How long a page waits for a result, a quarter of the 200 ms until its first paint. What took less is not kept."""
KEPT_SECONDS, MAX_RESULTS = 60.0, 100
_Result = TypeVar("_Result")


class _Results:
    """The results of a server, and the locks of those that are being read."""

    def __init__(self) -> None:
        self.kept: TTLCache[object, Any] = TTLCache(MAX_RESULTS, KEPT_SECONDS)
        self.locks: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()


_RESULTS: WeakKeyDictionary[ServerContext, _Results] = WeakKeyDictionary()


async def kept(
    context: RequestContext, name: str, parameters: object, read: Callable[[], Awaitable[_Result]]
) -> _Result | None:
    """Return the result of a read for the caller; None if a page would have to wait for it.

    Args:
        name, parameters: what is read; each caller has results of their own.
    """
    results = _RESULTS.setdefault(context.server_context, _Results())
    key = (context.caller, name, repr(parameters))
    lock = results.locks.setdefault(key, asyncio.Lock())
    try:
        async with asyncio.timeout(PAGE_SECONDS if is_whole_page(context) else None), lock:
            if key in results.kept:
                known: _Result = results.kept[key]
                return known
            began = monotonic()
            found = await read()
            if monotonic() - began > PAGE_SECONDS:
                results.kept[key] = found
            return found
    except TimeoutError:
        return None


def is_whole_page(context: RequestContext) -> bool:
    """Return whether a request is for a page, not for its data or a part of it."""
    return "hx-target" not in context.request.headers and not context.request.url.path.endswith(".json")
