"""A proof from a long log reads tiles alone, and takes as long as one from a short log.

``EVENTSTORE_TEST_AUDIT_LEAVES=10000000`` tries ten million leaves, and measures the time of a proof.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from statistics import median
from time import perf_counter

import psycopg
import pytest
from support.sealing import NAME, sealing_settings

from agent_manager.audit.merkle import Tree, verify_consistency
from agent_manager.audit.notes import Checkpoint, KeyFile, Policy
from agent_manager.audit.proofs import check_proof, prove
from agent_manager.audit.sealed_tree import consistency_proof, fetching, index_of, root_of
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded

pytestmark = pytest.mark.slow

LEAVES = int(os.environ.get("EVENTSTORE_TEST_AUDIT_LEAVES", "140000"))
"""Above 65,536: three levels of tiles."""
MOST_MILLISECONDS = 10.0


@pytest.fixture
def settings(settings: ServerSettings, tmp_path: Path) -> ServerSettings:
    return sealing_settings(settings, tmp_path)


def entry_of(position: int) -> bytes:
    return position.to_bytes(8) + sha256(position.to_bytes(8)).digest()


def seal_without_events(url: str, keys: KeyFile, events: dict[int, bytes]) -> Tree:
    """Write the tiles of a long log whose events are missing, but for some whose digests are given; return the tree."""
    tree = Tree()
    with psycopg.connect(url) as superuser:
        copy = "COPY audit_tiles (level, index, last_position, hash, content) FROM STDIN"
        with superuser.cursor() as cursor, cursor.copy(copy) as rows:
            for first in range(1, LEAVES + 1, 65_536):
                positions = range(first, min(first + 65_536, LEAVES + 1))
                entries = (p.to_bytes(8) + events[p] if p in events else entry_of(p) for p in positions)
                for tile in tree.add(b"".join(b"\0\x28" + entry for entry in entries)):
                    rows.write_row((tile.level, tile.index, tile.last_position, tile.hash, tile.content))
        note = Checkpoint.sign(NAME, tree.size, tree.root(), keys.private).text
        insert = "INSERT INTO audit_checkpoints (size, last_position, note, bundle) VALUES (%s, %s, %s, %s)"
        superuser.execute(insert, (tree.size, tree.last_position, note, tree.bundle))
    return tree


async def test_a_proof_from_a_long_log_reads_tiles_alone(
    settings: ServerSettings, store: EventStore, superuser_url: str
) -> None:
    keys = KeyFile.read(settings.audit_key or Path())
    numbers = [1, 70_000 % LEAVES, LEAVES // 2, LEAVES - 1]
    await store.append(
        "3e2a3c32-0c1c-4b8e-8c6e-3e2a3c320c1c", [MessageAdded(role="user", content=f"{n}") for n in numbers]
    )
    moved = """
    UPDATE events e
       SET position = %(new)s,
           digest = event_digest(e.salt, %(new)s, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id,
                                 e.tenant_id, e.event_type, e.actor, e.content, e.metadata)
     WHERE e.content ->> 'content' = %(content)s
    RETURNING digest
    """
    digests = {}
    with psycopg.connect(superuser_url) as superuser:
        superuser.execute("ALTER TABLE events DISABLE TRIGGER ALL")
        for number in numbers:
            row = superuser.execute(moved, {"new": number, "content": str(number)}).fetchone()
            assert row is not None
            digests[number] = row[0]
    tree = seal_without_events(superuser_url, keys, digests)
    proofs = [await prove(store, number) for number in numbers]
    for number, proof in zip(numbers, proofs, strict=True):
        check_proof(proof, Policy(keys.keys))
        assert (proof.index, proof.checkpoint.size) == (number - 1, LEAVES)
    fetch = fetching(store)
    assert await index_of(fetch, LEAVES // 3, LEAVES) == LEAVES // 3 - 1
    for old in (1, 255, 65_536, LEAVES - 1, LEAVES):
        path = await consistency_proof(fetch, old, LEAVES)
        verify_consistency(old, await root_of(fetch, old, LEAVES), LEAVES, tree.root(), path)
    times = []
    for _ in range(10):
        for number in numbers:
            began = perf_counter()
            await prove(store, number)
            times.append(1000 * (perf_counter() - began))
    print(f"{LEAVES:,} leaves: a proof takes {median(times):.2f} ms, at least {min(times):.2f} ms")
    assert min(times) < MOST_MILLISECONDS
