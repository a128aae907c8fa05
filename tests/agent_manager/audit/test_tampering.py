"""Changes by a superuser, with triggers disabled and digests computed again, are found; the first event is named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.environment import clear_settings
from support.sealing import NAME, RECOMPUTE, append, create_keys, seal, sealing_settings, tampering, verified
from support.servers import DatabaseServer

from agent_manager.audit.merkle import Tree
from agent_manager.audit.notes import Checkpoint, CheckpointInvalid, KeyFile
from agent_manager.audit.publish import read_published
from agent_manager.audit.sealer import Sealer, SealingStopped
from agent_manager.audit.verify import Expected, Fault
from agent_manager.settings import ServerSettings
from eventstore import EventStore

Superuser = psycopg.Connection[Any]
Tamper = Callable[[Superuser], object]
TABLES = ("events", "audit_tiles", "audit_checkpoints")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
async def sealed(server: DatabaseServer, module_database: str, folder: Path) -> AsyncIterator[EventStore]:
    """A store with 600 sealed events, over three tiles and three checkpoints, and five that are not."""
    with pytest.MonkeyPatch.context() as patch:
        clear_settings(patch)
        settings = ServerSettings(_env_file=None, database_url=server.url(module_database))
    async with EventStore(sealing_settings(settings, folder, audit_file=folder / "published")) as store:
        for number in (200, 300, 100):
            await append(store, number)
            await seal(store)
        await append(store, 5)
        with psycopg.connect(server.superuser_url_of(module_database)) as superuser:
            for table in TABLES:
                superuser.execute(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}".encode())
                superuser.execute(f"GRANT SELECT ON saved_{table} TO PUBLIC".encode())
        yield store


@pytest.fixture
def url(server: DatabaseServer, sealed: EventStore, module_database: str) -> Iterator[str]:
    """The URL of the superuser. What was changed is as before after the test."""
    url = server.superuser_url_of(module_database)
    yield url
    with tampering(url) as superuser:
        for table in TABLES:
            superuser.execute(f"TRUNCATE {table}".encode())
            superuser.execute(f"INSERT INTO {table} SELECT * FROM saved_{table}".encode())


@pytest.fixture
def keys(folder: Path, sealed: EventStore) -> KeyFile:
    return KeyFile.read(folder / "audit.key")


@pytest.fixture
def published(folder: Path, sealed: EventStore) -> list[Expected]:
    """Return what was published before somebody changed the database."""
    return [Expected(each, "the file") for each in read_published(folder / "published")]


def changed(*positions: int) -> Tamper:
    """Change the content of events, and their digests with it."""

    def tamper(superuser: Superuser) -> None:
        where = {"positions": list(positions)}
        changes = """UPDATE events SET content = content || '{"content": "x"}' WHERE position = ANY (%(positions)s)"""
        superuser.execute(changes, where)
        superuser.execute(f"{RECOMPUTE} WHERE e.position = ANY (%(positions)s)".encode(), where)

    return tamper


def executed(*statements: str) -> Tamper:
    def tamper(superuser: Superuser) -> None:
        for statement in statements:
            superuser.execute(statement.encode())

    return tamper


def inserted(position: int) -> Tamper:
    return executed(
        f"INSERT INTO events SELECT {position}, timestamp, version + 1000, schema_version, conversation_id,"
        " gen_random_uuid(), tenant_id, event_type, actor, content, metadata, salt, digest"
        "  FROM events WHERE position = 9",
        RECOMPUTE,
    )


def swapped(first: int, second: int) -> Tamper:
    case = f"CASE position WHEN {first} THEN {second} ELSE {first} END"
    return executed(f"UPDATE events SET position = {case} WHERE position IN ({first}, {second})", RECOMPUTE)


CASES = {
    "content in a full tile": (changed(77), "changed", 77),
    "content in the incomplete tile": (changed(590), "changed", 590),
    "the first event": (changed(1), "changed", 1),
    "two events": (changed(301, 300), "changed", 300),
    "content without its digest": (
        executed("UPDATE events SET content = '{}' WHERE position = 333"), "changed", 333,
    ),
    "the stored digest alone": (
        executed("UPDATE events SET digest = sha256(digest) WHERE position = 333"), "digest", 333,
    ),
    "content, and no salt to compute the digest with": (
        executed("UPDATE events SET content = '{}', salt = NULL WHERE position = 333"), "erased", 333,
    ),
    "an event that is not sealed, without its digest": (
        executed("UPDATE events SET content = '{}' WHERE position = 604"), "digest", 604,
    ),
    "the time of an event, by a microsecond": (
        executed("UPDATE events SET timestamp = timestamp + '1 us' WHERE position = 400", RECOMPUTE), "changed", 400,
    ),
    "the tenant of an event": (
        executed("UPDATE events SET tenant_id = 'other' WHERE position = 500", RECOMPUTE), "changed", 500,
    ),
    "an event in the middle removed": (executed("DELETE FROM events WHERE position = 256"), "removed", 256),
    "the first event removed": (executed("DELETE FROM events WHERE position = 1"), "removed", 1),
    "the tail removed": (executed("DELETE FROM events WHERE position > 450"), "removed", 451),
    "the last sealed event removed": (executed("DELETE FROM events WHERE position >= 600"), "removed", 600),
    "all events removed": (executed("TRUNCATE events"), "removed", 1),
    "an event inserted before the first": (inserted(0), "inserted", 0),
    "an event inserted at the lowest position": (inserted(-(2**63)), "inserted", -(2**63)),
    "an event inserted beside another": (inserted(300), "inserted", 300),
    "two events swapped": (swapped(100, 101), "reordered", 100),
    "two events of two tiles swapped": (swapped(210, 550), "reordered", 210),
    "an event, and a tile before it": (
        lambda superuser: (changed(580)(superuser), superuser.execute("DELETE FROM audit_tiles WHERE index = 0")),
        "changed", 580,
    ),
    "an event, and the entry of another": (
        lambda superuser: (
            changed(280)(superuser),
            superuser.execute("UPDATE audit_tiles SET content = overlay(content placing '\\x00' from 500)"),
        ), "rewritten", None,
    ),
    "a tile, and not its events": (
        executed("UPDATE audit_tiles SET content = overlay(content placing '\\x00' from 500)"), "tile", None,
    ),
    "a tile removed": (executed("DELETE FROM audit_tiles WHERE index = 1"), "tile", None),
    "entries of a checkpoint": (
        executed("UPDATE audit_checkpoints SET bundle = substr(bundle, 43) WHERE size = 600"), "tile", None,
    ),
    "the root in a checkpoint": (
        executed("UPDATE audit_checkpoints SET note = replace(note, E'\\n600\\n', E'\\n601\\n')"), "checkpoint", None,
    ),
    "all checkpoints removed": (executed("TRUNCATE audit_checkpoints, audit_tiles"), "checkpoint", None),
}  # fmt: skip


@pytest.mark.parametrize(("tamper", "kind", "position"), CASES.values(), ids=CASES)
async def test_the_first_event_that_differs_is_named(
    tamper: Tamper, kind: str, position: int, sealed: EventStore, url: str, keys: KeyFile
) -> None:
    intact = await verified(sealed, keys)
    assert (intact.faults, intact.sealed, intact.unsealed, intact.checkpoints) == ([], 600, 5, 3)
    with tampering(url) as superuser:
        tamper(superuser)
    [first, *_] = (await verified(sealed, keys)).faults
    assert (first.kind, first.position) == (kind, position)


async def test_a_function_that_computes_other_digests_is_named(sealed: EventStore, url: str, keys: KeyFile) -> None:
    with psycopg.connect(url, autocommit=True) as superuser:
        [original] = superuser.execute("SELECT pg_get_functiondef('event_digest'::regproc)").fetchone() or ("",)
    returns = original.index("RETURN sha256")
    with tampering(url) as superuser:
        superuser.execute("UPDATE events SET content = '{}' WHERE position = 77")
        digest = "(SELECT e.digest FROM events e WHERE e.position = event_digest.position)"
        superuser.execute(f"{original[:returns]} RETURN {digest}".encode())
    try:
        [fault] = (await verified(sealed, keys)).faults
    finally:
        with psycopg.connect(url) as superuser:
            superuser.execute(original.encode())
    assert fault.kind == "function"
    assert "event_digest" in fault.message


def resealed(keys: KeyFile) -> Tamper:
    """Seal the events as they are now, as somebody does who has the superuser's password and some key."""

    def tamper(superuser: Superuser) -> None:
        rows = superuser.execute(
            "SELECT position, digest FROM events WHERE position <= 600 ORDER BY position"
        ).fetchall()
        superuser.execute("TRUNCATE audit_tiles, audit_checkpoints")
        tree = Tree()
        for tile in tree.add(b"".join(b"\0\x28" + position.to_bytes(8) + digest for position, digest in rows)):
            columns = (tile.level, tile.index, tile.last_position, tile.hash, tile.content)
            superuser.execute("INSERT INTO audit_tiles VALUES (%s, %s, %s, %s, %s)", columns)
        note = Checkpoint.sign(keys.name, tree.size, tree.root(), keys.private).text
        insert = "INSERT INTO audit_checkpoints (size, last_position, note, bundle) VALUES (%s, %s, %s, %s)"
        superuser.execute(insert, (tree.size, tree.last_position, note, tree.bundle))

    return tamper


