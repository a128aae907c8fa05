"""Backups, disks, certificates, and what a login may not see or a server does not answer."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from support.certificates import self_signed
from support.commandline import Eventstore
from support.ports import free_port
from support.servers import open_folder
from support.small_disk import fill_up, small_disk
from support.standby import standby_of

from eventstore.database.embedded.embedded_server import EmbeddedServer

from .conftest import Doctor, Installation

pytestmark = [pytest.mark.any_server, pytest.mark.slow]

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


def test_everything_is_ok_in_a_healthy_store_and_the_output_is_short(doctor: Doctor, eventstore: Eventstore) -> None:
    doctor.until_well()
    result = eventstore("doctor")
    assert (result.code, result.err, len(result.lines)) == (0, "", 1)
    assert result.lines[0].startswith("ok           connection, primary, server_version, durability, ")


def test_a_problem_is_two_lines_the_second_of_which_can_be_copied(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTSTORE_BACKUP_DIR")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    result = eventstore("doctor")
    assert result.code == 3
    assert result.lines[0].startswith(
        "critical     connection: no connection to postgresql://nobody@127.0.0.1:1/nothing"
    )
    assert result.lines[1].strip().startswith("start the server, or correct DATABASE_URL")
    assert "not checked  primary, server_version, " in result.out
    assert not any(line.startswith("ok") for line in result.lines)


@pytest.mark.parametrize(("arguments", "code"), [(["--warning", "9", "--critical", "8"], 3), (["--nonsense"], 2)])
def test_wrong_options_are_refused(eventstore: Eventstore, arguments: list[str], code: int) -> None:
    result = eventstore("doctor", *arguments)
    assert (result.code, result.out) == (code, "")


def test_a_setting_that_cannot_be_used_is_an_error(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://somewhere/else")
    result = eventstore("doctor")
    assert (result.code, result.out) == (3, "")
    assert "DATABASE_URL: expected postgresql://" in result.err


def test_an_embedded_server_without_data_is_not_created(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    result = eventstore("doctor", "--data-dir", str(tmp_path / "nothing"))
    assert result.code == 3
    assert "has no data in" in result.out
    assert not (tmp_path / "nothing").exists()


def test_a_database_without_the_schema_is_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_SCHEMA", "elsewhere")
    found = doctor()
    assert doctor.code == 2
    assert found["migrations"][0]["remedy"].startswith("eventstore migrate up")
    assert {found[check][0]["severity"] for check in ("lag", "roles", "digests")} == {"not checked"}


def test_what_a_login_without_rights_may_not_see_is_not_checked(
    doctor: Doctor, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.execute("CREATE ROLE watcher LOGIN; GRANT CONNECT ON DATABASE flowagents TO watcher")
    monkeypatch.setenv("DATABASE_URL", installation.server.url("watcher"))
    found = doctor()
    unseen = {check for check, findings in found.items() if findings[0]["severity"] == "not checked"}
    assert {"migrations", "digests", "lag", "wal_size", "transactions", "disk"} <= unseen
    assert {found[check][0]["severity"] for check in ("durability", "connections", "clock")} == {"ok"}
    assert found["wal_size"][0]["remedy"] == 'GRANT pg_monitor TO "watcher"'
    assert doctor.code == 0
    installation.execute("GRANT eventstore_app, eventstore_projector, pg_monitor TO watcher")
    assert doctor.problems() == set()
    installation.execute("DROP OWNED BY watcher; DROP ROLE watcher")


def test_missing_overdue_and_damaged_backups_are_found(
    doctor: Doctor, eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EVENTSTORE_BACKUP_DIR")
    monkeypatch.setenv("EVENTSTORE_BACKUP_DIR", str(tmp_path / "backups"))
    assert doctor()["backup"][0]["finding"].startswith("there is no backup in")
    assert doctor()["backup"][0]["remedy"] == "eventstore backup create"
    assert eventstore("backup", "create").code == 0
    doctor.until_well()
    monkeypatch.setenv("EVENTSTORE_BACKUP_MINUTES", "0.0001")
    assert doctor()["backup"][0]["severity"] == "critical"
    assert "intervals old" in doctor()["backup"][0]["finding"]
    monkeypatch.delenv("EVENTSTORE_BACKUP_MINUTES")
    [segment] = (tmp_path / "backups" / "log").iterdir()
    segment.unlink()
    assert "1 file(s) of the newest backup are missing" in doctor()["backup"][0]["finding"]
    assert eventstore("backup", "create", "--full").code == 0
    doctor.until_well()
    manifest = max((tmp_path / "backups" / "manifests").iterdir())
    manifest.write_text("{}")
    assert "is not the manifest that was written" in doctor()["backup"][0]["finding"]


def test_retention_rules_that_are_not_applied_are_found(
    doctor: Doctor, eventstore: Eventstore, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = json.loads(eventstore("retention", "add", "300d", "--json").out)
    assert doctor()["retention"][0]["severity"] == "ok"
    monkeypatch.setenv("EVENTSTORE_RETENTION_HOURS", "0.000001")
    assert "of the tenant default has not been applied for" in doctor()["retention"][0]["finding"]
    monkeypatch.delenv("EVENTSTORE_RETENTION_HOURS")
    installation.execute("""UPDATE retention_rules SET outcome = '{"failed": 2}'""")
    assert doctor()["retention"][0]["finding"] == "the last retention runs could not erase 2 conversation(s)"
    assert eventstore("retention", "remove", added["id"]).code == 0
    doctor.until_well()


def test_certificates_that_expire_soon_are_found(doctor: Doctor, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    [found] = doctor("--certificate", str(certificate))["certificates"]
    assert (found["severity"], "(CN=localhost) expires on " in found["finding"]) == ("critical", True)
    long, _ = self_signed(tmp_path, valid=timedelta(days=20))
    assert doctor("--certificate", str(long))["certificates"][0]["severity"] == "warning"
    old, _ = self_signed(tmp_path, valid=timedelta(hours=-1))
    assert "has expired on" in doctor("--certificate", str(old))["certificates"][0]["finding"]
    assert "key.pem" in doctor("--certificate", str(key))["certificates"][0]["finding"]
    good, _ = self_signed(tmp_path, valid=timedelta(days=365))
    assert doctor("--certificate", str(good))["certificates"][0]["severity"] == "ok"


@pytest.mark.skipif(not DEBIAN_15.is_dir(), reason="needs a server with TLS: PostgreSQL 15 of Debian")
def test_the_certificate_of_the_server_and_missing_checksums_are_found(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = self_signed(tmp_path)
    with open_folder() as folder, EmbeddedServer(folder / "server", bin_dir=DEBIAN_15, pg_port=free_port()) as own:
        owner = (folder / "server" / "pgdata").stat()
        for name, source in (("server.crt", certificate), ("server.key", key)):
            target = folder / "server" / "pgdata" / name
            target.write_bytes(source.read_bytes())
            os.chown(target, owner.st_uid, owner.st_gid)
            target.chmod(0o600)
        Installation(own, tmp_path, None, None).execute("ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()")  # type: ignore[arg-type]
        monkeypatch.setenv("DATABASE_URL", f"{own.tcp_url}?sslmode=require")
        found = doctor.until("certificates")
        assert found["finding"].startswith("the certificate of the server at 127.0.0.1:")
        assert doctor.until("checksums")["remedy"].startswith("stop the server, run pg_checksums --enable")
        assert "eventstore migrate up" in doctor.until("migrations")["remedy"]


def test_a_disk_that_is_nearly_full_is_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder, small_disk(folder / "disk") as disk:
        monkeypatch.setenv("EVENTSTORE_BACKUP_DIR", str(disk))
        fill_up(disk, leave=12_000_000)
        [found] = doctor()["disk"]
    assert (found["severity"], str(disk) in found["remedy"]) == ("critical", True)


def test_a_store_without_its_roles_is_found_and_everything_else_is_checked(
    doctor: Doctor, eventstore: Eventstore, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.execute(
        "CREATE ROLE plain LOGIN; GRANT CREATE, TEMPORARY ON DATABASE flowagents TO plain; GRANT pg_monitor TO plain"
    )
    monkeypatch.setenv("DATABASE_URL", installation.server.url("plain"))
    monkeypatch.setenv("EVENTSTORE_SCHEMA", "plain")
    assert eventstore("migrate", "up").code == 0
    found = doctor()
    assert found["roles"][0]["severity"] == "critical"
    assert found["roles"][0]["finding"].startswith("row-level security is not in force: the log belongs to a login")
    assert found["roles"][0]["remedy"] == "eventstore migrate roles"
    assert {found[check][0]["severity"] for check in ("migrations", "integrity", "digests", "lag", "parked")} == {"ok"}
    installation.execute("DROP OWNED BY plain CASCADE; DROP ROLE plain")


def test_a_standby_is_found(own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    with standby_of(own_server) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        found = doctor()
    assert found["primary"][0]["finding"] == "the server is a standby, which only reads"
    assert "target_session_attrs=read-write" in found["primary"][0]["remedy"]
