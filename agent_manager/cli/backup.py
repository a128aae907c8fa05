"""The commands backup create, list, verify, restore, prune and drill."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.filesize import decimal
from typer import Argument, Option

from agent_manager.backup import (
    Archive,
    Drill,
    Manifest,
    Retention,
    compare_with_database,
    create_backup,
    drill,
    open_target,
    prune,
    restore_backup,
    verify_backups,
)
from agent_manager.cli.options import DataDir, Json, LogFormat, LogLevel, Reason, read_settings, run, run_stoppable
from agent_manager.cli.output import RowFormat, duration, print_json, print_remark, print_result, print_rows, text
from agent_manager.settings import ServerSettings
from eventstore import EventStore
from eventstore.errors import SettingsError
from eventstore.times import parse_time

backup = typer.Typer(help="Back up the log incrementally; verify, restore, try and prune backups.")

Where = Annotated[
    str | None,
    Argument(metavar="[TARGET]", help="A directory, or the URL of a bucket, s3://…  (EVENTSTORE_BACKUP_DIR)."),
]
BackupId = Annotated[str | None, Option("--id", metavar="ID", help="A backup, as listed; the newest by default.")]
Daily = Annotated[int, Option("--daily", min=0, help="Keep the last backup of this many days.")]
Weekly = Annotated[int, Option("--weekly", min=0, help="Keep the last backup of this many weeks.")]
Monthly = Annotated[int, Option("--monthly", min=0, help="Keep the last backup of this many months.")]


@backup.command("create")
def backup_create(
    where: Where = None,
    is_full: Annotated[
        bool, Option("--full", help="Write the whole log anew, which also replaces damaged files of earlier backups.")
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Write the events since the last backup, and the tenants, users and keys.

    Reading and writing continue meanwhile. After an interruption the same command continues.
    """
    settings = read_settings(data_dir, log_format=log_format, log_level=log_level)
    archive = open_archive(where, settings)

    async def work(store: EventStore) -> Manifest:
        return await create_backup(store, archive, is_full=is_full)

    made = run(work, settings)
    print_result(
        backup_value(made),
        f"backup {made.id}: {made.events:,} events up to position {made.position:,}, {decimal(made.size)}",
        as_json=as_json,
    )
    if made.complete_to < made.created_at:
        print_remark(
            f"events appended since {text(made.complete_to)} are not all in it: an append in flight holds the log back "
            "(eventstore status shows it)"
        )


