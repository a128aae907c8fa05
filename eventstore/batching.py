"""Batching: which of the pending appends are sent together, as which statement, and the outcome of each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container, Sequence
from itertools import zip_longest

from psycopg.pq.abc import PGresult

from eventstore.append import ANY_VERSION, ID, MAX_CONVERSATIONS, TYPE, Append, Batch, Outcome, Row
from eventstore.database import binary
from eventstore.database.binary import with_length, without_length
from eventstore.database.lane import Statement
from eventstore.database.queries import query
from eventstore.ids import parse_uuid

ConversationKey = bytes
"""Id of a conversation, followed by the name of its tenant."""

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


def keys_of(tenant: str, appends: Sequence[Append]) -> list[ConversationKey]:
    """Return the conversations of an append.

    Raises:
        InvalidId: the id of one of them is not a UUID.
    """
    suffix = tenant.encode()
    return [parse_uuid(append.conversation_id, "conversation_id").bytes + suffix for append in appends]


class PendingAppend:
    """An append whose outcome is not known yet.

    Attributes:
        batch: its serialised events, once it is prepared.
        conversations: the conversations that it writes to.
        events: number of events.
        size: serialised size in bytes, once it is prepared.
        deadline: when it ends at the latest, by the clock of the event loop.
        result: the outcomes of its events; cancelled if the caller gave up.
        is_prepared: its events are checked and serialised.
        tenant: to whom its conversations belong.
        is_admitted: it holds capacity (see :mod:`eventstore.backpressure`).
        is_weighed: the capacity that it holds includes its bytes.
        is_given_up: its error is being made, so it must not be sent any more.
        is_alone: it is sent by itself, because it was sent in a group that failed.
        is_in_flight: it was sent, and the answer is not there yet.
        may_be_stored: it was sent, and the answer was lost.
        losses: how often the answer was lost, or could not be given.
    """

    __slots__ = (
        "_batch", "_given", "conversations", "deadline", "events", "is_admitted", "is_alone", "is_given_up",
        "is_in_flight", "is_weighed", "losses", "may_be_stored", "result", "size", "tenant",
    )  # fmt: skip

    def __init__(
        self,
        given: tuple[str, Sequence[Append], int, str, str],
        deadline: float,
        result: asyncio.Future[Sequence[Outcome]],
    ) -> None:
        """Create an append that is not prepared.

        Args:
            given: what its :class:`~eventstore.append.Batch` is made of.
        """
        self.tenant, appends, *_ = self._given = given
        self.conversations: Sequence[ConversationKey] = keys_of(self.tenant, appends)
        self.events = sum(len(append.events) for append in appends)
        self.deadline = deadline
        self.result = result
        self.size = 0
        self.losses = 0
        self.is_admitted = self.is_weighed = self.is_alone = self.is_given_up = self.is_in_flight = False
        self.may_be_stored = False
        self._batch: Batch | None = None

    @property
    def batch(self) -> Batch:
        assert self._batch is not None
        return self._batch

    @property
    def is_prepared(self) -> bool:
        return self._batch is not None

    def prepare(self) -> None:
        """Check and serialise the events. Raises what :class:`~eventstore.append.Batch` raises."""
        self._keep(Batch(*self._given))

    async def prepare_in_slices(self) -> None:
        """Prepare, a few events at a time."""
        self._keep(await Batch.in_slices(*self._given))

    def _keep(self, batch: Batch) -> None:
        self._batch = batch
        self.size = batch.size

    @property
    def is_large(self) -> bool:
        """Whether it has more events than a group of several may have."""
        return self.events > GROUP_EVENTS

    @property
    def is_over(self) -> bool:
        """Whether it must not be sent any more."""
        return self.is_given_up or self.result.done()


_DELETIONS = frozenset(with_length(word) for word in (b"conversation.deleted", b"conversation.reactivated"))

Group = list[PendingAppend]


def in_turn(queue: deque[PendingAppend]) -> deque[PendingAppend]:
    """Return the appends so that tenants take turns, the one that has waited longest first.

    Those of one tenant, and with them those of one conversation, keep their order.
    """
    by_tenant: dict[str, deque[PendingAppend]] = {}
    for append in queue:
        by_tenant.setdefault(append.tenant, deque()).append(append)
    if len(by_tenant) < 2:
        return queue
    rounds = zip_longest(*by_tenant.values())
    return deque(append for one_of_each in rounds for append in one_of_each if append is not None)


def next_group(
    queue: deque[PendingAppend], reserved: Container[ConversationKey], most: int, *, takes_large: bool = True
) -> Group:
    """Take from the queue, in its order, the appends that can be sent together now.

    Args:
        most: appends in the group.
        takes_large: whether it may be an append that is larger than a group; if not, that stays in the queue.

    An append that is not prepared stays in the queue, and with it those that follow it in its conversations.

    A conversation belongs to one append of a group, or to several that all expect ANY. An append to a reserved
    conversation stays in the queue, and no append overtakes another of the same conversation.
    """
    if len(queue) == 1 and not reserved and not queue[0].is_over and queue[0].is_prepared:
        return [queue.popleft()] if takes_large or not queue[0].is_large else []
    group: Group = []
    kept: list[PendingAppend] = []
    blocked: set[ConversationKey] = set()
    taken: dict[ConversationKey, list[PendingAppend]] = {}
    events = size = 0
    while queue:
        append = queue[0]
        if append.is_over:
            queue.popleft()
            continue
        if not append.is_prepared or (append.is_large and not takes_large):
            blocked.update(append.conversations)
            kept.append(queue.popleft())
            continue
        if group and (
            append.is_alone
            or len(group) == most
            or events + append.events > GROUP_EVENTS
            or size + append.size > GROUP_BYTES
            or len(taken) + len(append.conversations) > GROUP_CONVERSATIONS
        ):
            break
        queue.popleft()
        for key in append.conversations:
            if key in reserved or key in blocked or (key in taken and not _may_share(key, taken[key], append)):
                blocked.update(append.conversations)
                kept.append(append)
                break
        else:
            for key in append.conversations:
                taken.setdefault(key, []).append(append)
            group.append(append)
            events += append.events
            size += append.size
            if append.is_alone:
                break
    queue.extendleft(reversed(kept))
    return group


def _may_share(key: ConversationKey, those: list[PendingAppend], other: PendingAppend) -> bool:
    """Return whether appends can follow each other in a conversation.

    They can if they are for one user, all expect ANY, and no event is in two of them. The later one must not succeed if
    the earlier one is found locked, so it writes to all conversations that the earlier one writes to. And one that
    deletes or reactivates the conversation is sent without others to it: its state decides whether they are refused.
    """
    if any(row[TYPE] in _DELETIONS for one in (*those, other) for row in one.batch.rows):
        return False
    if any(one.batch.user != other.batch.user for one in those):
        return False
    if any(not set(one.conversations).issubset(other.conversations) for one in those if len(one.conversations) > 1):
        return False
    targets = [one.conversations.index(key) for one in (*those, other)]
    if any(one.batch.expected[target] != ANY_VERSION for one, target in zip((*those, other), targets, strict=True)):
        return False
    ids = {row[ID] for row in other.batch.rows}
    return all(row[ID] not in ids for one in those for row in one.batch.rows)


def statement(group: Group, patience: int) -> tuple[Statement, list[bytes]]:
    """Return the statement that appends the group, and its parameters.

    Args:
        patience: milliseconds to wait for a conversation that is locked; 0 means not to wait.
    """
    first = group[0].batch
    if len(group) == 1 and len(first.rows) == 1 and len(first.conversations) == 1:
        key = group[0].conversations[0]
        event_id, *others = (without_length(value) for value in first.rows[0])
        head = [key[16:], key[:16], binary.int4(first.expected[0]), event_id]
        return APPEND_ONE, [*head, *others, binary.int4(patience), first.user.encode()]
    targets: dict[ConversationKey, int] = {}
    expected: list[int] = []
    append_nos: list[int] = []
    conversation_nos: list[int] = []
    rows: list[Row] = []
    users: list[bytes] = []
    for number, append in enumerate(group):
        batch = append.batch
        places = []
        for key, version in zip(append.conversations, batch.expected, strict=True):
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
    """Return the outcome of each event, in the order in which they were sent."""
    value = result.get_value
    if result.nfields == 1:  # a row as one value, which is cheaper for a single row
        return [Outcome._make(binary.members(value(0, 0) or b""))]
    return [
        Outcome(value(number, 0), value(number, 1), value(number, 2), value(number, 3), value(number, 4))
        for number in range(result.ntuples)
    ]
