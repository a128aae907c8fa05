"""Exports of the trail: in each format, checked by the command and by a program that shares no code with the store."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commandline import Eventstore, program_in_process
from support.environment import TREE
from support.sealing import NAME, append, create_keys, seal, sealing_settings, tampering

from agent_manager.audit.merkle import Tree, leaf_hashes, multi_path, node_hash, root_of_leaves, root_of_tile
from agent_manager.audit.notes import KeyFile, Policy
from agent_manager.audit.trail_export import ProofInvalid, check_export, export_trail, proof_of_export
from agent_manager.cli import main
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded, NewEvent
from eventstore.errors import InputError

FORMATS = ("jsonl", "csv", "parquet")


def bundle_of(size: int) -> bytes:
    return b"".join(b"\0\x28" + number.to_bytes(8) + bytes(32) for number in range(size))


@given(st.integers(1, 70).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_a_proof_of_several_leaves_leads_to_the_root_and_no_other_leaves_do(chosen: tuple[int, set[int]]) -> None:
    size, numbers = chosen
    tree = Tree()
    tree.add(bundle_of(size))
    hashes = leaf_hashes(bundle_of(size))
    leaves = [(number, hashes[number]) for number in sorted(numbers)]

    def root_of(nodes: list[tuple[int, int]]) -> bytes:
        [(height, index), *others] = nodes
        whole = root_of_tile(hashes[index << height : (index + 1) << height])
        return whole if not others else node_hash(whole, root_of(others))

    path = [root_of(nodes) for nodes in multi_path(sorted(numbers), size)]
    assert root_of_leaves(leaves, size, path) == tree.root()
    for wrong in (leaves[:-1], [*leaves, (size, bytes(32))], [(n, bytes(32)) for n, _ in leaves], leaves * 2):
        if wrong != leaves and leaves:
            with suppress(ProofInvalid):
                assert root_of_leaves(wrong, size, path) != tree.root()


@pytest.fixture
async def sealed(settings: ServerSettings, tmp_path: Path) -> Any:
    """A store whose log has 700 events of two conversations, of which the last 20 are not sealed."""
    async with EventStore(sealing_settings(settings, tmp_path)) as store:
        first, second = uuid4(), uuid4()
        for number in (1, 299, 300, 80):
            await append(store, number, first)
            first, second = second, first
        await seal(store)
        await append(store, 20, first)
        yield store, first


def keys_of(folder: Path) -> Policy:
    return Policy(KeyFile.read(folder / "audit.key").keys)


def stranger(file: Path, key: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(TREE / "docs/verify_trail.py"), str(file), key]
    return subprocess.run(script, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("ending", FORMATS)
async def test_an_export_is_checked_by_a_stranger(sealed: Any, ending: str, tmp_path: Path) -> None:
    store, conversation = sealed
    file = tmp_path / f"trail.{ending}"
    odd = MessageAdded(
        role="user", content='a "quoted", line\r\nand \u2028 \U0001f600, \\ a comma', metadata={"n": 1.10}
    )
    await store.append(conversation, [NewEvent(odd, actor="ana,\nbob")])
    await seal(store)
    await append(store, 5, conversation)
    for filters, number, unsealed in (
        ({}, 701, 5), ({"conversation_id": conversation}, 322, 5),
        ({"actor": "ana,\nbob"}, 1, 0), ({"actor": "no"}, 0, 0),
    ):  # fmt: skip
        exported = await export_trail(store, file, **filters)
        assert (exported.events, exported.unsealed) == (number, unsealed)
        checked = check_export(file.with_name(f"{file.name}.proof"), keys_of(tmp_path))
        assert (checked.events, checked.erased, checked.checkpoint.size) == (number, 0, 701)
        assert proof_of_export(file) == exported.proof == proof_of_export(file.with_name(f"{file.name}.proof"))
        [key] = map(str, checked.keys)
        result = stranger(file, key)
        assert (result.returncode, f"has these {number} events" in result.stdout) == (0, True), result.stderr


def changed(rows: list[dict[str, Any]]) -> None:
    rows[7]["actor"] = "somebody else"


def dropped(rows: list[dict[str, Any]]) -> None:
    del rows[7]


def doubled(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[7])


def reordered(rows: list[dict[str, Any]]) -> None:
    rows[7], rows[8] = rows[8], rows[7]


def replaced(rows: list[dict[str, Any]]) -> None:
    rows[7] |= {"salt": "", "digest": "00" * 32}


def garbled(rows: list[dict[str, Any]]) -> None:
    rows[7]["salt"] = 5


@pytest.mark.slow
async def test_an_export_that_was_changed_is_convicted(sealed: Any, tmp_path: Path) -> None:
    store, conversation = sealed
    file = tmp_path / "trail.jsonl"
    exported = await export_trail(store, file, conversation_id=conversation)
    lines = file.read_text(encoding="utf-8").splitlines()
    [key] = map(str, keys_of(tmp_path).logs)
    changes: list[Callable[[Any], None]] = [changed, dropped, doubled, reordered, replaced, garbled]
    for change in changes:
        rows = [json.loads(line) for line in lines]
        change(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        with pytest.raises(ProofInvalid):
            check_export(exported.proof, keys_of(tmp_path))
        assert stranger(file, key).returncode != 0, change


@pytest.mark.slow
async def test_an_erased_event_is_exported_with_its_digest_and_a_changed_one_not_at_all(
    sealed: Any, superuser_url: str, tmp_path: Path
) -> None:
    store, _ = sealed
    file = tmp_path / "trail.csv"
    with tampering(superuser_url) as superuser:
        superuser.execute("UPDATE events SET salt = NULL, content = '{}' WHERE position = 300")
    exported = await export_trail(store, file)
    checked = check_export(exported.proof, keys_of(tmp_path))
    assert (checked.events, checked.erased) == (680, 1)
    [key] = map(str, checked.keys)
    assert "the content of 1 was erased" in stranger(file, key).stdout
    with tampering(superuser_url) as superuser:
        superuser.execute("UPDATE events SET actor = 'nobody' WHERE position = 301")
    with pytest.raises(ProofInvalid, match="position 301 was changed since it was sealed"):
        await export_trail(store, file)
    assert len(list(csv.reader(file.read_text(encoding="utf-8").splitlines()))) == 681, "the earlier export stays"


async def test_others_cannot_read_what_is_exported(store: EventStore, tmp_path: Path) -> None:
    await append(store, 1)
    before = os.umask(0o022)
    try:
        for ending in FORMATS:
            file = tmp_path / f"trail.{ending}"
            await export_trail(store, file)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_without_a_sealed_log_an_export_has_no_proof(store: EventStore, tmp_path: Path) -> None:
    await append(store, 3)
    file = tmp_path / "trail.jsonl"
    file.with_name("trail.jsonl.proof").write_text("of an earlier export")
    exported = await export_trail(store, file)
    assert (exported.proof, exported.events) == (None, 3)
    assert not file.with_name("trail.jsonl.proof").exists()
    for name, reason in (("trail.xml", "the format is unknown"), ("no/folder.csv", "No such file")):
        with pytest.raises(InputError, match=reason):
            await export_trail(store, tmp_path / name)


@pytest.fixture
def eventstore(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: ServerSettings, tmp_path: Path
) -> Eventstore:
    """The command, on a database with a conversation that is sealed."""
    url = settings.server_url()
    assert url is not None
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("EVENTSTORE_AUDIT_KEY", str(tmp_path / "audit.key"))
    create_keys(tmp_path / "audit.key")

    async def fill() -> None:
        async with EventStore(sealing_settings(settings, tmp_path)) as store:
            await append(store, 3)
            await seal(store)

    asyncio.run(fill())
    return program_in_process("eventstore", main, monkeypatch, capsys)


def test_the_trail_is_shown_exported_and_checked_on_the_command_line(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = json.loads(eventstore("audit", "trail", "--oldest", "--json").out)["items"]
    assert [each["what_changed"] for each in listed] == ["user: message 0", "user: message 1", "user: message 2"]
    header, *rows = eventstore("audit", "trail", listed[0]["conversation_id"], "--limit", "2").lines
    assert (header.split()[:4], len(rows)) == (["position", "time", "actor", "type"], 2)
    assert eventstore("audit", "trail", "--correlation", "none").err == "no such events\n"
    assert eventstore("audit", "causes", "2").lines[0].endswith("message.added  user: message 1")
    assert json.loads(eventstore("audit", "causes", listed[1]["id"], "--json").out)["effects"][0]["depth"] == 0
    assert "no event that you may see" in eventstore("audit", "causes", "99").err
    exported = eventstore("audit", "trail", "--output", "trail.csv")
    assert exported.out == "trail.csv: 3 event(s); trail.csv.proof: their proof\n"
    public = eventstore("audit", "key", "show").out.strip()
    for variable in ("DATABASE_URL", "EVENTSTORE_AUDIT_KEY"):
        monkeypatch.delenv(variable)
    for file in ("trail.csv", "trail.csv.proof"):
        checked = eventstore("audit", "check", file, "--key", public)
        assert checked.out.startswith(f"valid: the 3 event(s) are among the 3 events of {NAME}, signed by {NAME} ")
    assert json.loads(eventstore("audit", "check", "trail.csv", "--key", public, "--json").out)["events"] == 3
    text = Path("trail.csv").read_text(encoding="utf-8")
    Path("trail.csv").write_text(text.replace("message 1", "message 7"), encoding="utf-8")
    changed_file = eventstore("audit", "check", "trail.csv", "--key", public)
    assert (changed_file.code, "was changed" in changed_file.err) == (1, True)
    assert json.loads(eventstore("audit", "check", "trail.csv", "--key", public, "--json").out)["valid"] is False


@pytest.mark.slow
def test_acts_are_shown_on_the_command_line_and_reading_them_is_recorded(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventstore("tenants", "add", "acme")
    eventstore("users", "add", "ana", "--tenant", "acme")
    found = json.loads(eventstore("audit", "trail", "--acts", "--tenant", "acme", "--json").out)["items"]
    assert [each["event_type"] for each in found] == ["eventstore.tenant_added", "eventstore.user_added"]
    assert found[0]["actor"].startswith("os:")
    assert found[0]["via"].startswith("cli ")
    assert eventstore("audit", "trail", "--system").err == "no such events\n"
    assert eventstore("rebuild", "conversations").code == 0
    acts = json.loads(eventstore("audit", "trail", "--system", "--json").out)["items"]
    assert [each["event_type"] for each in acts] == ["eventstore.rebuild_started", "eventstore.rebuild_finished"]
    monkeypatch.setenv("EVENTSTORE_AUDIT_READS", "true")
    eventstore("audit", "trail", "--actor", "ana")
    eventstore("audit", "causes", "1")
    read = json.loads(eventstore("audit", "trail", "--acts", "--json").out)["items"]
    assert [each["content"]["what"] for each in read] == ["audit trail", "audit causes", "audit trail"]
    assert read[0]["content"]["actor"] == "ana"
    for wrong in (("--acts", "an-id"), ("-o", "a.csv", "--newest")):
        assert eventstore("audit", "trail", *wrong).code == 2
