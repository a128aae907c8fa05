"""Reading on a hot standby: up to what the primary has said to be final, and never past it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest
from support.raw import append_raw, note
from support.standby import standby_of
from support.waiting import until_async

from eventstore import EventStore, Settings
from eventstore.database.embedded import EmbeddedServer
from eventstore.errors import UnsuitableServer
from projections import catch_up


@pytest.mark.usefixtures("clean_environment")
async def test_a_standby_shows_what_is_final_and_nothing_else(own_server: EmbeddedServer) -> None:
    settings = Settings(data_dir=own_server.data_dir)
    async with EventStore(settings) as primary:
        await asyncio.to_thread(primary.server.migrator().up)
        first = [(await primary.append(uuid4(), [note(number)])).position for number in range(5)]
        await catch_up(primary)
        with standby_of(own_server) as url:
            async with EventStore(Settings(database_url=url)) as standby:

                async def seen() -> list[int]:
                    return [event.position async for event in standby.read_log(all_tenants=True)]

                assert await seen() == first

                # An append in flight is a hole that only the primary knows of.
                with psycopg.connect(own_server.url(), autocommit=True) as slow, slow.transaction():
                    late = append_raw(slow, "late")
                    above = (await primary.append(uuid4(), [note("above the hole")])).position
                    await until_async(lambda: is_replayed(standby, above), "the standby has replayed the append")
                    await catch_up(primary)
                    assert await seen() == first
                assert late[0] < above
                await catch_up(primary)
                await until_async(lambda: has_seen(seen, [*first, *late, above]), "the standby shows all")

                with pytest.raises(UnsuitableServer):
                    await standby.append(uuid4(), [note()])


async def is_replayed(standby: EventStore, position: int) -> bool:
    return bool(await standby.log(standby.caller()).fetch("SELECT 1 FROM events WHERE position = %s", (position,)))


async def has_seen(seen: object, wanted: list[int]) -> bool:
    return await seen() == wanted  # type: ignore[operator,no-any-return]
