"""What answers without a network: the application's own function, and the echo agent."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from typing import Any, TypeAlias
from uuid import uuid4

from agent_manager.a2a import Json, agent_role, text_part, version_of
from agent_manager.agents.agent import ArtifactUpdate, Context, Reply, StatusUpdate, TaskSeen, Update, with_final_reply
from agent_manager.agents.errors import InvalidUpdate
from agent_manager.agents.updates import understood, update_from_wire
from eventstore.errors import InputError

AgentResult: TypeAlias = Update | Json | str | None
Function: TypeAlias = Callable[..., Awaitable[AgentResult] | AsyncIterator[AgentResult]]


def from_callable(function: Function) -> CallableAgent:
    """A function of the application's own: ``async def f(message)`` or ``async def f(message, context)``.

    It returns, or as an async generator yields, a text, a message, a task or an update as JSON in the shape of A2A 0.3
    or 1.x, an :data:`~agent_manager.agents.agent.Update`, or None, which says nothing.

    Raises:
        InputError: it is no such function.
    """
    return CallableAgent(function)


def echo() -> CallableAgent:
    """An agent that sends back what it was sent."""
    return CallableAgent(_echo, "echo")


class CallableAgent:
    """See :func:`from_callable`.

    Attributes:
        name: the function's.
    """

    def __init__(self, function: Function, name: str | None = None) -> None:
        if not callable(function):
            raise InputError(f"{function!r:.200} cannot answer: expected async def f(message)")
        known = (getattr(function, attribute, None) for attribute in ("name", "__name__"))
        self.name: str = name or next((one for one in known if isinstance(one, str)), type(function).__name__)
        self._function = function
        self._takes_context = _takes_two(function)

    async def __call__(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        """Calls the function and gives what it says."""
        sent = context.sent(message, self.name)
        async with aclosing(with_final_reply(self._said(sent, context))) as updates:
            async for update in updates:
                yield update

    async def _said(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        said = self._function(message, context) if self._takes_context else self._function(message)
        if isinstance(said, AsyncIterator):
            refused: InvalidUpdate | None = None
            async with aclosing(said) if isinstance(said, AsyncGenerator) else nullcontext():
                async for one in said:
                    if one is None:
                        continue
                    try:
                        update = _update(one, message, context)
                    except InvalidUpdate as error:  # what follows is heard all the same
                        refused = refused or error
                    else:
                        yield update
            if refused is not None:
                raise refused
        elif inspect.isawaitable(said):
            if (one := await said) is not None:
                yield _update(one, message, context)
        else:
            raise InvalidUpdate(f"{self.name} returned a {type(said).__name__} at once: make it 'async def'")


def reply_to(message: Json, context: Context, parts: list[Any]) -> Json:
    """A message of the agent's with these parts, in the shape of the message that it answers."""
    shape = version_of(message)
    head: Json = {"kind": "message"} if shape == "0.3" else {}
    reply = head | {"messageId": str(uuid4()), "role": agent_role(shape), "parts": parts}
    context_id = message.get("contextId") or context.conversation_id
    return reply | ({"contextId": context_id} if context_id else {})


async def _echo(message: Json, context: Context) -> Json:
    parts = message.get("parts")
    if not isinstance(parts, list):
        parts = [text_part(str(message.get("content", "")), version_of(message))]
    return reply_to(message, context, parts)


def _update(said: AgentResult, message: Json, context: Context) -> Update:
    if isinstance(said, Reply | TaskSeen | StatusUpdate | ArtifactUpdate):
        return understood(said)
    if isinstance(said, str):
        return Reply(reply_to(message, context, [text_part(said, version_of(message))]))
    update = update_from_wire(said)
    if isinstance(update, Reply):  # what every message has and a function need not write
        return Reply(reply_to(message, context, []) | update.message)
    return update


def _takes_two(function: Function) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
