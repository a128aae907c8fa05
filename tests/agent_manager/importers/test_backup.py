"""Backups are complete or absent, and damage is detected."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.demoapp import Manager

from agent_manager.importers.a2a_demo import ManagerSource
from agent_manager.importers.backup import (
    Backup,
    BackupMismatch,
    BackupSource,
    SourceBackupDamaged,
    choose_backup,
    new_backup_path,
    open_backup,
    write_backup,
)
from agent_manager.importers.source import SourceConversation, SourceUnreadable

pytestmark = pytest.mark.any_server


async def write_for(manager: Manager, folder: Path, tenant: str, source: str) -> Backup:
    """Write a backup of a tenant and source, and return it."""
    origin = ManagerSource(manager)
    origin.name = source
    return await write_backup(origin, new_backup_path(folder), tenant)


def rewrite_header(path: Path, **members: object) -> None:
    """Rewrite a backup with other members in its first line."""
    first, *others = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    plain = {name: value for name, value in (json.loads(first) | members).items() if value is not None}
    path.write_bytes(gzip.compress(b"".join([json.dumps(plain).encode() + b"\n", *others])))
    path.with_name(path.name + ".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest(), encoding="utf-8")


def file_names(folder: Path) -> list[str]:
    """Return the names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_a_backup_gives_back_what_its_source_gave(manager: Manager, backups: Path) -> None:
    conversations = [conversation async for conversation in ManagerSource(manager).conversations()]
    backup = await write_backup(ManagerSource(manager), new_backup_path(backups), "acme")
    assert list(backup.read()) == conversations
    again = await write_backup(BackupSource(backup), new_backup_path(backups), "acme")
    assert list(again.read()) == conversations
    assert (again.conversations, again.messages, again.tasks) == (2, 10, 4)
    assert choose_backup(backups, "acme").path == again.path


async def test_the_hash_is_written_beside_the_backup(manager: Manager, backups: Path) -> None:
    backup = await write_backup(ManagerSource(manager), new_backup_path(backups), "acme")
    text = backup.path.with_name(backup.path.name + ".sha256").read_text(encoding="utf-8")
    assert text == f"{hashlib.sha256(backup.path.read_bytes()).hexdigest()}  {backup.path.name}\n"
    assert file_names(backups) == [backup.path.name, backup.path.name + ".sha256"]


async def test_if_the_source_fails_no_backup_is_left(manager: Manager, backups: Path) -> None:
    class Breaking(ManagerSource):
        async def conversations(self) -> AsyncIterator[SourceConversation]:
            yield SourceConversation("a")
            raise SourceUnreadable("it broke off: start it again")

    with pytest.raises(SourceUnreadable):
        await write_backup(Breaking(manager), new_backup_path(backups), "acme")
    assert file_names(backups) == []


async def test_a_damaged_backup_is_rejected(manager: Manager, backups: Path) -> None:
    backup = await write_backup(ManagerSource(manager), new_backup_path(backups), "acme")
    whole = backup.path.read_bytes()
    backup.path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(SourceBackupDamaged, match="SHA-256"):
        open_backup(backup.path)


@pytest.mark.parametrize(
    "content",
    [b"", gzip.compress(b""), gzip.compress(b'{"a": 1}\n'), gzip.compress(b"[")],
    ids=["nothing", "nothing, packed", "another object", "invalid JSON"],
)
def test_a_file_that_is_not_a_backup_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(SourceBackupDamaged, match="give a backup with its"):
        open_backup(path)
    path.with_name("x.jsonl.gz.sha256").write_text(hashlib.sha256(content).hexdigest(), encoding="utf-8")
    with pytest.raises(SourceBackupDamaged, match="is not a backup"):
        open_backup(path)


def test_a_folder_without_backups_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceBackupDamaged, match="there is no backup"):
        choose_backup(tmp_path, "acme")


async def test_the_newest_backup_of_the_tenant_is_chosen(manager: Manager, backups: Path) -> None:
    own = await write_for(manager, backups, "acme", "http://localhost:1")
    await write_for(manager, backups, "globex", "http://localhost:1")
    assert choose_backup(backups, "acme") == own
    assert (own.tenant, own.source) == ("acme", "http://localhost:1")
    with pytest.raises(BackupMismatch, match="tenant 'acme' from http://localhost:1, tenant 'globex'"):
        choose_backup(backups, "initech")


async def test_the_url_chooses_among_several_sources(manager: Manager, backups: Path) -> None:
    first = await write_for(manager, backups, "acme", "http://localhost:1")
    adk = await write_for(manager, backups, "acme", "google-adk")
    second = await write_for(manager, backups, "acme", "http://localhost:2")
    assert choose_backup(backups, "acme", "http://127.0.0.1:1/") == first
    assert choose_backup(backups, "acme", "http://localhost:2") == second
    with pytest.raises(BackupMismatch, match="several sources"):
        choose_backup(backups, "acme")
    second.path.unlink()
    first.path.unlink()
    assert choose_backup(backups, "acme", "http://localhost:3") == adk  # it was not read by a URL


async def test_a_backup_of_an_application_elsewhere_is_chosen_only_for_one_that_may_have_moved(
    manager: Manager, backups: Path
) -> None:
    backup = await write_for(manager, backups, "acme", "http://localhost:1")
    with pytest.raises(BackupMismatch, match="no backup of tenant 'acme' from http://localhost:2"):
        choose_backup(backups, "acme", "http://localhost:2")
    assert choose_backup(backups, "acme", "http://localhost:2", may_have_moved=True) == backup


async def test_a_backup_without_a_tenant_is_rejected(manager: Manager, backups: Path) -> None:
    backup = await write_for(manager, backups, "acme", "http://localhost:1")
    rewrite_header(backup.path, tenant=None, **{"eventstore-backup": 1})
    with pytest.raises(BackupMismatch, match="does not name its tenant"):
        open_backup(backup.path)
    with pytest.raises(BackupMismatch, match="an unnamed tenant from http://localhost:1"):
        choose_backup(backups, "acme")


async def test_a_damaged_newest_backup_is_an_error(manager: Manager, backups: Path) -> None:
    await write_for(manager, backups, "acme", "http://localhost:1")
    newest = await write_for(manager, backups, "acme", "http://localhost:1")
    newest.path.write_bytes(b"")
    with pytest.raises(SourceBackupDamaged, match="is damaged"):
        choose_backup(backups, "acme")


async def test_only_the_owner_can_read_backups(manager: Manager, backups: Path) -> None:
    mask = os.umask(0)
    try:
        backup = await write_for(manager, backups / "further", "acme", "google-adk")
    finally:
        os.umask(mask)
    folder = backup.path.parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"further": 0o700, backup.path.name: 0o600, f"{backup.path.name}.sha256": 0o600}
