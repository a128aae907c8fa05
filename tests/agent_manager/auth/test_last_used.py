"""The last use of a key is recorded at most once a minute, and no request waits for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from support.authentication import OpenAuthenticator
from support.waiting import until_async

from agent_manager.auth import Directory
from agent_manager.auth.authenticator import LastUsed
from eventstore.errors import ServerError

pytestmark = pytest.mark.shared_database


async def test_the_last_use_of_a_key_is_recorded(directory: Directory, open_authenticator: OpenAuthenticator) -> None:
    new = await directory.add_key("acme", "laptop", user="ana")
    unused = await directory.add_key("acme", "spare")
    began = datetime.now(UTC)
    authenticator = await open_authenticator()
    await authenticator.identify(new.token.get_secret_value())

    async def last_uses() -> dict[str, datetime | None]:
        return {key.id: key.last_used_at for key in await directory.keys("acme")}

    async def used() -> datetime | None:
        return (await last_uses())[new.key.id]

    assert began <= await until_async(used, "the use is recorded") <= datetime.now(UTC)  # type: ignore[operator]
    assert (await last_uses())[unused.key.id] is None


async def test_all_processes_together_record_a_use_once_a_minute(
    directory: Directory, open_authenticator: OpenAuthenticator, queries: list[Any], database_url: str
) -> None:
    token = (await directory.add_key("acme", "laptop")).token.get_secret_value()
    first, second = await open_authenticator(), await open_authenticator()
    for authenticator in (first, second, first, second):
        await authenticator.identify(token)
        await authenticator.close()  # what is due is written
    assert len([parameters for parameters in queries if "ids" in parameters]) == 2
    [key] = await directory.keys("acme")
    with psycopg.connect(database_url) as connection:
        # The transaction that wrote the row last: it stays the same if nothing is written.
        [(written,)] = connection.execute("SELECT xmin::text FROM identity_keys").fetchall()
    third = await open_authenticator()
    await third.identify(token)
    await third.close()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT xmin::text FROM identity_keys").fetchall() == [(written,)]
        connection.execute("UPDATE identity_keys SET last_used_at = now() - interval '61 seconds'")
    fourth = await open_authenticator()
    await fourth.identify(token)
    await fourth.close()
    [again] = await directory.keys("acme")
    assert key.last_used_at is not None
    assert again.last_used_at is not None
    assert again.last_used_at > key.last_used_at


async def test_a_rejected_key_is_not_recorded_as_used(
    directory: Directory, open_authenticator: OpenAuthenticator, queries: list[Any]
) -> None:
    new = await directory.add_key("acme", "laptop")
    await directory.revoke_key("acme", new.key.id)
    authenticator = await open_authenticator()
    with pytest.raises(Exception, match="not valid"):
        await authenticator.identify(new.token.get_secret_value())
    await authenticator.close()
    assert not [parameters for parameters in queries if "ids" in parameters]


async def test_uses_during_a_write_are_recorded_by_the_next_one() -> None:
    written: list[list[str]] = []
    go_on = asyncio.Event()

    async def write(keys: list[str]) -> None:
        written.append(keys)
        await go_on.wait()

    uses = LastUsed(write)
    uses.add("a")
    await until_async(lambda: _just(written), "the first write has begun")
    for key in ("b", "c", "a", "b"):
        uses.add(key)
    assert written == [["a"]]
    go_on.set()
    await uses.close()
    assert written == [["a"], ["b", "c"]]


async def test_a_write_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def write(keys: list[str]) -> None:
        raise ServerError("the server is away")

    uses = LastUsed(write)
    uses.add("a")
    await uses.close()
    assert "1 key(s) could not be recorded: the server is away" in caplog.text


async def _just(value: Any) -> Any:
    return value
