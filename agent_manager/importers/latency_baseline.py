"""Latency of an application's basic operations over HTTP, before and after a migration.

A measurement is several rounds of calls. An operation counts by the median of the medians of its rounds: a disturbance
that lasts a round or two does not count. If the application of before still runs, both are measured in turn, call by
call, so that what else the machine does hits both alike. Each call makes a connection, as the demo's own client does.
"""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from agent_manager.importers.a2a_demo import EndpointSource
from agent_manager.importers.backup import BackupDamaged, is_same_source, make_private_folder, write_private
from agent_manager.importers.source import Json, SourceUnreadable, text_member

ROUNDS = 5
CALLS = 5
"""Of each operation in a round."""
SLOWER = 1.5
"""Times the recorded median: the plan goes back where an operation takes more than 50 % longer."""
SLOWER_MILLISECONDS = 50.0
"""An operation that takes less than this longer is not too slow, whatever the ratio: a person notices about 100 ms, and
a few milliseconds more are what storing durably costs."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """How long an application took.

    Attributes:
        tenant: of its conversations; None if the file that it was read from names none.
        url: of the application.
        taken_at: in UTC, ISO 8601.
        milliseconds: the median of each operation.
        conversation: whose messages were listed; None if there was none to list.
    """

    tenant: str | None
    url: str
    taken_at: str
    milliseconds: dict[str, float]
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class Slowness:
    """An operation then and now.

    Attributes:
        before, now: milliseconds.
    """

    operation: str
    before: float
    now: float

    @property
    def ratio(self) -> float:
        """Now, in units of before."""
        return self.now / self.before

    @property
    def is_met(self) -> bool:
        """Whether it is a reason to roll back."""
        return self.ratio > SLOWER and self.now - self.before > SLOWER_MILLISECONDS


async def measured(url: str, tenant: str) -> Baseline:
    """Return the medians of an application that runs; nothing is written to it.

    Raises:
        SourceUnreadable: it does not answer.
    """
    [baseline] = await _measured([url], tenant)
    return baseline


async def measured_again(before: Baseline, url: str) -> tuple[Baseline, Baseline]:
    """Return the medians before and now: measured in turn if the application of before still runs elsewhere.

    Raises:
        SourceUnreadable: nothing answers at the URL.
    """
    if not is_same_source(before.url, url):
        try:
            async with EndpointSource(before.url) as application:
                await application.ask("conversation/list")
        except SourceUnreadable:
            pass  # it was stopped: what was recorded counts
        else:
            old, now = await _measured([before.url, url], before.tenant, before.conversation)
            return old, now
    [now] = await _measured([url], before.tenant, before.conversation)
    return before, now


async def _measured(urls: list[str], tenant: str | None, conversation: str | None = None) -> list[Baseline]:
    """Return the medians of several applications, which are asked in turn."""
    async with AsyncExitStack() as stack:
        applications = [await stack.enter_async_context(EndpointSource(url, keep_alive=False)) for url in urls]
        operations: dict[str, Any] = {"conversation/list": None, "message/pending": None, "task/list": None}
        plain = _without_files(await applications[-1].ask("conversation/list") or [])
        given_id = conversation if conversation in plain else next(iter(plain), None)
        if given_id is not None:
            operations["message/list"] = given_id
        medians: list[dict[str, list[float]]] = [{name: [] for name in operations} for _ in urls]
        for _ in range(ROUNDS):
            taken: list[dict[str, list[float]]] = [{name: [] for name in operations} for _ in urls]
            for _ in range(CALLS):
                for name, params in operations.items():
                    for application, times in zip(applications, taken, strict=True):
                        start = time.perf_counter()
                        await application.ask(name, params)
                        times[name].append((time.perf_counter() - start) * 1000)
            for of_rounds, times in zip(medians, taken, strict=True):
                for name in operations:
                    of_rounds[name].append(median(times[name]))
    moment = datetime.now(UTC).isoformat()
    return [
        Baseline(tenant, url, moment, {name: round(median(of), 3) for name, of in of_rounds.items()}, given_id)
        for url, of_rounds in zip(urls, medians, strict=True)
    ]


def compared(before: Baseline, now: Baseline) -> list[Slowness]:
    """Return each operation that both know."""
    return [
        Slowness(name, milliseconds, now.milliseconds[name])
        for name, milliseconds in before.milliseconds.items()
        if name in now.milliseconds and milliseconds > 0
    ]


def baseline_path(folder: Path, number: int = 1) -> Path:
    """Return where a baseline lies in the folder of the backups; those of further tenants and sources are numbered."""
    return folder / ("baseline.json" if number == 1 else f"baseline-{number}.json")


def write_baseline(baseline: Baseline, folder: Path) -> Path:
    """Write a baseline, whole or not at all, in place of an earlier one of its tenant and application."""
    make_private_folder(folder)
    files = _files(folder)
    path = next((path for path, known in files.items() if _is_of(known, baseline.tenant, baseline.url)), None)
    if path is None:
        path = next(path for number in count(1) if (path := baseline_path(folder, number)) not in files)
    write_private(path, json.dumps(asdict(baseline), indent=2) + "\n")
    return path


def read_baseline(folder: Path, tenant: str, source: str) -> Baseline | None:
    """Return the baseline of a tenant in a folder, None if there is none.

    Args:
        source: of its conversations. If it is a URL, only the baseline of that application counts.

    Raises:
        BackupDamaged: one cannot be read; or there is none of the tenant, but one that names no tenant.
    """
    files = _files(folder)
    url = source if "://" in source else None
    own = [known for known in files.values() if _is_of(known, tenant, url)]
    unnamed = next((path for path, known in files.items() if known.tenant is None), None)
    if not own and unnamed is not None:
        why = "does not name its tenant: remove it, and record it anew by rollback --baseline --url URL"
        raise BackupDamaged(f"{unnamed}: {why}")
    return max(own, key=lambda one: one.taken_at, default=None)


def has_baseline(folder: Path, tenant: str, url: str) -> bool:
    """Return whether there is one of this tenant and application."""
    return any(_is_of(known, tenant, url) for known in _files(folder).values())


def _files(folder: Path) -> dict[Path, Baseline]:
    return {path: _read(path) for path in sorted(folder.glob("baseline*.json"))}


def _read(path: Path) -> Baseline:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return Baseline(**({"tenant": None} | plain))
    except (OSError, ValueError, TypeError) as error:
        raise BackupDamaged(f"{path}: is not a baseline: {error}: remove it, or give another folder") from None


def _is_of(baseline: Baseline, tenant: str | None, url: str | None) -> bool:
    return baseline.tenant == tenant and (url is None or is_same_source(baseline.url, url))


def _without_files(listed: list[Json]) -> list[str]:
    """Return the conversations whose messages may be listed: the demo's server takes files out of those it lists."""
    found = []
    for conversation in reversed(listed):
        parts = [part for message in conversation.get("messages") or () for part in message.get("parts") or ()]
        if parts and not any(isinstance(part, dict) and part.keys() & {"file", "url", "raw"} for part in parts):
            found.append(text_member(conversation, "conversation_id", "conversationId"))
    return found
