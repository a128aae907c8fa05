"""The reason of a refused connection is found by its SQLSTATE, whatever the language of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from support.pooler import message

from eventstore import Settings
from eventstore.database.connection import APP, connect
from eventstore.errors import LoginRefused, ServerStarting, ServerUnreachable
from tools.listener import Listener

GERMAN = {
    "28P01": "Passwort-Authentifizierung für Benutzer »ana« fehlgeschlagen",
    "28000": "kein pg_hba.conf-Eintrag für Host »::1«",
    "3D000": "Datenbank »chats« existiert nicht",
    "42501": "keine Berechtigung für Datenbank »chats«",
    "53300": "tut mir leid, schon zu viele Verbindungen",
    "57P03": "das Datenbanksystem startet",
    "XX000": "does not exist: password authentication failed",
}
KINDS = {
    "28P01": (LoginRefused, "correct the user or password"),
    "28000": (LoginRefused, "correct the user or password"),
    "3D000": (LoginRefused, "create the database"),
    "42501": (LoginRefused, "grant the login CONNECT"),
    "53300": (ServerUnreachable, "raise max_connections"),
    "57P03": (ServerStarting, "starting or stopping"),
    "XX000": (ServerUnreachable, "SQLSTATE XX000"),
}


@asynccontextmanager
async def refusing(state: Callable[[], str]) -> AsyncIterator[str]:
    """A server that refuses every connection, in German."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)
        code = state()
        fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": GERMAN[code]}
        body = b"".join(f"{field}{value}\0".encode() for field, value in fields.items())
        writer.write(message(b"E", body + b"\0"))
        writer.close()
        await writer.wait_closed()

    async with Listener(refuse) as server:
        yield f"postgresql://ana:secret@127.0.0.1:{server.port}/chats?sslmode=disable&gssencmode=disable"


@pytest.mark.parametrize("state", KINDS)
@pytest.mark.usefixtures("clean_environment")
@pytest.mark.slow
async def test_the_advice_depends_on_the_sqlstate(state: str) -> None:
    kind, advice = KINDS[state]
    async with refusing(lambda: state) as url:
        with pytest.raises(ServerUnreachable, match=advice) as refused:
            await connect(url, Settings(database_url=url, connect_timeout=1), APP)
    assert type(refused.value) is kind
    assert GERMAN[state] in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.usefixtures("clean_environment")
async def test_a_starting_server_is_waited_for_as_long_as_the_settings_allow() -> None:
    answers = ["57P03"] * 6

    async with refusing(lambda: answers.pop() if answers else "28P01") as url:
        with pytest.raises(LoginRefused):
            await connect(url, Settings(database_url=url, connect_timeout=30), APP)
    assert not answers
