"""Data that only operators see: the backups, and the rate at which all tenants append."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agent_manager.backup import Archive, Drill, Manifest, last_drill, open_target
from agent_manager.server.context import RequestContext
from agent_manager.server.lag_history import Sample

BACKUP_SECONDS = 5.0
"""Seconds that a page waits for the folder or bucket of the backups."""


def events_per_second(samples: list[Sample]) -> float | None:
    """Return the events that all tenants append in a second, of the last minute; None before there are two samples."""
    recent = [sample for sample in samples if samples[-1].at - sample.at <= 60]
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
