"""Merkle trees of RFC 9162: hashes, roots, proofs, and the tiles that C2SP's ``tlog-tiles`` divides a tree into.

A leaf is an entry: the position of an event, 8 bytes big-endian, and its digest. See ``docs/concepts/sealed-log.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import repeat

from eventstore.errors import InputError

TILE = 256
"""Hashes of a full tile; a tile of level L has the hashes of subtrees of 256^L leaves."""
_TILE_BITS = 8
ENTRY_BYTES = 40
ROW_BYTES = 2 + ENTRY_BYTES
"""An entry in a bundle, with its length before it."""
EMPTY_ROOT = sha256().digest()


class ProofInvalid(InputError):
    """A proof does not prove what it claims."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


def leaf_hashes(bundle: bytes | bytearray) -> list[bytes]:
    """Return the hashes of the entries in a bundle."""
    return [sha256(b"\0" + bundle[i + 2 : i + ROW_BYTES]).digest() for i in range(0, len(bundle), ROW_BYTES)]


def position_at(bundle: bytes | bytearray, index: int) -> int:
    """Return the position of an entry in a bundle; a negative index counts from its end."""
    start = index * ROW_BYTES + 2 if index >= 0 else len(bundle) + index * ROW_BYTES + 2
    return position_of(bundle[start : start + 8])


def position_of(entry: bytes | bytearray) -> int:
    """Return the position of an entry."""
    return int.from_bytes(entry[:8], signed=True)


def _parents(hashes: Sequence[bytes]) -> list[bytes]:
    return [sha256(b"\1" + a + b).digest() for a, b in zip(hashes[::2], hashes[1::2], strict=True)]


def _fold(hashes: Sequence[bytes], right: bytes | None) -> bytes | None:
    """Return the root of some subtrees of one height, followed by the root of what is right of them."""
    rest = list(hashes)
    while rest:
        if len(rest) % 2:
            right = rest.pop() if right is None else node_hash(rest.pop(), right)
        rest = _parents(rest)
    return right


def root_of_tile(hashes: Sequence[bytes]) -> bytes:
    """Return the root of the subtree of a tile, which may be incomplete."""
    root = _fold(hashes, None)
    return EMPTY_ROOT if root is None else root


# Trees that grow


@dataclass(frozen=True, slots=True)
class Tile:
    """A full tile.

    Attributes:
        content: a bundle of 256 entries at level 0, 256 hashes at the levels above.
        hash: the root of its subtree.
        last_position: of the last event below it.
    """

    level: int
    index: int
    content: bytes
    hash: bytes
    last_position: int


