"""A session of the OpenAI Agents SDK (``openai-agents``, tested with 0.24) in the event store.

The session is the conversation whose given id is the session's id. An item becomes one event: a message MessageAdded,
a tool call TaskCreated, its output TaskArtifactAdded with the status of the task, and anything else, such as reasoning,
an application event. Removing the last items is an event too, ConversationRewound, which hides them from every read.

The ids of events are random: the SDK removes items and adds equal ones again, and the ids of items repeat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from agents.memory import OpenAIResponsesCompactionSession, SessionABC, SessionSettings
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

from agent_manager.adapters.conversation_history import HistoryAccess
from agent_manager.adapters.openai_items import Entry, entry_of, events_of, open_outputs
from eventstore import (
    ConversationRewound,
    EventStore,
    ExpectedVersion,
    NewEvent,
    Settings,
    SyncEventStore,
    TaskStatus,
    TaskStatusChanged,
)
from eventstore.errors import InputError, InvalidEvent, WrongExpectedVersion
from eventstore.events import ANY

if TYPE_CHECKING:
    from agents import RunContextWrapper, TResponseInputItem
    from agents.memory import OpenAIResponsesCompactionArgs


class EventStoreSession(SessionABC):
    """A session in the event store::

        async with EventStore() as store:
            session = EventStoreSession("user-123", store)
            await Runner.run(agent, "Hello", session=session)

    Args:
        session_id: any text; the conversation's given id.
        store: an open store; the caller closes it. Any thread and any event loop may use the session, as
            ``Runner.run_sync`` does with a :class:`SyncEventStore`.
        user: the user on whose behalf it reads and writes; the whole tenant if left out.
        session_settings: the default limit of :meth:`get_items`.
        compaction_model: the OpenAI model that shortens the history after a run, see :meth:`run_compaction`; if left
            out, the history stays as it is.

    Raises:
        InputError: an argument has the wrong type.
    """

    def __init__(
        self,
        session_id: str,
        store: EventStore | SyncEventStore,
        *,
        user: str | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        compaction_model: str | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings = (
            SessionSettings() if session_settings is None else coerce_session_settings(session_settings)
        )
        self.user = user
        self.compaction_model = compaction_model
        self._access = HistoryAccess(store)
        self._access.conversation_id(session_id)  # refuses what is not a text

    @classmethod
    @asynccontextmanager
    async def open(cls, session_id: str, settings: Settings | None = None, **options: Any) -> AsyncIterator[Self]:
        """Open a store for this session alone; ``options`` are those of the class."""
        async with EventStore(settings) as store:
            yield cls(session_id, store, **options)

    def user_of(self, wrapper: RunContextWrapper[Any] | None) -> str | None:
        """Return the user on whose behalf a run reads and writes.

        Override it to take the user from the context of the run; ``wrapper`` is None outside of a run.
        """
        return self.user

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """Return the items, or the latest ``limit`` of them, the oldest first."""
        wanted = resolve_session_limit(limit, self.session_settings)
        if wanted is not None and wanted < 0:
            raise InputError(f"limit: {wanted} is negative: give the number of items, or None for all")
        if wanted == 0:
            return []
        history = await self._access.run(self._history(wanted, self.user_of(wrapper)))
        return [entry.item for entry in history.entries]

    async def add_items(
        self, items: list[TResponseInputItem], *, wrapper: RunContextWrapper[Any] | None = None
    ) -> None:
        """Append items: all of them, durably, or none.

        Raises:
            NoJsonForm: an item has no JSON form.
            EventTooLarge: an item is larger than the store allows.
        """
        if items:
            await self._access.finish(self._add(items, self.user_of(wrapper)))

    async def pop_item(self, *, wrapper: RunContextWrapper[Any] | None = None) -> TResponseInputItem | None:
        """Remove the latest item and return it; None if there is none. No other caller gets the same item."""
        return await self._access.finish(self._pop(self.user_of(wrapper)))

    async def clear_session(self, *, wrapper: RunContextWrapper[Any] | None = None) -> None:
        """Delete the conversation: it is hidden from every read. Items that are added later begin it again."""
        await self._access.finish(self._access.delete(self.session_id, self.user_of(wrapper)))

    async def run_compaction(
        self,
        args: OpenAIResponsesCompactionArgs | None = None,
        *,
        wrapper: RunContextWrapper[Any] | None = None,
    ) -> None:
        """Let OpenAI shorten the history, and replace it in one append; do nothing without a ``compaction_model``.

        The runner calls it after each run. To choose client, mode or condition, wrap the session in the SDK's
        ``OpenAIResponsesCompactionSession`` instead.
        """
        if self.compaction_model is not None:
            session = OpenAIResponsesCompactionSession(self.session_id, self, model=self.compaction_model)
            await session.run_compaction(args, wrapper=wrapper)

    # The SDK's compaction calls these two if a session has them; otherwise it clears the session and then adds items.

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace all items in one append."""
        await self._access.finish(self._add(items, self.user, [NewEvent(ConversationRewound(to_version=0))]))
        return True

    async def _get_compaction_snapshot(self, limit: int, *, prune_prefix: Any = None) -> Any:
        """Return the latest items, with a function that replaces the last of them unless others were added since."""
        from agents.memory.session import _CompactionSnapshot

        if prune_prefix is not None:  # of EncryptedSession, which replaces the whole history instead
            return None
        history = await self._access.run(self._history(limit + 1, self.user))
        entries = history.entries[-limit:]

        async def replace_suffix(start: int, items: list[TResponseInputItem]) -> bool:
            async def replace() -> bool:
                with suppress(WrongExpectedVersion):
                    first = await self._hide(entries[start:], self.user)
                    await self._add(items, self.user, first, history.version)
                    return True
                return False

            is_own = bool(entries[start:]) and not entries[start].is_shared
            return is_own and await self._access.finish(replace())

        return _CompactionSnapshot([entry.item for entry in entries], len(history.entries) <= limit, replace_suffix)

    async def _add(
        self,
        items: Sequence[Any],
        user: str | None,
        first: Sequence[NewEvent] = (),
        expected: ExpectedVersion = ANY,
    ) -> None:
        calls = await self._access.tasks_of(self.session_id, open_outputs(items), user)
        try:
            events = [*first, *events_of(items, calls)]
            await self._access.extend(self.session_id, events, user, expected)
        except InvalidEvent:
            events = [*first, *events_of(items, calls, check=True)]
            await self._access.extend(self.session_id, events, user, expected)

    async def _pop(self, user: str | None) -> Any:
        while True:
            history = await self._history(1, user)
            if not history.entries:
                return None
            with suppress(WrongExpectedVersion):
                if history.entries[0].is_shared:  # only the other conversation can hide it: repeat the items before
                    history = await self._history(None, user)
                    items = [entry.item for entry in history.entries]
                    rewound = [NewEvent(ConversationRewound(to_version=0))]
                    await self._add(items[:-1], user, rewound, history.version)
                    return items[-1]
                events = await self._hide(history.entries, user)
                await self._access.extend(self.session_id, events, user, history.version)
                return history.entries[0].item

    async def _hide(self, entries: Sequence[Entry], user: str | None) -> list[NewEvent]:
        """Return the events that hide the last items. A call that stays without its output is in progress again."""
        events = [NewEvent(ConversationRewound(to_version=entries[0].version - 1))]
        outputs = {entry.item["call_id"]: entry.output_of for entry in entries if entry.output_of is not None}
        hidden = {entry.call for entry in entries}
        for call_id, task_id in (await self._access.tasks_of(self.session_id, outputs, user)).items():
            if outputs[call_id] == task_id and task_id not in hidden:
                reopened = TaskStatusChanged(task_id=task_id, status=TaskStatus.IN_PROGRESS)
                events.append(NewEvent(reopened, actor="assistant"))
        return events

    async def _history(self, wanted: int | None, user: str | None) -> _History:
        """Return the latest items, or all of them."""
        history = _History()
        async with aclosing(self._access.events(self.session_id, user, wanted)) as events:
            async for event in events:
                history.version = history.version or event.version
                if (entry := entry_of(event)) is not None:
                    entry.is_shared = event.is_shared
                    history.entries.append(entry)
                    if len(history.entries) == wanted:
                        break
        history.entries.reverse()
        return history


@dataclass(slots=True)
class _History:
    """Items, the oldest first, and the version at which the conversation was read; 0 if it has no items."""

    entries: list[Entry] = field(default_factory=list)
    version: int = 0
