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
from uuid import UUID, uuid4

from agent_manager.manager.log import Leased, Log
from eventstore.ending import end
from eventstore.errors import EventStoreError

LEASE_SECONDS = 10.0
"""A process that ended is noticed after so long, and one that pauses for longer loses its messages to others."""
RENEW_SECONDS = 3.0
"""Between renewals, so that two of them may fail before a lease expires."""

_log = logging.getLogger(__name__)


class Lease:
    """A lease that this manager has.

    Attributes:
        version: of the conversation when the lease was taken, or a later one.
        is_lost: whether another holder has taken it since.
    """

    def __init__(self, conversation: UUID, message: UUID, version: int) -> None:
        self.conversation = conversation
        self.message = message
        self.version = version
        self.is_lost = False


class Leases:
    """The leases of one manager."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._holder = uuid4()
        self._held: dict[tuple[UUID, UUID], Lease] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, conversation: UUID, message: UUID) -> Lease | Leased:
        """Take the lease of a message; if another holder has it, return what is known of that one."""
        leased = await self._log.lease_answer(conversation, message, self._holder, LEASE_SECONDS)
        if leased.holder != self._holder:
            return leased
        lease = self._held[conversation, message] = Lease(conversation, message, leased.version)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return lease

    async def release(self, lease: Lease) -> None:
        """End a lease. If the server cannot be reached, it expires by itself."""
        key = lease.conversation, lease.message
        if self._held.get(key) is lease:
            del self._held[key]
        try:
            await self._log.release_answer(lease.conversation, lease.message, self._holder)
        except EventStoreError as error:
            _log.debug("the lease of message %s could not be released: %s", lease.message, error)

    async def close(self) -> None:
        """Stop renewing, and release what is still held."""
        if self._renewing is not None:
            await end((self._renewing,))
        for lease in list(self._held.values()):
            await self.release(lease)

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
