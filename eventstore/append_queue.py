"""The order and the grouping of pending appends: which of them are sent next, and together.

**Order.** Appends to one conversation are stored in the order in which they were made. Each conversation has a queue,
and an append stays in the queues of its conversations until its outcome is known. It is *ready* if it is the first in
all of them and neither in flight nor set aside. Only what is ready is sent, and with it what may follow it in the same
group. So nothing overtakes an append that is in flight, is set aside or must be sent again.

**Fairness.** Tenants take turns for a place in the next group, so a long queue of one does not delay the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Container, Sequence
from functools import cached_property

from eventstore.append import (
    ANY_VERSION,
    ID,
    MAX_CONVERSATIONS,
    TYPE,
    Append,
    AppendRequest,
    ConversationKey,
    Outcome,
)
from eventstore.scope import Caller

GROUP_EVENTS = 1000
GROUP_BYTES = 4 * 1024 * 1024
GROUP_CONVERSATIONS = max(128, MAX_CONVERSATIONS)
"""The most conversations of a group: each takes a lock, and the server's lock table is finite."""

_DELETIONS = frozenset((b"conversation.deleted", b"conversation.reactivated"))


class PendingAppend(AppendRequest):
    """An append without a result.

    Attributes:
        deadline: when it ends at the latest, by the clock of the event loop.
        outcomes: the outcomes of its events; cancelled if the caller gave up.
        is_admitted: it holds capacity (see :class:`~eventstore.backpressure.Backpressure`).
        counted_bytes: the bytes of that capacity; 0 until it is encoded.
        is_queued: it is in the queues of its conversations (see :class:`AppendQueue`).
        predecessors: how many of these queues have another append before it.
        unadmitted: how many of these predecessors have not got their capacity.
        is_passed: its followers may ask for theirs, because it has got it or has ended.
        followers: the next append in each of them, if there is one.
        is_ready: it is to be sent.
        is_set_aside: it waits for its turn to wait for a lock.
        is_in_flight: it was sent, and its answer has not arrived.
        is_sent_alone: it is sent by itself, because a group that contained it failed.
        is_expired: its error is being prepared, so it must not be sent any more.
        may_be_stored: it was sent, and the answer was lost.
        lost_answers: number of attempts without an outcome.
    """

    def __init__(
        self, caller: Caller, appends: Sequence[Append], max_content_bytes: int, actor: str, deadline: float
    ) -> None:
        super().__init__(caller, appends, max_content_bytes, actor)
        self.deadline = deadline
        self.outcomes: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self.is_admitted = self.is_passed = self.is_queued = self.is_ready = False
        self.is_set_aside = self.is_in_flight = self.is_sent_alone = self.is_expired = self.may_be_stored = False
        self.counted_bytes = self.lost_answers = self.predecessors = self.unadmitted = 0
        self.followers: list[PendingAppend] = []

    @property
    def is_large(self) -> bool:
        """True if it has more events than a group of several appends may have."""
        return self.event_count > GROUP_EVENTS

    @cached_property
    def is_shareable(self) -> bool:
        """True, once encoded, if the append expects ANY and neither deletes nor reactivates a conversation."""
        return set(self.expected) == {ANY_VERSION} and _DELETIONS.isdisjoint(row[TYPE] for row in self.rows)

    @property
    def is_over(self) -> bool:
        """True if it must not be sent any more."""
        return self.is_expired or self.outcomes.done()


Group = list[PendingAppend]


