"""A process of many writers that append at once, are refused, abort and are cut off; run by the tests.

Prints the ids of the events that were acknowledged, one a line, as soon as they are.
"""

from __future__ import annotations

import asyncio
import random
import sys
from uuid import UUID

import psycopg

from eventstore import Append, EventStore, NewEvent, Settings
from eventstore.errors import ConnectionLost, RetryableError, ServerUnreachable
from support.raw import append_raw_async, note


class Abort(Exception):
    """Ends a transaction on purpose."""


async def plain(store: EventStore, batch: Append) -> None:
    """Append as an application does."""
    await store.append(batch.conversation_id, batch.events)


async def in_a_transaction(store: EventStore, batch: Append) -> None:
    """Append in a transaction of the caller that rolls back to a savepoint before."""
    events = [event for event in batch.events if isinstance(event, NewEvent)]
    contents, ids = [event.data.to_content() for event in events], [event.id for event in events]
    async with await store.connect() as connection, connection.transaction():
        try:
            async with connection.transaction():
                await append_raw_async(connection, "rolled back to the savepoint")
                raise Abort
        except Abort:
            pass
        await append_raw_async(connection, *contents, conversation=UUID(str(batch.conversation_id)), ids=ids)


async def after_an_abort(store: EventStore, batch: Append) -> None:
    """After a transaction that took positions and gave none of them back."""
    try:
        async with await store.connect() as connection, connection.transaction():
            await append_raw_async(connection, "aborted", "aborted")
            raise Abort
    except Abort:
        pass
    await plain(store, batch)


async def until_done(store: EventStore, way: object, batch: Append) -> None:
    """Repeats an append until it is acknowledged: under the same ids, so that it happens once."""
    while True:
        try:
            await way(store, batch)  # type: ignore[operator]
        except (ConnectionLost, RetryableError, ServerUnreachable, psycopg.Error):
            continue
        return


async def write(store: EventStore, conversations: list[UUID], appends: int, chance: random.Random) -> None:
    """Append as one writer."""
    for _ in range(appends):
        events = [NewEvent(note(), UUID(int=chance.getrandbits(128))) for _ in range(chance.choice((1, 1, 2, 4)))]
        batch = Append(chance.choice(conversations), events)
        way = chance.choices((plain, in_a_transaction, after_an_abort), (6, 1, 1))[0]
        await until_done(store, way, batch)
        print("\n".join(str(event.id) for event in events), flush=True)


async def main(url: str, seed: int, writers: int, appends: int) -> None:
    """All writers of this process."""
    chance = random.Random(seed)
    conversations = [UUID(int=n) for n in range(1, 41)]
    settings = Settings(_env_file=None, database_url=url, pool_size=writers)
    async with EventStore(settings) as store, asyncio.TaskGroup() as group:
        for _ in range(writers):
            group.create_task(write(store, conversations, appends, random.Random(chance.random())))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
