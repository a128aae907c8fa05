"""Options that several commands share, and running the work of a command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from agent_manager.settings import ServerSettings
from eventstore import EventStore, Settings
from eventstore.errors import InputError, printable

T = TypeVar("T")

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data directory of the embedded server (EVENTSTORE_DATA_DIR). Ignored if a server is configured.",
        show_default=False,
    ),
]
PgPort = Annotated[
    int | None,
    typer.Option(
        "--pg-port",
        min=1,
        max=65535,
        help="Let the embedded server also listen on this port of 127.0.0.1, with a password. Off by default.",
        show_default=False,
    ),
]
AllowSuperuser = Annotated[
    bool,
    typer.Option(
        "--allow-superuser",
        help="Connect even as a superuser or a login with BYPASSRLS, which bypasses row-level security "
        "(EVENTSTORE_ALLOW_SUPERUSER).",
    ),
]
Tenant = Annotated[
    str | None, typer.Option("--tenant", help="The tenant (EVENTSTORE_TENANT; 'default').", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="The most rows.", show_default=False)]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only from this time on, ISO 8601.", show_default=False),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only before this time.", show_default=False)
]
After = Annotated[
    str | None,
    typer.Option(
        "--after", metavar="CURSOR", help="The page after the one that printed this cursor.", show_default=False
    ),
]


def read_settings(
    data_dir: Path | None = None,
    tenant: str | None = None,
    pg_port: int | None = None,
    *,
    allow_superuser: bool = False,
) -> ServerSettings:
    """Return the settings of the environment, overridden by options of the command line."""
    options: dict[str, Any] = {
        "data_dir": data_dir,
        "tenant": tenant,
        "pg_port": pg_port,
        "allow_superuser": allow_superuser or None,
    }
    return ServerSettings(**{name: value for name, value in options.items() if value is not None})


def run(work: Callable[[EventStore], Coroutine[Any, Any, T]], settings: Settings) -> T:
    """Open the store, and return the result of the work of a command with it."""

    async def run_with_store() -> T:
        async with EventStore(settings) as store:
            return await work(store)

    return asyncio.run(run_with_store())


def parse_time(text: str | None, option: str, zone: tzinfo | None = None) -> datetime | None:
    """Return the time of an option; None if it was not given.

    Args:
        zone: the zone of a time without an offset; local time by default, as in the tables that are printed.

    Raises:
        InputError: it is not a time.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.strip())
        if time.tzinfo is not None:
            return time
        return time.astimezone() if zone is None else time.replace(tzinfo=zone)
    except (ValueError, OverflowError):
        raise InputError(
            f"{option} {printable(text)}: is not a time: write it as 2026-01-31T09:30:00Z or 2026-01-31"
        ) from None
