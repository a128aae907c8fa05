"""A backup is restored into a manager like the demo's, and into the library's own."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support import demoapp
from support.demoapp import AgentCard, Manager

from agent_manager.factory import application_manager
from agent_manager.importers import migrate_from, restore_into
from agent_manager.importers.a2a_demo import ManagerSource
from agent_manager.importers.backup import SourceBackupDamaged, new_backup_path, write_backup
from agent_manager.importers.restore import RestoreImpossible
from eventstore import Settings


async def backup_path(manager: Any, backups: Path) -> Path:
    return (await write_backup(ManagerSource(manager), new_backup_path(backups), "default")).path


async def conversations_of(manager: Any) -> list[dict[str, Any]]:
    return [asdict(conversation) async for conversation in ManagerSource(manager).conversations()]


async def test_everything_is_restored_into_a_manager(manager: Manager, backups: Path) -> None:
    manager.agents.append(AgentCard(name="a", url="http://a"))
    path = await backup_path(manager, backups)
    other = Manager()
    restored = restore_into(other, path, types=demoapp)
    assert (restored.conversations, restored.messages, restored.tasks, restored.agents) == (2, 10, 4, 1)
    assert other.conversations[0].messages == manager.conversations[0].messages
    assert await conversations_of(other) == await conversations_of(manager)


async def test_restoring_again_adds_nothing(manager: Manager, backups: Path) -> None:
    path = await backup_path(manager, backups)
    restored = restore_into(manager, path, types=demoapp)
    assert (restored.conversations, restored.messages, restored.tasks, restored.agents) == (0, 0, 0, 0)


async def test_the_environment_names_the_file(manager: Manager, backups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Manager()
    assert restore_into(other, types=demoapp).conversations == 0
    monkeypatch.setenv("EVENTSTORE_RESTORE", str(await backup_path(manager, backups)))
    assert restore_into(other, types=demoapp).conversations == 2


async def test_everything_is_restored_into_the_librarys_own_manager(manager: Manager, backups: Path) -> None:
    path = await backup_path(manager, backups)
    with application_manager(storage="memory", types=demoapp) as own:
        assert restore_into(own, path).messages == 10
        assert [conversation.conversation_id for conversation in own.conversations] == ["first", "second"]
        assert own.conversations[0].messages == manager.conversations[0].messages
        assert [task.history for task in own.tasks] == [task.history for task in manager.tasks]
        assert [task.artifacts for task in own.tasks] == [task.artifacts for task in manager.tasks]
        assert restore_into(own, path).messages == 10
        assert len(own.conversations[0].messages) == 5


def test_the_librarys_own_manager_can_be_migrated(settings: Settings, backups: Path) -> None:
    with application_manager(storage="memory", types=demoapp) as own:
        conversation = own.create_conversation("Trip")
        own.save_message({"role": "user", "parts": [{"text": "hi"}], "messageId": "m"}, conversation.conversation_id)
        report = migrate_from(own, settings=settings, backups=backups)
        assert report.is_clean
        assert (report.verified.conversations, report.verified.messages) == (1, 1)
        assert migrate_from(own, settings=settings, backups=backups).new_events == 0


async def test_a_manager_without_lists_is_rejected(manager: Manager, backups: Path) -> None:
    path = await backup_path(manager, backups)
    with pytest.raises(RestoreImpossible, match="keeps no list of conversations"):
        restore_into(object(), path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceBackupDamaged, match=r"x\.jsonl\.gz"):
        restore_into(Manager(), tmp_path / "x.jsonl.gz", types=sys.modules[__name__])
