"""How long an application takes for its basic operations, asked over HTTP: before the way over, and after it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from agent_manager.migrating.backup import BackupDamaged
from agent_manager.migrating.endpoints import EndpointSource
from agent_manager.migrating.wire import Json, text_member

CALLS = 25
"""Of each operation; the median counts."""
SLOWER = 1.5
"""Times the recorded median: the plan goes back where an operation takes more than 50 % longer."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Medians.

    Attributes:
        url: of the application.
        taken_at: in UTC, ISO 8601.
        milliseconds: of each operation.
    """

    url: str
    taken_at: str
    milliseconds: dict[str, float]


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
        """Whether it calls for the way back."""
        return self.ratio > SLOWER


async def measured(url: str) -> Baseline:
    """The medians of an application that runs; nothing is written to it.

    Raises:
        SourceUnreadable: it does not answer.
    """
    async with EndpointSource(url) as application:
        listed = await application.ask("conversation/list") or []
        operations: dict[str, Any] = {"conversation/list": None, "message/pending": None, "task/list": None}
        if given_id := _without_files(listed):
            operations["message/list"] = given_id
        taken: dict[str, list[float]] = {name: [] for name in operations}
        for _ in range(CALLS):
            for name, params in operations.items():
                start = time.perf_counter()
                await application.ask(name, params)
                taken[name].append((time.perf_counter() - start) * 1000)
    medians = {name: round(median(times), 3) for name, times in taken.items()}
    return Baseline(url, datetime.now(UTC).isoformat(), medians)


def compared(before: Baseline, now: Baseline) -> list[Slowness]:
    """Each operation that both know."""
    return [
        Slowness(name, milliseconds, now.milliseconds[name])
        for name, milliseconds in before.milliseconds.items()
        if name in now.milliseconds and milliseconds > 0
    ]


def baseline_path(folder: Path) -> Path:
    """Where the baseline lies in the folder of the backups."""
    return folder / "baseline.json"


def write_baseline(baseline: Baseline, folder: Path) -> Path:
    """Writes it, whole or not at all."""
    path = baseline_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(baseline), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path


def read_baseline(folder: Path) -> Baseline | None:
    """The baseline of a folder, None where there is none.

    Raises:
        BackupDamaged: it cannot be read.
    """
    path = baseline_path(folder)
    try:
        return Baseline(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise BackupDamaged(f"{path}: is no baseline: {error}: record it anew by rollback --baseline") from None


def _without_files(listed: list[Json]) -> str | None:
    """A conversation whose messages may be listed: the demo's server takes files out of those it lists."""
    for conversation in reversed(listed):
        parts = [part for message in conversation.get("messages") or () for part in message.get("parts") or ()]
        if parts and not any(isinstance(part, dict) and part.keys() & {"file", "url", "raw"} for part in parts):
            return text_member(conversation, "conversation_id", "conversationId")
    return None
