"""Backups: whole or not at all, and damage is seen."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.demoapp import Manager

from agent_manager.migrating.backup import (
    BackupDamaged,
    BackupSource,
    backup_path,
    newest_backup,
    open_backup,
    write_backup,
)
from agent_manager.migrating.managers import ManagerSource
from agent_manager.migrating.source import SourceConversation, SourceUnreadable

pytestmark = pytest.mark.any_server


def files(folder: Path) -> list[str]:
    """The names of what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_a_backup_gives_back_what_its_source_gave(manager: Manager, backups: Path) -> None:
    given = [conversation async for conversation in ManagerSource(manager).conversations()]
    backup = await write_backup(ManagerSource(manager), backup_path(backups))
    assert list(backup.read()) == given
    again = await write_backup(BackupSource(backup), backup_path(backups))
    assert list(again.read()) == given
    assert (again.conversations, again.messages, again.tasks) == (2, 10, 4)
    assert newest_backup(backups) == again.path


async def test_its_sum_lies_beside_it(manager: Manager, backups: Path) -> None:
    backup = await write_backup(ManagerSource(manager), backup_path(backups))
    text = backup.path.with_name(backup.path.name + ".sha256").read_text(encoding="utf-8")
    assert text == f"{hashlib.sha256(backup.path.read_bytes()).hexdigest()}  {backup.path.name}\n"
    assert files(backups) == [backup.path.name, backup.path.name + ".sha256"]


async def test_a_source_that_breaks_off_leaves_nothing(manager: Manager, backups: Path) -> None:
    class Breaking(ManagerSource):
        async def conversations(self) -> AsyncIterator[SourceConversation]:
            yield SourceConversation("a")
            raise SourceUnreadable("it broke off: start it again")

    with pytest.raises(SourceUnreadable):
        await write_backup(Breaking(manager), backup_path(backups))
    assert files(backups) == []


async def test_damage_is_seen(manager: Manager, backups: Path) -> None:
    backup = await write_backup(ManagerSource(manager), backup_path(backups))
    whole = backup.path.read_bytes()
    backup.path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(BackupDamaged, match="SHA-256"):
        open_backup(backup.path)


@pytest.mark.parametrize(
    "content",
    [b"", gzip.compress(b""), gzip.compress(b'{"a": 1}\n'), gzip.compress(b"[")],
    ids=["nothing", "nothing, packed", "another object", "no JSON"],
)
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(BackupDamaged, match="give a backup with its"):
        open_backup(path)
    path.with_name("x.jsonl.gz.sha256").write_text(hashlib.sha256(content).hexdigest(), encoding="utf-8")
    with pytest.raises(BackupDamaged, match="is no backup"):
        open_backup(path)


def test_a_folder_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupDamaged, match="no backup is there"):
        newest_backup(tmp_path)
