"""The state of the log and of its projections, for operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.numeric import Int8

from eventstore import EventStore, __version__
from eventstore.concurrency import in_daemon_thread
from eventstore.database.queries import query, query_without
from eventstore.errors import ServerError, translated
from eventstore.read import horizon
from eventstore.urls import show_url
from projections.projection import PROJECTIONS, Projection

_STATUS_LOG = query("projections", "status_log")
_STATUS_PROJECTIONS = query("projections", "status_projections")
_STATUS_WORKERS = query("projections", "status_workers")
_LOG_STATE = query("projections", "log_state")
_LAGS = query("projections", "lags")
_STATUS_APPENDS = query("projections", "status_appends")
POSITION_OF_ALL_PARTITIONS = query_without("projections", "position", frozenset({"partitions"}))
"""The statement for the position that projections have applied in all partitions."""
_STATUS_STANDBY, _STATUS_STANDBY_LAG = (
    query("projections", name).replace("{position}", POSITION_OF_ALL_PARTITIONS)
    for name in ("status_standby", "status_standby_lag")
)
_LAG_SECONDS = query("projections", "lag_seconds")


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """The progress of a projection.

    Attributes:
        position: applied for all partitions.
        lag_events: events that it has not applied yet.
        lag_seconds: age of the oldest of these; 0 if there are none.
        is_current: whether its tables are made by the definition of this version.
        parked: the number of conversations that are parked in it.
        paused_at: since when it is paused; None if it is not.
    """

    name: str
    position: int
    updated_at: datetime
    lag_events: int
    lag_seconds: float
    is_current: bool
    parked: int
    paused_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker, by its session on the server.

    Attributes:
        application: its name: host and process, unless the URL gives another.
        client: its address, or ``local``.
        partitions: of the conversations, that it applies.
    """

    pid: int
    application: str
    client: str
    partitions: list[int]


@dataclass(frozen=True, slots=True)
class AppendInFlight:
    """An append whose transaction is open.

    Attributes:
        seconds: since its transaction began.
    """

    pid: int | None
    login: str
    application: str
    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StandbyStatus:
    """The server that reads go to (``EVENTSTORE_READ_URL``), and how far its replay is behind the primary.

    Attributes:
        url: without a password.
        error: why it cannot be read from; empty if it can. Then the others are None.
        in_recovery: whether it is a standby now; a URL of several hosts may lead to the primary.
        position: the position that all read tables hold there.
        lag_events: events that the read tables hold on the primary, and not on the standby.
        lag_seconds: age of the oldest of these; 0 if there are none.
        lag_bytes: of the write-ahead log that it has not replayed.
    """

    url: str
    error: str = ""
    in_recovery: bool | None = None
    position: int | None = None
    lag_events: int | None = None
    lag_seconds: float | None = None
    lag_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The log and its projections.

    Attributes:
        version: of this program, not of the server.
        bytes: of the table ``events`` on disk, indexes included.
        horizon: the position up to which the log is final.
        standby: the server that reads go to; None if they go to the primary.
        warnings: what is wrong with the database; see :func:`read_warnings`.
        notify_queue_usage: how full the server's queue of notifications is, from 0 to 1. From 0.5 on, appends do not
            notify, and consumers poll every few seconds.
    """

    version: str
    database_url: str
    server_version: str
    db_schema: str
    events: int
    conversations: int
    last_position: int
    horizon: int
    bytes: int
    projections: list[ProjectionStatus]
    workers: list[WorkerStatus]
    appends_in_flight: list[AppendInFlight]
    standby: StandbyStatus | None
    warnings: list[str]
    notify_queue_usage: float


@dataclass(frozen=True, slots=True)
class LogState:
    """The end of the log.

    Attributes:
        last_position: that was assigned.
        horizon_distance: the positions up to it that are not final, because of appends in flight.
        notify_queue_usage: see :class:`Status`.
    """

    last_position: int
    horizon_distance: int
    notify_queue_usage: float


EXACT_LAG = 10_000
"""A lag of fewer events is counted exactly. To count a longer one would take a time that grows with it."""


@dataclass(frozen=True, slots=True)
class Lag:
    """The lag of the tables of a projection behind the log.

    Attributes:
        events: that are not applied yet; from :data:`EXACT_LAG` on at most so many.
        seconds: age of the oldest of these; 0 if there are none.
        parked: the number of conversations that are parked in it.
        rebuilt: the position that the tables of a rebuild have reached, on average; None without a rebuild.
        paused_at: since when it is paused; None if it is not.
    """

    projection: str
    events: int
    seconds: float
    parked: int
    rebuilt: float | None
    paused_at: datetime | None


async def read_log_state(store: EventStore) -> LogState:
    """Return the end of the log. It takes the same time however large the log is."""
    [row] = await store.connections.projector.fetch(_LOG_STATE)
    return LogState(*row)


async def read_lags(store: EventStore, projections: Sequence[str]) -> list[Lag]:
    """Return the lags of projections, of all tenants' events together; also of those that have never run."""
    given = {"projections": list(projections), "exact": EXACT_LAG}
    return [Lag(*row) for row in await store.connections.projector.fetch(_LAGS, given)]


