"""Agents in this process: a function of the application, and the echo agent."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias
from uuid import uuid4

from agent_manager.a2a import Json, agent_message, text_part, version_of
from agent_manager.agents.agent import (
    ArtifactUpdate,
    Cancel,
    Context,
    PushNotifications,
    Reply,
    ReplyChunk,
    Resume,
    StatusUpdate,
    TaskSnapshot,
    Update,
    cancellation,
    closing,
    push_notifications_of,
    resumption,
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
    are the pieces of one message, such as the tokens of a language model.

    Optional attributes of the function serve its tasks: ``cancel``, ``resume``, which yields what the function could
    yield, and ``push_notifications``, see :class:`~agent_manager.agents.agent.PushNotifications`. An object may have
    the methods of the last one itself.

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
        self.cancel: Cancel | None = cancellation(function)
        self.resume: Resume | None = None if resumption(function) is None else self._resume
        self.push_notifications: PushNotifications | None = push_notifications_of(function)
        self._function = function
        self._takes_context = _takes_two_arguments(function)

    def __call__(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        """Call the function and yield its updates."""
        message = context.addressed_to(self.name, message)
        arguments = (message, context) if self._takes_context else (message,)
        return with_final_reply(self._updates(partial(self._function, *arguments), message, context))

    def _resume(self, task_id: str, context: Context) -> AsyncGenerator[Update, None]:
        resume: Any = resumption(self._function)
        message = context.addressed_to(self.name, {})
        return with_final_reply(self._updates(partial(resume, task_id, context), message, context))

    async def _updates(self, call: Callable[[], Any], message: Json, context: Context) -> AsyncGenerator[Update, None]:
        result = call()
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
