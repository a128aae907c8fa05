"""The checks of what is outside the database: disks, backups, certificates."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from psycopg.conninfo import conninfo_to_dict
from rich.filesize import decimal

from agent_manager.backup.archive import Archive
from agent_manager.backup.targets import Folder, open_target
from agent_manager.doctor.finding import Finding, Severity
from agent_manager.settings import ServerSettings
from eventstore.database.embedded.embedded_server import free_space
from eventstore.database.schema_comparison import SyncConnection
from eventstore.database.server import FULL_DISK_BYTES
from eventstore.errors import printable

_FREE = {Severity.CRITICAL: 0.03, Severity.WARNING: 0.1}
"""The part of a file system that is free, below which it is a problem."""
_EXPIRES = {Severity.CRITICAL: timedelta(days=7), Severity.WARNING: timedelta(days=30)}
_OVERDUE = {Severity.CRITICAL: 10, Severity.WARNING: 2}
"""The age of the newest backup, in intervals from one backup to the next."""
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_CONNECT_SECONDS = 5.0
_LOCAL = ("127.0.0.1", "::1", "localhost", "")


def data_folders(connection: SyncConnection) -> list[Path]:
    """Return the folders of the server's data on this machine, as far as they are known."""
    host = connection.info.host
    row = connection.execute("SELECT setting FROM pg_settings WHERE name = 'data_directory'").fetchone()
    if row is None or not (host in _LOCAL or host.startswith("/")):
        return []
    folder = Path(row[0])
    return [each for each in (folder, folder / "pg_wal") if _exists(each)]


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # in a folder that this account may not enter
        return False


def check_disk(settings: ServerSettings, data_folders: list[Path]) -> list[Finding]:
    """Check the free space of the data's folders and of the directory of backups."""
    target = open_target(settings.backup_dir) if settings.backup_dir else None
    found = []
    for folder in [*data_folders, *([target.path] if isinstance(target, Folder) else [])]:
        free = free_space(folder)
        part = free / shutil.disk_usage(_existing(folder)).total
        severity = next((severity for severity, least in _FREE.items() if part < least), None)
        if free < FULL_DISK_BYTES:
            severity = Severity.CRITICAL
        if severity is not None:
            what = f"{decimal(free)} are free for {folder}, {part:.0%} of its file system"
            found.append(
                Finding("disk", severity, what, f"make room: du -xh --max-depth=2 {folder} shows what is large")
            )
    if not data_folders:
        what = "the server's data is on another machine, or the login may not see where"
        found.append(Finding("disk", Severity.NOT_CHECKED, what, "run eventstore doctor there, or df -h"))
    return found


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def check_backup(settings: ServerSettings, *, archives_wal: bool) -> list[Finding]:
    """Check the age of the newest backup, and that its files are there.

    Args:
        archives_wal: whether the server archives WAL, so that backups may be made by other tools.
    """
    if not settings.backup_dir:
        if archives_wal:
            return []
        remedy = "set EVENTSTORE_BACKUP_DIR for eventstore up, or use PostgreSQL's tools (docs/guides/operations.md)"
        return [Finding("backup", Severity.WARNING, "no backups are made: EVENTSTORE_BACKUP_DIR is not set", remedy)]
    archive = Archive(open_target(settings.backup_dir))
    manifests, damaged = archive.manifests()
    found = [Finding.of_error("backup", error) for error in damaged]
    if not manifests:
        what = f"there is no backup in {settings.backup_dir}"
        return [*found, Finding("backup", Severity.CRITICAL, what, "eventstore backup create")]
    newest = manifests[-1]
    intervals = (datetime.now(UTC) - newest.created_at) / timedelta(minutes=settings.backup_minutes)
    severity = next((severity for severity, most in _OVERDUE.items() if intervals > most), None)
    if severity is not None:
        is_incomplete = archive.incomplete() is not None
        what = f"the newest backup is of {newest.created_at:%Y-%m-%d %H:%M} UTC, {intervals:,.0f} intervals old" + (
            "; a later one was interrupted or has failed" if is_incomplete else ""
        )
        remedy = "eventstore backup create shows why it fails; eventstore up must run with EVENTSTORE_BACKUP_DIR"
        found.append(Finding("backup", severity, what, remedy))
    sizes = {name: file.size for name, file in archive.files().items()}
    if lost := [part.name for part in newest.parts if sizes.get(part.name) != part.size]:
        what = f"{len(lost)} file(s) of the newest backup are missing or have another size, first {printable(lost[0])}"
        remedy = "eventstore backup verify lists them; eventstore backup create --full writes them anew"
        found.append(Finding("backup", Severity.CRITICAL, what, remedy))
    return found


def server_certificate(connection: SyncConnection) -> list[Finding]:
    """Check the certificate that the server shows, if the connection is encrypted."""
    if not connection.pgconn.ssl_in_use:
        return []
    info = connection.info
    with socket.create_connection((info.hostaddr or info.host, info.port), _CONNECT_SECONDS) as plain:
        plain.sendall(_SSL_REQUEST)
        if plain.recv(1) != b"S":
            return []
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is looked at; nothing is sent
        with context.wrap_socket(plain) as encrypted:
            der = encrypted.getpeercert(binary_form=True)
    assert der is not None
    return _check_certificate(x509.load_der_x509_certificate(der), f"the server at {info.host}:{info.port}")


def check_files(settings: ServerSettings, certificates: Iterable[Path]) -> list[Finding]:
    """Check files of certificates, and those that the URL of the server names."""
    parameters = conninfo_to_dict(settings.server_url() or "")
    named = [Path(str(parameters[name])) for name in ("sslcert", "sslrootcert") if parameters.get(name)]
    found = []
    for path in (*(each for each in named if each.name != "system"), *certificates):
        try:
            loaded = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            what = f"{path}: {printable(str(error))}"
            found.append(Finding("certificates", Severity.CRITICAL, what, "name a readable PEM file"))
            continue
        found += [finding for each in loaded for finding in _check_certificate(each, str(path))]
    return found


def _check_certificate(certificate: x509.Certificate, where: str) -> list[Finding]:
    now = datetime.now(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    name = f"the certificate of {where} ({printable(certificate.subject.rfc4514_string(), 100)})"
    if begin > now:
        what = f"{name} is not valid before {begin:%Y-%m-%d %H:%M} UTC"
        return [Finding("certificates", Severity.CRITICAL, what, "correct the clock, or install another certificate")]
    severity = next((severity for severity, least in _EXPIRES.items() if end - now < least), None)
    if severity is None:
        return []
    what = f"{name} {'has expired' if end <= now else 'expires'} on {end:%Y-%m-%d %H:%M} UTC"
    return [Finding("certificates", severity, what, "renew it, and reload or restart what uses it")]
