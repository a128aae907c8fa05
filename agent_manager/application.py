"""The synchronous ApplicationManager: an asynchronous manager behind a private event loop.

Results are complete when a call returns. They may also be awaited, which returns them once more: some servers await
what the interface declares to be synchronous.

The design follows from how servers call a manager: most calls come synchronously, from their event loop and from a
thread pool; ``create_conversation`` is awaited by some callers and not by others; and every message is processed in a
thread of its own with an event loop of its own. So the manager has an event loop in a private thread, and agents run in
the loop that processes their message: one that blocks it blocks no other.

A call from an event loop blocks that loop for a round trip to the server. ``send_message``, which would block it for as
long as the agent takes, refuses to be called there. Asynchronous code uses
:func:`~agent_manager.factory.async_manager`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache, wraps
from threading import Lock
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from agent_manager.accepted_messages import Accepted, AcceptedMessages
from agent_manager.answering import Answered
from agent_manager.conversation_fold import ConversationView
from agent_manager.dual_write import Differences
from agent_manager.errors import AnswerFailed, AnswerTaken, ManagerClosed
from agent_manager.manager import Manager
from agent_manager.wire_classes import choose_classes, to_wire
from eventstore.errors import InputError
from eventstore.sync import Portal

P = ParamSpec("P")
T = TypeVar("T")

EVENTS = 10_000
"""Number of events that are listed."""

log = logging.getLogger(__name__)


def _conversation_method(
    method: Callable[Concatenate[Manager, P], Coroutine[Any, Any, ConversationView]],
) -> Callable[Concatenate[ApplicationManager, P], Any]:
    """Return a method that runs a method of the asynchronous manager; its result is the application's conversation."""

    @wraps(method)
    def call(manager: ApplicationManager, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return _awaitable(manager._classes.to_conversation(manager._call(method, *args, **kwargs)))

    signature = inspect.signature(method).replace(return_annotation="Any")
    call.__signature__ = signature  # type: ignore[attr-defined]  # which documentation shows
    return call


class ApplicationManager:
    """Conversations of an A2A application, for any thread, with or without an event loop.

    The manager opens itself when it is first used; close it, or use it as a context manager, to disconnect. After
    ``close``, calls raise :class:`~agent_manager.errors.ManagerClosed` until ``initialize`` or ``with`` opens it again.

    Args:
        open_manager: returns the asynchronous manager that does the work; it is entered in the private loop.
        types: the module with the application's classes, see :func:`~agent_manager.wire_classes.choose_classes`.

    Attributes:
        differences: the differences between PostgreSQL and memory, if conversations are stored in both.
    """

    def __init__(
        self,
        open_manager: Callable[[], AbstractAsyncContextManager[Manager]],
        types: Any = None,
        differences: Differences | None = None,
    ) -> None:
        self.differences = differences or Differences()
        self._open_manager = open_manager
        self._classes = choose_classes(types)
        self._connection: tuple[Portal, Manager] | None = None
        self._context: AbstractAsyncContextManager[Manager] | None = None
        self._lock = Lock()
        self._is_closed = False
        self._accepted = AcceptedMessages()

    def __enter__(self) -> Self:
        self.initialize()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def initialize(self) -> Done:
        """Connect, unless connected; log how many messages a killed process left pending. May be awaited.

        This reopens a closed manager and, in a forked process, that of the parent.

        Raises:
            ServerError, SchemaError: there is no server, or its schema does not fit.
        """
        self._open(reopen=True)
        return Done()

    def close(self) -> None:
        """Disconnect. Messages that are being answered stay pending; later calls raise ManagerClosed."""
        with self._lock:
            connection, context = self._connection, self._context
            self._connection = self._context = None
            self._is_closed = True
        if connection is not None and context is not None and not connection[0].is_closed:
            try:
                connection[0].call(context.__aexit__(None, None, None))
            finally:
                connection[0].close()

    # Conversations

    create_conversation = _conversation_method(Manager.create_conversation)
    rename_conversation = _conversation_method(Manager.rename_conversation)
    archive_conversation = _conversation_method(Manager.archive_conversation)
    reactivate_conversation = _conversation_method(Manager.reactivate_conversation)
    delete_conversation = _conversation_method(Manager.delete_conversation)
    fork_conversation = _conversation_method(Manager.fork_conversation)

    def get_conversation(self, conversation_id: str | None) -> Any:
        """Return a conversation, hidden or not; None if there is none."""
        view = self._call(Manager.get_conversation, conversation_id) if conversation_id else None
        return None if view is None else _awaitable(self._classes.to_conversation(view))

    def list_conversations(self, *, include_archived: bool = True, include_deleted: bool = False) -> list[Any]:
        """Return conversations, in the order in which they began."""
        views = self._call(Manager.conversations, include_archived=include_archived, include_deleted=include_deleted)
        return AwaitableList(map(self._classes.to_conversation, views))

    @property
    def conversations(self) -> list[Any]:
        """All conversations that are not hidden."""
        return self.list_conversations()

    # Messages

    def sanitize_message(self, message: Any) -> Any:
        """Store a message, durably and pending; return it with its task and context.

        Raises:
            InputError: the message cannot be stored.
        """
        accepted = self._call(Manager.accept, to_wire(message))
        attached = self._classes.attach(message, accepted.message)
        self._accepted.add(attached, accepted)
        return attached

    async def process_message(self, message: Any) -> None:
        """Answer a message that ``sanitize_message`` returned, or a copy of one; accept any other one first.

        It may be called in any thread and event loop; agents run in that loop. A message that was accepted once is
        answered once. An error of the agent is stored and logged.
        """
        wire = to_wire(message)
        key = self._accepted.take(message, wire)
        accepted = await (self._run(Manager.accept, wire) if key is None else self._run(Manager.stored, key))
        await self._answer(accepted)

    def send_message(self, conversation_id: str, message: Any) -> Any:
        """Accept a message for a conversation, answer it, and return the reply; None if the agent sends none.

        It blocks for as long as the agent takes, so it refuses to be called in a thread that runs an event loop.

        Raises:
            InputError: the message cannot be stored, or an event loop runs in this thread. Nothing was stored.
            AnswerFailed: the agent failed.
        """
        return self._send(Manager.accept, to_wire(message), conversation_id)

    def edit_message(self, conversation_id: str, replaced: UUID | str, message: Any = None) -> Any:
        """Send a message in place of another one, in a fork, see :meth:`agent_manager.manager.Manager.edit_message`.

        Return the reply, whose ``contextId`` is the id of the fork. Otherwise it is like :meth:`send_message`.
        """
        return self._send(
            Manager.edit_message, conversation_id, replaced, None if message is None else to_wire(message)
        )

    def _send(
        self,
        accept: Callable[Concatenate[Manager, P], Coroutine[Any, Any, Accepted]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise InputError(
                "send_message would block the event loop that runs in this thread for as long as the agent takes: "
                "await send_message of async_manager(), or asyncio.to_thread(manager.send_message, …)"
            )
        accepted = self._call(accept, *args, **kwargs)
        # In another thread, because asyncio.run unsets the event loop of the thread that it runs in.
        with ThreadPoolExecutor(1) as thread:
            answered = thread.submit(lambda: asyncio.run(self._answer(accepted))).result()
        if answered.error is not None:
            raise AnswerFailed(answered.error)
        return None if answered.reply is None else self._classes.to_message(answered.reply)

    def save_message(self, message: Any, conversation_id: str | None = None) -> Any:
        """Store a message that awaits no answer; return it as it is stored. May be awaited."""
        stored = self._call(Manager.save_message, to_wire(message), conversation_id)
        return _awaitable(self._classes.to_message(stored))

    def get_messages(self, conversation_id: str) -> list[Any]:
        """Return the messages of a conversation, oldest first. May be awaited."""
        view = self._call(Manager.get_conversation, conversation_id)
        return AwaitableList([] if view is None else self._classes.to_conversation(view).messages)

    def get_pending_messages(self) -> list[tuple[str, str]]:
        """Return the ids of the messages that await an answer, each with the latest status text of its task."""
        return [(each.message_id, each.status) for each in self._call(Manager.pending)]

    async def answer_pending(self) -> int:
        """Answer all pending messages, such as those of a killed process; return their number.

        Messages that another process is answering are skipped. It takes some seconds to tell whether it still runs.
        """
        alive: set[UUID] = set()
        count = 0
        for pending in await self._run(Manager.pending):
            accepted = await self._run(Manager.accepted, pending)
            with suppress(AnswerTaken):
                await self._answer(accepted, alive)
                count += 1
        return count

    # Tasks, events, agents

    @property
    def tasks(self) -> list[Any]:
        """The tasks of all conversations that are not hidden, in the order in which they began."""
        return list(map(self._classes.to_task, self._call(Manager.tasks)))

    def cancel_task(self, conversation_id: str, task_id: str) -> Any:
        """Cancel a task at its agent, see :meth:`agent_manager.manager.Manager.cancel_task`; return the task."""
        return self._classes.to_task(self._call(Manager.cancel_task, conversation_id, task_id))

    @property
    def events(self) -> list[Any]:
        """The latest 10,000 events, oldest first."""
        return list(map(self._classes.to_event, self._call(Manager.events, limit=EVENTS)))

    def register_agent(self, url: str) -> None:
        """Register the agent whose card is at a URL. It stays registered after a restart.

        Raises:
            AgentError: the card could not be fetched.
        """
        self._call(Manager.register_agent, url)

    def unregister_agent(self, url: str) -> None:
        """Remove the registration of an agent. Raises NotFound."""
        self._call(Manager.unregister_agent, url)

    @property
    def agents(self) -> list[Any]:
        """The cards of the registered agents."""
        return list(map(self._classes.to_card, self._call(Manager.agents)))

    # Private

    async def _answer(self, accepted: Accepted, alive: set[UUID] | None = None) -> Answered:
        portal, manager = await self._opened()
        return await manager.answers.answer_once(manager.agent, accepted, alive, portal.run)

    def _call(
        self, method: Callable[Concatenate[Manager, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        portal, manager = self._connection or self._open(reopen=False)
        return portal.call(method(manager, *args, **kwargs))

    async def _run(
        self, method: Callable[Concatenate[Manager, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        portal, manager = await self._opened()
        return await portal.run(method(manager, *args, **kwargs))

    async def _opened(self) -> tuple[Portal, Manager]:
        # In a thread, because connecting, and waiting for the lock, would block the caller's event loop.
        connection = self._connection
        return connection if connection is not None else await asyncio.to_thread(self._open, reopen=False)

    def _open(self, *, reopen: bool) -> tuple[Portal, Manager]:
        with self._lock:
            if self._is_closed and not reopen:
                raise ManagerClosed
            if self._connection is not None and not self._connection[0].is_closed:  # else closed in a forked process
                return self._connection
            portal, context = Portal(), self._open_manager()
            try:
                manager = portal.call(context.__aenter__())
            except BaseException:
                portal.close()
                raise
            self._connection = connection = portal, manager
            self._context, self._is_closed = context, False
            if pending := len(portal.call(manager.pending())):
                text = "%d message(s) await an answer from an earlier process: answer_pending() answers them"
                log.warning(text, pending, extra={"event": "messages_pending", "messages": pending})
            return connection


def _await(value: T) -> Generator[Any, None, T]:
    yield from ()
    return value


class Done:
    """A result without a value that may be awaited."""

    def __await__(self) -> Generator[Any, None, None]:
        """Return None."""
        return _await(None)


class AwaitableList(list[T]):
    """A list that may be awaited."""

    __await__ = _await


def _awaitable(value: T) -> T:
    """Make a pydantic instance awaitable, by a subclass of its class; return any other value as it is."""
    if isinstance(value, BaseModel):
        value.__class__ = _awaitable_class(type(value))
    return value


@cache
def _awaitable_class(kind: type) -> Any:
    if hasattr(kind, "__await__"):
        return kind

    def equals(self: Any, other: object) -> Any:
        if not (isinstance(other, kind) and isinstance(other, BaseModel)):
            return NotImplemented
        return vars(self) == vars(other) and self.model_extra == other.model_extra

    namespace = {
        "__await__": _await, "__eq__": equals, "__hash__": None, "__module__": kind.__module__,
        "__qualname__": kind.__qualname__, "__doc__": kind.__doc__,
    }  # fmt: skip
    return type(kind)(kind.__name__, (kind,), namespace)
