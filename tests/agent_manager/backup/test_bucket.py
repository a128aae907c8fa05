"""Backups in an object store, by the protocol of S3."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from time import monotonic
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer
from support.processes import Commands
from support.servers import DatabaseServer

from agent_manager.backup import Archive, Retention, create_backup, open_target, restore_backup, verify_backups
from agent_manager.backup.archive import prune
from agent_manager.backup.targets import TargetFailed
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded
from eventstore.errors import InputError

KILLS = int(os.environ.get("EVENTSTORE_TEST_BACKUP_KILLS", "3"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a folder in a bucket of a server of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    client.create_bucket(Bucket="backups")
    client.close()
    yield f"s3://backups/of/the log {uuid4()}"  # the servers of a process share their buckets
    server.stop()


@pytest.mark.slow
async def test_backups_in_a_bucket_are_verified_pruned_and_restored(
    bucket: str, store: EventStore, server: DatabaseServer
) -> None:
    archive = Archive(open_target(bucket))
    assert archive.ids() == []
    for _ in range(3):
        await store.append(uuid4(), [MessageAdded(role="user", content="é" * 1000)] * 5)
        manifest = await create_backup(store, archive)
    manifests, faults = verify_backups(archive)
    assert (len(manifests), faults) == (3, [])
    assert len(prune(archive, Retention(1, 0, 0))) == 2
    name = server.create_database(migrated=False)
    try:
        restored = await restore_backup(ServerSettings(database_url=server.url(name)), archive, manifest)
    finally:
        server.drop_database(name)
    assert restored.events == 15
    archive.target.delete(manifest.segments[0].name)
    assert [fault.reason for fault in verify_backups(archive)[1]] == ["is missing"]


@pytest.mark.slow
async def test_a_backup_into_a_bucket_is_continued_after_kills_at_any_moment(
    bucket: str, store: EventStore, started: Commands, database_url: str
) -> None:
    for _ in range(60):  # two segments
        await store.append(uuid4(), [MessageAdded(role="user", content="x" * 200)] * 1000)
    rng = random.Random(7)
    began = monotonic()
    assert started.start("backup", "list", bucket, DATABASE_URL=database_url).wait() == 0
    start_seconds = monotonic() - began
    for _ in range(KILLS):
        making = started.start("backup", "create", "--full", bucket, DATABASE_URL=database_url)
        try:
            making.wait(rng.uniform(0.5, 4) * start_seconds)
        except subprocess.TimeoutExpired:
            making.kill()
    making = started.start("backup", "create", bucket, DATABASE_URL=database_url)
    assert making.wait() == 0, making.err
    archive = Archive(open_target(bucket))
    manifests, faults = verify_backups(archive)
    assert faults == []
    assert manifests[-1].events == 60_000


def test_a_bucket_that_cannot_be_used_is_an_error(bucket: str) -> None:
    missing = Archive(open_target("s3://no-such-bucket/backups"))
    with pytest.raises(TargetFailed, match="that the bucket exists"):
        missing.ids()
    with pytest.raises(TargetFailed, match="that the bucket exists"):
        missing.write_drill(b"{}")


def test_an_unknown_kind_of_store_is_an_error() -> None:
    with pytest.raises(InputError, match="s3://bucket/name"):
        open_target("gopher://backups")