async def first_fault(store: EventStore, keys: KeyFile, published: list[Expected]) -> Fault:
    return (await verified(store, keys, *published)).faults[0]


async def test_tiles_that_were_changed_with_the_events_do_not_hide_the_change(
    sealed: EventStore, url: str, keys: KeyFile
) -> None:
    with tampering(url) as superuser:
        changed(150)(superuser)
        superuser.execute("CREATE TEMPORARY TABLE signed AS SELECT * FROM audit_checkpoints")
        resealed(keys)(superuser)
        superuser.execute("TRUNCATE audit_checkpoints")
        superuser.execute("INSERT INTO audit_checkpoints SELECT * FROM signed")
    [fault, *_] = (await verified(sealed, keys)).faults
    assert fault.kind == "rewritten"
    assert "size 200" in fault.message
    assert "after the beginning of the log" in fault.message


async def test_a_log_that_was_sealed_anew_with_another_key_is_not_signed(
    sealed: EventStore, url: str, keys: KeyFile, published: list[Expected], tmp_path: Path
) -> None:
    forged = create_keys(tmp_path / "forged.key")
    with tampering(url) as superuser:
        changed(150)(superuser)
        resealed(forged)(superuser)
    assert (await first_fault(sealed, keys, [])).kind == "checkpoint"
    assert keys.keys[0].id in (await first_fault(sealed, keys, [])).message
    with pytest.raises(CheckpointInvalid, match="not by a key that is trusted"):
        await Sealer(sealed).seal()
    with pytest.raises(CheckpointInvalid, match=f"not by a key that is trusted .*{forged.keys[0].id}"):
        await verified(sealed, forged, *published)  # the file of keys was swapped too


