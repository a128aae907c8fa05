"""The plan's criteria for the way back, as checks of what runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent_manager.migrating.backup import Backup, BackupDamaged
from agent_manager.migrating.baseline import (
    SLOWER,
    SLOWER_MILLISECONDS,
    Slowness,
    baseline_path,
    compared,
    measured_again,
    read_baseline,
)
from agent_manager.migrating.report import shown, verified_lines, verified_values
from agent_manager.migrating.serving import verify_served
from agent_manager.migrating.verifying import Verified, verify_backup
from eventstore import EventStore

FOR_PEOPLE = "a critical bug that stays unsolved for 24 hours is the plan's third criterion: that is yours to judge"


@dataclass(slots=True)
class Criteria:
    """What was found.

    Attributes:
        stored: the store compared with the backup.
        served: what the application serves compared with it; None where no URL was given.
        slowness: each basic operation; empty where it could not be compared.
        unmeasured: why not; empty where it could.
    """

    backup: Backup
    stored: Verified
    served: Verified | None = None
    slowness: list[Slowness] = field(default_factory=list)
    unmeasured: str = ""

    @property
    def data_lost(self) -> bool:
        """Whether something of the backup is no longer there."""
        return bool(self.stored.differences or (self.served is not None and self.served.differences))

    @property
    def too_slow(self) -> bool:
        """Whether a basic operation takes more than 50 % longer than before, and noticeably so."""
        return any(one.is_met for one in self.slowness)

    @property
    def is_met(self) -> bool:
        """Whether one of them is met: then the plan goes back."""
        return self.data_lost or self.too_slow

    @property
    def is_clean(self) -> bool:
        """Whether there is no reason to go back."""
        return not self.is_met

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "roll_back": self.is_met,
            "backup": str(self.backup.path),
            "data_lost": self.data_lost,
            "stored": verified_values(self.stored),
            "served": None if self.served is None else verified_values(self.served),
            "too_slow": self.too_slow if not self.unmeasured else None,
            "operations": [asdict(one) | {"ratio": round(one.ratio, 3)} for one in self.slowness],
            "unmeasured": self.unmeasured or None,
        }

    def lines(self) -> Iterator[str]:
        """All of it in words."""
        yield f"Backup      {self.backup.path}"
        yield from verified_lines(self.stored)
        if self.served is not None and self.served.differences:
            yield f"NOT SERVED  {len(self.served.differing):,} conversations are served otherwise, or not at all"
            yield from shown("            ", self.served.differences)
        elif self.served is not None:
            yield f"Served      all {self.served.conversations:,} conversations as they were"
        for one in self.slowness:
            word = "SLOWER" if one.is_met else "Speed"
            yield f"{word:<11} {one.operation}: {one.now:.1f} ms, {one.before:.1f} ms before: {one.ratio:.2f} times"
        if self.unmeasured:
            yield f"Speed       not compared: {self.unmeasured}"
        if self.is_met:
            why = [word for word, met in (("data is lost", self.data_lost), ("it is too slow", self.too_slow)) if met]
            yield f"ROLL BACK   {' and '.join(why)}"
        else:
            limit = f"{SLOWER:g} times what it took and {SLOWER_MILLISECONDS:g} ms more"
            yield f"Stay        nothing is lost, and nothing takes more than {limit}"
        yield f"            {FOR_PEOPLE}"


async def check_criteria(store: EventStore, tenant: str, backup: Backup, folder: Path, url: str | None) -> Criteria:
    """Whether a criterion is met.

    Args:
        folder: of the backups, where the baseline lies.
        url: of the application as it runs now; without it only what is stored is looked at.

    Raises:
        SourceUnreadable: nothing answers at the URL.
    """
    found = Criteria(backup, await verify_backup(store, tenant, backup))
    if url is None:
        found.unmeasured = "give the application's --url"
        return found
    found.served = await verify_served(url, backup, found.stored)
    try:
        baseline = read_baseline(folder, tenant, backup.source)
    except BackupDamaged as error:
        found.unmeasured = str(error)
        return found
    if baseline is None:
        found.unmeasured = (
            f"{baseline_path(folder)} of tenant {tenant!r} is missing: it is recorded by import --from-url"
        )
    else:
        found.slowness = compared(*await measured_again(baseline, url))
    return found
