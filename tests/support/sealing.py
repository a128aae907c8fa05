"""A sealed log for tests: its keys, its settings, and a superuser who changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from agent_manager.audit.notes import KeyFile, Policy, PrivateKey
from agent_manager.audit.sealer import Sealer
from agent_manager.audit.verify import Expected, Verification, verify
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded, NewEvent

NAME = "example.com/log"
SECONDS = 0.05
"""From one checkpoint to the next, in tests."""


def create_keys(path: Path) -> KeyFile:
    """Write a file with a new key, and return it."""
    keys = KeyFile(path, (PrivateKey.create(NAME),))
    keys.write(is_new=True)
    return keys


def sealing_settings(settings: ServerSettings, folder: Path, **others: Any) -> ServerSettings:
    """Return the settings with a key in a folder."""
    path = folder / "audit.key"
    if not path.exists():
        create_keys(path)
    return settings.model_copy(update={"audit_key": path, "audit_seconds": SECONDS, **others})


async def append(store: EventStore, number: int, conversation: UUID | None = None) -> int:
    """Append messages to a conversation; return the last position."""
    messages = [NewEvent(MessageAdded(role="user", content=f"message {index}")) for index in range(number)]
    return (await store.append(conversation or uuid4(), messages)).position


async def seal(store: EventStore) -> int:
    """Seal the log up to its end, and return its size."""
    sealer = Sealer(store)
    await sealer.seal(at_once=True)
    assert sealer.checkpoint is not None
    await sealer.publish(sealer.checkpoint)
    return sealer.checkpoint.size


async def verified(store: EventStore, keys: KeyFile, *elsewhere: Expected) -> Verification:
    """Return the verification of a log, with the keys that are trusted."""
    return await verify(store, Policy(keys.keys), elsewhere)


TABLES = ("events", "audit_tiles", "audit_checkpoints", "audit_cosignatures")


@contextmanager
def tampering(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of a superuser who has disabled all triggers, until the end of the block."""
    with psycopg.connect(url) as connection:
        triggers = connection.execute(
            "SELECT t.tgrelid::regclass::text, t.tgname FROM pg_trigger t"
            " WHERE t.tgrelid = ANY (%s::regclass[]) AND NOT t.tgisinternal",
            (list(TABLES),),
        ).fetchall()
        for table, trigger in triggers:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}".encode())
        yield connection
        for table, trigger in triggers:
            connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}".encode())


RECOMPUTE = """
UPDATE events e
   SET digest = event_digest(e.salt, e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id,
                             e.tenant_id, e.event_type, e.actor, e.content, e.metadata)
"""
"""The statement of a careful superuser after a change: every digest is that of its content again."""
