"""The leases of messages, which the processes that answer take, so that one process at a time calls an agent.

A manager takes the lease of a message before it calls an agent, renews its leases while it works, and releases them. A
process that ends without releasing stops renewing, and after :data:`LEASE_SECONDS` another process may take over its
messages. The server's clock decides.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from uuid import uuid4

from agent_manager.accepted_messages import Key
from agent_manager.storage import LeaseStatus, Log
from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.errors import EventStoreError, StoreClosed

LEASE_SECONDS = 10.0
"""Time after which other processes take over the messages of a process that ended or was suspended."""
RENEW_SECONDS = 3.0
"""Time between renewals: two of them may fail before a lease expires."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Lease:
    """A lease that this manager holds.

    Attributes:
        key: the message.
        version: the version of its conversation when the lease was taken.
        is_lost: whether another holder has taken it since.
    """

    key: Key
    version: int
    is_lost: bool = False


class Leases:
    """The leases of one manager. Concurrent calls share statements."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._holder = uuid4()
        self._held: dict[Key, Lease] = {}
        self._to_take: dict[Key, asyncio.Future[LeaseStatus | None]] = {}
        self._to_release: set[Key] = set()
        self._worker: asyncio.Task[None] | None = None
        self._renewer: asyncio.Task[None] | None = None

    async def take(self, key: Key) -> Lease | LeaseStatus | None:
        """Take the lease of a message that this manager does not hold.

        Returns:
            The status of the lease if another holder has it; None if that has just released it: try again.
        """
        future = self._to_take[key] = asyncio.get_running_loop().create_future()
        self._start_worker()
        try:
            status: LeaseStatus | None = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(lambda _: self._release_key(key))
            raise
        if status is None or status.holder != self._holder:
            return status
        lease = self._held[key] = Lease(key, status.version)
        if self._renewer is None or self._renewer.done():
            self._renewer = independent_task(self._renew())
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease in the background. If the server cannot be reached, the lease expires."""
        if self._held.pop(lease.key, None) is not None:
            self._release_key(lease.key)

    async def close(self) -> None:
        """Release all leases."""
        if self._renewer is not None:
            await cancel_and_wait((self._renewer,))
        for lease in list(self._held.values()):
            self.release(lease)
        if self._worker is not None:
            await self._worker

    def _release_key(self, key: Key) -> None:
        self._to_release.add(key)
        self._start_worker()

    def _start_worker(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = independent_task(self._work())

    async def _work(self) -> None:
        while self._to_take or self._to_release:
            futures, self._to_take = self._to_take, {}
            released, self._to_release = self._to_release, set()
            try:
                await self._release_all(released)
                statuses = await self._log.lease_answers(futures, self._holder, LEASE_SECONDS) if futures else {}
            except BaseException as error:
                for future in futures.values():
                    future.set_exception(error if isinstance(error, Exception) else StoreClosed())
                    future.exception()  # retrieved, even if its caller was cancelled
                if not isinstance(error, Exception):
                    raise
            else:
                for key, future in futures.items():
                    future.set_result(statuses.get(key))

    async def _release_all(self, keys: set[Key]) -> None:
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
                text = "the leases of %d message(s) could not be renewed: %s"
                _log.warning(text, len(held), error, extra={"event": "leases_expire"})
                continue
            for key, lease in held.items():
                lease.is_lost = lease.is_lost or key not in renewed
