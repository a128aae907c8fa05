"""Options that several commands share, and opening the store as they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from eventstore import EventStore, Settings

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the embedded server keeps its data (EVENTSTORE_DATA_DIR). Ignored where a server is named.",
        show_default=False,
    ),
]
PgPort = Annotated[
    int | None,
    typer.Option(
        "--pg-port",
        min=1,
        max=65535,
        help="Let the embedded server listen on this port of 127.0.0.1 too, with a password. Off by default.",
        show_default=False,
    ),
]
AllowSuperuser = Annotated[
    bool,
    typer.Option(
        "--allow-superuser",
        help="Connect even as a superuser or a login with BYPASSRLS, for which row-level security does not hold "
        "(EVENTSTORE_ALLOW_SUPERUSER).",
    ),
]
Tenant = Annotated[
    str | None, typer.Option("--tenant", help="Whose data (EVENTSTORE_TENANT; 'default').", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many.", show_default=False)]
ConversationId = Annotated[
    str, typer.Argument(metavar="ID", help="A conversation's id, or the id that its client gave it.")
]


def read_settings(
    data_dir: Path | None = None,
    tenant: str | None = None,
    pg_port: int | None = None,
    *,
    allow_superuser: bool = False,
) -> Settings:
    """The settings of the environment, with what the command line says instead."""
    given = {"data_dir": data_dir, "tenant": tenant, "pg_port": pg_port, "allow_superuser": allow_superuser or None}
    return Settings(**{name: value for name, value in given.items() if value is not None})


def run(work: Callable[[EventStore], Coroutine[Any, Any, None]], settings: Settings) -> None:
    """Opens the store and does the work of a command with it."""

    async def with_store() -> None:
        async with EventStore(settings) as store:
            await work(store)

    asyncio.run(with_store())
