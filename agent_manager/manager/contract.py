"""The contract of A2A applications, synchronous, over an asynchronous manager in one private loop thread.

What the application's server expects, learnt from running it: most calls come synchronously, from its event loop and
from a pool of threads; ``create_conversation`` is awaited by some callers and not by others; and every message is
processed in a thread of its own with an event loop of its own. So the manager has a loop thread to itself, and agents
are asked in the loop that their message is processed in: one that blocks it blocks nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, Self, TypeVar

from agent_manager.agents.answering import Answer, Context
from agent_manager.manager.answers import Answered, AnswerFailed, ask
from agent_manager.manager.awaited import AwaitableList, Done, awaitable
from agent_manager.manager.manager import Manager
from agent_manager.manager.remembered import Remembered
from agent_manager.manager.remotesession import RemoteSession
from agent_manager.manager.shapes import choose_shape
from agent_manager.manager.views import Accepted, Json, Pending
from eventstore.portal import Portal

T = TypeVar("T")
log = logging.getLogger(__name__)

EVENTS = 10_000
"""Of the latest events, so many are listed."""


class ApplicationManager:
    """Conversations of an A2A application. Any thread may call it, with or without an event loop.

    It opens itself when it is first used; close it, or use it as a context manager, to leave the server.

    Args:
        opening: makes the manager that it is a face of; entered in the private loop.
        answer: what answers messages; None says nothing.
        types: the module with the application's classes, see :func:`~agent_manager.manager.shapes.choose_shape`.
    """

    def __init__(
        self, opening: Callable[[], AbstractAsyncContextManager[Manager]], answer: Answer | None, types: Any = None
    ) -> None:
        self._opening = opening
        self._answer = answer
        self._shape = choose_shape(types)
        self._portal: Portal | None = None
        self._context: AbstractAsyncContextManager[Manager] | None = None
        self._manager: Manager | None = None
        self._lock = Lock()
        self._remembered = Remembered()

    def __enter__(self) -> Self:
        self.initialize()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def initialize(self) -> Done:
        """Connects, unless it is connected. What a killed process left pending is logged. May be awaited.

        Raises:
            ServerError, SchemaError: there is no server to use, or its schema does not fit.
        """
        with self._lock:
            if self._manager is None:
                portal = Portal()
                context = self._opening()
                try:
                    self._manager = portal.call(context.__aenter__())
                except BaseException:
                    portal.close()
                    raise
                self._portal, self._context = portal, context
                left = portal.call(self._manager.pending())
                if left:
                    log.warning(
                        "%d message(s) await an answer from before: answer_pending() has them answered", len(left)
                    )
        return Done()

    def close(self) -> None:
        """Leaves the server. What is being answered stays pending."""
        with self._lock:
            portal, context = self._portal, self._context
            self._portal = self._context = self._manager = None
        if portal is not None and context is not None:
            try:
                portal.call(context.__aexit__(None, None, None))
            finally:
                portal.close()

    # Conversations

    def create_conversation(self, name: str = "") -> Any:
        """Begins a conversation. May be awaited, or not."""
        return self._conversation(self._call(lambda manager: manager.create_conversation(name)))

    def get_conversation(self, conversation_id: str | None) -> Any:
        """The conversation, hidden or not; None where there is none."""
        if not conversation_id:
            return None
        return self._conversation(self._call(lambda manager: manager.get_conversation(conversation_id)))

    def rename_conversation(self, conversation_id: str, name: str) -> Any:
        """Names it. Raises NotFound."""
        return self._conversation(self._call(lambda manager: manager.rename_conversation(conversation_id, name)))

    def archive_conversation(self, conversation_id: str) -> Any:
        """Has it active no longer. Raises NotFound."""
        return self._conversation(self._call(lambda manager: manager.archive_conversation(conversation_id)))

    def reactivate_conversation(self, conversation_id: str) -> Any:
        """Has it active again, and no longer hidden. Raises NotFound."""
        return self._conversation(self._call(lambda manager: manager.reactivate_conversation(conversation_id)))

    def delete_conversation(self, conversation_id: str) -> Any:
        """Hides it; nothing is lost. Raises NotFound."""
        return self._conversation(self._call(lambda manager: manager.delete_conversation(conversation_id)))

    def list_conversations(self, *, include_archived: bool = True, include_deleted: bool = False) -> list[Any]:
        """Conversations, in the order in which they began."""
        views = self._call(
            lambda manager: manager.conversations(include_archived=include_archived, include_deleted=include_deleted)
        )
        return AwaitableList(map(self._shape.to_conversation, views))

    @property
    def conversations(self) -> list[Any]:
        """All conversations that are not hidden."""
        return self.list_conversations()

    # Messages

    def sanitize_message(self, message: Any) -> Any:
        """Accepts a message: it is durable when this returns, and pending. Gives the message with its task and context.

        Raises:
            InputError: the message cannot be stored.
        """
        accepted = self._accept(message, None)
        return self._shape.attach(message, accepted.message)

    async def process_message(self, message: Any) -> None:
        """Has a message answered that was accepted, else accepts it first. In whichever thread and loop.

        A message that was accepted once is answered once. What the agent raises is stored and logged.
        """
        accepted = self._remembered.take(message, self._shape.sent(message))
        if accepted is None:
            accepted = await self._run(lambda manager: manager.accept(self._shape.sent(message)))
            self._remembered.done(message, accepted)
        self._log_failure(accepted, await self._answered(accepted))

    def send_message(self, conversation_id: str, message: Any) -> Any:
        """Accepts a message for a conversation, has it answered, and gives the reply. May be awaited, or not.

        Raises:
            InputError: the message cannot be stored.
            AnswerFailed: the agent failed.
        """
        accepted = self._accept(message, conversation_id)
        # In a thread of its own, as the application does it: the caller's may run an event loop already.
        with ThreadPoolExecutor(1) as thread:
            answered = thread.submit(lambda: asyncio.run(self._answered(accepted))).result()
        if answered.error is not None:
            raise AnswerFailed(answered.error)
        return None if answered.reply is None else awaitable(self._shape.to_message(answered.reply))

    def save_message(self, message: Any, conversation_id: str | None = None) -> Any:
        """Stores a message that awaits no answer; gives it as it is stored. May be awaited, or not."""
        stored = self._call(lambda manager: manager.save_message(self._shape.sent(message), conversation_id))
        return awaitable(self._shape.to_message(stored))

    def get_messages(self, conversation_id: str) -> list[Any]:
        """The messages of a conversation, oldest first. May be awaited, or not."""
        view = self._call(lambda manager: manager.get_conversation(conversation_id))
        return AwaitableList([] if view is None else self._shape.to_conversation(view).messages)

    def get_pending_messages(self) -> list[tuple[str, str]]:
        """Ids of the messages that await an answer, each with what the agent said last of its work."""
        return [(one.message_id, one.status) for one in self._call(lambda manager: manager.pending())]

    async def answer_pending(self) -> int:
        """Has everything answered that awaits it, such as what a killed process left; gives the number of messages."""
        pending = await self._run(lambda manager: manager.pending())
        for one in pending:
            accepted = await self._run(partial(_accepted, pending=one))
            self._log_failure(accepted, await self._answered(accepted))
        return len(pending)

    # Tasks, events, agents

    @property
    def tasks(self) -> list[Any]:
        """The tasks of all conversations that are not hidden, in the order in which they began."""
        return [self._shape.to_task(task) for task in self._call(lambda manager: manager.tasks())]

    @property
    def events(self) -> list[Any]:
        """The latest 10,000 things that were said and done, oldest first."""
        return [self._shape.to_event(view) for view in self._call(lambda manager: manager.events(limit=EVENTS))]

    def register_agent(self, url: str) -> None:
        """Registers the agent whose card is at a URL. It stays registered after a restart.

        Raises:
            AgentError: its card could not be had.
        """
        self._call(lambda manager: manager.register_agent(url))

    def unregister_agent(self, url: str) -> None:
        """Forgets the agent. Raises NotFound."""
        self._call(lambda manager: manager.unregister_agent(url))

    @property
    def agents(self) -> list[Any]:
        """The cards of the registered agents."""
        return [self._shape.to_card(card) for card in self._call(lambda manager: manager.agents())]

    # Inside

    def _accept(self, message: Any, conversation_id: str | None) -> Accepted:
        sent = self._shape.sent(message)
        accepted = self._call(lambda manager: manager.accept(sent, conversation_id))
        self._remembered.add(message, accepted)
        return accepted

    async def _answered(self, accepted: Accepted) -> Answered:
        session = await self._run(lambda manager: manager.begin(accepted))
        if session is None:
            return Answered(await self._run(lambda manager: manager.reply_to(accepted)))
        assert self._portal is not None
        remote = RemoteSession(self._portal, session)
        try:
            sent = await self._run(lambda manager: manager.addressed(accepted))
            return await ask(self._answer, sent, await self._context_of(sent), remote)
        finally:
            await remote.release()

    def _log_failure(self, accepted: Accepted, answered: Answered) -> None:
        if answered.error is not None:
            log.warning("message %s was not answered: %s", accepted.message_id, answered.error)

    async def _context_of(self, accepted: Accepted) -> Context:
        known = await self._run(lambda manager: manager.context_of(accepted))

        async def history() -> list[Json]:
            return await self._run(lambda manager: manager.messages(known.conversation_id))

        return replace(known, history=history)

    def _conversation(self, view: Any) -> Any:
        return None if view is None else awaitable(self._shape.to_conversation(view))

    def _opened(self) -> tuple[Portal, Manager]:
        if self._manager is None:
            self.initialize()
        portal, manager = self._portal, self._manager
        assert portal is not None
        assert manager is not None
        return portal, manager

    def _call(self, make: Callable[[Manager], Coroutine[Any, Any, T]]) -> T:
        portal, manager = self._opened()
        return portal.call(make(manager))

    async def _run(self, make: Callable[[Manager], Coroutine[Any, Any, T]]) -> T:
        portal, manager = self._opened()
        return await portal.run(make(manager))


def _accepted(manager: Manager, pending: Pending) -> Coroutine[Any, Any, Accepted]:
    return manager.accepted(pending)
