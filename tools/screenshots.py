"""Make the screenshots of the guide to the console again: ``python -m tools.screenshots [FOLDER]``.

It starts an embedded server with a sample in a temporary folder, and needs the extra ``browser`` and Chromium.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import httpx
from playwright.async_api import async_playwright

from agent_manager.factory import AsyncManager
from agent_manager.server.serve import listen, serving, url_of
from eventstore import EventStore, Settings
from eventstore.concurrency import cancel_and_wait
from projections import Worker

FOLDER = Path(__file__).parent.parent / "docs" / "images"
SUBJECTS = (
    "Invoice 4711 is missing", "Reset of a password", "Trip to Recife", "Contract review, second pass",
    "Quarterly report", "Onboarding of a supplier", "Refund for order 88-12", "Delivery is late",
    "Translate the manual", "Duplicate charge",
)  # fmt: skip
REQUEST = """We need **12 rooms** in Lisbon, 3–5 June, and a meeting room.

| item | limit |
| --- | --- |
| rooms | 9,000 EUR |
| meeting room | 1,200 EUR |

Please check the trains from Porto, too."""
OFFER = """Two hotels fit the budget:

1. **Avenida Palace**, 8,400 EUR, meeting room included
2. **Memmo Alfama**, 8,950 EUR

> Trains from Porto leave at 08:42.

Shall I book the first?"""
TASKS = [UUID(int=number) for number in range(1, 4)]


def call(name: str, arguments: str, number: int) -> dict[str, Any]:
    """Return a call of a tool as messages contain it."""
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def task_event(number: int, kind: str, **content: Any) -> dict[str, Any]:
    """Return an event of a task."""
    return {"event_type": f"task.{kind}", "actor": "travel-agent", "content": {"task_id": str(TASKS[number])} | content}


async def fill(client: httpx.AsyncClient) -> str:
    """Append the sample; return the id of its main conversation."""

    async def begin(name: str) -> str:
        made = await client.post("/v1/conversations", json={"name": name, "id": str(uuid4())})
        return str(made.raise_for_status().json()["id"])

    async def say(conversation: str, actor: str, **message: Any) -> None:
        path = f"/v1/conversations/{conversation}/messages"
        (await client.post(path, json=message, params={"actor": actor})).raise_for_status()

    async def append(*events: dict[str, Any]) -> None:
        (await client.post(f"/v1/conversations/{trip}/events", json={"events": events})).raise_for_status()

    for number, subject in enumerate(SUBJECTS):
        conversation = await begin(subject)
        for turn in range(1 + number % 4):
            text = f"Could you look at this again? {subject}, attempt {turn + 1}."
            await say(conversation, ("ana", "bruno", "carla")[number % 3], role="user", content=text)
            await say(conversation, "support-agent", role="assistant", content="Checked, and **done**.")
    trip = await begin("Booking for the Lisbon offsite")
    await say(trip, "ana", role="user", content=REQUEST)
    calls = [call("search_hotels", '{"city": "Lisbon", "rooms": 12}', 1), call("search_trains", '{"from": "Porto"}', 2)]
    await say(trip, "travel-agent", role="assistant", content=None, tool_calls=calls)
    for number, text in enumerate(('[{"hotel": "Avenida Palace", "price": 8400}]', '[{"departs": "08:42"}]'), 1):
        await say(trip, "travel-agent", role="tool", tool_call_id=f"call_{number}", content=text)
    await say(trip, "travel-agent", role="assistant", content=OFFER)
    await say(trip, "ana", role="user", content="Yes, please, and reserve the train.")
    names = ("Book 12 rooms at Avenida Palace", "Reserve seats on the train", "Catering for the meeting")
    for number, name in enumerate(names):
        await append(task_event(number, "created", description=name, status="in_progress"))
        await asyncio.sleep(0.4)
    failure = {"role": "agent", "parts": [{"kind": "text", "text": "The rail service rejected the group fare."}]}
    await append(task_event(0, "status_changed", status="completed"))
    await append(task_event(1, "status_changed", status="failed", message=failure))
    text = "The rooms are booked. The seats **failed**: the rail service rejected the group fare."
    await say(trip, "travel-agent", role="assistant", content=text)
    await client.post(f"/v1/conversations/{trip}/members", json={"user": "bruno", "access": "write"})
    return trip


async def take(url: str, trip: str, folder: Path) -> None:
    """Take the screenshots."""
    shots: Iterable[tuple[str, str, dict[str, Any]]] = (
        ("overview", "", {}),
        ("conversation", f"conversations/{trip}", {"color_scheme": "dark"}),
        ("past", f"conversations/{trip}?version=6", {}),
        ("log", "log", {}),
        ("erase", f"erasures?conversation={trip}", {}),
        ("projections", "projections", {"color_scheme": "dark"}),
        ("phone", f"conversations/{trip}", {"viewport": {"width": 390, "height": 844}, "locale": "pt-BR"}),
    )
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, page_path, options in shots:
            page = await browser.new_page(**({"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"} | options))
            await page.goto(f"{url}/console/{page_path}")
            await page.wait_for_timeout(500)
            await page.screenshot(path=folder / f"console-{name}.png")
            await page.close()
        await browser.close()


async def main(folder: Path) -> None:
    """Serve the sample, and take the screenshots."""
    with TemporaryDirectory() as data_dir, listen("127.0.0.1", 0) as listening:
        settings = Settings(data_dir=Path(data_dir))
        async with EventStore(settings) as store:
            worker = asyncio.create_task(Worker(store).run())
            try:
                async with (
                    AsyncManager(store, runs_worker=False) as manager,
                    serving(store, manager, listening),
                    httpx.AsyncClient(base_url=url_of(listening), timeout=30) as client,
                ):
                    await take(url_of(listening), await fill(client), folder)
            finally:
                await cancel_and_wait([worker])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
