"""Agents in this process: a function of the application, and the echo agent."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from uuid import uuid4

from agent_manager.a2a import Json, agent_message, text_part, version_of
from agent_manager.agents.agent import (
    ArtifactUpdate,
    Cancel,
    Context,
    Reply,
    ReplyChunk,
    StatusUpdate,
    TaskSnapshot,
    Update,
    closing,
    with_final_reply,
)
from agent_manager.agents.updates import checked_update, update_from_wire
from agent_manager.errors import InvalidUpdate
from eventstore.errors import InputError

AgentResult: TypeAlias = Update | Json | str | None
Function: TypeAlias = Callable[..., Awaitable[AgentResult] | AsyncIterator[AgentResult]]


def echo() -> CallableAgent:
    """Return an agent that replies with the parts of the message."""
    return CallableAgent(_echo, "echo")


async def _echo(message: Json, context: Context) -> Json:
    parts = message.get("parts")
    if not isinstance(parts, list):
        parts = [text_part(str(message.get("content", "")), version_of(message))]
    return _reply(message, context, parts)


class CallableAgent:
    """An agent that calls a function: ``async def f(message)`` or ``async def f(message, context)``.

    The function returns, or yields as an asynchronous generator: a text; a message, task or update as JSON of A2A 0.3
    or 1.x; an :data:`~agent_manager.agents.agent.Update`; or None for nothing. Texts that it yields one after the other
    are the pieces of one message, such as the tokens of a language model. If it has an attribute ``cancel``, that
    cancels its tasks, see :data:`~agent_manager.agents.agent.Cancel`.

    Args:
        name: the agent's name; by default the function's.

    Raises:
        InputError: the argument is not a function.
    """

    def __init__(self, function: Function, name: str | None = None) -> None:
        if not callable(function):
            raise InputError(f"{function!r:.200} cannot answer: expected async def f(message)")
        names = (name, getattr(function, "name", None), getattr(function, "__name__", None))
        self.name: str = next((each for each in names if isinstance(each, str)), type(function).__name__)
        self.cancel: Cancel | None = getattr(function, "cancel", None)
        self._function = function
        self._takes_context = _takes_two_arguments(function)

    def __call__(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        """Call the function and yield its updates."""
        return with_final_reply(self._updates(context.addressed_to(self.name, message), context))

    async def _updates(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        result = self._function(message, context) if self._takes_context else self._function(message)
        if isinstance(result, AsyncIterator):
            invalid: InvalidUpdate | None = None
            reply: Json | None = None  # that the next text continues
            async with closing(result) as values:
                async for value in values:
                    try:
                        if isinstance(value, str):
                            reply = reply or _reply(message, context, [])
                            yield ReplyChunk(reply | {"parts": [text_part(value, version_of(reply))]})
                        elif value is not None:
                            reply = None
                            yield _update(value, message, context)
                    except InvalidUpdate as error:  # the updates that follow are used all the same
                        invalid = invalid or error
            if invalid is not None:
                raise invalid
        elif inspect.isawaitable(result):
            if (value := await result) is not None:
                yield _update(value, message, context)
        else:
            raise InvalidUpdate(f"{self.name} returned a {type(result).__name__} at once: make it 'async def'")


from_callable = CallableAgent
"""A function that returns a :class:`CallableAgent`."""


def _update(value: AgentResult, message: Json, context: Context) -> Update:
    if isinstance(value, Reply | ReplyChunk | TaskSnapshot | StatusUpdate | ArtifactUpdate):
        return checked_update(value)
    if isinstance(value, str):
        return Reply(_reply(message, context, [text_part(value, version_of(message))]))
    update = update_from_wire(value)
    if isinstance(update, Reply):  # add the members that every message has and a function may leave out
        return Reply(_reply(message, context, []) | update.message)
    return update


def _reply(message: Json, context: Context, parts: list[Any]) -> Json:
    """Return a message of the agent with these parts, in the A2A version of the message that it answers."""
    reply = agent_message(parts, version_of(message), str(uuid4()))
    context_id = message.get("contextId") or context.conversation_id
    return reply | ({"contextId": context_id} if context_id else {})


def _takes_two_arguments(function: Function) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
