"""The synchronous ApplicationManager: an asynchronous manager behind a private event loop.

The result is there when the call returns. To await it gives it once more, so both ways of calling do the same.

Between ``sanitize_message`` and ``process_message`` a message passes through the application, which may hand on the
instance or a copy. Ids do not identify it: they may repeat or be missing. The instance does; otherwise a digest of the
content, among the messages that are not processed yet.

Contents are read back from the log when a message is processed. Kept here are digests, and instances only as far as
:data:`INSTANCE_BYTES` reaches.

What the application's server expects, learnt from running it: most calls come synchronously, from its event loop and
from a pool of threads; ``create_conversation`` is awaited by some callers and not by others; and every message is
processed in a thread of its own with an event loop of its own. So the manager has a loop thread to itself, and agents
are asked in the loop that their message is processed in: one that blocks it blocks nobody else.

A call returns when the server has answered: called from an event loop it holds that loop up for a round trip. The one
that would hold it up for as long as an agent takes, ``send_message``, refuses to be called there. Code that is
asynchronous itself uses :func:`~agent_manager.factory.async_manager`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from threading import Lock
from typing import Any, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from agent_manager.agents.agent import Answer
from agent_manager.answering import Answered, RemoteSession, answer_once
from agent_manager.conversation import Accepted, Json, Pending
from agent_manager.errors import AnswerFailed, AnswerTaken, ManagerClosed
from agent_manager.manager import Manager
from agent_manager.wire_classes import choose_classes
from eventstore.errors import InputError
from eventstore.sync import Portal

# Results that callers may await or not: some servers await what the interface declares to be synchronous

T = TypeVar("T")


class Done:
    """Nothing, which may be awaited."""

    def __await__(self) -> Generator[Any, None, None]:
        """Nothing."""
        yield from ()


class AwaitableList(list[T]):
    """A list that may be awaited."""

    def __await__(self) -> Generator[Any, None, list[T]]:
        """Itself."""
        yield from ()
        return self


def awaitable(value: T) -> T:
    """The value, of its own class, that can be awaited too, where its class can be extended; others as they are."""
    if isinstance(value, BaseModel):
        value.__class__ = _with_await(type(value))
    return value


@cache
def _with_await(kind: type) -> Any:
    if hasattr(kind, "__await__"):
        return kind

    def await_(self: Any) -> Generator[Any, None, Any]:
        yield from ()
        return self

    def equals(self: Any, other: object) -> Any:
        if not (isinstance(other, kind) and isinstance(other, BaseModel)):
            return NotImplemented
        return vars(self) == vars(other) and self.model_extra == other.model_extra

    namespace = {
        "__await__": await_, "__eq__": equals, "__hash__": None, "__module__": kind.__module__,
        "__qualname__": kind.__qualname__, "__doc__": kind.__doc__,
    }  # fmt: skip
    return type(kind)(kind.__name__, (kind,), namespace)


# Which accepted message an application hands over to be processed

INSTANCE_BYTES = 8 * 1024 * 1024
"""Instances that are kept so that they are recognised, by the size of their JSON and :data:`_OBJECT_BYTES` each."""
MOST = 100_000
"""Messages that await processing, a few hundred bytes each; older ones are accepted anew when they are processed."""
_OBJECT_BYTES = 2048


@dataclass(frozen=True, slots=True)
class MessageRef:
    """Where an accepted message stands in the log."""

    conversation: UUID
    event_id: UUID
    position: int


@dataclass(eq=False, slots=True)
class _Entry:
    ref: MessageRef
    digest: bytes
    size: int
    instance: Any  # held, so that no other instance gets its address; None once it is let go
    is_processed: bool = False


class AcceptedMessages:
    """The messages that were accepted and await processing, and the latest of those that were processed.

    Any thread may use it.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, deque[_Entry]] = OrderedDict()
        self._waiting_count = 0
        self._held: OrderedDict[int, list[_Entry]] = OrderedDict()
        self._held_bytes = 0
        self._lock = Lock()

    def add(self, message: Any, accepted: Accepted) -> None:
        """Remember that an instance was accepted and is to be processed."""
        digest, size = _digest(accepted.message)
        ref = MessageRef(accepted.conversation, accepted.event_id, accepted.position)
        entry = _Entry(ref, digest, size + _OBJECT_BYTES, message)
        with self._lock:
            self._waiting.setdefault(digest, deque()).append(entry)
            self._waiting_count += 1
            self._held.setdefault(id(message), []).append(entry)
            self._held_bytes += entry.size
            while self._held_bytes > INSTANCE_BYTES:
                self._let_go(next(iter(self._held)))
            while self._waiting_count > MOST:
                self._take(next(iter(self._waiting.values()))[0])

    def take(self, message: Any, sent: Json) -> MessageRef | None:
        """Return what a message that is to be processed was accepted as; None for one that was not accepted.

        An instance that was accepted several times stands for the oldest acceptance that is not processed yet; if all
        are processed, for the latest with the same content: an application may have written a further message into it.
        A copy stands for the oldest equal message that is not processed yet.
        """
        digest, _ = _digest(sent)
        with self._lock:
            same = self._held.get(id(message), [])
            entry = next((one for one in same if not one.is_processed), None)
            if entry is None and (processed := [one for one in same if one.digest == digest]):
                return processed[-1].ref
            if entry is None and digest in self._waiting:
                entry = self._waiting[digest][0]
            if entry is None:
                return None
            self._take(entry)
            return entry.ref

    def _take(self, entry: _Entry) -> None:
        entry.is_processed = True
        self._waiting_count -= 1
        waiting = self._waiting[entry.digest]
        waiting.remove(entry)
        if not waiting:
            del self._waiting[entry.digest]

    def _let_go(self, key: int) -> None:
        for entry in self._held.pop(key):
            self._held_bytes -= entry.size
            entry.instance = None