@backup.command("list")
def backup_list(where: Where = None, as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the backups, oldest first."""
    archive = open_archive(where, read_settings(data_dir))
    manifests, damaged = archive.manifests()
    for error in damaged:
        print_remark(str(error))
    print_rows(
        manifests,
        RowFormat(
            ("id", "age", ">events", ">position", ">size"),
            lambda row: (
                row.id, duration(row.age_seconds), row.events, row.position, decimal(row.size)
            ),
            backup_value,
        ),
        nothing="no backups yet: eventstore backup create makes one",
        as_json=as_json,
    )  # fmt: skip


@backup.command("verify")
def backup_verify(
    where: Where = None,
    backup_id: BackupId = None,
    with_database: Annotated[
        bool,
        Option("--with-database", help="Also compare the log of the database with the backup, by default the newest."),
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Read every byte of the backups, or of one, without a database, and compute the digest of every event anew.

    Exits with 1 if a file is missing or damaged, or differs from the database. Files that no backup names are listed:
    they are remnants of an interruption, or their manifest was deleted.
    """
    settings = read_settings(data_dir)
    archive = open_archive(where, settings)
    manifests, faults = verify_backups(archive, backup_id)
    is_compared = with_database and not faults
    if is_compared:
        faults = run(lambda store: compare_with_database(store, archive, manifests[-1]), settings)
    unnamed = [] if backup_id else sorted(archive.unnamed_files([*manifests, *filter(None, [archive.incomplete()])]))
    if as_json:
        print_json({"backups": [manifest.id for manifest in manifests], "faults": faults, "unnamed": unnamed})
    else:
        for fault in faults:
            print_remark(f"{fault.name}: {fault.reason}")
        for name in unnamed:
            print_remark(f"{name}: no backup names it")
        parts = {part.name: part for manifest in manifests for part in manifest.parts}
        if faults:
            typer.echo(f"{len(faults)} of {len(parts)} files {'differ' if is_compared else 'cannot be restored'}")
        else:
            size = sum(part.size for part in parts.values())
            compared = f"; the database has the events of {manifests[-1].id}" if is_compared else ""
            typer.echo(f"{len(manifests)} backup(s) intact: {len(parts)} files, {decimal(size)}{compared}")
    if faults:
        raise typer.Exit(1)


@backup.command("restore")
def backup_restore(
    where: Where = None,
    backup_id: BackupId = None,
    position: Annotated[int | None, Option(min=0, help="Only the events up to this position.")] = None,
    time: Annotated[
        str | None, Option(metavar="TIME", help="Only the events before the first one appended after this time.")
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Restore a backup into an empty database: the one that DATABASE_URL names, or a new embedded one.

    Positions, versions, ids, times and digests are those of the backup. The migrations are applied, the digest of every
    event is computed anew, and the read tables are filled from the log. What was erased after the backup was made is
    erased again, by the receipts beside the backups. After an error the database is empty as before.
    """
    settings = read_settings(data_dir, reason=reason, log_format=log_format, log_level=log_level)
    archive = open_archive(where, settings)
    manifest = archive.manifest(backup_id)
    limit = None if time is None else parse_time(time, "--time")
    restored = run_stoppable(restore_backup(settings, archive, manifest, position=position, time=limit))
    again = f"; events of {restored.erased_again:,} conversation(s) were erased again" if restored.erased_again else ""
    print_result(
        restored,
        f"restored {restored.events:,} events of backup {manifest.id}, up to position {restored.position:,}, "
        f"in {duration(restored.seconds)}; every digest is right{again}",
        as_json=as_json,
    )


@backup.command("prune")
def backup_prune(
    where: Where = None,
    daily: Daily = Retention.daily,
    weekly: Weekly = Retention.weekly,
    monthly: Monthly = Retention.monthly,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Delete backups but the newest, and the last ones of so many days, weeks and months."""
    deleted = prune(open_archive(where, read_settings(data_dir)), Retention(daily, weekly, monthly))
    print_result({"deleted": deleted}, f"deleted {len(deleted)} backup(s)", as_json=as_json)


@backup.command("drill")
def backup_drill(
    where: Where = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Restore the newest backup into a temporary server beside the live one, compare the two logs, and remove it.

    The temporary server is an embedded one, in TMPDIR; the live one is only read from.
    """
    settings = read_settings(data_dir, log_format=log_format, log_level=log_level)
    archive = open_archive(where, settings)

    async def work() -> Drill:
        async with EventStore(settings) as store:
            return await drill(store, archive)

    done = run_stoppable(work())
    print_result(
        done,
        f"backup {done.backup_id} restored in {duration(done.recovery_seconds)}: {done.events:,} events, as in the "
        f"live log; it is {duration(done.age_seconds)} old, and {done.events_since:,} events were appended since",
        as_json=as_json,
    )


def open_archive(where: str | None, settings: ServerSettings) -> Archive:
    """Return the archive that the argument names, or else the setting."""
    named = where or settings.backup_dir
    if not named:
        raise SettingsError("EVENTSTORE_BACKUP_DIR: name a directory or bucket there, or as an argument")
    return Archive(open_target(named))


def backup_value(manifest: Manifest) -> dict[str, object]:
    """Return what programs read of a backup."""
    return {
        "id": manifest.id,
        "created_at": manifest.created_at,
        "complete_to": manifest.complete_to,
        "age_seconds": manifest.age_seconds,
        "events": manifest.events,
        "position": manifest.position,
        "bytes": manifest.size,
    }
