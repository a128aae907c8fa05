"""Options that several commands share, and running the work of a command."""

from __future__ import annotations

import asyncio
import inspect
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from getpass import getuser
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

from typer import Option

from agent_manager.cli.output import RowFormat, print_pages
from agent_manager.logs import configure
from agent_manager.settings import ServerSettings, server_settings
from eventstore import EventStore, Settings
from eventstore.administration import Administrator, act_as, record_reading
from eventstore.errors import InputError, printable
from eventstore.times import parse_time
from projections import Page, Reader
from projections.pages import PAGE_SIZE
from projections.reading import WAIT_SECONDS

T = TypeVar("T")

DEFAULT_LIMIT = 50
"""Of lists over all conversations."""
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

DataDir = Annotated[
    Path | None,
    Option(help="Data directory of the embedded server (EVENTSTORE_DATA_DIR). Ignored if a server is configured."),
]
AllowSuperuser = Annotated[
    bool,
    Option(
        "--allow-superuser",
        help="Connect even as a superuser or a login with BYPASSRLS, which bypasses row-level security "
        "(EVENTSTORE_ALLOW_SUPERUSER).",
    ),
]
MetricsPort = Annotated[
    int | None,
    Option(
        min=0,
        max=65535,
        help="Serve /metrics, /health and /ready on this port, without tokens; 0 is any free one "
        "(EVENTSTORE_METRICS_PORT). Off by default.",
    ),
]
MetricsHost = Annotated[
    str | None,
    Option(help="The address of this port (EVENTSTORE_METRICS_HOST; 127.0.0.1). Keep it on a private network."),
]
LogFormat = Annotated[
    str | None, Option("--log-format", metavar="text|json", help="The format of log lines (EVENTSTORE_LOG_FORMAT).")
]
LogLevel = Annotated[
    str | None,
    Option("--log-level", metavar="debug|info|warning|error", help="The lowest level logged (EVENTSTORE_LOG_LEVEL)."),
]
Tenant = Annotated[str | None, Option(help="The tenant (EVENTSTORE_TENANT; 'default').")]
User = Annotated[
    str | None,
    Option(
        "--user",
        metavar="USER",
        help="On behalf of this user: only what they own and what is shared with them. By default the whole tenant.",
    ),
]
Actor = Annotated[str | None, Option("--actor", metavar="ACTOR", help="Only what this actor caused.")]
Json = Annotated[bool, Option("--json", help="Print JSON for programs instead of a table.")]
Limit = Annotated[int | None, Option("--limit", "-n", min=1, help="The most rows.")]
Reason = Annotated[
    str | None, Option("--reason", metavar="TEXT", help="Why; recorded with the act in the audit trail.")
]
Since = Annotated[str | None, Option(metavar="TIME", help="Only from this time; ISO 8601, in UTC without an offset.")]
Until = Annotated[str | None, Option(metavar="TIME", help="Only before this time; as --since.")]
After = Annotated[str | None, Option(metavar="CURSOR", help="The page after the one that printed this cursor.")]


def read_settings(
    data_dir: Path | None = None,
    tenant: str | None = None,
    *,
    reason: str | None = None,
    is_service: bool = False,
    **others: Any,
) -> ServerSettings:
    """Return the settings of the environment, overridden by options of the command line that were given.

    Args:
        reason: Why the command does what it does.
        is_service: Whether the command runs until it is stopped, so that it always logs as the settings say. Others do
            if format or level are set; without a level, they log warnings only.
    """
    with suppress(OSError, KeyError):  # the account has no name
        act_as(Administrator(f"os:{getuser()}", "cli", reason or ""))
    options = {"data_dir": data_dir, "tenant": tenant, **others}
    settings = ServerSettings(
        **{name: value for name, value in options.items() if value is not None and value is not False}
    )
    is_level_set = "log_level" in settings.model_fields_set
    if is_service or is_level_set or "log_format" in settings.model_fields_set:
        configure(settings.log_format, settings.log_level if is_service or is_level_set else "warning")
    return settings


def run(work: Callable[[EventStore], Coroutine[Any, Any, T]], settings: Settings, tenant: str | None = None) -> T:
    """Open the store, and return the result of the work of a command with it.

    Args:
        tenant: the tenant that the command line names, if it does.

    Raises:
        NotFound: that tenant does not exist.
    """

    async def run_with_store() -> T:
        async with EventStore(settings) as store:
            await check_tenant_option(store, tenant)
            return await work(store)

    return asyncio.run(run_with_store())


