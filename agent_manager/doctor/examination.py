"""The checks in their order, and their run within a limited time. It only reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from agent_manager.doctor.database import CHECKS as DATABASE_CHECKS
from agent_manager.doctor.database import ERASURES, DatabaseExamination, Limits
from agent_manager.doctor.finding import Finding, Report, Severity
from agent_manager.doctor.host import check_backup, check_disk, check_files, data_folders, server_certificate
from agent_manager.settings import ServerSettings
from eventstore.database.schema_comparison import SyncConnection
from eventstore.database.server import Server
from eventstore.errors import EventStoreError, SettingsError, printable, translated
from projections import load_projections

CHECKS = {
    "connection": "the server accepts connections",
    **{name: check.if_ok for name, check in DATABASE_CHECKS.items()},
    "disk": "there is free space",
    "backup": "there is a recent backup",
    "erasures": ERASURES.if_ok,
    "certificates": "no certificate expires within a month",
}
"""The names of all checks, with what is true if nothing is wrong."""
_OUTSIDE_SECONDS = 15.0
"""For a check of files or of a bucket, which may lie on a network file system that hangs."""
_ARCHIVES_WAL = "SELECT current_setting('archive_mode') <> 'off'"


def examine(settings: ServerSettings, limits: Limits, certificates: Iterable[Path] = ()) -> Report:
    """Examine the server, the database and the store of the settings, their backups, disks and certificates.

    Args:
        certificates: files of further certificates, such as that of the HTTP server.

    Raises:
        SettingsError: a setting cannot be used.
    """
    findings: list[Finding] = []
    folders: list[Path] = []
    archives_wal = False
    is_complete = True
    try:
        server = Server(settings, migrate=False)
        if server.embedded is not None and not (server.embedded.data_dir / "pgdata").exists():
            findings.append(_no_data(server.embedded.data_dir))
            is_complete = False
        else:
            if server.embedded is not None:  # also if it does not start, because its disk is full
                folders = [server.embedded.data_dir]
            with server, server.migrator().connect() as connection, translated():
                findings += _examine_database(connection, settings, limits)
                folders = folders or data_folders(connection)
                archives_wal = connection.execute(_ARCHIVES_WAL).fetchone() == (True,)
                findings += _within_seconds("certificates", lambda: server_certificate(connection))
    except SettingsError:
        raise
    except EventStoreError as error:
        findings.append(Finding.of_error("connection", error))
        is_complete = False
    findings += _within_seconds("disk", lambda: check_disk(settings, folders))
    findings += _within_seconds("backup", lambda: check_backup(settings, archives_wal=archives_wal))
    findings += _within_seconds("certificates", lambda: check_files(settings, certificates))
    return Report(tuple(_with_ok(findings, is_complete)), is_complete)


def _examine_database(connection: SyncConnection, settings: ServerSettings, limits: Limits) -> list[Finding]:
    names = [projection.name for projection in load_projections(settings.projections)]
    examination = DatabaseExamination(connection, settings, limits, names)
    return examination.run() + _within_seconds("erasures", examination.erasures)


def _no_data(data_dir: Path) -> Finding:
    return Finding(
        "connection",
        Severity.CRITICAL,
        f"no server is configured, and the embedded one has no data in {data_dir}",
        "set DATABASE_URL, EVENTSTORE_DATA_DIR or --data-dir; eventstore up creates the data",
    )


def _within_seconds(check: str, work: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of a check, or that it took too long: its thread does not keep the process from ending."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(work())
        except EventStoreError as error:
            found.append(Finding.of_error(check, error))
        except Exception as error:  # of the operating system, or an object store's own
            found.append(Finding(check, Severity.NOT_CHECKED, printable(str(error))))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_OUTSIDE_SECONDS)
    if thread.is_alive():
        return [Finding(check, Severity.NOT_CHECKED, f"it took longer than {_OUTSIDE_SECONDS:g} s")]
    return found


def _with_ok(findings: list[Finding], is_complete: bool) -> list[Finding]:
    """Return the findings, the worst first, and one for each check that found nothing."""
    found = {finding.check for finding in findings}
    for name, if_ok in CHECKS.items():
        if name not in found:
            is_of_server = name in DATABASE_CHECKS or name in ("certificates", "erasures")
            findings.append(
                Finding(name, Severity.OK, if_ok)
                if is_complete or not is_of_server
                else Finding(name, Severity.NOT_CHECKED, "the server could not be examined")
            )
    severities, checks = list(Severity), list(CHECKS)
    return sorted(findings, key=lambda each: (severities.index(each.severity), checks.index(each.check)))
