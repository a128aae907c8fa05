"""The criteria of the migration plan for a rollback: lost data, slow operations, and one that people judge.

The latency of an application's basic operations over HTTP is measured before and after a migration, in several rounds
of calls. The figure of an operation is the median of the medians of its rounds, so that a disturbance of a round or two
does not count. If the old application still runs, both are called alternately, so that other load of the machine
affects both. Each call opens a connection, as the demo's client does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from agent_manager.a2a import Json
from agent_manager.importers.a2a_demo import EndpointSource, conversation_id, is_served
from agent_manager.importers.backup import Backup, SourceBackupDamaged, is_same_source
from agent_manager.importers.verify import IN_STORE, Report, Verification, verify_backup, verify_served
from agent_manager.private_files import make_private_folder, write_private
from eventstore import EventStore

OPEN_CRITERION = "a critical bug that stays unsolved for 24 hours is the plan's third criterion: that is yours to judge"

MAX_RATIO = 1.5
"""The plan rolls back if an operation takes more than 50 % longer than the baseline …"""
MAX_SLOWDOWN_MS = 50.0
"""… and by more than this: people notice about 100 ms, and storing durably costs a few milliseconds."""
_ROUNDS = 5
_CALLS = 5
"""Calls of each operation in a round."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The latency of an application.

    Attributes:
        tenant: None if the file does not name it.
        taken_at: in UTC, ISO 8601.
        conversation: the one whose messages were listed; None if there was none to list.
    """

    tenant: str | None
    url: str
    taken_at: str
    milliseconds: dict[str, float]
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class LatencyChange:
    """The latency of an operation before and now, in milliseconds."""

    operation: str
    before: float
    now: float

    @property
    def ratio(self) -> float:
        """The latency now as a multiple of the one before."""
        return self.now / self.before

    @property
    def is_too_slow(self) -> bool:
        """True if it is a reason to roll back."""
        return self.ratio > MAX_RATIO and self.now - self.before > MAX_SLOWDOWN_MS


async def measure(url: str, tenant: str) -> Baseline:
    """Return the latency of a running application; nothing is written to it."""
    [baseline] = await _measure([url], tenant)
    return baseline


async def measure_again(before: Baseline, url: str) -> tuple[Baseline, Baseline]:
    """Return the latency before and now, both measured now if the old application still runs elsewhere."""
    if not is_same_source(before.url, url) and await is_served(before.url):
        old, now = await _measure([before.url, url], before.tenant, before.conversation)
        return old, now
    [now] = await _measure([url], before.tenant, before.conversation)
    return before, now


async def _measure(urls: list[str], tenant: str | None, conversation: str | None = None) -> list[Baseline]:
    """Return the latency of several applications, which are called alternately."""
    async with AsyncExitStack() as stack:
        applications = [await stack.enter_async_context(EndpointSource(url, keep_alive=False)) for url in urls]
        operations: dict[str, Any] = {"conversation/list": None, "message/pending": None, "task/list": None}
        listable = _without_files(await applications[-1].call("conversation/list") or [])
        given_id = conversation if conversation in listable else next(iter(listable), None)
        if given_id is not None:
            operations["message/list"] = given_id
        times: list[dict[str, list[float]]] = [{name: [] for name in operations} for _ in urls]
        for _ in range(_ROUNDS * _CALLS):
            for name, params in operations.items():
                for application, measured in zip(applications, times, strict=True):
                    start = time.perf_counter()
                    await application.call(name, params)
                    measured[name].append((time.perf_counter() - start) * 1000)
    taken_at = datetime.now(UTC).isoformat()
    return [
        Baseline(tenant, url, taken_at, {name: _figure(measured[name]) for name in operations}, given_id)
        for url, measured in zip(urls, times, strict=True)
    ]


def _figure(times: list[float]) -> float:
    """Return the median of the medians of the rounds."""
    return round(median(median(times[start : start + _CALLS]) for start in range(0, len(times), _CALLS)), 3)


def _without_files(conversations: list[Json]) -> list[str]:
    """Return the conversations whose messages can be listed: the demo's server takes files out of those it lists."""
    given_ids = []
    for conversation in reversed(conversations):
        parts = [part for message in conversation.get("messages") or () for part in message.get("parts") or ()]
        if parts and not any(isinstance(part, dict) and part.keys() & {"file", "url", "raw"} for part in parts):
            given_ids.append(conversation_id(conversation))
    return given_ids


def compare_latency(before: Baseline, now: Baseline) -> list[LatencyChange]:
    """Return the change of each operation that was measured in both."""
    return [
        LatencyChange(name, milliseconds, now.milliseconds[name])
        for name, milliseconds in before.milliseconds.items()
        if name in now.milliseconds and milliseconds > 0
    ]


def baseline_path(folder: Path, number: int = 1) -> Path:
    """Return the path of a baseline in the folder of the backups; those of further applications are numbered."""
    return folder / ("baseline.json" if number == 1 else f"baseline-{number}.json")