async def note_reading(store: EventStore, command: str, **details: Any) -> None:
    """Record that a command reads the trail of the store's tenant, if the settings demand it."""
    if server_settings(store.settings).audit_reads:
        await record_reading(store.connections.service, store.tenant, command, details)


async def check_tenant_option(store: EventStore, tenant: str | None) -> None:
    """Check that the tenant that the command line names exists, if it names one."""
    if tenant is not None:
        from agent_manager.auth import Directory  # imports what few commands need

        await Directory(store).check_exists(tenant)


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and cancel it on SIGINT or SIGTERM.

    An exception that a signal handler raises would surface wherever the loop happens to be, in any task of any library;
    a cancellation reaches the work at a place where it awaits something.

    Raises:
        KeyboardInterrupt: a signal ended it, and it has cleaned up.
    """
    is_stopped = False

    async def stoppable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            nonlocal is_stopped
            is_stopped = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return await work

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        if is_stopped:
            raise KeyboardInterrupt from None
        raise


def time_option(text: str | None, option: str) -> datetime | None:
    """Return the time of an option; None if it was not given."""
    return None if text is None else parse_time(text, option)


def duration_option(text: str, option: str, more: str = "") -> timedelta:
    """Return the duration of an option.

    Args:
        more: what else the option takes, for the error.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,7})([mhdw])", text, re.ASCII)
    if match is None:
        raise InputError(f"{option} {printable(text)}: is not a duration: write it as 30m, 12h, 90d, 4w{more}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """The options of every command that lists pages of rows."""

    since: Since = None
    until: Until = None
    newest: Annotated[bool | None, Option("--newest/--oldest", help="Newest or oldest first.")] = None
    limit: Limit = None
    after: After = None
    as_json: Json = False
    user: User = None
    data_dir: DataDir = None
    tenant: Tenant = None

    def filters(self, conversation: UUID | None) -> dict[str, Any]:
        """Return the arguments of the reader: a conversation is listed in its order, all of them newest first."""
        return {
            "since": time_option(self.since, "--since"),
            "until": time_option(self.until, "--until"),
            "newest_first": conversation is None if self.newest is None else self.newest,
        }

    def run(self, work: Callable[[EventStore], Coroutine[Any, Any, None]]) -> None:
        """Open the store, and do the work of a command with it."""
        run(work, read_settings(self.data_dir, self.tenant), self.tenant)

    def reader(self, store: EventStore, timeout: float = WAIT_SECONDS) -> Reader:
        """Return a reader of what the tenant, or the user, may see."""
        return Reader(store, caller=store.caller(user=self.user), timeout=timeout)

    async def print(
        self,
        read: Callable[..., Awaitable[Page[T]]],
        row_format: RowFormat[T],
        *,
        nothing: str,
        default_limit: int | None = None,
        names: Callable[[Sequence[T]], Awaitable[Mapping[UUID, str]]] | None = None,
        **filters: Any,
    ) -> None:
        """Read a list, and print it as these options demand, in the memory of a page.

        Args:
            read: returns a page of the list: a method of the Reader.
            default_limit: the number of rows if the options give none; None prints the whole list.
            names: returns the names that a table shows in place of the ids in a page.
        """

        async def pages() -> AsyncIterator[Page[T]]:
            remaining, after = self.limit or default_limit, self.after
            while True:
                size = PAGE_SIZE if remaining is None else min(remaining, PAGE_SIZE)
                page = await read(limit=size, after=after, **filters)
                yield page
                after = page.next
                remaining = None if remaining is None else remaining - len(page)
                if after is None or remaining == 0:
                    return

        await print_pages(pages(), row_format, nothing=nothing, as_json=self.as_json, names=names)


def with_list_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ListOptions, which it gets as its argument ``options``."""
    shared = inspect.signature(ListOptions, eval_str=True).parameters
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "options"]

    @wraps(command)
    def call(**given: Any) -> None:
        command(options=ListOptions(**{name: given.pop(name) for name in shared}), **given)

    vars(call)["__signature__"] = signature.replace(parameters=[*own, *shared.values()])
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared.values())}
    return call
