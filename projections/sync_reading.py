"""The reader for synchronous code; every method does what its namesake in :class:`Reader` does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from eventstore import Caller, SyncEventStore
from eventstore.errors import InputError
from projections.reading import WAIT_SECONDS, Reader

P = ParamSpec("P")
T = TypeVar("T")


def _synchronous(
    method: Callable[Concatenate[Reader, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncReader, P], T]:
    """The same method, which returns when it is done: one signature for both."""

    @wraps(method)
    def call(reader: SyncReader, /, *what: P.args, **which: P.kwargs) -> T:
        return reader.store.portal.call(method(reader.asynchronous, *what, **which))

    return call


class SyncReader:
    """Reads what one tenant has, from any thread.

    Args:
        tenant: the store's own if left out.
        timeout: seconds to wait at most for a position that a read must have seen.
        caller: the tenant, and the user where only what they may see is to be read; in the place of ``tenant``.
    """

    def __init__(
        self,
        store: SyncEventStore,
        tenant: str | None = None,
        *,
        timeout: float = WAIT_SECONDS,
        caller: Caller | None = None,
    ) -> None:
        if not isinstance(store, SyncEventStore):
            raise InputError(f"store: expected a SyncEventStore, got a {type(store).__name__}")
        self.store = store
        self.asynchronous = Reader(store.asynchronous, tenant, timeout=timeout, caller=caller)

    conversations = _synchronous(Reader.conversations)
    conversation = _synchronous(Reader.conversation)
    messages = _synchronous(Reader.messages)
    tasks = _synchronous(Reader.tasks)
    history = _synchronous(Reader.history)
    conversation_at = _synchronous(Reader.conversation_at)
