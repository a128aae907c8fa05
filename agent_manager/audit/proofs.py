"""Proofs that leave the database: written as text or JSON, read again, and checked offline.

The text of an inclusion proof is that of C2SP's ``tlog-proof``, with the event in its line ``extra``. That of a
consistency proof is the older checkpoint, an empty line, and the request by which C2SP's ``tlog-witness`` asks for a
cosignature of the newer one: the size of the older one, the hashes and the newer checkpoint.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeAlias
from uuid import UUID

from agent_manager.audit.merkle import ProofInvalid, leaf_hash, root_of_inclusion, verify_consistency
from agent_manager.audit.notes import Checkpoint, Policy, PublicKey, decode, encode, parse_checkpoints
from agent_manager.audit.sealed_tree import (
    PACKAGE,
    consistency_proof,
    fetching,
    inclusion_proof,
    index_of,
    last_checkpoint,
)
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound, printable

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_COLUMNS = (
    "position", "salt", "timestamp", "version", "schema_version", "conversation_id", "id", "tenant_id", "event_type",
    "actor", "content", "metadata",
)  # fmt: skip


def event_digest(
    salt: bytes,
    position: int,
    timestamp: datetime,
    version: int,
    schema_version: int,
    conversation_id: UUID,
    event_id: UUID,
    texts: Sequence[bytes],
) -> bytes:
    """Return the digest of an event, in the byte format of ``docs/concepts/digest.md``.

    Args:
        texts: tenant, type, actor, content and metadata, the last two as canonical JSON.
    """
    microseconds = (timestamp - _EPOCH) // timedelta(microseconds=1)
    numbers = struct.pack(">qqih", position, microseconds, version, schema_version)
    named = b"".join(struct.pack(">i", len(text)) + text for text in texts)
    return sha256(salt + numbers + conversation_id.bytes + event_id.bytes + named).digest()


def event_digest_of(event: Mapping[str, Any]) -> bytes:
    """Return the digest of an event, given its columns as proofs and exports have them.

    Raises:
        ProofInvalid: one is missing, or has a wrong form.
    """
    try:
        if "salt" not in event:  # it was erased: its digest cannot be computed any more
            return bytes.fromhex(event["digest"])
        return event_digest(
            bytes.fromhex(event["salt"]),
            event["position"],
            datetime.fromisoformat(event["timestamp"]),
            event["version"],
            event["schema_version"],
            UUID(event["conversation_id"]),
            UUID(event["id"]),
            [event[name].encode() for name in ("tenant_id", "event_type", "actor", "content", "metadata")],
        )
    except (KeyError, TypeError, ValueError, AttributeError, struct.error, OverflowError):
        raise ProofInvalid("the proof does not have a whole event: get it again from the log") from None


@dataclass(frozen=True)
class InclusionProof:
    """A proof that an event is in the log.

    Attributes:
        event: its columns, with the salt in hexadecimal digits, and content and metadata as canonical JSON; of an event
            that was erased only ``position`` and ``digest``, in hexadecimal digits.
        index: the number of its leaf, from 0 on.
        path: the hashes.
    """

    event: dict[str, Any]
    index: int
    path: tuple[bytes, ...]
    checkpoint: Checkpoint

    @property
    def entry(self) -> bytes:
        """The entry of the leaf."""
        return int(self.event["position"]).to_bytes(8, signed=True) + event_digest_of(self.event)

    @property
    def text(self) -> str:
        """The text of the proof."""
        extra = encode(json.dumps(self.event, ensure_ascii=False).encode())
        path = "".join(f"{encode(each)}\n" for each in self.path)
        return f"{_FIRST_LINE}\nextra {extra}\nindex {self.index}\n{path}\n{self.checkpoint.text}"

    @property
    def value(self) -> dict[str, Any]:
        """The proof as JSON."""
        return {
            "event": self.event,
            "entry": self.entry.hex(),
            "leaf_hash": leaf_hash(self.entry).hex(),
            "index": self.index,
            "path": [each.hex() for each in self.path],
            "size": self.checkpoint.size,
            "root": self.checkpoint.root.hex(),
            "checkpoint": self.checkpoint.text,
        }

    def check(self) -> None:
        """Check that the checkpoint includes the event.

        Raises:
            ProofInvalid: it does not.
        """
        root = root_of_inclusion(self.index, self.checkpoint.size, leaf_hash(self.entry), self.path)
        if root != self.checkpoint.root:
            raise ProofInvalid(
                "the proof does not lead from the event to the root of the checkpoint: one of them was changed"
            )


@dataclass(frozen=True)
class ConsistencyProof:
    """A proof that the log of a checkpoint begins with that of an older one."""

    old: Checkpoint
    new: Checkpoint
    path: tuple[bytes, ...]

    @property
    def text(self) -> str:
        """The text of the proof."""
        path = "".join(f"{encode(each)}\n" for each in self.path)
        return f"{self.old.text}\nold {self.old.size}\n{path}\n{self.new.text}"

    @property
    def value(self) -> dict[str, Any]:
        """The proof as JSON."""
        return {"old": self.old.text, "new": self.new.text, "path": [each.hex() for each in self.path]}

    def check(self) -> None:
        """Check the proof.

        Raises:
            ProofInvalid: the log was rewritten between the two checkpoints.
        """
        if self.old.origin != self.new.origin:
            raise ProofInvalid(f"the checkpoints are of two logs, {printable(self.old.origin)} and "
                               f"{printable(self.new.origin)}: compare those of one")  # fmt: skip
        verify_consistency(self.old.size, self.old.root, self.new.size, self.new.root, self.path)


Proof: TypeAlias = InclusionProof | ConsistencyProof | list[Checkpoint]


def parse_proof(text: str) -> Proof:
    """Return the proof, or the checkpoints, that a file has, as text or JSON.

    Raises:
        ProofInvalid, CheckpointInvalid: it has something else.
    """
    try:
        if text.lstrip().startswith("{"):
            return _of_value(json.loads(text))
        if text.startswith(_FIRST_LINE):
            return _of_tlog_proof(text)
        old, is_consistency, rest = text.partition("\n\nold ")
        if is_consistency:
            head, _, new = rest.partition("\n\n")
            size, *lines = head.split("\n")
            first = Checkpoint.parse(old + "\n")
            if size != str(first.size):
                raise ValueError
            return ConsistencyProof(first, Checkpoint.parse(new), tuple(map(_hash, lines)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProofInvalid("the file is not a proof: give what audit prove or audit consistency wrote") from None
    return parse_checkpoints(text)


def _of_tlog_proof(text: str) -> InclusionProof:
    head, _, note = text.partition("\n\n")
    _, extra, index, *lines = head.split("\n")
    if not extra.startswith("extra ") or not re.fullmatch("index (0|[1-9][0-9]*)", index):
        raise ValueError
    event = json.loads(decode(extra.removeprefix("extra ")))
    number = int(index.removeprefix("index "))
    return InclusionProof(dict(event), number, tuple(map(_hash, lines)), Checkpoint.parse(note))


def _of_value(value: dict[str, Any]) -> Proof:
    if "old" in value:
        path = tuple(map(bytes.fromhex, value["path"]))
        return ConsistencyProof(Checkpoint.parse(value["old"]), Checkpoint.parse(value["new"]), path)
    path = tuple(map(bytes.fromhex, value["path"]))
    return InclusionProof(dict(value["event"]), int(value["index"]), path, Checkpoint.parse(value["checkpoint"]))


def _hash(line: str) -> bytes:
    value = decode(line)
    if len(value) != 32:
        raise ValueError(line)
    return value


def check_proof(proof: Proof, policy: Policy) -> tuple[list[PublicKey], dict[PublicKey, datetime]]:
    """Check a proof, or checkpoints; return who has signed and cosigned the newest checkpoint, which has the quorum.

    Raises:
        ProofInvalid: the proof does not hold.
        CheckpointInvalid: a checkpoint lacks a signature that the policy demands.
    """
    if isinstance(proof, InclusionProof):
        signed = policy.check(proof.checkpoint)
        proof.check()
        return signed
    checkpoints = [proof.old, proof.new] if isinstance(proof, ConsistencyProof) else proof
    for each in checkpoints:
        Policy(policy.logs).check(each)
    signed = policy.check(max(checkpoints, key=lambda each: each.size))
    if isinstance(proof, ConsistencyProof):
        proof.check()
    roots: dict[tuple[str, int], bytes] = {}
    for each in checkpoints:
        if roots.setdefault((each.origin, each.size), each.root) != each.root:
            raise ProofInvalid(
                f"two checkpoints of size {each.size} have different roots: the log has signed two histories; keep both"
            )
    return signed


# Making proofs


async def prove(store: EventStore, position: int, checkpoint: Checkpoint | None = None) -> InclusionProof:
    """Return the proof that the event at a position is in the log, as of a checkpoint, by default the newest.

    Raises:
        NotFound: nothing is at this position, or it is not sealed yet.
        TilesDamaged: the tiles or the event are not as they were sealed.
    """
    fetch = fetching(store)
    rows = await fetch(query(PACKAGE, "event"), {"position": position, "tenant": store.tenant})
    if not rows:
        raise NotFound(
            f"the tenant {store.tenant} has no event at position {position}: eventstore history shows positions"
        )
    newest = await last_checkpoint(fetch)
    if newest is None:
        raise NotFound("nothing is sealed yet: set EVENTSTORE_AUDIT_KEY for eventstore up or project")
    index = await index_of(fetch, position, newest.size)
    checkpoint = checkpoint or newest
    entry, path = await inclusion_proof(fetch, index, checkpoint)
    *columns, digest = rows[0]
    event: dict[str, Any] = dict(zip(_COLUMNS, columns, strict=True))
    event["timestamp"] = event["timestamp"].replace(tzinfo=UTC).isoformat(timespec="microseconds")
    if event["salt"] is None:
        event = {"position": position, "digest": bytes(digest).hex()}
    if entry[8:] != bytes(digest) or event_digest_of(event) != bytes(digest):
        raise ProofInvalid(
            f"the event at position {position} was changed since it was sealed: run eventstore audit verify"
        )
    return InclusionProof(event, index, tuple(path), checkpoint)


async def prove_consistency(store: EventStore, old: Checkpoint, new: Checkpoint) -> ConsistencyProof:
    """Return the proof that the log of a checkpoint begins with that of an older one.

    Raises:
        ProofInvalid: it does not.
        TilesDamaged: the tiles are not as they were sealed.
    """
    fetch = fetching(store)
    newest = await last_checkpoint(fetch)
    size, largest = newest.size if newest else 0, max(old.size, new.size)
    if size < largest:
        raise NotFound(f"the log has {size} sealed events, fewer than the checkpoint of size {largest}: events were "
                       "removed, or the checkpoint is of another log")  # fmt: skip
    proof = ConsistencyProof(old, new, tuple(await consistency_proof(fetch, old.size, new.size)))
    proof.check()
    return proof


async def find_position(store: EventStore, text: str, conversation: UUID | None = None) -> int:
    """Return the position of an event of the store's tenant: given itself, or by the id of the event or its message.

    Args:
        conversation: of the event: then it is found by an index. Otherwise that of messages is tried first.

    Raises:
        NotFound: there is no such event.
        InputError: the text is neither, or several conversations have an event with this id.
    """
    if re.fullmatch("[0-9]{1,18}", text):
        return int(text)
    try:
        given: dict[str, Any] = {"id": UUID(text), "tenant": store.tenant, "conversation": conversation}
    except ValueError:
        raise InputError(
            f"{printable(text)!r} is neither a position nor the id of an event: give one of them"
        ) from None
    names = ["position_in_conversation"] if conversation else ["position_of_message", "position_of_event"]
    for name in names:
        if rows := await fetching(store)(query(PACKAGE, name), given):
            if len(rows) > 1:
                raise InputError(f"{text}: several conversations have such an event: give --conversation too")
            return int(rows[0][0])
    raise NotFound(f"the tenant {store.tenant} has no event with the id {text}: eventstore history shows ids")
