"""The commands backup create, list, verify, restore, prune and drill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commandline import Eventstore, rows_of
from support.servers import DatabaseServer

from agent_manager.backup import Archive, open_target


def archive_ids(target: str) -> list[str]:
    return Archive(open_target(target)).ids()


def test_backups_are_made_listed_verified_tried_and_pruned(
    empty: Eventstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: DatabaseServer
) -> None:
    target = str(tmp_path / "its backups")
    empty("seed")
    assert "no backups yet: eventstore backup create makes one" in empty("backup", "list", target).err
    assert "has no backup: make one" in empty("backup", "verify", target).err
    made = json.loads(empty("backup", "create", target, "--json").out)
    assert (made["events"], made["position"]) == (15, 15)
    monkeypatch.setenv("EVENTSTORE_BACKUP_DIR", target)
    assert empty("backup", "create").out.startswith("backup 2")
    assert [row["events"] for row in rows_of(empty, "backup", "list")] == [15, 15]
    assert "2 backup(s) intact: " in empty("backup", "verify").out
    empty("seed")
    assert (
        f"the database has the events of {archive_ids(target)[-1]}" in empty("backup", "verify", "--with-database").out
    )
    assert empty("backup", "prune", "--daily", "1").lines == ["deleted 1 backup(s)"]
    assert "s old, 15 events up to position 15" in empty("status").out
    shown = json.loads(empty("status", "--json").out)
    assert (shown["backup"]["events"], shown["drill"]) == (15, None)
    assert 0 <= shown["backup"]["age_seconds"] < 60
    name = server.create_database(migrated=False)
    try:
        monkeypatch.setenv("DATABASE_URL", server.url(name))
        restored = empty("backup", "restore", "--position", "12")
        assert restored.code == 0
        assert "restored 12 events of backup" in restored.out
        compared = empty("backup", "verify", "--with-database")
        assert compared.code == 1
        assert "the database has other events (12, not 15)" in compared.err
        refused = empty("backup", "restore")
        assert (refused.code, refused.out) == (1, "")
        assert "has events or tenants already: restore into a new one" in refused.err
    finally:
        server.drop_database(name)


@pytest.mark.slow
def test_a_drill_reports_what_a_restore_takes(empty: Eventstore, tmp_path: Path) -> None:
    empty("seed")
    empty("backup", "create", str(tmp_path / "backups"))
    assert "15 events, as in the live log" in empty("backup", "drill", str(tmp_path / "backups")).out


def test_files_that_no_backup_names_are_listed(empty: Eventstore, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    empty("seed")
    empty("backup", "create", str(target))
    (target / "identity" / "left.copy.gz").touch()
    verified = empty("backup", "verify", str(target))
    assert (verified.code, verified.err) == (0, "identity/left.copy.gz: no backup names it\n")


def test_damage_is_reported_and_the_exit_code_is_1(empty: Eventstore, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    empty("seed")
    empty("backup", "create", str(target))
    [segment] = (target / "log").iterdir()
    segment.write_bytes(segment.read_bytes()[:-1])
    verified = empty("backup", "verify", str(target))
    assert verified.code == 1
    assert f"log/{segment.name}: is damaged" in verified.err
    assert (
        json.loads(empty("backup", "verify", str(target), "--json").out)["faults"][0]["name"] == f"log/{segment.name}"
    )


@pytest.mark.parametrize("command", ["create", "list", "verify", "restore", "prune", "drill"])
def test_a_target_must_be_named(empty: Eventstore, command: str) -> None:
    refused = empty("backup", command)
    assert (refused.code, refused.out) == (1, "")
    assert "EVENTSTORE_BACKUP_DIR: name a directory" in refused.err


def test_an_unknown_backup_is_an_error(empty: Eventstore, tmp_path: Path) -> None:
    for command in ("restore", "verify"):
        refused = empty("backup", command, str(tmp_path), "--id", "20200101T000000000000Z")
        assert (refused.code, refused.out) == (1, "")
        assert "eventstore backup list shows them" in refused.err
