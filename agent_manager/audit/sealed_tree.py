"""The tiles in the database: the tree as of a size, and hashes of proofs from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_manager.audit.merkle import (
    EMPTY_ROOT,
    ROW_BYTES,
    TILE,
    Node,
    ProofInvalid,
    Tiles,
    Tree,
    consistency_path,
    full_subtrees,
    inclusion_path,
    leaf_hash,
    leaf_hashes,
    position_at,
    root_of_inclusion,
)
from agent_manager.audit.notes import Checkpoint
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, NotFound

PACKAGE = "agent_manager.audit"
HASH_BYTES = 32

Fetch = Callable[[Any, Any], Awaitable[list[Any]]]
"""Runs a query and returns its rows."""


class TilesDamaged(EventStoreError):
    """Tiles in the database are missing, or not as they were sealed."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"the tiles in the database do not give the root of the checkpoint of size {size}: audit_tiles or "
            "audit_checkpoints were changed, or rows are missing: run eventstore audit verify"
        )


def fetching(store: EventStore) -> Fetch:
    """Return the queries of a store, for its sealed log."""
    return store.connections.projector.fetch


async def last_checkpoint(fetch: Fetch) -> Checkpoint | None:
    """Return the newest checkpoint, with its cosignatures; None if nothing is sealed."""
    rows = await fetch(query(PACKAGE, "last_checkpoint"), None)
    return Checkpoint.parse(rows[0][1]).with_lines(rows[0][5]) if rows else None


