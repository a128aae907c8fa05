"""Backups made by processes: killed and continued, and scheduled by a service."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from support.processes import Commands
from support.servers import open_folder
from support.waiting import until

from agent_manager.backup import Archive, create_backup, last_drill, open_target, restore_backup, verify_backups
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(open_target(str(tmp_path / "backups")))


async def _append(settings: Settings, events: int) -> None:
    async with EventStore(settings) as store:
        for _ in range(events // 1000):
            await store.append(uuid4(), [MessageAdded(role="user", content="x" * 200)] * 1000)


@pytest.mark.slow
def test_a_backup_that_was_killed_is_continued(
    started: Commands, database_url: str, settings: Settings, archive: Archive, tmp_path: Path
) -> None:
    asyncio.run(_append(settings, 200_000))
    killed = 0
    while not archive.ids():
        making = started.start("backup", "create", str(tmp_path / "backups"), DATABASE_URL=database_url)
        before = archive.incomplete()
        until(
            lambda: archive.ids() or ((now := archive.incomplete()) and now != before),  # noqa: B023
            "a further segment, or the end",
        )
        killed += making.kill() is None and not archive.ids()
    assert killed >= 2
    manifest = archive.manifest()
    assert manifest.events == 200_000
    assert verify_backups(archive) == ([manifest], [])


@pytest.mark.slow
def test_a_service_makes_backups_and_shows_the_age_of_the_newest(
    started: Commands, database_url: str, archive: Archive, tmp_path: Path
) -> None:
    schedule = {
        "EVENTSTORE_BACKUP_DIR": str(tmp_path / "backups"),
        "EVENTSTORE_BACKUP_MINUTES": "0.05",
        "EVENTSTORE_BACKUP_DRILL_HOURS": "0.001",  # 3.6 seconds
    }
    services = [started.start("up", "--no-http", DATABASE_URL=database_url, **schedule) for _ in range(2)]
    for service in services:
        service.until_printed("Ctrl-C")
    assert f"Backups     every 0.05 minutes, into {tmp_path / 'backups'}" in services[0].out
    before = until(archive.ids, "a backup")
    until(lambda: archive.ids() != before, "a later backup")
    until(lambda: last_drill(archive), "a drill", 120)
    shown = started.start("status", DATABASE_URL=database_url, **schedule)
    assert shown.wait() == 0
    assert "old, 0 events up to position 0" in shown.out
    assert "ago: 0 events restored in" in shown.out
    until(lambda: len(archive.ids()) == 1, "of one day, one is kept")
    assert all(service.interrupt() == 0 for service in services)
    assert "failed" not in "".join(service.err for service in services)


@pytest.mark.slow
def test_a_drill_removes_what_a_killed_one_has_left_and_its_failure_is_shown(
    started: Commands, database_url: str, settings: Settings, archive: Archive
) -> None:
    asyncio.run(_append(settings, 1000))
    with open_folder() as folder:
        environment = {
            "DATABASE_URL": database_url,
            "EVENTSTORE_BACKUP_DIR": str(archive.target),
            "TMPDIR": str(folder),
        }

        def drill(code: int) -> str:
            running = started.start("backup", "drill", **environment)
            assert running.wait(120) == code, running.err
            assert list(folder.glob("eventstore-drill-*")) == []
            return running.err

        assert started.start("backup", "create", **environment).wait() == 0
        killed = started.start("backup", "drill", **environment)
        until(lambda: list(folder.glob("eventstore-drill-*/data/pgdata/postmaster.pid")), "its server runs")
        killed.kill()
        [left] = folder.glob("eventstore-drill-*")
        stopped = started.start("backup", "drill", **environment)
        until(
            lambda: not left.exists() and list(folder.glob("eventstore-drill-*/data/pgdata/postmaster.pid")),
            "its server runs, and what was left is removed",
        )
        assert stopped.interrupt(signal.SIGTERM) == 130
        drill(0)
        [segment] = archive.manifest().segments
        archive.target.delete(segment.name)
        assert "is missing" in drill(1)
        shown = started.start("status", **environment)
        assert shown.wait() == 0
        assert "FAILED" in shown.out
        assert "is missing" in shown.out


@pytest.mark.slow
def test_a_service_on_the_embedded_server_makes_backups(started: Commands, archive: Archive, tmp_path: Path) -> None:
    with open_folder() as folder:
        service = started.start(
            "up", "--no-http", "--data-dir", str(folder / "data"), EVENTSTORE_BACKUP_DIR=str(tmp_path / "backups")
        )
        until(lambda: archive.ids() or "failed" in service.err, "a backup", 120)
        assert "failed" not in service.err
        assert service.interrupt() == 0


@pytest.mark.slow
def test_a_backup_that_fails_is_reported(started: Commands, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "backups").write_text("a file, not a folder")
    service = started.start(
        "up", "--no-http", DATABASE_URL=database_url, EVENTSTORE_BACKUP_DIR=str(tmp_path / "backups")
    )
    until(lambda: "the backup failed: " in service.err, "the report")
    assert "Traceback" not in service.err
    assert service.interrupt() == 0


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN_15.exists(), reason="PostgreSQL 15 is not installed in Debian's place")
@pytest.mark.parametrize("from_oldest", [True, False])
async def test_a_backup_is_restored_on_another_major_version(
    clean_environment: None, archive: Archive, from_oldest: bool
) -> None:
    with open_folder() as folder:
        oldest = EmbeddedServer(folder / "oldest", bin_dir=DEBIAN_15, database="flowagents")
        newest = EmbeddedServer(folder / "newest", database="flowagents")
        with oldest, newest:
            urls = [oldest.url(), newest.url()]
            source, other = (ServerSettings(database_url=url) for url in (urls if from_oldest else urls[::-1]))
            Migrator(str(source.server_url()), source).up()
            async with EventStore(source) as store:
                await store.append(uuid4(), [MessageAdded(role="user", content="é \\ \t\n 東京")] * 50)
                manifest = await create_backup(store, archive)
            assert (await restore_backup(other, archive, manifest)).events == 50
            logs = []
            for settings in (source, other):
                url = settings.server_url()
                assert url is not None
                with psycopg.connect(url) as connection:
                    connection.execute("SET ROLE eventstore_projector")
                    logs.append(connection.execute("SELECT * FROM events ORDER BY position").fetchall())
            assert logs[0] == logs[1][:50]
            assert (len(logs[0]), len(logs[1])) == (50, 51)  # the restore is an administrative act
