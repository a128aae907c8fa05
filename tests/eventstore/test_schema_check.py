"""A store does not open where its order cannot be kept."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from support.raw import note

from eventstore import EventStore, Settings
from eventstore.errors import SchemaError


@pytest.mark.parametrize("change", ["CACHE 32", "INCREMENT 2", "CYCLE"])
async def test_a_sequence_that_was_altered_is_refused(settings: Settings, superuser_url: str, change: str) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"ALTER SEQUENCE events_position {change}")  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="CACHE 1 INCREMENT 1 NO CYCLE"):
        async with EventStore(settings):
            raise AssertionError("it opened")


async def test_a_log_copied_without_its_sequence_is_refused(settings: Settings, superuser_url: str) -> None:
    async with EventStore(settings) as store:
        last = (await store.append(uuid4(), [note(), note()])).position
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute("SELECT setval('events_position', %s)", (last - 1,))
        with pytest.raises(SchemaError, match="is below the last event"):
            async with EventStore(settings):
                raise AssertionError("it opened")
        connection.execute("SELECT setval('events_position', max(position)) FROM events")
    async with EventStore(settings) as store:
        assert (await store.append(uuid4(), [note()])).position == last + 1
