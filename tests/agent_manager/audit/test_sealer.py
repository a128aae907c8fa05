"""The sealer follows the log, never beyond its horizon, signs one history only, and publishes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pymerkle import InmemoryTree
from support.raw import append_raw, append_raw_async
from support.scoped_queries import open_as_login
from support.sealing import TABLES, append, create_keys, seal, sealing_settings, tampering, verified
from support.waiting import until_async
from support.witness import Witness, witness

from agent_manager.audit import publish as publishing
from agent_manager.audit.export import export_tiles
from agent_manager.audit.notes import Checkpoint, CheckpointInvalid, KeyFile, KeyInvalid, Policy
from agent_manager.audit.proofs import check_proof, prove, prove_consistency
from agent_manager.audit.publish import PublishFailed, fetch_published, read_published
from agent_manager.audit.sealed_tree import checkpoint_of, fetching, last_checkpoint
from agent_manager.audit.sealer import Sealer, SealingStopped, sealing
from agent_manager.audit.status import read_sealed_log
from agent_manager.settings import ServerSettings
from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import InputError, NotFound

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(settings: ServerSettings, tmp_path: Path) -> ServerSettings:
    return sealing_settings(settings, tmp_path, audit_file=tmp_path / "published")


@pytest.fixture
def keys(settings: ServerSettings) -> KeyFile:
    assert settings.audit_key is not None
    return KeyFile.read(settings.audit_key)


@pytest.fixture
def server_of_witness(keys: KeyFile) -> Iterator[Witness]:
    with witness(*keys.keys) as served:
        yield served


async def test_nothing_beyond_the_horizon_is_sealed(store: EventStore, keys: KeyFile) -> None:
    await append(store, 3)
    async with await open_as_login(store) as late, late.transaction():
        await append_raw_async(late, 1)
        last = await append(store, 300)  # visible before an event with a lower position is
        assert await seal(store) == 3
    assert await seal(store) == 304
    found = await verified(store, keys)
    assert (found.faults, found.sealed) == ([], 304)
    assert (await prove(store, last)).index == 303


async def test_gaps_between_positions_are_no_leaves(store: EventStore, keys: KeyFile, superuser_url: str) -> None:
    async with await open_as_login(store) as connection:
        for _ in range(3):
            async with connection.transaction(force_rollback=True):
                await append_raw_async(connection, 1, 2, 3)
            await append(store, 100)
    assert await seal(store) == 300
    with psycopg.connect(superuser_url) as superuser:
        superuser.execute("SELECT setval('events_position', 4000000000)")
    last = await append(store, 2)
    assert await seal(store) == 302
    assert last > 4_000_000_000
    assert [(await prove(store, position)).index for position in (4, 107, last)] == [0, 100, 301]
    with pytest.raises(NotFound):
        await prove(store, 105)
    assert (await verified(store, keys)).faults == []


async def test_sealers_of_several_processes_make_one_tree_while_the_log_grows(
    settings: ServerSettings, store: EventStore, keys: KeyFile
) -> None:
    """Each verification in between finds nothing: it compares with what was sealed when it began."""
    await append(store, 40)
    await seal(store)
    async with EventStore(settings) as other:
        sealers = [asyncio.create_task(Sealer(each).run()) for each in (store, other)]
        for _ in range(12):
            await asyncio.gather(*(append(store, 40, uuid4()) for _ in range(4)))
            assert (await verified(other, keys)).faults == []

        async def is_sealed() -> bool:
            return (await read_sealed_log(store)).events == 12 * 160 + 40

        await until_async(is_sealed, "everything is sealed")
        await cancel_and_wait(sealers)
    found = await verified(store, keys)
    assert (found.faults, found.sealed) == ([], 12 * 160 + 40)
    published = read_published(settings.audit_file or Path())
    assert sorted({each.size for each in published}) == [each.size for each in published]
    for old in published:
        (await prove_consistency(store, old, published[-1])).check()


async def test_a_process_that_ends_in_the_middle_of_a_round_has_sealed_nothing_of_it(
    store: EventStore, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(store, 600)

    def fail(*_: object, **__: object) -> None:
        raise InputError("the key cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr("agent_manager.audit.notes.Checkpoint.sign", fail)
        with pytest.raises(InputError):
            await Sealer(store).seal()
    assert await last_checkpoint(fetching(store)) is None
    assert await seal(store) == 600
    assert (await verified(store, keys)).faults == []


async def test_a_round_ends_while_appends_go_on(
    store: EventStore, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    sign = Checkpoint.sign

    def sign_meanwhile(*given: Any) -> Checkpoint:  # in a thread
        asyncio.run_coroutine_threadsafe(append(store, 1), loop).result()
        return sign(*given)

    monkeypatch.setattr(Checkpoint, "sign", sign_meanwhile)
    await append(store, 10)
    assert await seal(store) == 10
    assert await seal(store) == 11


async def test_every_size_can_be_sealed_and_proved(store: EventStore, keys: KeyFile) -> None:
    sizes = []
    for number in (1, 254, 1, 1, 255, 1, 300):
        await append(store, number)
        sizes.append(await seal(store))
    assert sizes == [1, 255, 256, 257, 512, 513, 813]
    policy = Policy(keys.keys)
    for size in sizes:
        checkpoint = await checkpoint_of(fetching(store), size)
        for position in {1, size // 2 + 1, size}:
            proof = await prove(store, position, checkpoint)
            check_proof(proof, policy)
            assert (proof.index, proof.checkpoint.size) == (position - 1, size)
        for older in sizes[: sizes.index(size) + 1]:
            check_proof(await prove_consistency(store, await checkpoint_of(fetching(store), older), checkpoint), policy)


async def test_a_rotated_key_signs_beside_the_old_one_until_that_is_retired(
    settings: ServerSettings, store: EventStore, keys: KeyFile
) -> None:
    [old] = keys.keys
    await append(store, 1)
    await seal(store)
    keys.rotated().write()
    await append(store, 1)
    await seal(store)
    both = KeyFile.read(settings.audit_key or Path())
    both.retired(old.id).write()
    await append(store, 1)
    await seal(store)
    [new, _] = both.keys
    signers = [(await checkpoint_of(fetching(store), size)).signers(both.keys) for size in (1, 2, 3)]
    assert signers == [[old], [new, old], [new]]
    after = KeyFile.read(settings.audit_key or Path())
    assert (after.keys, len(after.private)) == ((new, old), 1)
    assert (await verified(store, after)).faults == []
    with pytest.raises(KeyInvalid, match="is the only private key"):
        after.retired(new.id)


async def test_a_file_of_other_keys_does_not_go_on_with_the_log(
    settings: ServerSettings, store: EventStore, keys: KeyFile, tmp_path: Path
) -> None:
    await append(store, 1)
    await seal(store)
    create_keys(tmp_path / "other.key").path.replace(settings.audit_key or Path())  # type: ignore[union-attr]
    await append(store, 1)
    with pytest.raises(CheckpointInvalid, match=keys.keys[0].id):
        await seal(store)


async def test_tiles_that_were_changed_end_the_sealing(
    store: EventStore, superuser_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await append(store, 300)
    await seal(store)
    with tampering(superuser_url) as superuser:
        superuser.execute("UPDATE audit_tiles SET hash = sha256(hash)")
    await append(store, 1)
    with caplog.at_level(logging.ERROR):
        async with sealing(store):

            async def is_logged() -> bool:
                return "the log is not sealed: the tiles in the database do not give the root" in caplog.text

            await until_async(is_logged, "the error is logged")
    assert (await read_sealed_log(store)).events == 300


async def test_what_was_sealed_cannot_be_changed_and_is_added_by_workers_alone(
    store: EventStore,
) -> None:
    await append(store, 300)
    await seal(store)
    async with await store.connect("eventstore_owner") as owner:
        for table in TABLES[1:]:
            for change in (f"DELETE FROM {table}", f"UPDATE {table} SET size = 1", f"TRUNCATE {table}"):
                text = change.replace("size", "level") if table == "audit_tiles" else change
                with pytest.raises(psycopg.errors.RestrictViolation, match=f"on the table {table} is refused"):
                    await owner.execute(text.encode())
    for role in ("eventstore_app", "eventstore_writer", "eventstore_reader", "eventstore_auditor"):
        async with await store.connect(role) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("SELECT FROM audit_tiles")


# Tiles as files


async def test_exported_files_have_the_layout_of_tlog_tiles(store: EventStore, keys: KeyFile, tmp_path: Path) -> None:
    for number in (300, 500):
        await append(store, number)
        await seal(store)
        await export_tiles(store, tmp_path / "tiles")
    files = {str(path.relative_to(tmp_path / "tiles")) for path in (tmp_path / "tiles").rglob("*") if path.is_file()}
    assert files == {
        "checkpoint", "tile/0/000", "tile/0/001", "tile/0/002", "tile/0/001.p/44", "tile/0/003.p/32", "tile/1/000.p/1",
        "tile/1/000.p/3", "tile/entries/000", "tile/entries/001", "tile/entries/002", "tile/entries/001.p/44",
        "tile/entries/003.p/32",
    }  # fmt: skip
    [checkpoint] = read_published(tmp_path / "tiles/checkpoint")
    assert (checkpoint.size, checkpoint.signers(keys.keys)) == (800, list(keys.keys))
    names = ("000", "001", "002", "003.p/32")
    other = InmemoryTree(algorithm="sha256")
    for name in names:
        entries, hashes = ((tmp_path / "tiles/tile" / level / name).read_bytes() for level in ("entries", "0"))
        for number in range(len(hashes) // 32):
            other.append_entry(entries[42 * number + 2 : 42 * number + 42])
            assert other.get_leaf(other.get_size()) == hashes[32 * number : 32 * number + 32]
    assert other.get_root() == checkpoint.root
    assert (tmp_path / "tiles/tile/1/000.p/3").read_bytes()[:32] == other.get_root(256)


# Publishing


async def test_a_checkpoint_is_cosigned_and_published_everywhere(
    settings: ServerSettings, server_of_witness: Witness, keys: KeyFile, tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    policy.write_text(server_of_witness.policy(), encoding="utf-8")
    command = f"cat > {tmp_path}/by-command"
    more = {"audit_policy": policy, "audit_url": f"{server_of_witness.url}/checkpoint", "audit_command": command}
    async with EventStore(settings.model_copy(update=more)) as store:
        for number in (3, 300):
            await append(store, number)
            await seal(store)
        newest = await last_checkpoint(fetching(store))
        assert newest is not None
        assert len(newest.signatures) == 2
        assert server_of_witness.published == (tmp_path / "by-command").read_text(encoding="utf-8") == newest.text
        assert [each.size for each in read_published(tmp_path / "published")] == [3, 303]
        assert read_published(tmp_path / "published")[-1] == newest
        assert await fetch_published(f"{server_of_witness.url}/checkpoint") == [newest]
        signers, cosigners = check_proof(await prove(store, 1), Policy.read(policy))
        assert (signers, list(cosigners)) == (list(keys.keys), [server_of_witness.key.public])
        assert (await read_sealed_log(store)).cosignatures == 1


async def test_a_witness_that_is_away_delays_nothing_and_is_asked_again(
    settings: ServerSettings, server_of_witness: Witness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = tmp_path / "policy"
    policy.write_text(server_of_witness.policy(), encoding="utf-8")
    server_of_witness.is_away = True
    async with EventStore(settings.model_copy(update={"audit_policy": policy})) as store, sealing(store):
        await append(store, 1)

        async def is_published() -> bool:
            return bool(read_published(tmp_path / "published")) and "the witness w1 answered 503" in caplog.text

        await until_async(is_published, "it is published without the witness")
        with pytest.raises(CheckpointInvalid, match="lacks cosignatures of the quorum w1"):
            check_proof(await prove(store, 1), Policy.read(policy))
        server_of_witness.is_away = False

        async def is_cosigned() -> bool:
            return (await read_sealed_log(store)).cosignatures == 1

        await until_async(is_cosigned, "the witness has cosigned")


async def test_a_witness_that_has_seen_a_longer_log_convicts_an_older_database(
    settings: ServerSettings, server_of_witness: Witness, superuser_url: str, tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    policy.write_text(server_of_witness.policy(), encoding="utf-8")
    async with EventStore(settings.model_copy(update={"audit_policy": policy, "audit_file": None})) as store:
        for _ in range(2):
            await append(store, 5)
            await seal(store)
        with tampering(superuser_url) as superuser:
            superuser.execute("DELETE FROM events WHERE position > 5")
            superuser.execute("DELETE FROM audit_checkpoints WHERE size > 5")
        sealer = Sealer(store)
        await sealer.seal(at_once=True)
        await append(store, 1)
        await sealer.seal(at_once=True)
        assert sealer.checkpoint is not None
        await sealer.publish(sealer.checkpoint)
    assert ["has seen this log with 10 events, and it has 6 now" in failure for failure in sealer.failures] == [True]


async def test_a_process_that_has_signed_a_longer_log_does_not_sign_an_older_one(
    settings: ServerSettings, superuser_url: str
) -> None:
    async with EventStore(settings.model_copy(update={"audit_file": None})) as store:
        sealer = Sealer(store)
        for _ in range(2):
            await append(store, 5)
            await sealer.seal(at_once=True)
        with tampering(superuser_url) as superuser:
            superuser.execute("DELETE FROM events WHERE position > 5")
            superuser.execute("DELETE FROM audit_checkpoints WHERE size > 5")
        await append(store, 20)
        with pytest.raises(SealingStopped, match="the database has 5 sealed events, and a checkpoint of 10 was signed"):
            await sealer.seal(at_once=True)


async def test_a_clock_that_was_set_back_does_not_stop_the_sealing(
    settings: ServerSettings, store: EventStore, superuser_url: str
) -> None:
    await append(store, 5)
    await seal(store)
    with tampering(superuser_url) as superuser:
        superuser.execute("UPDATE audit_checkpoints SET sealed_at = sealed_at + interval '1 hour'")
    await append(store, 5)
    assert await Sealer(store).seal()


async def test_a_sequence_that_was_set_back_stops_the_sealing(store: EventStore, superuser_url: str) -> None:
    await append(store, 5)
    await seal(store)
    sealer = Sealer(store)
    with psycopg.connect(superuser_url) as superuser:
        superuser.execute("SELECT setval('events_position', 2)")
    await append(store, 1)
    for _ in range(2):
        with pytest.raises(SealingStopped, match="the sequence events_position is at 3, below the last"):
            await sealer.seal(at_once=True)


async def test_a_proof_from_an_older_database_names_what_is_missing(
    settings: ServerSettings, store: EventStore, superuser_url: str
) -> None:
    for _ in range(2):
        await append(store, 5)
        await seal(store)
    older, newer = [await checkpoint_of(fetching(store), size) for size in (5, 10)]
    with tampering(superuser_url) as superuser:
        superuser.execute("DELETE FROM audit_checkpoints WHERE size > 5")
    for old, new in ((older, newer), (newer, older)):
        with pytest.raises(NotFound, match="the log has 5 sealed events, fewer than the checkpoint of size 10"):
            await prove_consistency(store, old, new)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"audit_command": "exit 3"}, "EVENTSTORE_AUDIT_COMMAND: ended with 3"),
        ({"audit_command": "echo broken >&2; false"}, "broken"),
        ({"audit_command": "sleep 60"}, "EVENTSTORE_AUDIT_COMMAND: took longer than 0.2 s"),
        ({"audit_url": "http://127.0.0.1:1/checkpoint"}, "EVENTSTORE_AUDIT_URL: ConnectError"),
        ({"audit_file": Path("/nowhere/published")}, "EVENTSTORE_AUDIT_FILE: "),
        ({"audit_file": Path(__file__)}, "is not a checkpoint"),
    ],
    ids=["command", "its error", "its time", "url", "file", "another file"],
)
async def test_a_target_that_fails_is_named_and_the_others_get_the_checkpoint(
    settings: ServerSettings, target: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "COMMAND_SECONDS", 0.2)
    async with EventStore(settings) as store:
        await append(store, 1)
        assert await seal(store) == 1
        checkpoint = await last_checkpoint(fetching(store))
    assert checkpoint is not None
    (tmp_path / "published").unlink()
    failing = settings.model_copy(update={"audit_command": f"cat > {tmp_path}/by-command"} | target)
    [failure] = await publishing.publish(checkpoint, failing)
    assert expected in failure
    assert ("audit_command" in target) != (tmp_path / "by-command").exists()
    assert ("audit_file" in target) != (tmp_path / "published").exists()


async def test_what_a_url_returns_must_be_a_checkpoint(server_of_witness: Witness) -> None:
    url = f"{server_of_witness.url}/checkpoint"
    assert await fetch_published(url) == []
    server_of_witness.published = "hello\n"
    with pytest.raises(CheckpointInvalid):
        await fetch_published(url)
    server_of_witness.is_away = True
    with pytest.raises(PublishFailed, match="503"):
        await fetch_published(url)
    with pytest.raises(PublishFailed, match="ConnectError"):
        await fetch_published("http://127.0.0.1:1/")


def test_events_are_appended_as_before(database_url: str, superuser_url: str) -> None:
    """No statement of an append reads or writes what is sealed."""
    with psycopg.connect(superuser_url) as superuser:
        for table in TABLES[1:]:
            superuser.execute(f"DROP TABLE {table}".encode())
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE eventstore_writer")
        assert append_raw(connection, "a", "b") == [1, 2]
