"""Results of reads that take long, kept for a while, so that pages come at once.

A page waits only a moment for such a result. If it takes longer, the page comes without it, and requests the part that
shows it, which waits as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from operator import itemgetter
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from cachetools import TTLCache
from pydantic_core import to_json

from agent_manager.server.context import RequestContext, ServerContext
from agent_manager.server.limits import TENANT_SHARE

PAGE_SECONDS = 0.05
"""Seconds that a page waits for a result: a quarter of the 200 ms to its first paint. A faster result is not kept."""
KEPT_SECONDS, MAX_BYTES = 60.0, 4 * 2**20
"""The time for which a result is kept, and the size of all of them as JSON, which is about a fifth of their memory."""
_Result = TypeVar("_Result")


class _Results:
    """The results of a server, and the locks of those that are being read."""

    def __init__(self) -> None:
        self.kept: TTLCache[object, tuple[Any, int]] = TTLCache(MAX_BYTES, KEPT_SECONDS, getsizeof=itemgetter(1))
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
                known: _Result = results.kept[key][0]
                return known
            began = monotonic()
            found = await read()
            if monotonic() - began > PAGE_SECONDS:
                size = len(await context.in_thread(partial(to_json, fallback=str), found))
                if size <= MAX_BYTES // TENANT_SHARE:
                    results.kept[key] = found, size
            return found
    except TimeoutError:
        return None


def is_whole_page(context: RequestContext) -> bool:
    """Return whether a request is for a page, not for its data or a part of it."""
    return "hx-target" not in context.request.headers and not context.request.url.path.endswith(".json")
