"""For whom the read side asks: given as a tenant, or as a caller."""

from __future__ import annotations

from eventstore import Caller, EventStore
from eventstore.errors import InputError


def caller_of(store: EventStore, tenant: str | None, caller: Caller | None) -> Caller:
    """The caller that was given, or the whole of a tenant, which is the store's own if left out.

    Raises:
        InputError: both are given.
        InvalidEvent: the tenant is no name.
    """
    if caller is None:
        return store.caller(tenant)
    if tenant is not None:
        raise InputError(f"tenant: {tenant!r} is given beside a caller, who names one: leave out one of them")
    return caller
