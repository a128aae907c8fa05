"""Remote A2A agents, reached through the client of a2a-sdk; they stream if their card says so.

A client is opened for every answer and belongs to its event loop: answers run in threads and loops of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

from agent_manager.a2a import Json
from agent_manager.agents.a2a_client import (
    TASK_NOT_CANCELABLE,
    TASK_NOT_FOUND,
    UNSUPPORTED,
    Client,
    a2a_client,
    agent_error,
    agent_errors,
)
from agent_manager.agents.agent import Context, TaskTracker, Update, with_final_reply
from agent_manager.agents.cards import CARD_SECONDS, agent_url, fetch_card, http_client
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.agents.updates import update_from_wire
from agent_manager.errors import (
    AgentError,
    AgentLost,
    AgentRefused,
    AgentStalled,
    AgentUnsupported,
    InvalidUpdate,
    RequestUnsupported,
    TaskNotCancelable,
    TaskUnknown,
)
from eventstore.urls import show_url

T = TypeVar("T")

SILENCE_SECONDS = 120.0
TOTAL_SECONDS = 1800.0
CONTROL_SECONDS = 20.0
"""Time limit for a request that changes a task, for which a client of this server waits."""
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 5.0
"""Seconds between requests for the state of an open task."""


class RemoteAgent:
    """The agent at a URL, or the one that a card describes. Answering raises an :class:`AgentError` if it fails.

    Args:
        silence: time limit for each update, in seconds.
        total: time limit for an answer.
        card_seconds: time limit for fetching the card.
        allow_private: follow its card, or a redirect, to an address that is not global; its own host is trusted.
        credentials: the credentials of agents, from which its own are chosen by its URL.

    Raises:
        InvalidAgentUrl: the URL is not valid.
    """

    def __init__(
        self,
        agent: str | Json,
        *,
        silence: float = SILENCE_SECONDS,
        total: float = TOTAL_SECONDS,
        card_seconds: float = CARD_SECONDS,
        allow_private: bool = True,
        credentials: AgentCredentials | None = None,
    ) -> None:
        self._url = agent_url(agent) if isinstance(agent, str) else None
        self._card = None if isinstance(agent, str) else agent
        self._is_outdated = self._card is None
        self._silence, self._total, self._card_seconds = silence, total, card_seconds
        self._allow_private = allow_private
        self._credentials = credentials or AgentCredentials()

    @property
    def name(self) -> str:
        """The name in the agent's card; its URL until the card is fetched."""
        name = self._card.get("name") if self._card else None
        return name if isinstance(name, str) and name else show_url(self._url) if self._url else "agent"

    def __call__(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        """Send the message and yield the agent's updates; poll a task that it leaves open until it is not."""
        if context.task_id is not None and not message.get("taskId"):
            message = message | {"taskId": context.task_id}
        return self._limited(with_final_reply(self._send(message, context)))

    def resume(self, task_id: str, context: Context) -> AsyncGenerator[Update, None]:
        """Yield the updates of a task that the agent was working on, until it is no longer open.

        Raises:
            TaskUnknown: the agent does not know the task.
        """
        return self._limited(with_final_reply(self._resume(task_id)))

    async def load(self) -> None:
        """Fetch the agent's card, unless it is known. Raises AgentError."""
        if self._card is None:
            async with self._exchange([]):
                pass

    async def cancel(self, task_id: str, context: Context) -> Update:
        """Cancel a task; return its state afterwards.

        Raises:
            TaskUnknown: the agent does not know the task.
            TaskNotCancelable, RequestUnsupported: the agent cannot cancel it, or no task at all.
        """
        async with self._exchange([]) as exchange:
            return exchange.snapshot(await self._controlled(exchange.client.cancel(task_id)))

    async def set_push_notification(self, task_id: str, config: Json) -> None:
        """Let the agent notify a URL of changes of a task.

        Args:
            config: see :func:`agent_manager.a2a.push_notification_config`.

        Raises:
            TaskUnknown: the agent does not know the task.
            RequestUnsupported: the agent sends no push notifications.
        """
        async with self._exchange([]) as exchange:
            await self._controlled(exchange.client.set_push_notification(task_id, config))

    async def push_notification(self, task_id: str, config_id: str) -> Json:
        """Return a setting of push notifications as the agent has it; raises as :meth:`set_push_notification`."""
        async with self._exchange([]) as exchange:
            return await self._controlled(exchange.client.push_notification(task_id, config_id))

    async def delete_push_notification(self, task_id: str, config_id: str) -> None:
        """Delete a setting of push notifications; raises as :meth:`set_push_notification`."""
        async with self._exchange([]) as exchange:
            await self._controlled(exchange.client.delete_push_notification(task_id, config_id))

    async def _limited(self, updates: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield the updates within the time limits. Time that the consumer spends between updates does not count.

        Raises:
            AgentStalled: a time limit expired.
        """
        remaining = self._total
        async with aclosing(updates):
            while True:
                started = asyncio.get_running_loop().time()
                try:
                    async with asyncio.timeout(min(self._silence, remaining)) as limit:
                        update = await anext(updates)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not limit.expired():
                        raise
                    if self._silence <= remaining:
                        raise AgentStalled(f"{self.name}: sent nothing for {self._silence:g} seconds") from None
                    raise AgentStalled(f"{self.name}: did not finish within {self._total:g} seconds") from None
                remaining -= asyncio.get_running_loop().time() - started
                yield update

    async def _send(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        invalid: list[InvalidUpdate] = []
        try:
            async with self._exchange(invalid) as exchange:
                is_silent = True
                push = context.push_notification
                if push is not None and not exchange.can_push:
                    raise AgentUnsupported(f"{self.name}: its card says that it sends no push notifications")
                with agent_errors(self.name):
                    wire_updates = exchange.client.send(
                        context.addressed_to(self.name, message), push, streaming=exchange.is_streaming
                    )
                    async with aclosing(exchange.parsed(wire_updates)) as updates:
                        async for update in updates:
                            is_silent = False
                            yield update
                    if invalid:
                        raise invalid[0]
                    if is_silent:
                        raise InvalidUpdate("the agent finished without an update")
                    async for update in exchange.polled():
                        yield update
        except AgentError:
            self._is_outdated = self._url is not None  # perhaps: the card is fetched again for the next message
            raise

    async def _resume(self, task_id: str) -> AsyncGenerator[Update, None]:
        invalid: list[InvalidUpdate] = []
        async with self._exchange(invalid) as exchange:
            task = await self._requested(exchange.client.task(task_id), self._silence)
            with agent_errors(self.name):
                yield exchange.snapshot(task)
                if exchange.task.is_open and exchange.is_streaming:
                    async with aclosing(exchange.resubscribed(task_id)) as updates:
                        async for update in updates:
                            yield update
                    # Updates between the first request and the subscription are only in the task: request it again.
                    yield exchange.snapshot(await exchange.client.task(task_id))
                if invalid:
                    raise invalid[0]
                async for update in exchange.polled():
                    yield update

    async def _requested(self, request: Awaitable[T], seconds: float) -> T:
        """Return the response to a request about a task. Raises TaskUnknown if the agent does not know the task."""
        try:
            async with asyncio.timeout(seconds):
                with agent_errors(self.name):
                    return await request
        except TimeoutError:
            raise AgentStalled(f"{self.name}: did not answer within {seconds:g} seconds") from None
        except AgentRefused as error:
            if error.code in (TASK_NOT_FOUND, HTTPStatus.NOT_FOUND):
                raise TaskUnknown(str(error), error.code) from error
            raise

    async def _controlled(self, request: Awaitable[T]) -> T:
        """Return the response to a request that changes a task, or its settings."""
        try:
            return await self._requested(request, min(self._silence, CONTROL_SECONDS))
        except TaskUnknown:
            raise
        except AgentRefused as error:
            if error.code in (TASK_NOT_CANCELABLE, HTTPStatus.CONFLICT):
                raise TaskNotCancelable(str(error)) from error
            if error.code in UNSUPPORTED:
                raise RequestUnsupported(str(error)) from error
            raise
        except AgentUnsupported as error:
            raise RequestUnsupported(str(error)) from error

    @asynccontextmanager
    async def _exchange(self, invalid: list[InvalidUpdate]) -> AsyncIterator[_Exchange]:
        """Open an exchange with the agent; errors of updates that are left out are added to ``invalid``."""
        from agent_manager.agents.access import AgentAccess

        host = (urlsplit(self._url).hostname or "") if self._url else ""
        access = AgentAccess(self._allow_private, host, self._credentials)
        if self._url is not None:
            access.add(self._url)
        async with http_client(access, invalid) as http, AsyncExitStack() as stack:
            card = self._card
            if card is None or self._is_outdated:
                assert self._url is not None
                card = self._card = await fetch_card(self._url, seconds=self._card_seconds, http=http)
                self._is_outdated = False
            given = card.get("capabilities")
            capabilities = given if isinstance(given, dict) else {}
            with agent_errors(self.name):
                client = await stack.enter_async_context(a2a_client(card, http, access))
            is_streaming, can_push = (capabilities.get(name) is True for name in ("streaming", "pushNotifications"))
            yield _Exchange(client, is_streaming, can_push, invalid)


remote = RemoteAgent
"""A function that returns a :class:`RemoteAgent`."""


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One exchange with an agent."""

    client: Client
    is_streaming: bool
    can_push: bool
    invalid: list[InvalidUpdate]
    task: TaskTracker = field(default_factory=TaskTracker)

    async def parsed(self, wire_updates: AsyncGenerator[Json, None]) -> AsyncGenerator[Update, None]:
        """Yield the valid ones of the updates."""
        async with aclosing(wire_updates):
            async for wire in wire_updates:
                try:
                    update = update_from_wire(wire)
                except InvalidUpdate as error:  # the updates that follow are used all the same
                    self.invalid.append(error)
                    continue
                self.task.apply(update)
                yield update

    async def resubscribed(self, task_id: str) -> AsyncGenerator[Update, None]:
        """Yield further updates of a task; none if the agent does not support it, or if the task has just ended.

        Some agents break the connection then. If the agent is lost, the next request for the task fails, too.
        """
        try:
            async with aclosing(self.parsed(self.client.resubscribe(task_id))) as updates:
                async for update in updates:
                    yield update
        except Exception as error:
            if not isinstance(agent_error(error, ""), AgentRefused | AgentLost):
                raise

    async def polled(self) -> AsyncGenerator[Update, None]:
        """Yield the task each time that it has changed, until it is no longer open."""
        pause, latest = _FIRST_PAUSE, None
        while self.task.is_open:
            assert self.task.task_id is not None
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _MAX_PAUSE)
            wire = await self.client.task(self.task.task_id)
            if wire != latest:
                latest, pause = wire, _FIRST_PAUSE
                yield self.snapshot(wire)

    def snapshot(self, wire: Json) -> Update:
        """Return the task as an update."""
        update = update_from_wire({"task": wire})
        self.task.apply(update)
        return update
