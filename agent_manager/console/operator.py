"""What only operators see and do: administrators of the server's own tenant, because it concerns all tenants."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic
from weakref import WeakKeyDictionary

from agent_manager.backup import Archive, Drill, Manifest, last_drill, open_target
from agent_manager.server.context import RequestContext, ServerContext
from agent_manager.server.problems import Rejected
from projections.status import Lag, read_lags, read_log_state

ACTOR = "console"
"""The actor of changes to conversations on a server that requires no tokens."""
SAMPLE_SECONDS = 2.0
"""The least time between two samples, however many pages are looked at."""
SAMPLES = 150
BACKUP_SECONDS = 5.0
"""How long a page waits for the folder or bucket of the backups."""


@dataclass(frozen=True)
class Sample:
    """The state of the log and of the lags at an instant."""

    at: float
    last_position: int
    horizon_distance: int
    lags: tuple[Lag, ...]


_SAMPLES: WeakKeyDictionary[ServerContext, deque[Sample]] = WeakKeyDictionary()


def check_operator(context: RequestContext) -> None:
    """Check that the caller is an administrator of the server's own tenant.

    Raises:
        Rejected: They are one of another tenant.
    """
    if context.caller.tenant != context.store.tenant:
        detail = "this concerns all tenants: sign in with a key of the server's own tenant (EVENTSTORE_TENANT)"
        raise Rejected(detail, "scope", status=403)


def is_operator(context: RequestContext) -> bool:
    """Return whether the caller is an administrator of the server's own tenant."""
    return "admin" in context.identity.scopes and context.caller.tenant == context.store.tenant


async def samples(context: RequestContext) -> list[Sample]:
    """Return the states since the pages of operators are looked at, the present one last."""
    kept = _SAMPLES.setdefault(context.server_context, deque(maxlen=SAMPLES))
    if not kept or monotonic() - kept[-1].at >= SAMPLE_SECONDS:
        state = await read_log_state(context.store)
        lags = await read_lags(context.store, list(context.server_context.rebuilds.projections()))
        kept.append(Sample(monotonic(), state.last_position, state.horizon_distance, tuple(lags)))
    return list(kept)


def events_per_second(kept: list[Sample]) -> float | None:
    """Return the events that all tenants append in a second, of the last minute; None before there are two samples."""
    recent = [sample for sample in kept if kept[-1].at - sample.at <= 60]
    if len(recent) < 2:
        return None
    return (recent[-1].last_position - recent[0].last_position) / (recent[-1].at - recent[0].at)


@dataclass(frozen=True)
class Backups:
    """The backups, and the outcome of the last drill.

    Attributes:
        error: Why they could not be read; empty if they could.
        is_overdue: Whether the newest is older than two intervals of the schedule.
    """

    where: str
    manifests: list[Manifest]
    damaged: list[str]
    drill: Drill | None
    is_overdue: bool = False
    error: str = ""


async def read_backups(context: RequestContext) -> Backups | None:
    """Return the backups, the newest first; None if there is no schedule for them."""
    settings = context.server_context.settings
    if not settings.backup_dir:
        return None

    def read() -> Backups:
        archive = Archive(open_target(settings.backup_dir))
        manifests, damaged = archive.manifests()
        newest = max((each.age_seconds for each in manifests[-1:]), default=None)
        is_overdue = newest is None or newest > 2 * 60 * settings.backup_minutes
        return Backups(
            settings.backup_dir, manifests[::-1], [str(each) for each in damaged], last_drill(archive), is_overdue
        )

    try:
        async with asyncio.timeout(BACKUP_SECONDS):
            return await asyncio.to_thread(read)
    except TimeoutError:
        error = f"the target did not answer in {BACKUP_SECONDS:g} seconds"
    except Exception as failure:  # of the operating system, or an object store's own
        error = str(failure)
    return Backups(settings.backup_dir, [], [], None, is_overdue=True, error=error)
