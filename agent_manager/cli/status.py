"""The command status."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from agent_manager.audit.status import SealedLog, read_sealed_log
from agent_manager.backup import Archive, Drill, Manifest, last_drill, open_target
from agent_manager.backup.erasures import unapplied_erasures
from agent_manager.cli.backup import backup_value
from agent_manager.cli.options import DataDir, Json, read_settings, run
from agent_manager.cli.output import duration, print_fields, print_json, print_table, print_warnings, row_value, text
from agent_manager.retention.status import RetentionState, read_retention
from eventstore import EventStore
from projections import load_projections, read_status
from projections.status import StandbyStatus


def status(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show the size of the log, how far it is sealed and projected, what is erased by rule, and the newest backup."""
    settings = read_settings(data_dir)

    async def work(store: EventStore) -> None:
        now = await read_status(store, load_projections(store.settings.projections))
        archive = Archive(open_target(settings.backup_dir)) if settings.backup_dir else None
        backup, drill = (archive.newest(), last_drill(archive)) if archive else (None, None)
        sealed, retention = await read_sealed_log(store), await read_retention(store)
        unapplied = await unapplied_erasures(store, archive) if archive else []
        if as_json:
            values = {
                "sealed": sealed,
                "retention": retention,
                "backup": backup and backup_value(backup),
                "drill": drill,
                "erasures_not_applied": [record.id for record in unapplied],
            }
            print_json(row_value(now) | values)
            return
        slow = "; consumers are not notified, and poll every few seconds" if now.notify_queue_usage >= 0.5 else ""
        print_fields([
            ("version", now.version),
            ("database", f"{now.database_url}, schema {now.db_schema}"),
            ("server", f"PostgreSQL {now.server_version}"),
            ("log", f"{now.events:,} events in {now.conversations:,} conversations, {now.bytes / 1e6:,.1f} MB, "
                    f"last position {now.last_position:,}, final up to {now.horizon:,}"),
            ("sealed", _describe_sealed(sealed, has_key=settings.audit_key is not None)),
            ("notifications", f"the server's queue is {now.notify_queue_usage:.0%} full{slow}"),
            *(
                ("in flight", f"an append of {append.login or 'a prepared transaction'} (process {append.pid}, "
                              f"{append.application or 'no name'}, {append.state}) for {append.seconds:,.1f} s")
                for append in now.appends_in_flight
            ),
            *([("reads", _describe_standby(now.standby))] if now.standby else []),
            ("retention", _describe_retention(retention)),
            *([("backup", _describe(backup))] if archive else []),
            *([("erasures", f"{len(unapplied):,} of which the backups have receipts are NOT applied to this log: "
                            "eventstore erase apply")] if unapplied else []),
            *([("drill", _describe_drill(drill))] if drill else []),
        ])  # fmt: skip
        print_warnings(now.warnings)
        typer.echo()
        print_table(
            (
                "projection", ">position", ">events behind", ">seconds behind", ">parked", "updated",
                "made by this version",
            ),
            [
                (
                    f"{p.name} (paused)" if p.paused_at else p.name, p.position, p.lag_events,
                    f"{p.lag_seconds:.1f}", p.parked, p.updated_at, p.is_current,
                )
                for p in now.projections
            ],
            nothing="no projection has run yet: eventstore up",
        )  # fmt: skip
        typer.echo()
        print_table(
            ("worker", "client", ">server process", "partitions"),
            [(w.application, w.client, w.pid, " ".join(map(str, w.partitions)) or "none free") for w in now.workers],
            nothing="no worker is running: eventstore up, or eventstore project",
        )

    run(work, settings)


def _describe_standby(standby: StandbyStatus) -> str:
    if standby.error:
        return standby.error
    kind = "a standby" if standby.in_recovery else "not a standby now"
    return (
        f"{kind}, {standby.lag_events:,} events and {standby.lag_seconds:,.1f} s behind the primary "
        f"({standby.lag_bytes or 0:,} bytes to replay): {standby.url}"
    )


def _describe_sealed(sealed: SealedLog, *, has_key: bool) -> str:
    if sealed.sealed_at is None:
        return "nothing yet" if has_key else "no (EVENTSTORE_AUDIT_KEY names no key)"
    age = duration(max((datetime.now(UTC) - sealed.sealed_at).total_seconds(), 0.0))  # a clock was set back
    witnesses = f", {sealed.cosignatures} witness(es)" if sealed.cosignatures else ""
    behind = f"; {sealed.lag_events:,} events are not, the oldest for {duration(sealed.lag_seconds)}"
    return (
        f"{sealed.events:,} events up to position {sealed.position:,}, {age} ago by {text(sealed.origin)} "
        f"{' '.join(sealed.key_ids)}{witnesses}{behind if sealed.lag_events else ''}"
    )


def _describe_retention(retention: RetentionState) -> str:
    holds = f"{retention.holds:,} legal hold(s)" if retention.holds else "no legal holds"
    if retention.waits_since is None:
        return f"no rules, {holds}"
    age = duration((datetime.now(UTC) - retention.waits_since).total_seconds())
    failed = f", {retention.failed:,} FAILED (the log says why)" if retention.failed else ""
    return (
        f"{retention.rules:,} rule(s) of {retention.tenants:,} tenant(s), {holds}; the oldest run, or rule, {age} ago: "
        f"{retention.conversations:,} conversations erased, {retention.held:,} held, {retention.skipped:,} "
        f"skipped{failed}"
    )


def _describe(backup: Manifest | None) -> str:
    if backup is None:
        return "none yet"
    return f"{duration(backup.age_seconds)} old, {backup.events:,} events up to position {backup.position:,}"


def _describe_drill(drill: Drill) -> str:
    age = duration((datetime.now(UTC) - drill.at).total_seconds())
    if drill.failure:
        return f"FAILED {age} ago: {drill.failure}"
    return f"{age} ago: {drill.events:,} events restored in {duration(drill.recovery_seconds)}, as in the live log"
