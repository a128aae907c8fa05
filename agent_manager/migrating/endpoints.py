"""The conversations of an application that serves the demo's endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

from agent_manager.fetching import load_json, open_client
from agent_manager.migrating.files import LOCAL, local_file, parts_of_task, with_bytes
from agent_manager.migrating.grouping import grouped
from agent_manager.migrating.source import SourceConversation, SourceUnreadable
from agent_manager.migrating.wire import Json, canonical_card, canonical_message, text_member
from eventstore.errors import printable
from eventstore.urls import check_url, show_name, show_url

SECONDS = 60.0
"""How long an answer may take: the demo's lists everything in one."""
MAX_BYTES = 1024 * 1024 * 1024
"""Of such an answer, decoded."""


class EndpointSource:
    """What an application answers at ``/conversation/list`` and the other endpoints of the demo.

    Open it as a context manager.

    Args:
        url: of the application, such as ``http://localhost:12000``.
        keep_alive: use a connection again. On a used connection a server that sends head and body in two packets waits
            up to 40 ms for the client's acknowledgement, or does not, by chance.

    Raises:
        SourceUnreadable: the URL is none, nothing answers there, or something else does.
    """

    def __init__(self, url: str, *, keep_alive: bool = True) -> None:
        if not url.startswith(("http://", "https://")):
            raise SourceUnreadable(
                f"{show_name(url)!r} is not a URL: give the application's, such as http://localhost:12000"
            )
        self._url = check_url(url, "the application's URL").rstrip("/")
        self.name = show_url(self._url)
        limits = httpx.Limits() if keep_alive else httpx.Limits(max_keepalive_connections=0)
        self._client = open_client(limit=MAX_BYTES, timeout=SECONDS, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        listed = await self._objects("conversation/list")
        for plain in listed:
            if not plain.get("messages"):
                given_id = text_member(plain, "conversation_id", "conversationId")
                plain["messages"] = await self._objects("message/list", given_id)
        found = grouped(listed, await self._objects("task/list"), await self._objects("events/get"))
        for conversation in found:
            for message in conversation.messages:
                message.fetched = await self._put_back(message.wire.get("parts"))
                message.wire = canonical_message(message.wire)
            for place, task in enumerate(conversation.tasks):
                apart = [await self._put_back(parts) for parts in parts_of_task(task)]
                if any(apart):
                    conversation.fetched_tasks.append(place)
            yield conversation

    async def agents(self) -> list[Json]:
        """See :class:`Source`."""
        return [canonical_card(card) for card in await self._objects("agent/list")]

    async def pending(self) -> int:
        """See :class:`Source`."""
        return len(await self.ask("message/pending") or ())

    async def ask(self, method: str, params: Any = None) -> Any:
        """The result that an endpoint gives.

        Raises:
            SourceUnreadable: it gives none.
        """
        request = {"jsonrpc": "2.0", "id": uuid4().hex, "method": method, "params": params}
        response = await self._send("POST", f"/{method}", json=request)
        try:
            answer = load_json(response.content)
        except ValueError as error:
            why = (
                f"{self.name}/{method} did not answer in JSON ({printable(str(error))}): is the URL the application's?"
            )
            raise SourceUnreadable(why) from None
        if not isinstance(answer, dict) or answer.get("error") is not None:
            said = printable(str(answer), longest=200)
            raise SourceUnreadable(f"{self.name}/{method} answered with an error: {said}")
        return answer.get("result")

    async def _objects(self, method: str, params: Any = None) -> list[Json]:
        result = await self.ask(method, params) or []
        if not isinstance(result, list) or not all(isinstance(one, dict) for one in result):
            raise SourceUnreadable(f"{self.name}/{method} gave no list of objects: is the URL the application's?")
        return result

    async def _put_back(self, parts: Any) -> list[int]:
        """Fetches the files of these parts; the places of those that the application keeps apart."""
        apart = []
        for place, part in enumerate(parts if isinstance(parts, list) else ()):
            if (file_id := local_file(part)) is None:
                continue
            apart.append(place)
            # The demo answers 500 for a file that it knows by its address only: that part stays as it is, and is named
            # when it is taken over, unless the store has it already.
            with suppress(SourceUnreadable):
                parts[place] = with_bytes(part, (await self._send("GET", LOCAL + file_id)).content)
        return apart

    async def _send(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            response = await self._client.request(method, self._url + path, **how)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = printable(str(error) or type(error).__name__)
            raise SourceUnreadable(f"{self.name}{path} cannot be reached: {why}: start the application") from None
        if response.status_code != httpx.codes.OK:
            raise SourceUnreadable(f"{self.name}{path} answered {response.status_code}: see the application's log")
        return response