async def checkpoint_of(fetch: Fetch, size: int) -> Checkpoint:
    """Return the checkpoint of a size, with its cosignatures.

    Raises:
        NotFound: no checkpoint has this size.
    """
    rows = await fetch(query(PACKAGE, "checkpoint"), {"size": size})
    if not rows:
        raise NotFound(f"no checkpoint has the size {size}: eventstore audit checkpoints lists them")
    note, lines = rows[0]
    return Checkpoint.parse(note).with_lines(lines)


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint, the position of its last event, and when it was signed."""

    checkpoint: Checkpoint
    position: int
    sealed_at: datetime


async def list_checkpoints(fetch: Fetch, limit: int) -> list[StoredCheckpoint]:
    """Return the newest checkpoints, the newest first, without cosignatures."""
    rows = await fetch(query(PACKAGE, "newest_checkpoints"), {"limit": limit})
    return [StoredCheckpoint(Checkpoint.parse(note), position, sealed_at) for note, position, sealed_at in rows]


async def load_tree(fetch: Fetch, size: int, last_position: int) -> Tree:
    """Return the tree as of a size, from the tiles."""
    levels = range((max(size, 1).bit_length() - 1) // 8)
    ends = [size >> 8 * (level + 1) for level in levels]
    ranges = {"levels": list(levels), "firsts": [end // TILE * TILE for end in ends], "ends": ends}
    hashes: list[list[bytes]] = [[] for _ in levels]
    for level, _, value in await fetch(query(PACKAGE, "hashes"), ranges):
        hashes[level].append(bytes(value))
    return Tree(size, await incomplete_bundle(fetch, size), hashes, last_position)


async def incomplete_bundle(fetch: Fetch, size: int) -> bytes:
    """Return the entries of the incomplete tile as of a size."""
    rows = await fetch(query(PACKAGE, "bundles"), {"full": size // TILE * TILE, "size": size})
    return b"".join(bytes(bundle) for (bundle,) in rows)


async def inclusion_proof(fetch: Fetch, index: int, checkpoint: Checkpoint) -> tuple[bytes, list[bytes]]:
    """Return the entry of a leaf, and the hashes that prove that a checkpoint includes it.

    Raises:
        TilesDamaged: the tiles do not give its root.
        ProofInvalid: it has no such leaf.
    """
    path = inclusion_path(index, checkpoint.size)
    tiles, bundles = await _read(fetch, path, checkpoint.size, leaf=index)
    start = index % TILE * ROW_BYTES
    entry = bundles.get(index // TILE, b"")[start + 2 : start + ROW_BYTES]
    try:
        hashes = Tiles(path).hashes(lambda level, number: tiles[level, number])
    except IndexError:
        raise TilesDamaged(checkpoint.size) from None
    if root_of_inclusion(index, checkpoint.size, leaf_hash(entry), hashes) != checkpoint.root:
        raise TilesDamaged(checkpoint.size)
    return entry, hashes


async def consistency_proof(fetch: Fetch, old: int, new: int) -> list[bytes]:
    """Return the hashes that prove that the log of one size begins with that of another."""
    return await subtree_hashes(fetch, consistency_path(old, new), new)


async def subtree_hashes(fetch: Fetch, subtrees: Sequence[Sequence[Node]], size: int) -> list[bytes]:
    """Return the hashes of a proof, from the tiles as of a size; see :func:`agent_manager.audit.merkle.inclusion_path`.

    Raises:
        TilesDamaged: they do not have them.
    """
    tiles, _ = await _read(fetch, subtrees, size)
    try:
        return Tiles(subtrees).hashes(lambda level, number: tiles[level, number])
    except IndexError:
        raise TilesDamaged(size) from None


async def root_of(fetch: Fetch, old: int, size: int) -> bytes:
    """Return the root of the tree that the first leaves make, from the tiles of a larger one."""
    if old == 0:
        return EMPTY_ROOT
    [root] = await subtree_hashes(fetch, [full_subtrees(0, old)], size)
    return root


async def _read(
    fetch: Fetch, subtrees: Sequence[Sequence[Node]], size: int, leaf: int | None = None
) -> tuple[dict[tuple[int, int], list[bytes]], dict[int, bytes]]:
    """Return the hashes in the tiles that some subtrees need, and the bundles that were read at level 0."""
    needed = set(Tiles(subtrees).needed) | ({(0, leaf // TILE)} if leaf is not None else set())
    full = {(level, index) for level, index in needed if (index + 1) << 8 * (level + 1) <= size}
    found: dict[tuple[int, int], list[bytes]] = {tile: [] for tile in needed}
    bundles: dict[int, bytes] = {}
    if full:
        levels, indexes = map(list, zip(*full, strict=True))
        for level, index, raw in await fetch(query(PACKAGE, "tiles"), {"levels": levels, "indexes": indexes}):
            content = bytes(raw)
            if level == 0:
                bundles[index] = content
            else:
                found[level, index] = [content[i : i + HASH_BYTES] for i in range(0, len(content), HASH_BYTES)]
    if partial := [(level - 1, index * TILE, size >> 8 * level) for level, index in needed - full if level]:
        levels, firsts, ends = map(list, zip(*partial, strict=True))
        for level, index, raw in await fetch(
            query(PACKAGE, "hashes"), {"levels": levels, "firsts": firsts, "ends": ends}
        ):
            found[level + 1, index // TILE].append(bytes(raw))
    if (0, size // TILE) in needed - full:
        bundles[size // TILE] = await incomplete_bundle(fetch, size)
    for index, bundle in bundles.items():
        found[0, index] = leaf_hashes(bundle)
    return found, bundles


async def index_of(fetch: Fetch, position: int, size: int) -> int:
    """Return the number of the leaf of the event at a position.

    Raises:
        NotFound: it is not among the sealed ones.
    """
    rows = await fetch(query(PACKAGE, "tile_of_position"), {"position": position})
    tile, bundle = (rows[0][0], bytes(rows[0][1])) if rows else (size // TILE, await incomplete_bundle(fetch, size))
    low, high = 0, len(bundle) // ROW_BYTES
    while low < high:
        middle = (low + high) // 2
        if position_at(bundle, middle) < position:
            low = middle + 1
        else:
            high = middle
    if low == len(bundle) // ROW_BYTES or position_at(bundle, low) != position:
        raise NotFound(f"the event at position {position} is not among those that were sealed")
    index = int(tile * TILE + low)
    if index >= size:
        raise ProofInvalid(f"the checkpoint of size {size} does not include the event: give a newer one")
    return index