def write_baseline(baseline: Baseline, folder: Path) -> Path:
    """Write a baseline atomically; it replaces an earlier one of its tenant and application."""
    make_private_folder(folder)
    existing = _read_all(folder)
    path = next((path for path, known in existing.items() if _is_of(known, baseline.tenant, baseline.url)), None)
    if path is None:
        path = next(path for number in count(1) if (path := baseline_path(folder, number)) not in existing)
    write_private(path, json.dumps(asdict(baseline), indent=2) + "\n")
    return path


def read_baseline(folder: Path, tenant: str, source: str) -> Baseline | None:
    """Return the newest baseline of a tenant in a folder, None if there is none.

    Args:
        source: the source of its conversations. If it is a URL, only the baseline of that application counts.

    Raises:
        SourceBackupDamaged: one cannot be read; or the tenant has none, but there is one that does not name its tenant.
    """
    baselines = _read_all(folder)
    url = source if "://" in source else None
    own = [baseline for baseline in baselines.values() if _is_of(baseline, tenant, url)]
    unnamed = next((path for path, baseline in baselines.items() if baseline.tenant is None), None)
    if not own and unnamed is not None:
        reason = "does not name its tenant: remove it, and record another with rollback --baseline --url URL"
        raise SourceBackupDamaged(f"{unnamed}: {reason}")
    return max(own, key=lambda baseline: baseline.taken_at, default=None)


def has_baseline(folder: Path, tenant: str, url: str) -> bool:
    """Return whether there is a baseline of this tenant and application."""
    return any(_is_of(baseline, tenant, url) for baseline in _read_all(folder).values())


def _read_all(folder: Path) -> dict[Path, Baseline]:
    return {path: _read(path) for path in sorted(folder.glob("baseline*.json"))}


def _read(path: Path) -> Baseline:
    try:
        return Baseline(**({"tenant": None} | json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:
        raise SourceBackupDamaged(f"{path}: is not a baseline: {error}: remove it, or give another folder") from None


def _is_of(baseline: Baseline, tenant: str | None, url: str | None) -> bool:
    return baseline.tenant == tenant and (url is None or is_same_source(baseline.url, url))


@dataclass(slots=True)
class Criteria(Report):
    """The result of checking the criteria.

    Attributes:
        stored, served: the comparisons of the store, and of what the application serves, with the backup.
        latency: of each basic operation; empty if it could not be compared.
    """

    backup: Backup
    stored: Verification
    served: Verification | None = None
    latency: list[LatencyChange] = field(default_factory=list)
    unmeasured: str = ""

    @property
    def data_lost(self) -> bool:
        return bool(self.stored.differences or (self.served is not None and self.served.differences))

    @property
    def too_slow(self) -> bool:
        return any(change.is_too_slow for change in self.latency)

    @property
    def is_clean(self) -> bool:
        return not self.data_lost and not self.too_slow

    def values(self) -> Json:
        return {
            "roll_back": not self.is_clean,
            "backup": str(self.backup.path),
            "data_lost": self.data_lost,
            "stored": self.stored.values(),
            "served": self.served and self.served.values(),
            "too_slow": self.too_slow if not self.unmeasured else None,
            "operations": [asdict(change) | {"ratio": round(change.ratio, 3)} for change in self.latency],
            "unmeasured": self.unmeasured or None,
        }

    def lines(self) -> Iterator[str]:
        yield f"Backup      {self.backup.path}"
        yield from self.stored.lines(IN_STORE)
        if self.served is not None:
            yield from self.served.served_lines("as they were")
        for change in self.latency:
            heading = "SLOWER" if change.is_too_slow else "Speed"
            times = f"{change.now:.1f} ms, {change.before:.1f} ms before: {change.ratio:.2f} times"
            yield f"{heading:<11} {change.operation}: {times}"
        if self.unmeasured:
            yield f"Speed       not compared: {self.unmeasured}"
        if self.is_clean:
            limit = f"{MAX_RATIO:g} times what it took and {MAX_SLOWDOWN_MS:g} ms more"
            yield f"Stay        nothing is lost, and nothing takes more than {limit}"
        else:
            reasons = ["data is lost"] * self.data_lost + ["it is too slow"] * self.too_slow
            yield f"ROLL BACK   {' and '.join(reasons)}"
        yield f"            {OPEN_CRITERION}"


async def check_criteria(store: EventStore, backup: Backup, folder: Path, url: str | None) -> Criteria:
    """Check whether there is a reason to roll back.

    Args:
        folder: the folder of the backups, which holds the baseline.
        url: the application's as it runs now; without it only the store is compared.

    Raises:
        SourceUnreadable: nothing answers at the URL.
    """
    criteria = Criteria(backup, await verify_backup(store, store.tenant, backup))
    if url is None:
        criteria.unmeasured = "give the application's --url"
        return criteria
    criteria.served = await verify_served(url, backup, criteria.stored)
    try:
        baseline = read_baseline(folder, store.tenant, backup.source)
    except SourceBackupDamaged as error:
        criteria.unmeasured = str(error)
        return criteria
    if baseline is None:
        path = baseline_path(folder)
        criteria.unmeasured = f"{path} of tenant {store.tenant!r} is missing: import --from-url records it"
    else:
        criteria.latency = compare_latency(*await measure_again(baseline, url))
    return criteria
