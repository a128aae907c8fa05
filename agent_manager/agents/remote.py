"""A remote A2A agent as what answers: through a2a-sdk's client, streaming where its card says so.

A client is opened for every answer and belongs to its event loop: answers run in threads and loops of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent_manager.a2a import Json
from agent_manager.agents.a2a_client import TASK_NOT_FOUND, SdkClient, agent_error, open_client, translated
from agent_manager.agents.agent import Context, LastTask, Update, with_final_reply, within
from agent_manager.agents.cards import CARD_SECONDS, agent_url, fetch_card, http_client
from agent_manager.agents.errors import AgentError, AgentRefused, InvalidUpdate, TaskUnknown
from agent_manager.agents.updates import update_from_wire
from eventstore.urls import show_url

if TYPE_CHECKING:
    import httpx

SILENCE_SECONDS = 120.0
TOTAL_SECONDS = 1800.0
_FIRST_LOOK, _LONGEST_LOOK = 0.1, 5.0


def remote(
    agent: str | Json,
    *,
    silence: float = SILENCE_SECONDS,
    total: float = TOTAL_SECONDS,
    card_seconds: float = CARD_SECONDS,
    allow_private: bool = True,
) -> RemoteAgent:
    """The agent at a URL, or that a card describes.

    Args:
        silence: seconds that it may take for an update.
        total: seconds that it may take for an answer.
        card_seconds: seconds that it may take to give its card.
        allow_private: follow its card, or a redirect, to an address that is not global; its own host is trusted.

    Raises:
        InvalidAgentUrl: the URL is none.
    """
    return RemoteAgent(agent, silence=silence, total=total, card_seconds=card_seconds, allow_private=allow_private)


class RemoteAgent:
    """See :func:`remote`. Answering raises an :class:`AgentError` where the agent does not."""

    def __init__(
        self, agent: str | Json, *, silence: float, total: float, card_seconds: float, allow_private: bool
    ) -> None:
        self._url = agent_url(agent) if isinstance(agent, str) else None
        self._card = None if isinstance(agent, str) else agent
        self._silence, self._total, self._card_seconds = silence, total, card_seconds
        self._allow_private = allow_private

    @property
    def name(self) -> str:
        """What the agent calls itself; its URL until it was heard."""
        name = self._card.get("name") if self._card else None
        return name if isinstance(name, str) and name else show_url(self._url) if self._url else "agent"

    async def __call__(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        """Sends the message and gives what the agent says; asks after a task that it leaves open until it is not."""
        sent = message
        if context.task_id is not None and not message.get("taskId"):
            sent = message | {"taskId": context.task_id}
        refused: list[InvalidUpdate] = []
        async with (
            self._client(refused) as http,
            aclosing(self._limited(self._said(sent, context, http, refused))) as updates,
        ):
            async for update in updates:
                yield update

    async def resume(self, task_id: str, context: Context) -> AsyncGenerator[Update, None]:
        """Ask after a task that the agent was working on, and give what it says of it until it is done with it.

        Raises:
            TaskUnknown: the agent does not know the task.
        """
        refused: list[InvalidUpdate] = []
        async with (
            self._client(refused) as http,
            aclosing(self._limited(self._said_of(task_id, http, refused))) as updates,
        ):
            async for update in updates:
                yield update

    def _client(self, refused: list[InvalidUpdate]) -> httpx.AsyncClient:
        host = (urlsplit(self._url).hostname or "") if self._url else ""
        return http_client(refused, allow_private=self._allow_private, trusted_host=host)

    async def _limited(self, updates: AsyncGenerator[Update, None]) -> AsyncGenerator[Update, None]:
        limited = within(with_final_reply(updates), silence=self._silence, total=self._total, who=self.name)
        async with aclosing(limited):
            async for update in limited:
                yield update

    async def _said_of(
        self, task_id: str, http: httpx.AsyncClient, refused: list[InvalidUpdate]
    ) -> AsyncGenerator[Update, None]:
        card = await self._described(http)
        client = open_client(card, http)
        task = LastTask()
        try:
            with translated(self.name):
                seen = await client.task(task_id)
        except AgentRefused as error:
            if error.code in (TASK_NOT_FOUND, HTTPStatus.NOT_FOUND):
                raise TaskUnknown(str(error), error.code) from error
            raise
        with translated(self.name):
            yield _seen(seen, task)
            if task.is_open and _streams(card):
                # What it said between the two requests is in the task itself, which is looked at once more.
                async with aclosing(_resubscribed(client, task, refused)) as updates:
                    async for update in updates:
                        yield update
                yield _seen(await client.task(task_id), task)
            if refused:
                raise refused[0]
            async for update in _awaited(client, task):
                yield update

    async def _said(
        self, message: Json, context: Context, http: httpx.AsyncClient, refused: list[InvalidUpdate]
    ) -> AsyncGenerator[Update, None]:
        try:
            card = await self._described(http)
            client = open_client(card, http)
            task, silent = LastTask(), True
            with translated(self.name):
                async with aclosing(client.send(context.sent(message, self.name), streaming=_streams(card))) as sent:
                    async for wire in sent:
                        silent = False
                        try:
                            update = update_from_wire(wire)
                        except InvalidUpdate as error:  # what follows is heard all the same
                            refused.append(error)
                            continue
                        task.take(update)
                        yield update
                if refused:
                    raise refused[0]
                if silent:
                    raise InvalidUpdate("the agent came to an end without a word")
                async for update in _awaited(client, task):
                    yield update
        except AgentError:
            if self._url is not None:
                self._card = None  # it may have moved or learnt something: ask again the next time
            raise

    async def _described(self, http: httpx.AsyncClient) -> Json:
        if self._card is None:
            assert self._url is not None
            self._card = await fetch_card(self._url, seconds=self._card_seconds, http=http)
        return self._card


async def _resubscribed(
    client: SdkClient, task: LastTask, refused: list[InvalidUpdate]
) -> AsyncGenerator[Update, None]:
    """The updates of a task from now on; none from an agent whose tasks cannot be listened to again."""
    assert task.task_id is not None
    try:
        async with aclosing(client.resubscribe(task.task_id)) as sent:
            async for wire in sent:
                try:
                    update = update_from_wire(wire)
                except InvalidUpdate as error:  # what follows is heard all the same
                    refused.append(error)
                    continue
                task.take(update)
                yield update
    except Exception as error:
        if not isinstance(agent_error(error, ""), AgentRefused):
            raise


def _seen(wire: Json, task: LastTask) -> Update:
    update = update_from_wire({"task": wire})
    task.take(update)
    return update


async def _awaited(client: SdkClient, task: LastTask) -> AsyncGenerator[Update, None]:
    """The task, each time that it has changed, until the agent is done with it."""
    pause, last = _FIRST_LOOK, None
    while task.is_open:
        assert task.task_id is not None
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_LOOK)
        seen = await client.task(task.task_id)
        if seen != last:
            last, pause = seen, _FIRST_LOOK
            yield _seen(seen, task)


def _streams(card: Json) -> bool:
    capabilities = card.get("capabilities")
    return isinstance(capabilities, dict) and capabilities.get("streaming") is True
