"""The metrics of a process, for Prometheus: of its HTTP server, of its store, and of the database.

The server counts as it works. The store's own numbers (:class:`eventstore.metrics.StoreMetrics`) and the database's
state are read when the metrics are: what several processes share, such as the lag of a projection, each of them
exports, and dashboards take the maximum.

No label has a value that clients choose: no ids, no tenants, routes by their templates. But all numbers count what all
tenants do, so none of them is for a tenant to see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

from agent_manager.audit.status import SealedLog, read_sealed_log
from agent_manager.backup.archive import Archive, open_target
from agent_manager.backup.erasures import unapplied_erasures
from agent_manager.retention.status import RetentionState, read_retention
from agent_manager.settings import server_settings
from eventstore import EventStore, __version__
from eventstore.errors import (
    ConversationIsDeleted,
    EventIdConflict,
    EventStoreError,
    StoreClosed,
    WrongExpectedVersion,
)
from eventstore.metrics import LATENCY_BOUNDS
from eventstore.metrics import Histogram as Distribution
from projections import load_projections
from projections.status import Lag, LogState, read_lags, read_log_state, read_workers

READ_SECONDS = 3.0
"""The time to read the state of the database and of the backups. Prometheus gives up after ten seconds, and then has no
metric at all."""
METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))

disable_created_metrics()  # type: ignore[no-untyped-call]  # a further series for each counter, which nothing uses


@dataclass(frozen=True)
class _DatabaseState:
    log: LogState
    lags: Sequence[Lag]
    workers: int
    sealed: SealedLog | None
    retention: RetentionState


class Metrics(Collector):
    """The metrics of the process that uses a store."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._settings = server_settings(store.settings)
        self._projections = [projection.name for projection in load_projections(store.settings.projections)]
        self._reading = asyncio.Lock()
        self._state: _DatabaseState | None = None
        self._backup_time = 0.0
        self._unapplied_erasures = 0
        self._reading_backups: asyncio.Task[None] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._http_seconds = Histogram(
            "eventstore_http_request_seconds",
            "Time from the head of a request until its response begins.",
            ["method", "route"],
            buckets=LATENCY_BOUNDS,
            registry=self._registry,
        )
        self._http_responses = Counter(
            "eventstore_http_responses",
            "Responses that have begun.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._http_rejections = Counter(
            "eventstore_http_rejections",
            "Requests and connections that a limit or a check has rejected.",
            ["reason"],
            registry=self._registry,
        )
        self._csp_reports = Counter(
            "eventstore_console_csp_reports",
            "Reports of browsers that the console's Content-Security-Policy has blocked something.",
            registry=self._registry,
        )
        self._requests = Gauge(
            "eventstore_http_requests_in_flight", "Requests that are being handled.", registry=self._registry
        )
        self._streams = Gauge("eventstore_http_open_streams", "Open event streams.", registry=self._registry)

    def watch(self, requests: Callable[[], int], streams: Callable[[], int]) -> None:
        """Read the numbers of requests and streams in progress from these functions."""
        self._requests.set_function(requests)
        self._streams.set_function(streams)

    def count_response(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a response that has begun.

        Args:
            route: the template of the path; empty if no route matches.
        """
        labels = (method if method in METHODS else "other", route or "none")
        self._http_seconds.labels(*labels).observe(seconds)
        self._http_responses.labels(*labels, str(status)).inc()

    def count_rejection(self, reason: str) -> None:
        """Count a request or connection that was rejected, or a client that was disconnected.

        Args:
            reason: a constant of the code.
        """
        self._http_rejections.labels(reason).inc()

    def count_csp_report(self) -> None:
        """Count a report of a browser that the Content-Security-Policy of the console has blocked something."""
        self._csp_reports.inc()

    async def response(self) -> Response:
        """Return all metrics in the text format of Prometheus."""
        async with self._reading:  # one at a time, however many ask
            self._state, _ = await asyncio.gather(self._read_database(), self._read_backups())
            return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _read_database(self) -> _DatabaseState | None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return _DatabaseState(
                    await read_log_state(self._store),
                    await read_lags(self._store, self._projections),
                    len(await read_workers(self._store)),
                    await read_sealed_log(self._store) if self._settings.audit_key else None,
                    await read_retention(self._store),
                )
        except (EventStoreError, TimeoutError):
            return None

    async def _read_backups(self) -> None:
        """Read the time of the newest intact backup, and receipts. If the target fails, the last known values stay."""
        if not self._settings.backup_dir:
            return

        async def read() -> None:
            with suppress(Exception):  # object stores have errors of their own, and the other metrics must be seen
                archive = Archive(open_target(self._settings.backup_dir))
                self._backup_time = await asyncio.to_thread(_newest_backup_time, archive)
                self._unapplied_erasures = len(await unapplied_erasures(self._store, archive))

        # A target that does not answer holds one thread, not one more at each scrape.
        if self._reading_backups is None or self._reading_backups.done():
            self._reading_backups = asyncio.create_task(read())
        await asyncio.wait([self._reading_backups], timeout=READ_SECONDS)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that are read, not counted."""
        build = GaugeMetricFamily("eventstore_build_info", "The version of this program.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield from self._of_store()
        yield from self._of_pools()
        yield from self._of_database()
        if self._settings.backup_dir:
            yield _gauge(
                "backup_last_success_timestamp_seconds",
                "When the newest intact backup began, as a Unix time; 0 if there is none.",
                self._backup_time,
            )
            yield _gauge(
                "backup_interval_seconds", "Time from one backup to the next.", 60 * self._settings.backup_minutes
            )
            yield _gauge(
                "erasures_not_applied",
                "Receipts beside the backups of events that the log still holds.",
                self._unapplied_erasures,
            )

    def _of_store(self) -> Iterator[Metric]:
        own = self._store.metrics
        yield _histogram("append_seconds", "Time of the appends that succeeded, with waits.", own.append_seconds)
        yield _histogram("append_batch_events", "Events of each statement that appends.", own.batch_events)
        yield _histogram("search_seconds", "Time of a page of search results.", own.search_seconds)
        yield CounterMetricFamily("eventstore_appended_events", "Events that were stored.", own.appended_events)
        yield CounterMetricFamily("eventstore_notifications", "Notifications received.", own.notifications)
        conflicts = CounterMetricFamily(
            "eventstore_append_conflicts", "Appends that the log contradicts, by error.", labels=["error"]
        )
        failures = CounterMetricFamily(
            "eventstore_append_failures", "Appends that failed otherwise, by error.", labels=["error"]
        )
        for name, number in {**dict.fromkeys(_CONFLICTS, 0), **own.append_errors}.items():
            (conflicts if name in _CONFLICTS else failures).add_metric([name], number)
        yield conflicts
        yield failures

    def _of_pools(self) -> Iterator[Metric]:
        try:
            connections = self._store.connections
        except StoreClosed:
            return
        queues = {name: pool.queue for name, pool in connections.pools.items()}
        yield _by("pool", "pool_size", "The most connections.", {name: queue.size for name, queue in queues.items()})
        yield _by("pool", "pool_in_use", "Connections in use.", {name: queue.held for name, queue in queues.items()})
        yield _by("pool", "pool_waiting", "Waiting callers.", {name: queue.waiting for name, queue in queues.items()})
        timeouts = CounterMetricFamily(
            "eventstore_pool_timeouts", "Callers that got no connection in time.", labels=["pool"]
        )
        for name, queue in queues.items():
            timeouts.add_metric([name], queue.timeouts)
        yield timeouts
        pending = connections.append_batcher.pending_events
        yield _gauge("append_pending_events", "Events of appends in progress or queued.", pending)

    def _of_database(self) -> Iterator[Metric]:
        state = self._state
        yield _gauge("database_up", "Whether the database answered when the metrics were read.", state is not None)
        if state is None:
            return
        log, lags = state.log, state.lags
        horizon = log.last_position - log.horizon_distance
        yield _gauge("log_last_position", "The highest position that was assigned.", log.last_position)
        yield _gauge("log_horizon_position", "The position up to which the log is final.", horizon)
        yield _gauge(
            "log_horizon_distance", "Positions that are not final, because of appends in flight.", log.horizon_distance
        )
        yield _gauge(
            "notification_queue_usage_ratio", "Fill of the server's queue of notifications.", log.notify_queue_usage
        )
        yield _gauge("workers", "Workers that run, in all processes.", state.workers)
        behind = "How far a projection is behind the log, in"
        yield _by("projection", "projection_lag_events", f"{behind} events.", {x.projection: x.events for x in lags})
        yield _by("projection", "projection_lag_seconds", f"{behind} seconds.", {x.projection: x.seconds for x in lags})
        yield _by(
            "projection",
            "projection_parked_conversations",
            "Conversations that a projection cannot go on with.",
            {x.projection: x.parked for x in lags},
        )
        yield _by(
            "projection",
            "projection_rebuild_ratio",
            "The part of the log that a rebuild has applied; absent without a rebuild.",
            {x.projection: min(x.rebuilt / max(horizon, 1), 1) for x in lags if x.rebuilt is not None},
        )
        retention = state.retention
        yield _gauge("legal_holds", "Legal holds in force.", retention.holds)
        yield _gauge("retention_rules", "Retention rules.", retention.rules)
        if retention.waits_since is not None:
            yield _gauge(
                "retention_applied_timestamp_seconds",
                "When the rule that has waited longest was applied, or was added.",
                retention.waits_since.timestamp(),
            )
        outcomes = {"erased": retention.conversations, "held": retention.held}
        outcomes |= {"skipped": retention.skipped, "failed": retention.failed}
        text = "Conversations of the last run of each rule, by what became of them."
        yield _by("outcome", "retention_conversations", text, outcomes)
        if (sealed := state.sealed) is None:
            return
        yield _gauge("audit_sealed_events", "Events that are sealed.", sealed.events)
        yield _gauge("audit_sealed_position", "The position up to which the log is sealed.", sealed.position)
        yield _gauge("audit_lag_events", "Events that are not sealed yet.", sealed.lag_events)
        yield _gauge("audit_lag_seconds", "Age of the oldest of these events.", sealed.lag_seconds)
        checkpoint_time = sealed.sealed_at.timestamp() if sealed.sealed_at else 0
        yield _gauge("audit_checkpoint_timestamp_seconds", "When the newest checkpoint was signed.", checkpoint_time)


_CONFLICTS = tuple(error.__name__ for error in (WrongExpectedVersion, EventIdConflict, ConversationIsDeleted))


def _newest_backup_time(archive: Archive) -> float:
    for backup_id in reversed(archive.ids()):
        try:
            return archive.manifest(backup_id).created_at.timestamp()
        except EventStoreError:
            continue  # its manifest is damaged
    return 0.0


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"eventstore_{name}", text, value)


def _by(label: str, name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"eventstore_{name}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _histogram(name: str, text: str, values: Distribution) -> Metric:
    bounds: Iterable[str] = (*map(str, map(float, values.bounds)), "+Inf")
    buckets = list(zip(bounds, map(float, accumulate(values.counts)), strict=True))
    return HistogramMetricFamily(f"eventstore_{name}", text, buckets, values.sum)
