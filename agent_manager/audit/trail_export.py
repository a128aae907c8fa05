"""Exports of the trail: files of events, each with a proof beside it that anybody can check offline.

A row of the file has the columns of an event that its digest covers, as an inclusion proof has them. The proof, which
is named as the file with ``.proof`` after it, has the numbers of their leaves, the checkpoint, and the hashes that lead
from these leaves to its root (:func:`agent_manager.audit.merkle.multi_path`). Both are specified in
``docs/concepts/sealed-log.md``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, cast

from agent_manager.audit.merkle import (
    ROW_BYTES,
    TILE,
    ProofInvalid,
    leaf_hash,
    multi_path,
    position_at,
    root_of_leaves,
)
from agent_manager.audit.notes import Checkpoint, Policy, PublicKey
from agent_manager.audit.proofs import event_digest_of
from agent_manager.audit.sealed_tree import (
    PACKAGE,
    Fetch,
    fetching,
    incomplete_bundle,
    last_checkpoint,
    list_checkpoints,
    subtree_hashes,
)
from eventstore import Caller, Event, EventStore
from eventstore.concurrency import run_in_thread
from eventstore.database.queries import query
from eventstore.errors import InputError, printable
from eventstore.events import stored_texts

PROOF = ".proof"
"""The suffix that the name of a proof has after the name of its file."""
_FORMAT = "flowagents-eventstore trail proof v1"
_NUMBERS = ("position", "version", "schema_version")
COLUMNS = (
    "position", "timestamp", "tenant_id", "actor", "event_type", "conversation_id", "version", "id", "content",
    "metadata", "schema_version", "salt", "digest",
)  # fmt: skip
"""The columns of a file."""
_CHUNK_EVENTS, _CHUNK_BYTES = 200, 2**20
"""The most that is written at a time, in a thread."""
_PATHS = 1000
"""Subtrees whose tiles are in memory at a time."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """The outcome of an export.

    Attributes:
        file: the events.
        proof: None if nothing is sealed.
        events: their number.
        unsealed: events that are not sealed yet, and are left out.
        size: of the tree of the checkpoint.
    """

    file: Path
    proof: Path | None
    events: int
    unsealed: int
    size: int = 0


async def export_trail(
    store: EventStore,
    file: Path,
    *,
    caller: Caller | None = None,
    conversation_id: Any = None,
    reserve: Callable[[int], None] = lambda size: None,
    **filters: Any,
) -> Exported:
    """Write the events of the trail to a file, in the format that its name ends with, and their proof beside it.

    Args:
        file: a name that ends with ``.jsonl``, ``.csv`` or ``.parquet``. Files of these names are replaced; others
            cannot read the new one of the events.
        caller: the tenant, or the user, whose events they are.
        conversation_id: only events of this conversation.
        reserve: called with the approximate bytes of events that were written; may raise.
        filters: of :meth:`eventstore.EventStore.read_log`.

    Raises:
        InputError: the format is unknown, or the file cannot be written.
        ProofInvalid: an event was changed since it was sealed.
    """
    write = _format_of(file).write
    caller = caller or store.caller()
    filters |= {"tenant": caller.tenant, "user": caller.user}
    fetch = fetching(store)
    sealed = await list_checkpoints(fetch, 1)
    last = sealed[0].position if sealed else None
    checkpoint = await last_checkpoint(fetch) if sealed else None
    if checkpoint is not None and checkpoint.size != sealed[0].checkpoint.size:
        checkpoint = sealed[0].checkpoint  # without cosignatures: a newer one was sealed meanwhile
    events = store.read_log(**filters) if conversation_id is None else store.read(conversation_id, **filters)
    leaves = _Leaves(fetch, checkpoint.size if checkpoint else 0)
    count = unsealed = 0
    temporary, proof = file.with_name(f".{file.name}.part"), file.with_name(file.name + PROOF)
    writing = ExitStack()
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        add = await run_in_thread(writing.enter_context, write(temporary))
        async with aclosing(_chunks(cast("Any", events))) as chunks:
            async for chunk in chunks:
                final = [event for event in chunk if last is None or event.position <= last]
                places = [None if checkpoint is None else await leaves.find(event) for event in final]
                reserve(await run_in_thread(_add_rows, add, leaves, final, places))
                count, unsealed = count + len(final), unsealed + len(chunk) - len(final)
        await run_in_thread(writing.close)
        proof.unlink(missing_ok=True)
        temporary.replace(file)
        if checkpoint is None:
            return Exported(file, None, count, unsealed)
        hashes: list[str] = []
        path = multi_path(leaves, checkpoint.size)
        some: list[Any]
        while some := await run_in_thread(list, islice(path, _PATHS)):
            hashes += [each.hex() for each in await subtree_hashes(fetch, some, checkpoint.size)]
        value = {
            "format": _FORMAT,
            "file": file.name,
            "leaves": leaves.ranges,
            "hashes": hashes,
            "checkpoint": checkpoint.text,
        }
        proof.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{printable(str(file))}: {error.strerror}: name a file that can be written") from None
    finally:
        with suppress(OSError):  # that of a full disk was raised before
            await run_in_thread(writing.close)
        temporary.unlink(missing_ok=True)
    return Exported(file, proof, count, unsealed, checkpoint.size)


async def _chunks(events: AsyncGenerator[Event, None]) -> AsyncGenerator[list[Event], None]:
    """Yield events, several at a time."""
    chunk: list[Event] = []
    size = 0
    async with aclosing(events):
        async for event in events:
            chunk.append(event)
            size += event.size
            if len(chunk) == _CHUNK_EVENTS or size > _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    yield chunk


def _add_rows(
    add: Callable[[Row], None], leaves: _Leaves, events: Sequence[Event], places: Sequence[tuple[int, bytes] | None]
) -> int:
    """Write events, add the leaves of those that have a place in the tree, and return about how many bytes it is."""
    size = 0
    for event, place in zip(events, places, strict=True):
        row = _row(event)
        if place is not None:
            leaves.add(event, row, *place)
        add(row)
        size += 500 + len(row["content"]) + len(row["metadata"])
    return size


def _row(event: Event) -> Row:
    content, metadata = stored_texts(event)
    return {
        "position": event.position,
        "timestamp": event.timestamp.isoformat(timespec="microseconds"),
        "tenant_id": event.tenant_id,
        "actor": event.actor,
        "event_type": event.event_type,
        "conversation_id": str(event.conversation_id),
        "version": event.version,
        "id": str(event.id),
        "content": content,
        "metadata": metadata,
        "schema_version": event.schema_version,
        "salt": event.salt.hex() if event.salt is not None else "",
        "digest": event.digest.hex(),
    }


class _Leaves:
    """The leaves of events, which are added in the order of positions, as ranges of their numbers."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch, self._size = fetch, size
        self._sealed: dict[int, tuple[int, bytes]] = {}
        self.ranges: list[list[int]] = []

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    async def find(self, event: Event) -> tuple[int, bytes]:
        """Return the number of the leaf of an event, and the digest in it; -1 if it has none."""
        if event.position not in self._sealed:
            await self._read(event.position)
        return self._sealed.get(event.position, (-1, b""))

    def add(self, event: Event, row: Row, number: int, digest: bytes) -> None:
        """Add the leaf of an event.

        Raises:
            ProofInvalid: the event was changed since it was sealed.
        """
        if digest != event.digest or (event.salt is not None and event_digest_of(row) != digest):
            raise ProofInvalid(
                f"the event at position {event.position} was changed since it was sealed: run eventstore audit verify"
            )
        if self.ranges and self.ranges[-1][1] == number - 1:
            self.ranges[-1][1] = number
        else:
            self.ranges.append([number, number])

    async def _read(self, position: int) -> None:
        """Read the entries of the tile that has a position."""
        rows = await self._fetch(query(PACKAGE, "tile_of_position"), {"position": position})
        tile, bundle = self._size // TILE, b""
        if rows:
            tile, bundle = rows[0][0], bytes(rows[0][1])
        else:
            bundle = await incomplete_bundle(self._fetch, self._size)
        self._sealed = {
            position_at(bundle, index): (tile * TILE + index, bundle[index * ROW_BYTES + 10 : (index + 1) * ROW_BYTES])
            for index in range(len(bundle) // ROW_BYTES)
        }


# The formats


@dataclass(frozen=True)
class _Format:
    """A format of files: how rows are written and read."""

    write: Callable[[Path], AbstractContextManager[Callable[[Row], None]]]
    read: Callable[[Path], Iterator[Row]]


@contextmanager
def _write_json_lines(file: Path) -> Iterator[Callable[[Row], None]]:
    with file.open("w", encoding="utf-8", newline="\n") as out:
        yield lambda row: cast("None", out.write(json.dumps(row, ensure_ascii=False) + "\n"))


def _read_json_lines(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)


@contextmanager
def _write_csv(file: Path) -> Iterator[Callable[[Row], None]]:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        yield lambda row: cast("None", writer.writerow(row))


def _read_csv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            yield row | {name: int(row[name]) for name in _NUMBERS}


_GROUP_ROWS, _GROUP_BYTES = 2000, 8 * 2**20


@contextmanager
def _write_parquet(file: Path) -> Iterator[Callable[[Row], None]]:
    pyarrow, parquet = _pyarrow()
    schema = pyarrow.schema(
        [(name, pyarrow.int64() if name in _NUMBERS else pyarrow.string()) for name in COLUMNS]
    ).set(COLUMNS.index("timestamp"), pyarrow.field("timestamp", pyarrow.timestamp("us", tz="UTC")))
    rows: list[Row] = []
    size = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:

        def flush() -> None:
            nonlocal size
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()
            size = 0

        def add(row: Row) -> None:
            nonlocal size
            rows.append(row | {"timestamp": datetime.fromisoformat(row["timestamp"])})
            size += len(row["content"]) + len(row["metadata"])
            if len(rows) >= _GROUP_ROWS or size > _GROUP_BYTES:
                flush()

        yield add
        flush()


def _read_parquet(file: Path) -> Iterator[Row]:
    _, parquet = _pyarrow()
    with parquet.ParquetFile(file) as groups:
        for group in groups.iter_batches(_GROUP_ROWS):
            for row in group.to_pylist():
                yield row | {"timestamp": row["timestamp"].isoformat(timespec="microseconds")}


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow: pip install 'flowagents-eventstore[parquet]', or choose .jsonl or .csv"
        ) from None


