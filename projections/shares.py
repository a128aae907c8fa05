"""Which worker follows which shares of the conversations, without anybody configuring it.

A worker holds one advisory lock for as long as its session lives, shared, so that all can be counted; and one, alone,
for each share that it follows. Everybody takes what is free, and gives up what is more than an even part. The locks
of a worker that dies go with its session, and the others find its shares free when they look again. The locks only
spread the work: what keeps two workers from applying one batch twice are the checkpoints (:mod:`projections.apply`).
"""

from __future__ import annotations

from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.database.translate import translated
from projections.projection import SHARES

_JOIN = query("projections", "join_workers")
_COUNT = query("projections", "count_workers")
_TAKE = query("projections", "take_shares")
_GIVE = query("projections", "give_shares")


class Shares:
    """The shares of one worker."""

    def __init__(self, connection: Connection) -> None:
        """Locks belong to the session of the connection and end with it."""
        self._connection = connection
        self._has_joined = False
        self.held: list[int] = []

    async def settle(self) -> bool:
        """Takes and gives up until this worker has its part of what is free.

        Returns:
            Whether anything changed.
        """
        with translated():
            if not self._has_joined:
                await self._connection.execute(_JOIN)
                self._has_joined = True
            row = await (await self._connection.execute(_COUNT)).fetchone()
            assert row is not None
            part = -(-SHARES // max(row[0], 1))
            if len(self.held) > part:
                await self._connection.execute(_GIVE, {"shares": self.held[part:]})
                self.held = self.held[:part]
                return True
            if len(self.held) == part:
                return False
            parameters = {"held": self.held, "wanted": part - len(self.held)}
            taken = await (await self._connection.execute(_TAKE, parameters)).fetchall()
            self.held = sorted([*self.held, *(share for (share,) in taken)])
            return bool(taken)
