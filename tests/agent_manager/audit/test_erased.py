"""Proofs of erased events: those that were made before an erasure hold, and so do those that are made after it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from uuid import UUID, uuid4

import pytest
from support.environment import TREE
from support.sealing import append, seal, sealing_settings, tampering, verified

from agent_manager.audit.notes import KeyFile, Policy
from agent_manager.audit.proofs import check_proof, parse_proof, prove
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded


@pytest.fixture
def settings(settings: ServerSettings, tmp_path: Path) -> ServerSettings:
    return sealing_settings(settings, tmp_path)


@pytest.fixture
def keys(settings: ServerSettings) -> KeyFile:
    assert settings.audit_key is not None
    return KeyFile.read(settings.audit_key)


@pytest.fixture
def independent() -> ModuleType:
    """The verifier in plain Python."""
    spec = importlib.util.spec_from_file_location("verify_sealed_log", TREE / "docs/verify_sealed_log.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def sealed_message(store: EventStore) -> tuple[UUID, int]:
    """Append messages, seal them, and return the conversation and the position of one."""
    conversation = uuid4()
    await append(store, 3)
    secret = MessageAdded(role="user", content="pomegranate")
    position = (await store.append(conversation, [secret])).position
    await append(store, 3)
    await seal(store)
    return conversation, position


async def test_proofs_hold_before_and_after(store: EventStore, keys: KeyFile, independent: ModuleType) -> None:
    conversation, position = await sealed_message(store)
    before = (await prove(store, position)).text
    await store.erase(conversation)
    after = await prove(store, position)
    assert after.event == {"position": position, "digest": after.entry[8:].hex()}
    for text in (before, after.text):
        check_proof(parse_proof(text), Policy(keys.keys))
        assert independent.verify(text, [str(keys.keys[0])])
    assert "pomegranate" not in independent.verify(after.text, [str(keys.keys[0])])
    await seal(store)
    found = await verified(store, keys)
    assert (found.faults, found.events) == ([], 8)


@pytest.mark.parametrize(
    ("statement", "is_receipted"),
    [
        ("UPDATE events SET salt = NULL WHERE position = %(position)s", False),
        ('UPDATE events SET content = content || \'{"content": "forged"}\' WHERE position = %(position)s', True),
        ("UPDATE events SET actor = 'forged' WHERE position = %(position)s", True),
        (
            "UPDATE events SET content = content - 'versions' WHERE event_type = 'conversation.erased'",
            True,
        ),
        ("DELETE FROM events WHERE event_type = 'conversation.erased'", True),
    ],
)
async def test_what_looks_erased_and_is_not_is_reported(
    store: EventStore, keys: KeyFile, superuser_url: str, statement: str, is_receipted: bool
) -> None:
    conversation, position = await sealed_message(store)
    if is_receipted:
        await store.erase(conversation)
    with tampering(superuser_url) as superuser:
        superuser.execute(statement.encode(), {"position": position})
    faults = (await verified(store, keys)).faults
    assert "erased" in {fault.kind for fault in faults}
    [fault] = [fault for fault in faults if fault.kind == "erased"]
    assert (fault.position, fault.conversation_id) == (position, conversation)
