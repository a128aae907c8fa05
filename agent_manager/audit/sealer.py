"""The sealer: follows the log and seals it, with a signed checkpoint every few seconds while there are new events.

A round reads the horizon and then, in a later statement, the events that follow the last sealed one up to it
(``docs/concepts/order.md``): none of them can still change place. Their entries become leaves in the order of their
positions, whatever gaps those have. Tiles that are full and the checkpoint are inserted in one transaction, so that a
process that dies at any instant has sealed all of it or nothing. Any number of processes may run a sealer; a lock lets
one seal at a time.

Before the first round, and whenever another process has sealed meanwhile, the tiles are read, and must give the root
that was signed; the checkpoint that was published last must be in the log too. Otherwise nothing is sealed any more: a
log never signs two histories.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from agent_manager.audit.merkle import ROW_BYTES, Tile, Tree
from agent_manager.audit.notes import Checkpoint, KeyFile, KeyInvalid, Policy
from agent_manager.audit.publish import Witnesses, last_published, publish
from agent_manager.audit.sealed_tree import (
    PACKAGE,
    TilesDamaged,
    consistency_proof,
    fetching,
    load_tree,
    root_of,
)
from agent_manager.settings import ServerSettings, server_settings
from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, InputError, ServerError, translated

BATCH_EVENTS = 16_384
"""Events that a round seals at most: 64 tiles, or 0.7 MB of entries, hashed in some 20 ms."""
POLL_SECONDS = 2.0
"""Seconds between readings of the horizon while there is nothing to seal."""
_log = logging.getLogger(__name__)


class SealingStopped(EventStoreError):
    """The database does not continue what was sealed."""


class Sealer:
    """Seals the log of a store until it is cancelled.

    Attributes:
        checkpoint: the last one, of this process or another; None before the first round.
        failures: why it is not everywhere that it should be.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._settings = server_settings(store.settings)
        self._tree: Tree | None = None
        self.checkpoint: Checkpoint | None = None
        self._witnesses: Witnesses | None = None
        self._logged = ""
        self.failures: list[str] = []

    async def run(self) -> None:
        """Seal as events come, every ``EVENTSTORE_AUDIT_SECONDS`` at most; log errors, and try again."""
        interval = self._settings.audit_seconds
        published: Checkpoint | None = None
        while True:
            began, pause = monotonic(), min(POLL_SECONDS, interval)
            try:
                if await self.seal():
                    pause = interval
                if self.checkpoint is not None and (self.checkpoint != published or self.failures):
                    await self.publish(self.checkpoint)
                    published = self.checkpoint
                    pause = interval
                self._log_once("")
            except (EventStoreError, OSError) as error:
                self._tree = None
                self._log_once(str(error), is_server=isinstance(error, ServerError))
                pause = interval
            except Exception:
                self._tree = None
                _log.exception("the log is not sealed", extra={"event": "audit_failed"})
                pause = max(interval, POLL_SECONDS)
            await asyncio.sleep(max(began + pause - monotonic(), 0.01))

    def _log_once(self, message: str, *, is_server: bool = False) -> None:
        """Log an error, unless it is the last one; the workers report a server that is away."""
        if message and message != self._logged and not is_server:
            _log.error("the log is not sealed: %s", message, extra={"event": "audit_failed"})
        self._logged = message

    async def seal(self, *, at_once: bool = False) -> bool:
        """Seal everything up to the horizon, unless another process is sealing, or has just sealed it.

        Args:
            at_once: even if another process has just done it.

        Returns:
            whether anything was sealed.

        Raises:
            SealingStopped, TilesDamaged: the database does not continue what was sealed.
            KeyInvalid: there is no key to sign with.
        """
        [(horizon,)] = await fetching(self._store)(query("eventstore", "horizon"), None)
        if self._tree is not None and horizon == self._tree.last_position:
            return False
        sealed = number = await self._seal_batch(waits=not at_once)
        while number == BATCH_EVENTS:  # fewer end at the horizon; what was appended meanwhile waits for the next round
            number = await self._seal_batch(waits=False)
            sealed += number
        return sealed > 0

    async def _seal_batch(self, *, waits: bool) -> int:
        """Seal a batch, and return its number of events."""
        keys = read_keys(self._settings)
        if not keys.private:
            raise KeyInvalid(
                f"{keys.path}: has no private key: create one (eventstore audit key create FILE --name NAME)"
            )
        with translated():
            async with self._store.connections.projector.transaction(None) as connection:

                async def fetch(statement: Any, parameters: Any) -> list[Any]:
                    return await (await connection.execute(statement, parameters, binary=True)).fetchall()

                [(is_free, _)] = await fetch(query(PACKAGE, "lock"), None)
                rows = await fetch(query(PACKAGE, "last_checkpoint"), None)
                if not is_free or (waits and rows and rows[0][3] < self._settings.audit_seconds / 2):
                    return 0
                tree = await self._continued(fetch, rows, keys)
                self._tree = None  # until the transaction has ended
                [(horizon,)] = await fetch(query("eventstore", "horizon"), None)
                if horizon < tree.last_position:  # an append that began long ago lowers it, but not the sequence
                    [(position,)] = await fetch(query(PACKAGE, "last_position"), None)
                    if position < tree.last_position:
                        raise SealingStopped(
                            f"the sequence events_position is at {position}, below the last sealed event at position "
                            f"{tree.last_position}: it was set back; run eventstore audit verify"
                        )
                after = {"after": tree.last_position, "horizon": horizon, "limit": BATCH_EVENTS}
                [(bundle,)] = (
                    await fetch(query(PACKAGE, "entries"), after) if horizon > tree.last_position else [(None,)]
                )
                if bundle is None:
                    self._tree = tree
                    return 0
                tiles, checkpoint = await asyncio.to_thread(_grown, tree, bytes(bundle), keys)
                await _add_tiles(connection, tiles)
                await connection.execute(
                    query(PACKAGE, "add_checkpoint"),
                    {
                        "size": tree.size,
                        "last_position": tree.last_position,
                        "note": checkpoint.text,
                        "bundle": tree.bundle[-len(bundle) :],
                    },
                )
        self._tree, self.checkpoint = tree, checkpoint
        return len(bundle) // ROW_BYTES

    async def _continued(self, fetch: Any, rows: list[Any], keys: KeyFile) -> Tree:
        """Return the tree of the last checkpoint, given its row; check it unless this process has signed it."""
        size, note, last_position = rows[0][:3] if rows else (0, "", 0)
        mine = self.checkpoint
        if mine is not None and size < mine.size:
            raise SealingStopped(
                f"the database has {size} sealed events, and a checkpoint of {mine.size} was signed: checkpoints were "
                "removed, or the database was replaced by an older one; see docs/guides/audit.md"
            )
        if self._tree is not None and mine is not None and note == mine.text:
            return self._tree
        tree = await load_tree(fetch, size, last_position)
        if rows:
            checkpoint = Checkpoint.parse(note)
            Policy(logs=keys.keys).check(checkpoint)
            if (tree.root(), tree.size) != (checkpoint.root, checkpoint.size):
                raise TilesDamaged(size)
            self.checkpoint = checkpoint
        published = last_published(self._settings.audit_file) if self._settings.audit_file else None
        if published is not None:
            Policy(logs=keys.keys).check(published)
            if published.size > size or await root_of(fetch, published.size, size) != published.root:
                raise SealingStopped(
                    f"{self._settings.audit_file} has a checkpoint of size {published.size} that this log does not "
                    "continue: the database was rewritten, or is an older one; see docs/guides/audit.md"
                )
        return tree

    async def publish(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint cosigned, and publish it; log what fails."""
        fetch = fetching(self._store)
        failures: list[str] = []
        if self._settings.audit_policy is not None:
            policy = Policy.read(self._settings.audit_policy)
            if self._witnesses is None or self._witnesses.policy != policy:
                self._witnesses = Witnesses(policy, lambda old, new: consistency_proof(fetch, old, new))
            lines, failures = await self._witnesses.cosign(checkpoint)
            if lines:
                await fetch(query(PACKAGE, "add_cosignatures"), {"size": checkpoint.size, "lines": lines})
                checkpoint = checkpoint.with_lines("".join(lines))
        failures += await publish(checkpoint, self._settings)
        for failure in set(failures).difference(self.failures):
            _log.warning("the checkpoint is not published: %s", failure, extra={"event": "audit_publish_failed"})
        self.failures = failures


async def _add_tiles(connection: Connection, tiles: list[Tile]) -> None:
    if tiles:
        columns = {
            "levels": [tile.level for tile in tiles],
            "indexes": [tile.index for tile in tiles],
            "positions": [tile.last_position for tile in tiles],
            "hashes": [tile.hash for tile in tiles],
            "contents": [tile.content for tile in tiles],
        }
        await connection.execute(query(PACKAGE, "add_tiles"), columns)


def _grown(tree: Tree, bundle: bytes, keys: KeyFile) -> tuple[list[Tile], Checkpoint]:
    tiles = tree.add(bundle)
    return tiles, Checkpoint.sign(keys.name, tree.size, tree.root(), keys.private)


def read_keys(settings: ServerSettings) -> KeyFile:
    """Return the keys of the log.

    Raises:
        KeyInvalid: the file cannot be used.
        InputError: no file is named.
    """
    if settings.audit_key is None:
        raise InputError(
            "EVENTSTORE_AUDIT_KEY: names no file of keys: create one (eventstore audit key create FILE --name NAME)"
        )
    return KeyFile.read(settings.audit_key)


def check_sealing(settings: ServerSettings) -> None:
    """Check the files that the settings name, before anything is started.

    Raises:
        KeyInvalid: one of them cannot be used, or there is no key to sign with.
        CheckpointInvalid: the file of published checkpoints has something else.
    """
    if settings.audit_key is None:
        return
    if not (keys := read_keys(settings)).private:
        raise KeyInvalid(f"{keys.path}: has no private key: remove EVENTSTORE_AUDIT_KEY, or create a key")
    if settings.audit_policy is not None:
        Policy.read(settings.audit_policy)
    if settings.audit_file is not None:
        last_published(settings.audit_file)


def describe_sealing(store: EventStore) -> str:
    """Return how the log is sealed, in words; empty if it is not."""
    settings = server_settings(store.settings)
    if settings.audit_key is None:
        return ""
    keys = read_keys(settings)
    places = [
        *([str(settings.audit_file)] if settings.audit_file else []),
        *(["EVENTSTORE_AUDIT_URL"] if settings.audit_url else []),
        *(["EVENTSTORE_AUDIT_COMMAND"] if settings.audit_command else []),
    ]
    signed = ", ".join(key.public.id for key in keys.private)
    published = f"; published to {', '.join(places)}" if places else "; not published"
    return f"{keys.name}, signed by {signed}{published}"


@asynccontextmanager
async def sealing(store: EventStore) -> AsyncIterator[Sealer | None]:
    """Seal the log until the end of the block, if there is a key."""
    if server_settings(store.settings).audit_key is None:
        yield None
        return
    sealer = Sealer(store)
    running = asyncio.create_task(sealer.run())
    try:
        yield sealer
    finally:
        await cancel_and_wait([running])
