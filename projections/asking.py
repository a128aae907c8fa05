"""For whom the read side asks: given as a tenant, or as a caller."""

from __future__ import annotations

from eventstore import Caller, EventStore
from eventstore.errors import InputError


def caller_of(store: EventStore, tenant: str | None, caller: Caller | None) -> Caller:
    """The caller that was given, or the whole of a tenant, which is the store's own if left out.

    Raises:
        InputError: both are given, or the store is not an EventStore.
        InvalidEvent: the tenant is no name.
    """
    if not isinstance(store, EventStore):
        raise InputError(f"store: expected an EventStore, got a {type(store).__name__}")
    if caller is None:
        return store.caller(tenant)
    if not isinstance(caller, Caller):
        raise InputError(f"caller: expected a Caller, got a {type(caller).__name__}")
    if tenant is not None:
        raise InputError(f"tenant: {tenant!r} is given beside a caller, who names one: leave out one of them")
    return caller