_FORMATS = {
    ".jsonl": _Format(_write_json_lines, _read_json_lines),
    ".csv": _Format(_write_csv, _read_csv),
    ".parquet": _Format(_write_parquet, _read_parquet),
}


def _format_of(file: Path) -> _Format:
    try:
        return _FORMATS[file.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{printable(str(file))}: the format is unknown: end the name with {', '.join(_FORMATS)}"
        ) from None


# Checking


@dataclass(frozen=True)
class CheckedExport:
    """An export that was checked against its proof.

    Attributes:
        events: its number of events, all of them in the log of the checkpoint.
        erased: those of them whose content was erased: only their digests are proved.
        keys: the keys that have signed the checkpoint.
        cosigners: the witnesses that have cosigned it, and when.
    """

    events: int
    erased: int
    checkpoint: Checkpoint
    keys: list[PublicKey] = field(default_factory=list)
    cosigners: Mapping[PublicKey, datetime] = field(default_factory=dict)


def proof_of_export(file: Path) -> Path | None:
    """Return the proof of an export, given itself or the file of its events; None if it is neither."""
    for proof in (file, file.with_name(file.name + PROOF)):
        if proof.suffix == PROOF and Path(proof.stem).suffix in _FORMATS and proof.is_file():
            return proof
    return None


