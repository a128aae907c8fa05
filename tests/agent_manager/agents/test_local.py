"""Functions of the application and the echo agent answer messages of either version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_manager.a2a import parts_text
from agent_manager.agents.agent import Context, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.local import echo, from_callable
from agent_manager.errors import InvalidUpdate
from eventstore.errors import InputError

pytestmark = pytest.mark.any_server

OLD = {
    "kind": "message", "role": "user", "messageId": "m", "contextId": "c", "parts": [{"kind": "text", "text": "hi"}],
}  # fmt: skip
NEW = {"role": "ROLE_USER", "messageId": "m", "contextId": "c", "parts": [{"text": "hi"}]}
CONTEXT = Context(conversation_id="c")


async def answered(function: Any, message: dict[str, Any] = OLD) -> list[Update]:
    return [update async for update in from_callable(function)(message, CONTEXT)]


@pytest.mark.parametrize(("message", "role"), [(OLD, "agent"), (NEW, "ROLE_AGENT")], ids=["0.3", "1.0"])
async def test_echo_replies_with_the_same_parts_in_the_same_version(message: dict[str, Any], role: str) -> None:
    [update] = [update async for update in echo()(message, CONTEXT)]
    assert isinstance(update, Reply)
    assert update.message["messageId"] != "m"
    assert update.message == message | {"role": role, "messageId": update.message["messageId"]}


@pytest.mark.parametrize(("message", "part"), [(OLD, {"kind": "text", "text": "HI"}), (NEW, {"text": "HI"})])
async def test_a_text_is_a_reply_in_the_version_of_its_message(message: dict[str, Any], part: dict[str, Any]) -> None:
    async def shout(message: dict[str, Any]) -> str:
        return parts_text(message["parts"]).upper()

    [update] = await answered(shout, message)
    assert isinstance(update, Reply)
    assert update.message["parts"] == [part]
    assert update.message["contextId"] == "c"
    assert from_callable(shout).name == "shout"


async def test_a_message_keeps_the_members_that_the_function_set() -> None:
    async def written(message: dict[str, Any]) -> dict[str, Any]:
        return {"messageId": "mine", "contextId": "another", "parts": [], "metadata": {"x": 1}}

    [update] = await answered(written)
    assert isinstance(update, Reply)
    assert update.message == {
        "kind": "message", "role": "agent", "messageId": "mine", "contextId": "another", "parts": [],
        "metadata": {"x": 1},
    }  # fmt: skip


async def test_a_function_may_return_nothing() -> None:
    async def silent(message: dict[str, Any]) -> None:
        return None

    assert await answered(silent) == []


async def test_a_generator_yields_updates_and_the_answer_ends_with_a_reply() -> None:
    async def work(message: dict[str, Any], context: Context) -> AsyncIterator[Any]:
        assert context is CONTEXT
        yield {"id": "t", "status": {"state": "working"}}
        yield None
        yield StatusUpdate("t", "c", {"state": "completed", "message": {"role": "agent", "parts": [{"text": "done"}]}})

    updates = await answered(work)
    assert [type(update) for update in updates] == [TaskSnapshot, StatusUpdate, Reply]
    assert isinstance(updates[-1], Reply)
    assert parts_text(updates[-1].message["parts"]) == "done"


async def test_a_function_may_yield_typed_updates() -> None:
    assert from_callable(echo()).name == "echo"
    assert len(await answered(echo())) == 1


async def test_closing_the_iterator_closes_the_function() -> None:
    ended = []

    async def work(message: dict[str, Any]) -> AsyncIterator[Any]:
        try:
            yield "one"
            yield "two"
        finally:
            ended.append(True)

    updates = from_callable(work)(OLD, CONTEXT)
    await anext(updates)
    await updates.aclose()
    assert ended


async def test_an_error_of_the_function_is_raised() -> None:
    async def fails(message: dict[str, Any]) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await answered(fails)


async def test_an_object_that_cannot_answer_is_rejected() -> None:
    with pytest.raises(InputError, match="async def"):
        from_callable(5)  # type: ignore[arg-type]

    def at_once(message: dict[str, Any]) -> str:
        return "x"

    with pytest.raises(InvalidUpdate, match="make it 'async def'"):
        await answered(at_once)

    async def number(message: dict[str, Any]) -> int:
        return 5

    with pytest.raises(InvalidUpdate, match="not a message, task"):
        await answered(number)