async def read_warnings(store: EventStore) -> list[str]:
    """Return what is wrong with the database, in sentences that say what to do.

    That is row-level security that is not in force, and any difference from what the migrations make.
    """
    return await in_daemon_thread(store.server.migrator().findings)


async def read_workers(store: EventStore) -> list[WorkerStatus]:
    """Return the workers that run now."""
    return [WorkerStatus(*row) for row in await store.connections.primary_reader.fetch(_STATUS_WORKERS)]


async def read_standby(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> StandbyStatus | None:
    """Return how far the server that reads go to is behind the primary; None if reads go to the primary."""
    standby = store.connections.standby
    if standby is None:
        return None
    url = show_url(standby.url)
    given: dict[str, object] = {"projections": [projection.name for projection in projections]}
    try:
        # In this order: what is replayed meanwhile does not count as a lag.
        [(in_recovery, position, replayed)] = await store.connections.reader.fetch(_STATUS_STANDBY, given)
    except ServerError as error:
        return StandbyStatus(url, str(error))
    given |= {"position": Int8(position), "replayed": replayed}
    [lag] = await store.connections.projector.fetch(_STATUS_STANDBY_LAG, given)
    return StandbyStatus(url, "", in_recovery, position, *lag)


async def lag_seconds_at(store: EventStore, position: int) -> float:
    """Return the age of the oldest event above a position; 0 if there is none."""
    [(seconds,)] = await store.connections.projector.fetch(_LAG_SECONDS, {"position": Int8(position)})
    return float(seconds)


async def read_status(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> Status:
    """Return the status. It counts the events, which takes time on a large log."""
    pool = store.connections.projector  # sees the events of all tenants
    [(events, last_position, conversations, size, version, queue_usage)] = await pool.fetch(_STATUS_LOG)
    hashes = {projection.name: projection.definition_hash for projection in projections}
    rows = await pool.fetch(_STATUS_PROJECTIONS)
    async with await store.connect(role=None) as connection:  # the server hides the login's sessions from other roles
        with translated():
            appends = await (await connection.execute(_STATUS_APPENDS)).fetchall()
    return Status(
        version=__version__,
        database_url=store.server.public_url,
        server_version=version,
        db_schema=store.settings.db_schema,
        events=events,
        conversations=conversations,
        last_position=last_position,
        horizon=await horizon(pool),
        bytes=size,
        projections=[
            ProjectionStatus(
                name, position, updated_at, lag_events, lag_seconds, hashes.get(name) == made_by, parked, paused_at
            )
            for name, position, updated_at, made_by, lag_events, lag_seconds, parked, paused_at in rows
        ],
        workers=await read_workers(store),
        appends_in_flight=[AppendInFlight(*row) for row in appends],
        standby=await read_standby(store, projections),
        warnings=await read_warnings(store),
        notify_queue_usage=queue_usage,
    )
