"""Leases: which process is answering which message.

A manager takes the lease of a message before it asks an agent, renews its leases while it works, and releases them. A
process that ends without releasing stops renewing, and after :data:`LEASE_SECONDS` another one may take its messages
over. The server's clock decides.

A lease keeps two processes from asking an agent at the same time; it cannot keep a process that was suspended from
writing after its lease has expired. That is excluded where answers are stored, see
:class:`~agent_manager.manager.sessions.LogSession`.
"""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

from agent_manager.manager.log import Key, Leased, Log
from eventstore.ending import end
from eventstore.errors import EventStoreError, StoreClosed

LEASE_SECONDS = 10.0
"""A process that ended is noticed after so long, and one that pauses for longer loses its messages to others."""
RENEW_SECONDS = 3.0
"""Between renewals, so that two of them may fail before a lease expires."""

_log = logging.getLogger(__name__)


class Lease:
    """A lease that this manager has.

    Attributes:
        key: the message.
        version: of its conversation when the lease was taken, or a later one.
        is_lost: whether another holder has taken it since.
    """

    def __init__(self, key: Key, version: int) -> None:
        self.key = key
        self.version = version
        self.is_lost = False


class Leases:
    """The leases of one manager. What many take and release at the same time takes two statements."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._holder = uuid4()
        self._held: dict[Key, Lease] = {}
        self._wanted: dict[Key, asyncio.Future[Leased | None]] = {}
        self._unwanted: set[Key] = set()
        self._serving: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, key: Key) -> Lease | Leased | None:
        """Take the lease of a message that this manager does not hold.

        Return what is known of the lease if another holder has it; None if that has just released it: try again.
        """
        wanted = self._wanted[key] = asyncio.get_running_loop().create_future()
        self._serve()
        try:
            leased: Leased | None = await asyncio.shield(wanted)
        except asyncio.CancelledError:
            wanted.add_done_callback(lambda _: self._give_up(key))
            raise
        if leased is None or leased.holder != self._holder:
            return leased
        lease = self._held[key] = Lease(key, leased.version)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease, soon. If the server cannot be reached, it expires by itself."""
        if self._held.pop(lease.key, None) is not None:
            self._give_up(lease.key)

    async def close(self) -> None:
        """Release what is still held."""
        if self._renewing is not None:
            await end((self._renewing,))
        for lease in list(self._held.values()):
            self.release(lease)
        if self._serving is not None:
            await self._serving

    def _give_up(self, key: Key) -> None:
        self._unwanted.add(key)
        self._serve()

    def _serve(self) -> None:
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve_all())

    async def _serve_all(self) -> None:
        while self._wanted or self._unwanted:
            wanted, self._wanted = self._wanted, {}
            unwanted, self._unwanted = self._unwanted, set()
            try:
                await self._release(unwanted)
                leased = await self._log.lease_answers(wanted, self._holder, LEASE_SECONDS) if wanted else {}
            except BaseException as error:
                for future in wanted.values():
                    future.set_exception(error if isinstance(error, Exception) else StoreClosed())
                    future.exception()  # seen, even if nobody waits any more
                if not isinstance(error, Exception):
                    raise
            else:
                for key, future in wanted.items():
                    future.set_result(leased.get(key))

    async def _release(self, keys: set[Key]) -> None:
        try:
            if keys:
                await self._log.release_answers(keys, self._holder)
        except EventStoreError as error:
            _log.debug("the leases of %d message(s) could not be released: %s", len(keys), error)

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(RENEW_SECONDS)
            held = dict(self._held)
            try:
                renewed = await self._log.renew_leases(held, self._holder, LEASE_SECONDS) if held else set()
            except EventStoreError as error:
                _log.warning("the leases of %d message(s) could not be renewed: %s", len(held), error)
                continue
            for key, lease in held.items():
                lease.is_lost = lease.is_lost or key not in renewed
