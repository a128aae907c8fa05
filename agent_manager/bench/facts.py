"""What was measured with: versions, and the settings of the server that decide whether an append is durable."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psycopg

from agent_manager.bench.peers import packages
from agent_manager.bench.place import Place

_PACKAGES = ("flowagents-eventstore", "psycopg", "psycopg-pool", "pydantic")
_SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "wal_level",
    "max_connections", "shared_buffers", "max_wal_size", "commit_delay",
)  # fmt: skip
_MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")


def versions() -> dict[str, str]:
    """Of Python, the machine, and the packages, those of the peers included."""
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "libpq": _dotted(psycopg.pq.version()),
        "psycopg implementation": psycopg.pq.__impl__,
    }
    for package in (*_PACKAGES, *packages()):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def server_settings(place: Place) -> dict[str, str]:
    """As a session in the place sees them."""
    with psycopg.connect(place.url) as connection:
        rows = connection.execute(
            "SELECT s.name, current_setting(s.name) FROM pg_settings s WHERE s.name = ANY (%s)", [list(_SETTINGS)]
        ).fetchall()
    found: dict[str, str] = dict(rows)
    return {name: found[name] for name in _SETTINGS}


def not_durable(settings: dict[str, str]) -> list[str]:
    """The settings under which an acknowledged append may be lost."""
    return [name for name in _MUST_BE_ON if settings[name] == "off"]


def _dotted(number: int) -> str:
    return f"{number // 10000}.{number % 10000}"
