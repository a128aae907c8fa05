"""The formats are those of ``docs/concepts/sealed-log.md``, for the store and for implementations that others wrote."""

from __future__ import annotations

import importlib.util
import json
import re
from hashlib import sha256
from types import ModuleType
from typing import Any

import pytest
from pymerkle import InmemoryTree
from support.environment import TREE

from agent_manager.audit.merkle import (
    Tile,
    Tiles,
    Tree,
    consistency_path,
    inclusion_path,
    leaf_hash,
    leaf_hashes,
    verify_consistency,
)
from agent_manager.audit.notes import Checkpoint, Policy, PrivateKey, PublicKey
from agent_manager.audit.proofs import ConsistencyProof, InclusionProof, check_proof, parse_proof

pytestmark = pytest.mark.any_server

DOCUMENT = (TREE / "docs/concepts/sealed-log.md").read_text(encoding="utf-8")
DIGESTS = (TREE / "docs/concepts/digest.md").read_text(encoding="utf-8")
SMALL, LARGE = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL))
ENTRIES = [bytes.fromhex(entry) for entry in SMALL["entries"]]
KEY, WITNESS = PublicKey.parse(SMALL["public_key"]), PublicKey.parse(SMALL["witness_key"])
SCRIPT = TREE / "docs/verify_sealed_log.py"


@pytest.fixture(scope="module")
def independent() -> ModuleType:
    """The verifier of the documentation."""
    spec = importlib.util.spec_from_file_location("verify_sealed_log", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry_of(position: int) -> bytes:
    return position.to_bytes(8) + sha256(position.to_bytes(8)).digest()


def rows(entries: list[bytes]) -> bytes:
    return b"".join(b"\0\x28" + entry for entry in entries)


def test_the_entries_are_those_of_the_digests() -> None:
    vectors: list[dict[str, Any]] = [json.loads(each) for each in re.findall(r"```json\n(.*?)```", DIGESTS, re.DOTALL)]
    made = sorted(vector["position"].to_bytes(8) + bytes.fromhex(vector["digest"]) for vector in vectors)
    assert made == ENTRIES
    assert SMALL["bundle"] == rows(ENTRIES).hex()
    assert [leaf_hash(entry).hex() for entry in ENTRIES] == SMALL["leaf_hashes"]


def test_checkpoints_are_signed_and_cosigned_as_written() -> None:
    key = PrivateKey.parse(SMALL["private_key"])
    assert (key.seed, key.public, key.text) == (bytes(range(32)), KEY, SMALL["private_key"])
    tree = Tree()
    for entry, note in zip(ENTRIES, SMALL["checkpoints"], strict=True):
        tree.add(rows([entry]))
        checkpoint = Checkpoint.parse(note)
        assert checkpoint.text == note
        assert (checkpoint.size, checkpoint.root) == (tree.size, tree.root())
        assert checkpoint.signers([KEY]) == [KEY]
        assert note.startswith(Checkpoint.sign("example.com/log", tree.size, tree.root(), [key]).text)
    assert [str(time) for time in checkpoint.cosigners([WITNESS]).values()] == ["2026-01-01 00:00:00+00:00"]


@pytest.mark.parametrize("name", ["inclusion_proof", "consistency_proof"])
def test_proofs_are_read_checked_and_written_as_they_are(name: str, independent: ModuleType) -> None:
    proof = parse_proof(SMALL[name])
    assert isinstance(proof, InclusionProof | ConsistencyProof)
    assert proof.text == SMALL[name]
    assert parse_proof(json.dumps(proof.value)) == proof
    signers, cosigners = check_proof(proof, Policy((KEY,), {"w": WITNESS}, quorum="w"))
    assert (signers, list(cosigners)) == ([KEY], [WITNESS])
    if isinstance(proof, InclusionProof):
        assert (proof.event, proof.entry) == (SMALL["event"], ENTRIES[1])
    assert independent.verify(SMALL[name], [SMALL["public_key"]]).startswith("example.com/log, of 3 events")


@pytest.mark.parametrize("name", ["inclusion_proof", "consistency_proof"])
def test_the_independent_verifier_rejects_a_change_of_any_line(name: str, independent: ModuleType) -> None:
    lines = SMALL[name].splitlines(keepends=True)
    tried = 0
    for number, line in enumerate(lines):
        if line.startswith("— witness") or not line.strip():
            continue  # it does not know witnesses
        at = max(len(line) - 6, 0)
        for changed in (line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1 :], line[:-2] + "\n", ""):
            text = "".join([*lines[:number], changed, *lines[number + 1 :]])
            tried += 1
            with pytest.raises(Exception):  # noqa: B017, PT011
                independent.verify(text, [SMALL["public_key"]])
    assert tried > 20
    with pytest.raises(ValueError, match="not signed by a key"):
        independent.verify(SMALL[name], [str(PrivateKey.create("example.com/log").public)])


def test_the_independent_verifier_is_short_and_imports_nothing_but_python() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imported <= {"base64", "datetime", "hashlib", "json", "struct", "sys", "uuid"}


def test_roots_and_tiles_of_a_large_tree() -> None:
    tree, tiles = Tree(), dict[str, Tile]()
    for size, root in LARGE["roots"].items():
        added = tree.add(rows([entry_of(position) for position in range(tree.size + 1, int(size) + 1)]))
        tiles |= {f"{tile.level}/{tile.index}": tile for tile in added}
        assert tree.root().hex() == root
    for name, expected in LARGE["tiles"].items():
        tile = tiles[name]
        found = (tile.hash.hex(), sha256(tile.content).hexdigest(), tile.last_position)
        assert found == (expected["hash"], expected["sha256_of_content"], expected["last_position"])
    assert len(tiles) == 273 + 1


@pytest.fixture(scope="module")
def other() -> InmemoryTree:
    """A tree of 700 of these leaves, by another implementation of RFC 9162."""
    tree = InmemoryTree(algorithm="sha256")
    for position in range(1, 701):
        tree.append_entry(entry_of(position))
    return tree


SIZES = [1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 700]


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_proofs_are_those_of_another_implementation(size: int, other: InmemoryTree) -> None:
    bundle = rows([entry_of(position) for position in range(1, size + 1)])
    tree = Tree()
    full = {(tile.level, tile.index): tile for tile in tree.add(bundle)}
    leaves = leaf_hashes(bundle)
    assert tree.root() == other.get_root(size)

    def read(level: int, index: int) -> list[bytes]:
        if level == 0:
            return leaves[256 * index : 256 * (index + 1)]
        return [full[level - 1, number].hash for number in range(256 * index, size >> 8 * level)]

    for index in {0, size // 2, size - 1}:
        path = Tiles(inclusion_path(index, size)).hashes(read)
        theirs = other.prove_inclusion(index + 1, size)
        ours = type(theirs)("sha256", True, size, index + 1, theirs.rule, [leaves[index], *path])
        ours.verify(leaves[index], other.get_root(size), index=index + 1, size=size)
    for old in {1, size // 2 or 1, size}:
        path = Tiles(consistency_path(old, size)).hashes(read)
        verify_consistency(old, other.get_root(old), size, other.get_root(size), path)
        other.prove_consistency(old, size).verify(other.get_root(old), tree.root(), prior_size=old, later_size=size)
