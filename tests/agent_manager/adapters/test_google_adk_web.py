"""google-adk's web UI on the event store: what is typed there is stored, and what is stored is shown there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.browser import Chromium
from support.ports import free_port
from support.processes import Running
from support.waiting import SECONDS, until, until_async

pytest.importorskip("google.adk", reason="google-adk is not installed (extra: adk)")

from google.adk import cli as adk_cli
from google.adk.sessions.session import Session

from agent_manager.adapters.google_adk import EventStoreSessionService
from agent_manager.adapters.google_adk_events import conversation_name
from eventstore import EventStore, conversation_uuid
from projections import Reader, catch_up

pytestmark = [
    pytest.mark.slow,
    pytest.mark.own_database,
    pytest.mark.skipif(
        not (Path(adk_cli.__file__).parent / "browser" / "index.html").is_file(), reason="google-adk has no web UI"
    ),
]

AGENT = """
from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.genai import types


class Scripted(BaseLlm):
    async def generate_content_async(self, request, stream=False):
        last = request.contents[-1].parts[-1]
        if last.function_response is None:
            part = types.Part(function_call=types.FunctionCall(name="departures", args={"city": last.text}))
        else:
            part = types.Part(text="It leaves at " + last.function_response.response["result"])
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def departures(city: str) -> str:
    "Return when the next train leaves."
    return "14:40"


root_agent = LlmAgent(name="clerk", model=Scripted(model="scripted"), tools=[departures], output_key="answer")
"""
SERVICES = """
from agent_manager.adapters.google_adk import register_services

register_services()
"""


@pytest.fixture
def web(tmp_path: Path, database_url: str) -> Iterator[str]:
    """``adk web`` with an agent that has a tool, on the test's database; its URL."""
    agents = tmp_path / "agents"
    (agents / "clerk").mkdir(parents=True)
    (agents / "clerk" / "agent.py").write_text(AGENT)
    (agents / "clerk" / "__init__.py").write_text("from . import agent\n")
    (agents / "services.py").write_text(SERVICES)
    port = free_port()
    command = [sys.executable, "-m", "google.adk.cli", "web", "--port", str(port), "--session_service_uri"]
    command += ["eventstore:", "--artifact_service_uri", "eventstore:", str(agents)]
    running = Running(tmp_path / "out", command, DATABASE_URL=database_url, HOME=str(tmp_path))
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert not running.ended, running.err
        try:
            return httpx.get(f"{url}/list-apps", timeout=SECONDS).json() == ["clerk"]
        except httpx.TransportError:
            return False

    try:
        until(is_up, "adk web answers", 60)
        yield url
    finally:
        running.kill()


async def test_sessions_are_begun_shown_and_deleted_in_the_web_ui(
    web: str, chromium: Chromium, store: EventStore
) -> None:
    service = EventStoreSessionService(store)

    async def sessions() -> list[Session]:
        return (await service.list_sessions(app_name="clerk", user_id="ana")).sessions

    async with chromium.tab(web) as tab:
        page = tab.page
        answer = page.get_by_text("It leaves at 14:40")

        async def send(words: str) -> None:
            await page.get_by_placeholder("Type a message...").fill(words)
            await page.keyboard.press("Enter")
            await answer.wait_for()

        await page.goto(f"{web}/dev-ui/?app=clerk&userId=ana")
        await send("Lisboa")
        await page.get_by_role("button", name="No Thanks").click()  # to collecting data
        await page.get_by_role("button", name="New Session").click()
        await answer.wait_for(state="hidden")
        await send("Faro")
        lisboa, faro = await sessions()
        await page.get_by_role("button", name="Faro").first.click()  # opens the list of sessions
        await page.get_by_text(lisboa.id).click()
        await page.get_by_text('departures("Lisboa")').wait_for()
        await page.get_by_role("tab", name="State").click()
        await page.get_by_text("answer", exact=True).wait_for()
        await page.reload()
        await page.get_by_text('departures("Lisboa")').wait_for()
        await page.get_by_role("button", name="Lisboa").first.click()
        await page.get_by_role("button", name="Delete").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()

        async def is_deleted() -> bool:
            return [session.id for session in await sessions()] == [faro.id]

        await until_async(is_deleted, "the session is deleted")
    await catch_up(store)
    assert [each.given_id for each in await Reader(store).conversations()] == [f"clerk/ana/{faro.id}"]
    conversation = conversation_uuid(store.tenant, conversation_name("clerk", "ana", faro.id))
    [task] = await Reader(store).tasks(conversation)
    assert (task.description, task.status) == ('departures({"city": "Faro"})', "completed")
    messages = [message.content for message in await Reader(store).messages(conversation)]
    assert [text for text in messages if text] == ["Faro", "It leaves at 14:40"]
