"""A cache of folded conversations, which reads only what is new: a further read is one look for events beyond it."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from uuid import UUID

from agent_manager.conversation import ConversationFold
from agent_manager.storage import Log
from eventstore import Appended, AppendResult, Event, NewEvent
from eventstore.errors import StoreClosed
from eventstore.json_text import load, to_json

MAX_BYTES = 256 * 1024 * 1024
"""Of contents that are kept folded, about."""
_READERS = 3
"""Statements under way at a time for those who ask for one conversation."""
_TOGETHER = 100
"""Conversations that one statement reads."""
_FIRST_PAGE, _LARGEST_PAGE = 100, 300
"""Events of a conversation that a statement reads: at first, and at most. Between these as many as fit
:data:`_STATEMENT_BYTES`; more would hold up the event loop while they are taken from the driver.
"""
_STATEMENT_BYTES = 2 * 1024 * 1024
_BREATH = 20
"""After so many events other coroutines run."""


def appended_event(tenant: str, event: NewEvent, place: Appended) -> Event:
    """An event as it stands in the log, from what was appended."""
    # Through JSON, so that nobody's later changes reach what is kept.
    content, metadata = (
        load(to_json(part, "content")) for part in (event.data.to_content(), event.metadata.to_content())
    )
    return Event(
        place.position, place.timestamp, place.version, event.schema_version, place.conversation_id, event.id, tenant,
        event.data.event_type, event.actor, content, metadata, None, b"",
    )  # fmt: skip


class ConversationCache:
    """Folds of a log's conversations, the least recently used of which are let go."""

    def __init__(self, log: Log, max_bytes: int = MAX_BYTES) -> None:
        self._log = log
        self._max_bytes = max_bytes
        self._bytes = 0
        self._page = _FIRST_PAGE
        self._kept: OrderedDict[UUID, ConversationFold] = OrderedDict()
        self._asked: dict[UUID, asyncio.Future[ConversationFold | None]] = {}
        self._readers: set[asyncio.Task[None]] = set()

    async def get(self, conversation_id: UUID) -> ConversationFold | None:
        """The conversation with all events that are in the log now; None where it has none.

        What many ask for at the same time is read in one statement.
        """
        asked = self._asked.get(conversation_id)
        if asked is None:
            asked = self._asked[conversation_id] = asyncio.get_running_loop().create_future()
            # Looked at here, not by a callback: one that has just found nothing more to serve no longer counts.
            self._readers = {reader for reader in self._readers if not reader.done()}
            if len(self._readers) < _READERS:
                self._readers.add(asyncio.create_task(self._serve()))
        return await asyncio.shield(asked)

    async def _serve(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await self.all_of(dict.fromkeys(asked))
            except BaseException as error:
                for future in asked.values():
                    future.set_exception(error if isinstance(error, Exception) else StoreClosed())
                    future.exception()  # seen, whether or not anybody waits any more
                if not isinstance(error, Exception):
                    raise
            else:
                for conversation_id, future in asked.items():
                    future.set_result(found.get(conversation_id))

    def kept(self, conversation_id: UUID) -> ConversationFold | None:
        """The conversation as it is known here; others may have appended to it since."""
        return self._kept.get(conversation_id)

    def learn(self, conversation_id: UUID, events: Sequence[NewEvent], result: AppendResult) -> None:
        """Applies what was appended here, where nothing lacks before it."""
        fold = self._kept.get(conversation_id)
        for event, place in zip(events, result.events, strict=True):
            if fold is not None and place.version == fold.version + 1:
                before = fold.bytes
                fold.apply(appended_event(self._log.tenant, event, place))
                self._bytes += fold.bytes - before

    async def all_of(self, versions: Mapping[UUID, int | None]) -> dict[UUID, ConversationFold]:
        """Several, in the order given; one that is kept at the version named there is taken as it is."""
        return {fold.id: fold async for fold in self.each(versions)}

    async def each(self, versions: Mapping[UUID, int | None], *, keep: bool = True) -> AsyncIterator[ConversationFold]:
        """The same one after the other.

        Args:
            keep: whether those that are read are kept. Who goes through all there are reads each once, and holds
                little; and does not take the place of those that are read again and again.
        """
        group: dict[UUID, ConversationFold | None] = {}
        events = 0
        for conversation_id, version in versions.items():
            kept = self._kept.get(conversation_id)
            if kept is not None and version is not None and kept.version >= version:
                self._kept.move_to_end(conversation_id)
                group[conversation_id] = kept
            else:
                group[conversation_id] = None
                events += 1 if version is None else version - (0 if kept is None else kept.version)
            if events >= self._page or len(group) == _TOGETHER:
                for fold in await self._found(group, keep=keep):
                    yield fold
                group, events = {}, 0
        for fold in await self._found(group, keep=keep):
            yield fold

    async def _found(self, group: Mapping[UUID, ConversationFold | None], *, keep: bool) -> list[ConversationFold]:
        behind = [each for each, fold in group.items() if fold is None]
        read = await self._read(behind, keep=keep) if behind else {}
        self._shrink()
        found = (fold or read.get(each) for each, fold in group.items())
        return [fold for fold in found if fold is not None]

    async def _read(self, conversations: Sequence[UUID], *, keep: bool) -> dict[UUID, ConversationFold]:
        folds = {each: self._kept.get(each) or ConversationFold(each) for each in conversations}
        behind = list(conversations)
        while behind:
            read: Counter[UUID] = Counter()
            limit = self._page
            events = await self._log.events_of({each: folds[each].version for each in behind}, limit)
            for number, event in enumerate(events, 1):
                fold = folds[event.conversation_id]
                read[fold.id] += 1
                if event.version == fold.version + 1:  # another coroutine may have applied it meanwhile
                    before = fold.bytes
                    fold.apply(event)
                    self._bytes += fold.bytes - before if self._kept.get(fold.id) is fold else 0
                if number % _BREATH == 0:
                    await asyncio.sleep(0)
            behind = [each for each in behind if read[each] == limit]
            if events:
                average = sum(event.size for event in events) // len(events) + 1
                self._page = max(1, min(_LARGEST_PAGE, 2 * limit, _STATEMENT_BYTES // average))
        begun = {each: fold for each, fold in folds.items() if fold.version}
        return {each: self._keep(fold) if keep or each in self._kept else fold for each, fold in begun.items()}

    def _keep(self, fold: ConversationFold) -> ConversationFold:
        kept = self._kept.get(fold.id)
        if kept is not None and kept.version >= fold.version:
            return kept
        self._bytes += fold.bytes - (kept.bytes if kept is not None else 0)
        self._kept[fold.id] = fold
        self._kept.move_to_end(fold.id)
        return fold

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            _, fold = self._kept.popitem(last=False)
            self._bytes -= fold.bytes


Sees = Callable[[Collection[UUID]], Awaitable[set[UUID]]]
"""Says which of some conversations somebody may see."""


class VisibleConversations(ConversationCache):
    """The same folds, of which somebody sees only some.

    Args:
        folds: everybody's; what is read for one is there for the others.
        sees: asked anew each time, so that what is taken back is gone at once.
    """

    def __init__(self, folds: ConversationCache, sees: Sees) -> None:
        super().__init__(folds._log, 0)
        self._folds = folds
        self._sees = sees

    async def get(self, conversation_id: UUID) -> ConversationFold | None:
        """The conversation with all events that are in the log now; None where it has none, or is not seen."""
        return await self._folds.get(conversation_id) if await self._sees([conversation_id]) else None

    def kept(self, conversation_id: UUID) -> ConversationFold | None:
        """Nothing: whoever is seen must be asked for."""
        return None

    def learn(self, conversation_id: UUID, events: Sequence[NewEvent], result: AppendResult) -> None:
        """Applies what was appended here, where nothing lacks before it."""
        self._folds.learn(conversation_id, events, result)

    async def each(self, versions: Mapping[UUID, int | None], *, keep: bool = True) -> AsyncIterator[ConversationFold]:
        """Those of several that are seen, in the order given."""
        seen = await self._sees(versions.keys())
        visible = {each: version for each, version in versions.items() if each in seen}
        async for fold in self._folds.each(visible, keep=keep):
            yield fold