@dataclass
class Tree:
    """A tree to whose right end entries are added, which keeps only its incomplete tiles.

    Attributes:
        size: the number of its leaves.
        bundle: the entries in the incomplete tile of level 0.
        hashes: the hashes in the incomplete tiles of the levels above, from level 1 on.
        last_position: of the last event.
    """

    size: int = 0
    bundle: bytes = b""
    hashes: list[list[bytes]] = field(default_factory=list)
    last_position: int = 0

    def add(self, bundle: bytes) -> list[Tile]:
        """Add the entries of a bundle of any length, and return the tiles that are full now."""
        if not bundle:
            return []
        pending, tiles = self.bundle + bundle, list[Tile]()
        full = len(pending) // (TILE * ROW_BYTES) * TILE * ROW_BYTES
        first = self.size // TILE
        for start in range(0, full, TILE * ROW_BYTES):
            content = pending[start : start + TILE * ROW_BYTES]
            tiles += self._complete(0, first, content, leaf_hashes(content), position_at(content, -1))
            first += 1
        self.bundle = pending[full:]
        self.size += len(bundle) // ROW_BYTES
        self.last_position = position_at(bundle, -1)
        return tiles

    def _complete(self, level: int, index: int, content: bytes, hashes: list[bytes], position: int) -> Iterator[Tile]:
        root = root_of_tile(hashes)
        yield Tile(level, index, content, root, position)
        if len(self.hashes) == level:
            self.hashes.append([])
        above = self.hashes[level]
        above.append(root)
        if len(above) == TILE:
            self.hashes[level] = []
            yield from self._complete(level + 1, index // TILE, b"".join(above), above, position)

    def copy(self) -> Tree:
        """Return a copy, to which other entries can be added."""
        return Tree(self.size, self.bundle, [list(hashes) for hashes in self.hashes], self.last_position)

    def root(self) -> bytes:
        """Return the root of the tree."""
        root = _fold(leaf_hashes(self.bundle), None)
        for hashes in self.hashes:
            root = _fold(hashes, root)
        return EMPTY_ROOT if root is None else root


# Proofs, as lists of subtrees

Node = tuple[int, int]
"""A full subtree: the number of leaves that it has is 2 to the first, it begins at the second times that many."""


def inclusion_path(index: int, size: int) -> list[list[Node]]:
    """Return the subtrees of an inclusion proof (RFC 9162, 2.1.3.1): a hash of the proof is the root of each list.

    Raises:
        ProofInvalid: the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ProofInvalid(f"a tree of size {size} has no leaf {index}: give one that is below its size")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(full_subtrees(middle, high))
            high = middle
        else:
            path.append(full_subtrees(low, middle))
            low = middle
    return path[::-1]


def consistency_path(old: int, new: int) -> list[list[Node]]:
    """Return the subtrees of a consistency proof (RFC 9162, 2.1.4.1); see :func:`inclusion_path`.

    Raises:
        ProofInvalid: the old tree is not the smaller one.
    """
    if not 0 <= old <= new:
        raise ProofInvalid(f"a tree of size {new} does not follow one of size {old}: give the smaller size first")
    path, low, high, is_whole = [], 0, new, True
    if old in (0, new):
        return []
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(full_subtrees(middle, high))
            high = middle
        else:
            path.append(full_subtrees(low, middle))
            low, is_whole = middle, False
    if not is_whole:
        path.append(full_subtrees(low, high))
    return path[::-1]


def _split(size: int) -> int:
    """Return the largest power of two that is smaller than a size."""
    return 1 << (size - 1).bit_length() - 1


def full_subtrees(low: int, high: int) -> list[Node]:
    """Return the full subtrees that the leaves from one to another consist of, from left to right."""
    nodes = []
    while low < high:
        height = (high - low).bit_length() - 1
        nodes.append((height, low >> height))
        low += 1 << height
    return nodes


def multi_path(leaves: Iterable[int], size: int) -> Iterator[list[Node]]:
    """Yield the subtrees of a proof for several leaves: those that have none of them, from left to right.

    The tree is divided as in RFC 9162, 2.1.1, as long as a part has some of the leaves, but not only one leaf.

    Args:
        leaves: their numbers, in order.
    """
    following = _Leaves(zip(leaves, repeat(b""), strict=False))

    def walk(low: int, high: int) -> Iterator[list[Node]]:
        if not following.is_below(high):
            yield full_subtrees(low, high)
        elif high - low == 1:
            following.take()
        else:
            middle = low + _split(high - low)
            yield from walk(low, middle)
            yield from walk(middle, high)

    return walk(0, size)


def root_of_leaves(leaves: Iterable[tuple[int, bytes]], size: int, path: Iterable[bytes]) -> bytes:
    """Return the root that a proof for several leaves leads to; see :func:`multi_path`.

    Args:
        leaves: their numbers, in order, and their hashes.

    Raises:
        ProofInvalid: the proof has another number of leaves or hashes.
    """
    following, hashes = _Leaves(leaves), iter(path)

    def root(low: int, high: int) -> bytes:
        if not following.is_below(high):
            return next(hashes)
        if high - low == 1:
            return following.take()
        middle = low + _split(high - low)
        return node_hash(root(low, middle), root(middle, high))

    try:
        found = root(0, size)
    except StopIteration:
        raise ProofInvalid("the proof has too few hashes: export the trail again") from None
    if following.is_below(_NO_LEAF) or next(hashes, None) is not None:
        raise ProofInvalid("the proof has other leaves or hashes than its tree: export the trail again")
    return found


_NO_LEAF = 2**64


class _Leaves:
    """Leaves in order, of which the next one can be looked at."""

    def __init__(self, leaves: Iterable[tuple[int, bytes]]) -> None:
        self._rest = iter(leaves)
        self._next = next(self._rest, (_NO_LEAF, b""))

    def is_below(self, high: int) -> bool:
        """Return whether the next leaf is below a number."""
        return self._next[0] < high

    def take(self) -> bytes:
        """Return the hash of the next leaf, and go on."""
        found = self._next
        self._next = next(self._rest, (_NO_LEAF, b""))
        if self._next[0] <= found[0]:
            raise ProofInvalid("the leaves of the proof are not in order: export the trail again")
        return found[1]


class Tiles:
    """The tiles that some subtrees need, and the hashes of subtrees from them.

    Args:
        subtrees: of a proof; see :func:`inclusion_path`.
    """

    def __init__(self, subtrees: Sequence[Sequence[Node]]) -> None:
        self._subtrees = subtrees
        self.needed = sorted({_tile_of(node) for nodes in subtrees for node in nodes})

    def hashes(self, read: Callable[[int, int], Sequence[bytes]]) -> list[bytes]:
        """Return the hashes of the proof.

        Args:
            read: returns the hashes in a tile, given its level and its index; a tile may be incomplete.
        """
        tiles = {tile: [list(read(*tile))] for tile in self.needed}

        def hash_of(node: Node) -> bytes:
            height, index = node
            rows = tiles[_tile_of(node)]
            while len(rows) <= height % _TILE_BITS:
                rows.append(_parents(rows[-1][: len(rows[-1]) & ~1]))
            row = rows[height % _TILE_BITS]
            return row[index % (TILE >> height % _TILE_BITS)]

        found = []
        for nodes in self._subtrees:
            *others, root = map(hash_of, nodes)
            for left in reversed(others):
                root = node_hash(left, root)
            found.append(root)
        return found


def _tile_of(node: Node) -> tuple[int, int]:
    height, index = node
    return height // _TILE_BITS, index >> (_TILE_BITS - height % _TILE_BITS)


# Verification


def root_of_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """Return the root that an inclusion proof leads to (RFC 9162, 2.1.3.2).

    Raises:
        ProofInvalid: it has not as many hashes as the leaf of such a tree needs.
    """
    if len(path) != len(inclusion_path(index, size)):
        raise ProofInvalid("the inclusion proof has a wrong number of hashes: get it again from the log")
    number, last, root = index, size - 1, leaf
    for sibling in path:
        if number % 2 or number == last:
            root = node_hash(sibling, root)
            while number and not number % 2:
                number, last = number >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        number, last = number >> 1, last >> 1
    return root


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check a consistency proof (RFC 9162, 2.1.4.2).

    Raises:
        ProofInvalid: the new tree does not begin with the old one, or the proof is not one for these sizes.
    """
    if len(path) != len(consistency_path(old, new)):
        raise ProofInvalid("the consistency proof has a wrong number of hashes: get it again from the log")
    if old == 0:
        first, second = EMPTY_ROOT, new_root
    elif not path:
        first = second = new_root
    else:
        number, last = old - 1, new - 1
        while number % 2:
            number, last = number >> 1, last >> 1
        hashes = iter(path)
        first = second = next(hashes) if number else old_root
        for each in hashes:
            if number % 2 or number == last:
                first, second = node_hash(each, first), node_hash(each, second)
                while number and not number % 2:
                    number, last = number >> 1, last >> 1
            else:
                second = node_hash(second, each)
            number, last = number >> 1, last >> 1
    if first != old_root or second != new_root:
        raise ProofInvalid(
            f"the log of size {new} does not begin with that of size {old}: it was rewritten; keep both checkpoints"
        )