def _digest(sent: Json) -> tuple[bytes, int]:
    """A digest of a message that does not depend on the order of members, and the size of its JSON."""
    try:
        text = json.dumps(sent, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError):  # it cannot be stored, so it equals nothing that was accepted
        return b"", 0
    return sha256(text).digest(), len(text)


# The contract of A2A applications, synchronous, over an asynchronous manager in one private loop thread

log = logging.getLogger(__name__)

EVENTS = 10_000
"""Of the latest events, so many are listed."""


class ApplicationManager:
    """Conversations of an A2A application. Any thread may call it, with or without an event loop.

    It opens itself when it is first used; close it, or use it as a context manager, to leave the server. A manager that
    was closed raises :class:`~agent_manager.errors.ManagerClosed` until ``initialize`` or ``with`` opens it
    again.

    Args:
        opening: makes the asynchronous manager that does the work; entered in the private loop.
        answer: what answers messages; None says nothing.
        types: the module with the application's classes, see :func:`~agent_manager.wire_classes.choose_classes`.
    """

    def __init__(
        self, opening: Callable[[], AbstractAsyncContextManager[Manager]], answer: Answer | None, types: Any = None
    ) -> None:
        self._opening = opening
        self._answer = answer
        self._shape = choose_classes(types)
        self._portal: Portal | None = None
        self._context: AbstractAsyncContextManager[Manager] | None = None
        self._manager: Manager | None = None
        self._lock = Lock()
        self._is_closed = False
        self._accepted = AcceptedMessages()

    def __enter__(self) -> Self:
        self.initialize()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def initialize(self) -> Done:
        """Connect, unless it is connected. What a killed process left pending is logged. May be awaited.

        A manager that was closed is open again afterwards; so is, in a forked process, the one of the parent.

        Raises:
            ServerError, SchemaError: there is no server to use, or its schema does not fit.
        """
        self._open(reopens=True)
        return Done()

    def _open(self, *, reopens: bool) -> tuple[Portal, Manager]:
        with self._lock:
            if self._is_closed and not reopens:
                raise ManagerClosed
            if self._manager is None or self._portal is None or self._portal.is_closed:  # that of a parent process is
                portal = Portal()
                context = self._opening()
                try:
                    self._manager = portal.call(context.__aenter__())
                except BaseException:
                    portal.close()
                    raise
                self._portal, self._context, self._is_closed = portal, context, False
                left = portal.call(self._manager.pending())
                if left:
                    log.warning(
                        "%d message(s) await an answer from before: answer_pending() has them answered", len(left)
                    )
            return self._portal, self._manager

    def close(self) -> None:
        """Leave the server. What is being answered stays pending; every later call raises ManagerClosed."""
        with self._lock:
            portal, context = self._portal, self._context
            self._portal = self._context = self._manager = None
            self._is_closed = True
        if portal is not None and context is not None and not portal.is_closed:
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
        attached = self._shape.attach(message, accepted.message)
        self._accepted.add(attached, accepted)
        return attached

    async def process_message(self, message: Any) -> None:
        """Have a message answered that ``sanitize_message`` gave, or a copy of one; accept any other one first.

        It may be called in any thread and event loop; agents run in that loop. What was accepted once is answered once.
        What the agent raises is stored and logged.
        """
        sent = self._shape.sent(message)
        ref = self._accepted.take(message, sent)
        if ref is None:
            accepted = await self._run(lambda manager: manager.accept(sent))
        else:
            accepted = await self._run(partial(_stored, ref=ref))
        self._log_failure(accepted, await self._answered(accepted))

    def send_message(self, conversation_id: str, message: Any) -> Any:
        """Accept a message for a conversation, have it answered, and return the reply; None if the agent says nothing.

        It blocks for as long as the agent takes, so it refuses to be called where an event loop runs.

        Raises:
            InputError: the message cannot be stored, or an event loop runs in this thread. Nothing was stored.
            AnswerFailed: the agent failed.
        """
        if _has_running_loop():
            raise InputError(
                "send_message would block the event loop that runs in this thread for as long as the agent takes: "
                "await send_message of async_manager(), or asyncio.to_thread(manager.send_message, …)"
            )
        accepted = self._accept(message, conversation_id)
        # In a thread of its own, because asyncio.run unsets the event loop of the thread that it runs in.
        with ThreadPoolExecutor(1) as thread:
            answered = thread.submit(lambda: asyncio.run(self._answered(accepted))).result()
        if answered.error is not None:
            raise AnswerFailed(answered.error)
        return None if answered.reply is None else self._shape.to_message(answered.reply)

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
        """Have everything answered that awaits it, such as what a killed process left; return the number of messages.

        Messages that another process is answering are left to it. Whether it is still alive shows within some seconds.
        """
        alive: set[UUID] = set()
        count = 0
        for one in await self._run(lambda manager: manager.pending()):
            accepted = await self._run(partial(_accepted, pending=one))
            with suppress(AnswerTaken):
                self._log_failure(accepted, await self._answered(accepted, alive))
                count += 1
        return count

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
        return self._call(lambda manager: manager.accept(sent, conversation_id))

    async def _answered(self, accepted: Accepted, alive: set[UUID] | None = None) -> Answered:
        async def begin() -> RemoteSession | None:
            portal, manager = await self._opened()
            session = await portal.run(manager.begin(accepted, alive))
            return None if session is None else RemoteSession(portal, session)

        return await answer_once(self._answer, begin, lambda: self._run(lambda manager: manager.reply_to(accepted)))

    def _log_failure(self, accepted: Accepted, answered: Answered) -> None:
        if answered.error is not None:
            log.warning("message %s was not answered: %s", accepted.message_id, answered.error)

    def _conversation(self, view: Any) -> Any:
        return None if view is None else awaitable(self._shape.to_conversation(view))

    def _call(self, make: Callable[[Manager], Coroutine[Any, Any, T]]) -> T:
        portal, manager = self._connected or self._open(reopens=False)
        return portal.call(make(manager))

    async def _run(self, make: Callable[[Manager], Coroutine[Any, Any, T]]) -> T:
        portal, manager = await self._opened()
        return await portal.run(make(manager))

    async def _opened(self) -> tuple[Portal, Manager]:
        # Connecting may take long, and a lock is waited for: neither may hold up the caller's event loop.
        connected = self._connected
        return connected if connected is not None else await asyncio.to_thread(lambda: self._open(reopens=False))

    @property
    def _connected(self) -> tuple[Portal, Manager] | None:
        portal, manager = self._portal, self._manager
        return None if portal is None or manager is None else (portal, manager)


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _accepted(manager: Manager, pending: Pending) -> Coroutine[Any, Any, Accepted]:
    return manager.accepted(pending)


def _stored(manager: Manager, ref: MessageRef) -> Coroutine[Any, Any, Accepted]:
    return manager.stored(ref.conversation, ref.event_id, ref.position)