class Turns:
    """Appends of which the tenants take turns. Those of one tenant keep their order."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[PendingAppend]] = OrderedDict()  # the first is the next in turn

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, append: PendingAppend, *, first: bool = False) -> None:
        """Add an append after those of its tenant, or before everything else."""
        queue = self._queues.get(append.tenant)
        if queue is None:
            queue = self._queues[append.tenant] = deque()
        if first:
            queue.appendleft(append)
            self._queues.move_to_end(append.tenant, last=False)
        else:
            queue.append(append)

    def take(self, full: Container[str] = ()) -> PendingAppend | None:
        """Remove and return the first append of the tenant whose turn it is, of those that are not full."""
        for tenant, queue in self._queues.items():
            if tenant not in full:
                append = queue.popleft()
                if queue:
                    self._queues.move_to_end(tenant)
                else:
                    del self._queues[tenant]
                return append
        return None


class AppendQueue:
    """The pending appends, each after the last earlier one to each of its conversations, and those that are ready."""

    def __init__(self) -> None:
        self._last: dict[ConversationKey, PendingAppend] = {}
        self._ready = Turns()

    @property
    def is_ready(self) -> bool:
        """True if an append is ready to be sent."""
        return bool(self._ready)

    def add(self, append: PendingAppend) -> None:
        """Add an append to the queues of its conversations."""
        append.is_queued = True
        for key in append.keys:
            if (previous := self._last.get(key)) is not None:
                previous.followers.append(append)
                append.predecessors += 1
                append.unadmitted += not previous.is_passed
            self._last[key] = append

    def next_to_admit(self, append: PendingAppend) -> Group:
        """Return the appends that may ask for capacity now that another has got its capacity or has ended."""
        found: Group = []
        if not append.followers and not append.unadmitted:
            append.is_passed = True
            return found
        passed: Group = [append]
        while passed:
            append = passed.pop()
            if append.is_passed or append.unadmitted:
                continue
            append.is_passed = True
            for follower in append.followers:
                follower.unadmitted -= 1
                if not follower.unadmitted:
                    (passed if follower.is_over else found).append(follower)
        return found

    def remove(self, append: PendingAppend) -> None:
        """Remove an append that has ended, now or once it is the first; what follows it may become ready."""
        ended = [append]
        while ended:
            append = ended.pop()
            if append.predecessors or append.is_in_flight or not append.is_queued:
                continue
            append.is_queued = False
            for key in append.keys:
                if self._last[key] is append:
                    del self._last[key]
            for follower in append.followers:
                follower.predecessors -= 1
                if follower.is_over:
                    ended.append(follower)
                else:
                    self.check_ready(follower)

    def check_ready(self, append: PendingAppend, *, first: bool = False) -> None:
        """Count an append among those that are ready, if it is ready now.

        Args:
            first: it is the next to be sent.
        """
        if (
            append.is_queued
            and append.is_complete
            and not (
                append.predecessors or append.is_ready or append.is_in_flight or append.is_set_aside or append.is_over
            )
        ):
            append.is_ready = True
            self._ready.add(append, first=first)

    def take(self, max_appends: int, *, allow_large: bool = True) -> Group:
        """Take the appends that can be sent together now.

        Args:
            allow_large: whether the group may be one append that is larger than a group.
        """
        group: Group = []
        skipped: Group = []
        followers: deque[PendingAppend] = deque()  # of those in the group
        in_group: Counter[PendingAppend] = Counter()  # the number of an append's predecessors in the group
        conversations: set[ConversationKey] = set()
        ids: set[bytes] = set()
        counted = events = size = 0
        while self._ready or followers:
            if (ready := self._ready.take()) is not None:
                append = ready
                append.is_ready = False
                if append.is_over or (append.is_large and not allow_large):
                    skipped.append(append)
                    continue
            else:
                append = followers.popleft()
                for each in group[counted:]:
                    ids.update(row[ID] for row in each.rows)
                counted = len(group)
                if not ids.isdisjoint(row[ID] for row in append.rows):
                    continue
            if group and (
                append.is_sent_alone
                or len(group) == max_appends
                or events + append.event_count > GROUP_EVENTS
                or size + append.size > GROUP_BYTES
                or len(conversations) + len(append.keys) > GROUP_CONVERSATIONS
            ):
                skipped.append(append)
                break
            group.append(append)
            if append.is_sent_alone:
                break
            events += append.event_count
            size += append.size
            conversations.update(append.keys)
            for follower in append.followers:
                if _may_follow(append, follower):
                    in_group[follower] += 1
                    if in_group[follower] == follower.predecessors:
                        followers.append(follower)
        for append in reversed(skipped):
            self.check_ready(append, first=True)
        return group


def _may_follow(earlier: PendingAppend, later: PendingAppend) -> bool:
    """Return whether an append may be in one group with the one before it in a conversation, if no event is in both.

    Both must be for one user, expect ANY, and neither delete nor reactivate the conversation, which decides whether the
    other is refused. The later one must not succeed if the earlier one finds a conversation locked, so it writes to all
    conversations that the earlier one writes to.
    """
    return (
        later.is_complete
        and not (later.is_over or later.is_large or later.is_sent_alone)
        and earlier.user == later.user
        and set(earlier.keys).issubset(later.keys)
        and earlier.is_shareable
        and later.is_shareable
    )