def check_export(proof: Path, policy: Policy) -> CheckedExport:
    """Check that all events of the file beside a proof are in the log, unchanged, without a database.

    Raises:
        ProofInvalid: they are not, or the files do not belong together.
        CheckpointInvalid: the checkpoint lacks a signature that the policy demands.
        InputError: a file cannot be read.
    """
    file = proof.with_suffix("")
    try:
        value = json.loads(proof.read_text(encoding="utf-8"))
        if value["format"] != _FORMAT:
            raise ProofInvalid(f"{printable(str(proof))}: is not a proof of this version: {value['format']!r:.80}")
        checkpoint = Checkpoint.parse(value["checkpoint"])
        keys, cosigners = policy.check(checkpoint)
        events = erased = 0

        def leaves() -> Iterator[tuple[int, bytes]]:
            nonlocal events, erased
            numbers = (number for first, last in value["leaves"] for number in range(first, last + 1))
            rows = _format_of(file).read(file)
            for number, row in zip(numbers, rows, strict=True):
                digest = bytes.fromhex(row["digest"])
                events, erased = events + 1, erased + (not row["salt"])
                if row["salt"] and event_digest_of(row) != digest:
                    raise ProofInvalid(f"the event at position {row['position']} was changed since it was exported")
                yield number, leaf_hash(int(row["position"]).to_bytes(8, signed=True) + digest)

        root = root_of_leaves(leaves(), checkpoint.size, map(bytes.fromhex, value["hashes"]))
    except OSError as error:
        raise InputError(
            f"{printable(str(error.filename))}: {error.strerror}: keep the proof and its file in one folder"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProofInvalid(f"{printable(str(file))} and its proof do not belong together: {error!r:.200}") from None
    if root != checkpoint.root:
        raise ProofInvalid(
            f"{printable(str(file))}: its events do not lead to the root of the checkpoint: one was changed, added, "
            "removed or reordered"
        )
    return CheckedExport(events, erased, checkpoint, keys, cosigners)
