"""Verifying the log against its checkpoints: everything is computed anew from the events.

Windows of the log are read over several connections: the server computes the digest of each event, and this process
the tree above them. Its root must be that of each checkpoint, in the database or published elsewhere, that a trusted
key has signed. Nothing in the database is trusted: tiles only serve to find the event that differs, and are compared.
The functions that compute digests must be those of the migrations.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from time import monotonic
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from psycopg.types.numeric import Int8

from agent_manager.audit.merkle import ROW_BYTES, TILE, Tree, position_of
from agent_manager.audit.notes import Checkpoint, CheckpointInvalid, Policy
from agent_manager.audit.sealed_tree import PACKAGE, Fetch, incomplete_bundle
from eventstore import EventStore
from eventstore.database.connection import PROJECTOR, Connection
from eventstore.database.queries import query
from eventstore.database.schema_comparison import CATALOG, TEXT, compare_catalog
from eventstore.errors import printable, translated

WINDOW_EVENTS = 16_384
JOBS = 2
"""Connections by default; each keeps a core of the server busy."""
_COMPARED_TILES = 64
"""Tiles that are compared with the events at a time, to find the first one that differs."""
_SEARCHED_EVENTS = 100_000
"""Among how many events from the first difference on that event is sought, if it was moved; it takes half a second."""
_CHECKPOINTS = 1000
_LOWEST_POSITION = -(2**63)
"""Of an event that somebody has inserted; those of the sequence begin with 1."""

Kind = Literal[
    "function", "changed", "removed", "inserted", "reordered", "rewritten", "checkpoint", "digest", "erased", "tile"
]


@dataclass(frozen=True, slots=True)
class Fault:
    """A difference between the log and what was sealed.

    Attributes:
        kind: ``changed``, ``removed``, ``inserted`` or ``reordered``: what happened to the first event that differs;
            ``rewritten``: the log differs from a checkpoint, and the tiles do not tell where; ``checkpoint``: one is
            forged or missing; ``digest``: only the stored digest of an event differs; ``erased``: an event is marked as
            erased, and no receipt names it, or not all that it held is gone; ``tile``: the events are those that were
            sealed, and the tiles from which proofs are made are not; ``function``: the server computes digests by
            another function than that of the migrations, so nothing else that is found can be trusted.
        position: of the event.
        conversation_id, event_id: of the event that is at this position now.
    """

    kind: Kind
    message: str
    position: int | None = None
    conversation_id: UUID | None = None
    event_id: UUID | None = None


@dataclass(slots=True)
class Verification:
    """The outcome.

    Attributes:
        events: that were read; fewer than there are if the log differs, which ends the verification.
        sealed: the size of the largest checkpoint that the events agree with.
        checkpoints: the number of those that were compared.
        sealed_at: the time of the newest checkpoint in the database.
        keys: that have signed the checkpoints.
        faults: the first of each kind, the most severe first.
    """

    events: int = 0
    sealed: int = 0
    checkpoints: int = 0
    sealed_at: datetime | None = None
    keys: list[str] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    @property
    def unsealed(self) -> int:
        """The number of events after the newest checkpoint; 0 if the log differs."""
        return max(self.events - self.sealed, 0)


@dataclass(frozen=True, slots=True)
class Expected:
    """A checkpoint that the log must agree with.

    Attributes:
        place: where it is kept; empty if it is in the database.
        row: what else its row has there.
    """

    checkpoint: Checkpoint
    place: str = ""
    row: CheckpointRow | None = None


class CheckpointRow(NamedTuple):
    """The row of a checkpoint.

    Attributes:
        new_entries: how many entries the checkpoint before it does not have.
    """

    last_position: int
    bundle: bytes
    new_entries: int


async def verify(
    store: EventStore, policy: Policy, elsewhere: Iterable[Expected] = (), *, jobs: int = JOBS
) -> Verification:
    """Compute the log anew, and compare it with all checkpoints. It only reads, and blocks nobody.

    Args:
        policy: the keys that are trusted. Its quorum is not required: what counts is what the log has signed.
        elsewhere: checkpoints that are kept outside of the database.
        jobs: connections that read at the same time.

    Raises:
        CheckpointInvalid: one that is kept elsewhere is not signed by a trusted key.
    """
    kept = list(elsewhere)
    for each in kept:
        Policy(policy.logs).check(each.checkpoint)

    def fetching(connection: Connection) -> Fetch:
        async def fetch(statement: Any, parameters: Any) -> list[Any]:
            return await (await connection.execute(statement, parameters, binary=True)).fetchall()

        return fetch

    began = monotonic()
    async with AsyncExitStack() as stack:
        with translated():
            connections = [await stack.enter_async_context(await store.connect(PROJECTOR)) for _ in range(jobs)]
            fetches = [fetching(connection) for connection in connections]
            found = await verify_log(fetches, policy, kept)
            catalog = compare_catalog(await store.pool.fetch(CATALOG))
    if altered := ", ".join(each.name for each in catalog.differences if each.kind == TEXT):
        message = (
            f"not as the migrations of this version make it: {altered}: what it computes cannot be trusted: restore a "
            "backup elsewhere, and verify that"
        )
        found.faults.insert(0, Fault("function", message))
    found.seconds = monotonic() - began
    return found


async def verify_log(
    fetches: Sequence[Fetch], policy: Policy | None, elsewhere: Sequence[Expected] = (), until: int | None = None
) -> Verification:
    """Compute the log anew; see :func:`verify`.

    Args:
        fetches: connections that see the events of all tenants; each runs one query at a time.
        policy: the keys that must have signed the checkpoints in the database; None does not check signatures.
        until: the last position; by default that up to which the log is final.
    """
    return await _Run(_Connections(fetches), policy, elsewhere, until).run()


class _Connections:
    """Connections, each lent to one query at a time."""

    def __init__(self, fetches: Sequence[Fetch]) -> None:
        self.number = len(fetches)
        self._free: asyncio.Queue[Fetch] = asyncio.Queue()
        for each in fetches:
            self._free.put_nowait(each)

    async def fetch(self, statement: Any, parameters: Any) -> list[Any]:
        lent = await self._free.get()
        try:
            return await lent(statement, parameters)
        finally:
            self._free.put_nowait(lent)


class _Run:
    def __init__(
        self, connections: _Connections, policy: Policy | None, elsewhere: Sequence[Expected], until: int | None
    ) -> None:
        self._connections = connections
        self._fetch: Fetch = connections.fetch
        self._until = until
        self._policy = policy
        self._elsewhere = sorted(elsewhere, key=lambda each: each.checkpoint.size)
        self._tree = Tree()
        self._found = Verification()
        self._faults: dict[Kind, Fault] = {}
        self._newest = 0
        self._intact = Tree()
        self._intact_position = _LOWEST_POSITION - 1

    async def run(self) -> Verification:
        found = self._found
        if rows := await self._fetch(query(PACKAGE, "last_checkpoint"), None):
            self._newest, found.sealed_at = rows[0][0], rows[0][4]
        if self._until is None:  # later than the newest checkpoint: the log goes on meanwhile
            [(self._until,)] = await self._fetch(query("eventstore", "horizon"), None)
        async with aclosing(self._expected()) as all_expected, aclosing(self._windows()) as windows:
            expected = await anext(all_expected, None)
            is_intact = True
            async for bundle, wrong, unreceipted in windows:
                found.events += len(bundle) // ROW_BYTES
                if wrong is not None:
                    self._report("digest", "has a stored digest that is not that of its content", position=wrong)
                if unreceipted is not None:
                    self._report("erased", "is marked as erased, and is not as an erasure leaves it, or no receipt of "
                                 "its conversation names it", position=unreceipted)  # fmt: skip
                rest = bundle
                while is_intact and expected and expected.checkpoint.size <= self._tree.size + len(rest) // ROW_BYTES:
                    length = (expected.checkpoint.size - self._tree.size) * ROW_BYTES
                    await self._grow(rest[:length])
                    rest = rest[length:]
                    if is_intact := self._agrees(expected):
                        expected = await anext(all_expected, None)
                if not is_intact:
                    break
                await self._grow(rest)
        if expected is not None:
            self._faults.pop("tile", None)  # the events differ from the tiles because they were changed
            await self._locate(expected)
        if not found.checkpoints and expected is None and not self._faults:
            self._report("checkpoint", "nothing is sealed: the database has no checkpoint, and no other one was given")
        kinds = get_args(Kind)
        found.faults = sorted(self._faults.values(), key=lambda fault: kinds.index(fault.kind))
        for number, fault in enumerate(found.faults):
            found.faults[number] = await self._with_event(fault)
        return found

    def _report(self, kind: Kind, message: str, position: int | None = None) -> None:
        """Keep a fault, unless there is one of this kind."""
        self._faults.setdefault(kind, Fault(kind, message, position))

    async def _with_event(self, fault: Fault) -> Fault:
        """Return a fault with the event that is at its position now."""
        if fault.position is None:
            return fault
        rows = await self._fetch(query(PACKAGE, "named_event"), {"position": fault.position})
        if not rows:
            return replace(fault, message=f"the event at position {fault.position} {fault.message}")
        conversation, version, event_id, tenant = rows[0]
        message = (
            f"the event at position {fault.position} (version {version} of conversation {conversation}, tenant "
            f"{printable(tenant, 80)}) {fault.message}"
        )
        return replace(fault, message=message, conversation_id=conversation, event_id=event_id)

    async def _windows(self) -> AsyncGenerator[tuple[bytes, int | None, int | None]]:
        """Yield the entries of the log, computed anew, in order.

        With them comes the first position with another stored digest, and the first that is erased without a receipt.
        """
        running: deque[asyncio.Task[list[Any]]] = deque()
        first: int | None = _LOWEST_POSITION
        try:
            while True:
                while first is not None and len(running) < 2 * self._connections.number:
                    limits = {"first": first, "until": self._until, "limit": WINDOW_EVENTS}
                    [(end,)] = await self._fetch(query(PACKAGE, "window_end"), limits)
                    if end is not None:
                        window = self._connections.fetch(query(PACKAGE, "recomputed"), {"first": first, "until": end})
                        running.append(asyncio.create_task(window))
                    first = None if end is None else end + 1
                if not running:
                    return
                [(bundle, wrong, unreceipted)] = await running.popleft()
                yield bytes(bundle), wrong, unreceipted
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _expected(self) -> AsyncGenerator[Expected]:
        """Yield all checkpoints by size: those in the database, except for forged ones, and those kept elsewhere."""
        elsewhere = deque(self._elsewhere)
        previous = 0
        while rows := await self._fetch(
            query(PACKAGE, "checkpoints"), {"after": previous, "newest": self._newest, "limit": _CHECKPOINTS}
        ):
            for size, note, last_position, bundle in rows:
                row = CheckpointRow(last_position, bytes(bundle), size - previous)
                previous = size
                while elsewhere and elsewhere[0].checkpoint.size <= size:
                    yield elsewhere.popleft()
                if (checkpoint := self._checked(size, note)) is not None:
                    yield Expected(checkpoint, row=row)
        for each in elsewhere:
            yield each

    def _checked(self, size: int, note: str) -> Checkpoint | None:
        """Return the checkpoint of a row; report it and return None if no trusted key has signed it."""
        try:
            checkpoint = Checkpoint.parse(note)
            if checkpoint.size != size:
                raise CheckpointInvalid(f"the row of the checkpoint of size {size} has one of size {checkpoint.size}")
            if self._policy is not None:
                signers, _ = Policy(self._policy.logs).check(checkpoint)
                names = (f"{key.name} {key.id}" for key in signers)
                self._found.keys = list(dict.fromkeys((*self._found.keys, *names)))
        except CheckpointInvalid as error:
            self._report("checkpoint", str(error))
            return None
        return checkpoint

    async def _grow(self, bundle: bytes) -> None:
        """Add entries, and compare the tiles that are full then with those in the database."""
        tiles = await asyncio.to_thread(self._tree.add, bundle)
        for level in {tile.level for tile in tiles}:
            mine = [t for t in tiles if t.level == level and (t.index + 1) << 8 * (level + 1) <= self._newest]
            if not mine:
                continue
            given = {"level": level, "first": mine[0].index, "end": mine[-1].index + 1}
            rows = {row[0]: row[1:] for row in await self._fetch(query(PACKAGE, "stored_tiles"), given)}
            for tile in mine:
                if rows.get(tile.index) != (tile.last_position, tile.hash, sha256(tile.content).digest()):
                    what = "differs from the events" if tile.index in rows else "is missing"
                    self._report("tile", f"the tile {tile.index} of level {level} in audit_tiles {what}: proofs that "
                                 "need it cannot be made; restore the table from a backup")  # fmt: skip

    def _agrees(self, expected: Expected) -> bool:
        """Return whether the tree, which is as large as a checkpoint, agrees with it."""
        checkpoint, found = expected.checkpoint, self._found
        if self._tree.root() != checkpoint.root:
            return False
        found.checkpoints += checkpoint.size != found.sealed  # not again for its copies
        found.sealed = checkpoint.size
        self._intact, self._intact_position = self._tree.copy(), self._tree.last_position
        row = expected.row
        if row is None:
            if checkpoint.size > self._newest:
                self._report(
                    "checkpoint",
                    f"{expected.place} has a checkpoint of size {checkpoint.size}, and the newest one in the database "
                    f"has the size {self._newest}: rows of audit_checkpoints were removed",
                )
            return True
        count = min(len(self._tree.bundle), row.new_entries * ROW_BYTES)
        if row[:2] != (self._tree.last_position, self._tree.bundle[len(self._tree.bundle) - count :]):
            self._report("tile", f"the row of the checkpoint of size {checkpoint.size} has other entries than the "
                         "events: proofs that need them cannot be made; restore the table from a backup")  # fmt: skip
        return True

    # Which event differs

    async def _locate(self, expected: Expected) -> None:
        """Report the first event that differs from what a checkpoint has sealed.

        The tiles name it only if their entries give the checkpoint's root: otherwise somebody has changed them, too.
        """
        checkpoint = expected.checkpoint
        sealed = (
            f"the checkpoint of size {checkpoint.size}{f', which is in {expected.place}' if expected.place else ''}"
        )
        tree = self._intact
        begin, place = tree.size, f"position {tree.last_position}" if tree.size else "the beginning of the log"
        async with aclosing(self._sealed_entries(begin, checkpoint.size)) as bundles:
            async for bundle in bundles:
                await asyncio.to_thread(tree.add, bundle)
        if (tree.size, tree.root()) == (checkpoint.size, checkpoint.root):
            async with aclosing(self._sealed_entries(begin, checkpoint.size)) as bundles:
                async for bundle in bundles:
                    if difference := await self._difference(bundle):
                        kind, position, what = difference
                        self._report(kind, f"{what} since it was sealed ({sealed})", position)
                        return
        held = self._tree.size
        what = "the log was rewritten"
        if held < checkpoint.size:
            what = f"the log has {held} events, and {checkpoint.size} were sealed"
        self._report(
            "rewritten",
            f"{what} ({sealed}): the events after {place} are not those that were sealed, and the tiles do not show "
            "the first one that differs; compare them with a backup",
        )

    async def _sealed_entries(self, begin: int, end: int) -> AsyncGenerator[bytes]:
        """Yield the entries of some leaves, from the tiles, as far as they are there, some tiles at a time."""
        size = begin
        full = min(self._newest, end) // TILE
        while size < end:
            first = size // TILE
            indexes = list(range(first, min(first + _COMPARED_TILES, full)))
            if indexes:
                given = {"levels": [0] * len(indexes), "indexes": indexes}
                rows = sorted((row[1], bytes(row[2])) for row in await self._fetch(query(PACKAGE, "tiles"), given))
                bundle = b"".join(content for _, content in rows)
            else:
                # The tile may have become full since the checkpoint.
                last = await self._fetch(query(PACKAGE, "tiles"), {"levels": [0], "indexes": [first]})
                bundle = bytes(last[0][2]) if last else await incomplete_bundle(self._fetch, self._newest)
            start = (size - first * TILE) * ROW_BYTES
            part = bundle[start : start + (end - size) * ROW_BYTES]
            if not part:
                return
            yield part
            size += len(part) // ROW_BYTES

    async def _difference(self, bundle: bytes) -> tuple[Kind, int, str] | None:
        """Return how the first event that differs from sealed entries differs, its position, and that in words."""
        sealed = dict(_rows(bundle))
        given = {"first": self._intact_position + 1, "until": max(sealed)}
        [(recomputed, *_)] = await self._fetch(query(PACKAGE, "recomputed"), given)
        now: dict[int, list[bytes]] = {}
        for position, digest in _rows(bytes(recomputed or b"")):
            now.setdefault(position, []).append(digest)
        differing = [p for p in {*sealed, *now} if now.get(p) != ([sealed[p]] if p in sealed else None)]
        if not differing:
            self._intact_position = max(sealed)
            return None
        position = min(differing)
        if position not in sealed or sealed[position] in now.get(position, ()):
            return "inserted", position, "was inserted"
        moved = {"position": Int8(position), "digest": sealed[position], "limit": _SEARCHED_EVENTS}
        if rows := await self._fetch(query(PACKAGE, "moved_to"), moved):
            return "reordered", position, f"was moved to position {rows[0][0]}"
        if position in now:
            return "changed", position, "was changed"
        gone = sum(p not in now for p in sealed) - 1
        return "removed", position, "was removed" + (f", and at least {gone} more after it," if gone else "")


def _rows(bundle: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the positions and digests of the entries in a bundle."""
    for start in range(0, len(bundle), ROW_BYTES):
        entry = bundle[start + 2 : start + ROW_BYTES]
        yield position_of(entry), entry[8:]
