"""What departs together: which of the waiting appends, as which statement, and what came of each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from psycopg.pq.abc import PGresult

from eventstore.append import ANY_VERSION, ID, MAX_CONVERSATIONS, TYPE, Append, Batch, Outcome, Row
from eventstore.database import binary
from eventstore.database.binary import with_length, without_length
from eventstore.database.lane import Statement
from eventstore.database.queries import query
from eventstore.ids import parse_uuid
from eventstore.room import Key

GROUP_EVENTS = 1000
GROUP_BYTES = 4 * 1024 * 1024
GROUP_CONVERSATIONS = max(128, MAX_CONVERSATIONS)
"""Each takes a lock, and the server's table of locks is finite."""

APPEND_ONE = Statement(
    b"eventstore_append_one",
    query("eventstore", "append_one").encode(),
    (
        binary.TEXT, binary.UUID, binary.INT4, binary.UUID, binary.TEXT, binary.INT2, binary.TEXT,
        binary.JSONB, binary.JSONB, binary.INT4, binary.TEXT,
    ),
)  # fmt: skip
APPEND_GROUP = Statement(
    b"eventstore_append_group",
    query("eventstore", "append_group").encode(),
    (
        binary.TEXT_ARRAY, binary.UUID_ARRAY, binary.INT4_ARRAY, binary.INT4_ARRAY, binary.INT4_ARRAY,
        binary.UUID_ARRAY, binary.TEXT_ARRAY, binary.INT2_ARRAY, binary.TEXT_ARRAY, binary.JSONB_ARRAY,
        binary.JSONB_ARRAY, binary.TEXT_ARRAY, binary.INT4,
    ),
)  # fmt: skip
STATEMENTS = (APPEND_ONE, APPEND_GROUP)
SAY_ROLE = Statement(b"eventstore_say_role", query("eventstore", "say_role").encode(), (binary.TEXT,))
"""For the transaction of one of them."""


def keys_of(tenant: str, appends: Sequence[Append]) -> list[Key]:
    """The conversations of an append.

    Raises:
        InvalidId: one of them is no UUID.
    """
    suffix = tenant.encode()
    return [parse_uuid(append.conversation_id, "conversation_id").bytes + suffix for append in appends]


class Traveller:
    """An append on its way.

    Attributes:
        came: what came of its events; done by cancellation if the caller gave up.
        is_alone: travels by itself, because it travelled in a group that failed.
        losses: connections that broke under it.
    """

    __slots__ = ("batch", "came", "is_alone", "keys", "losses")

    def __init__(self, batch: Batch, keys: Sequence[Key], came: asyncio.Future[Sequence[Outcome]]) -> None:
        self.batch = batch
        self.keys = keys
        self.came = came
        self.is_alone = False
        self.losses = 0


_DELETIONS = frozenset(with_length(word) for word in (b"conversation.deleted", b"conversation.reactivated"))

Group = list[Traveller]


def departing(queue: deque[Traveller], under_way: set[Key], most: int) -> Group:
    """Takes out of the queue, in its order, what can depart together now.

    A conversation belongs to one append of a group, or to several that all expect ANY. It is not sent while it is under
    way, and no append overtakes another of its conversation.
    """
    if len(queue) == 1 and not under_way and not queue[0].came.done():
        return [queue.popleft()]
    group: Group = []
    kept: list[Traveller] = []
    held: set[Key] = set()
    taken: dict[Key, list[Traveller]] = {}
    events = size = 0
    while queue:
        next_one = queue[0]
        batch = next_one.batch
        if next_one.came.done():
            queue.popleft()
            continue
        if group and (
            next_one.is_alone
            or len(group) == most
            or events + len(batch.rows) > GROUP_EVENTS
            or size + batch.size > GROUP_BYTES
            or len(taken) + len(next_one.keys) > GROUP_CONVERSATIONS
        ):
            break
        queue.popleft()
        for key in next_one.keys:
            if key in under_way or key in held or (key in taken and not _may_share(key, taken[key], next_one)):
                held.update(next_one.keys)
                kept.append(next_one)
                break
        else:
            for key in next_one.keys:
                taken.setdefault(key, []).append(next_one)
            group.append(next_one)
            events += len(batch.rows)
            size += batch.size
            if next_one.is_alone:
                break
    queue.extendleft(reversed(kept))
    return group


def _may_share(key: Key, those: list[Traveller], other: Traveller) -> bool:
    """Whether appends can follow each other in a conversation: for one user, all expect ANY, no event is in two.

    One that deletes or reactivates the conversation is sent without others to it: whether they are refused depends on
    whether it is.
    """
    if any(row[TYPE] in _DELETIONS for one in (*those, other) for row in one.batch.rows):
        return False
    if any(one.batch.user != other.batch.user for one in those):
        return False
    targets = [one.keys.index(key) for one in (*those, other)]
    if any(one.batch.expected[target] != ANY_VERSION for one, target in zip((*those, other), targets, strict=True)):
        return False
    ids = {row[ID] for row in other.batch.rows}
    return all(row[ID] not in ids for one in those for row in one.batch.rows)


def statement(group: Group, patience: int) -> tuple[Statement, list[bytes]]:
    """The statement that appends the group, and its parameters.

    Args:
        patience: milliseconds to wait for a conversation that is locked; 0 is not at all.
    """
    first = group[0].batch
    if len(group) == 1 and len(first.rows) == 1 and len(first.conversations) == 1:
        key = group[0].keys[0]
        event_id, *others = (without_length(value) for value in first.rows[0])
        head = [key[16:], key[:16], binary.int4(first.expected[0]), event_id]
        return APPEND_ONE, [*head, *others, binary.int4(patience), first.user.encode()]
    targets: dict[Key, int] = {}
    expected: list[int] = []
    append_nos: list[int] = []
    conversation_nos: list[int] = []
    rows: list[Row] = []
    users: list[bytes] = []
    for number, traveller in enumerate(group):
        batch = traveller.batch
        places = []
        for key, version in zip(traveller.keys, batch.expected, strict=True):
            place = targets.get(key)
            if place is None:
                place = targets[key] = len(targets) + 1
                expected.append(version)
            places.append(place)
        rows += batch.rows
        users += [with_length(batch.user.encode())] * len(batch.rows)
        append_nos += [number] * len(batch.rows)
        conversation_nos += [places[target] for target in batch.targets]
    ids, types, versions, actors, contents, metadatas = zip(*rows, strict=True)
    return APPEND_GROUP, [
        binary.array(binary.TEXT, [with_length(key[16:]) for key in targets]),
        binary.array(binary.UUID, [with_length(key[:16]) for key in targets]),
        binary.int4_array(expected),
        binary.int4_array(append_nos),
        binary.int4_array(conversation_nos),
        binary.array(binary.UUID, ids),
        binary.array(binary.TEXT, types),
        binary.array(binary.INT2, versions),
        binary.array(binary.TEXT, actors),
        binary.array(binary.JSONB, contents),
        binary.array(binary.JSONB, metadatas),
        binary.array(binary.TEXT, users),
        binary.int4(patience),
    ]


def outcomes(result: PGresult) -> list[Outcome]:
    """What came of each event, in the order in which they were sent."""
    value = result.get_value
    if result.nfields == 1:  # a row as one value: for a single one, the server makes that with less ado
        return [Outcome._make(binary.members(value(0, 0) or b""))]
    return [
        Outcome(value(number, 0), value(number, 1), value(number, 2), value(number, 3), value(number, 4))
        for number in range(result.ntuples)
    ]