async def test_a_log_that_was_sealed_anew_with_the_right_key_contradicts_what_was_published(
    sealed: EventStore, url: str, keys: KeyFile, published: list[Expected]
) -> None:
    with tampering(url) as superuser:
        changed(150)(superuser)
        resealed(keys)(superuser)
    assert (await verified(sealed, keys)).faults == []  # who has the key can sign anything
    fault = await first_fault(sealed, keys, published)
    assert (fault.kind, "which is in the file" in fault.message) == ("rewritten", True)
    with pytest.raises(SealingStopped, match="a checkpoint of size 600 that this log does not continue"):
        await Sealer(sealed).seal()


async def test_a_database_that_is_replaced_by_an_older_one_contradicts_what_was_published(
    sealed: EventStore, url: str, keys: KeyFile, published: list[Expected]
) -> None:
    with tampering(url) as superuser:  # as it was at the second checkpoint
        superuser.execute("DELETE FROM events WHERE position > 500")
        superuser.execute("DELETE FROM audit_checkpoints WHERE size > 500")
        superuser.execute("DELETE FROM audit_tiles WHERE last_position > 500")
    assert (await verified(sealed, keys)).faults == []
    fault = await first_fault(sealed, keys, published)
    assert fault.kind == "rewritten"
    assert "the log has 500 events, and 600 were sealed" in fault.message
    with pytest.raises(SealingStopped, match="size 600"):
        await Sealer(sealed).seal()


async def test_a_checkpoint_whose_row_was_removed_is_missed(
    sealed: EventStore, url: str, keys: KeyFile, published: list[Expected]
) -> None:
    with tampering(url) as superuser:
        superuser.execute("DELETE FROM audit_checkpoints WHERE size = 600")
    fault = await first_fault(sealed, keys, published)
    assert (fault.kind, "rows of audit_checkpoints were removed" in fault.message) == ("checkpoint", True)


async def test_a_log_of_another_name_is_not_trusted(
    sealed: EventStore, published: list[Expected], folder: Path
) -> None:
    assert published[0].checkpoint.origin == NAME
    other = KeyFile.read(folder / "audit.key").keys[0]
    renamed = type(other)("example.com/other", other.kind, other.key)
    with pytest.raises(CheckpointInvalid):
        await verified(sealed, KeyFile(None, (), (renamed,)), *published)
