"""The rules by which backups are kept, and the deletion of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent_manager.backup.archive import Archive
from agent_manager.backup.manifest import Manifest

REMNANT_AGE = timedelta(days=1)
"""The age from which a file that no backup names is a remnant. A backup names its files within minutes."""


@dataclass(frozen=True)
class Retention:
    """How many backups are kept: the last one of each of so many days, weeks (ISO) and months in UTC that have one.

    The newest is always kept.
    """

    daily: int = 7
    weekly: int = 4
    monthly: int = 12

    def kept(self, manifests: Sequence[Manifest]) -> set[str]:
        """Return the ids of the backups to keep."""
        newest_first = sorted(manifests, key=lambda manifest: manifest.created_at, reverse=True)
        kept = {manifest.id for manifest in newest_first[:1]}
        periods: tuple[tuple[int, Callable[[datetime], object]], ...] = (
            (self.daily, lambda time: time.date()),
            (self.weekly, lambda time: time.isocalendar()[:2]),
            (self.monthly, lambda time: (time.year, time.month)),
        )
        for number, period_of in periods:
            last_of: dict[object, str] = {}
            for manifest in newest_first:
                last_of.setdefault(period_of(manifest.created_at.astimezone(UTC)), manifest.id)
            kept |= set(list(last_of.values())[:number])
        return kept


def prune(archive: Archive, retention: Retention) -> list[str]:
    """Delete the backups that need not be kept, and the files that no backup names. Return the ids of the backups.

    A backup that is being made meanwhile loses nothing: it continues the newest one, its own files belong to no backup
    that is deleted, and those that no backup names yet are new.

    Raises:
        BackupDamaged: a manifest is damaged. Nothing was deleted, because it does not tell which files are needed.
    """
    manifests = [archive.manifest(each) for each in archive.ids()]
    kept = retention.kept(manifests)
    deleted = [manifest for manifest in manifests if manifest.id not in kept]
    for manifest in deleted:
        archive.delete_manifest(manifest)
    of_deleted = {part.name for manifest in deleted for part in manifest.parts}
    incomplete = archive.incomplete()
    named = [manifest for manifest in manifests if manifest.id in kept] + ([incomplete] if incomplete else [])
    for name, file in archive.unnamed_files(named).items():
        if name in of_deleted or datetime.now(UTC) - file.modified > REMNANT_AGE:
            archive.target.delete(name)
    return [manifest.id for manifest in deleted]
