"""A browser, if the extra ``browser`` is installed and the system has Chromium."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(event.violatedDirective + " " + event.blockedURI));
window.ran = [];
window.alert = (text) => window.ran.push(text);
"""
_ABORTED = ("htmx:afterRequest", "htmx:sendError")
"""The messages of htmx about requests in flight when the page was left."""


@dataclass
class Tab:
    """A page of the browser, and what went wrong in it.

    Attributes:
        errors: of the page and its console, but for those that the network causes.
        requests: the paths of the requests that it made.
    """

    page: Any
    url: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    async def open(self, path: str = "") -> None:
        """Open a page of the console, and wait for what it loads."""
        await self.page.goto(f"{self.url}/console/{path}")
        await self.page.wait_for_load_state("load")

    @asynccontextmanager
    async def processor_milliseconds(self) -> AsyncIterator[list[float]]:
        """Collect the processor time of each task of the page's main thread during the block, in their order."""
        devtools = await self.page.context.new_cdp_session(self.page)
        events: list[dict[str, Any]] = []
        is_complete = asyncio.Event()
        devtools.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
        devtools.on("Tracing.tracingComplete", lambda _: is_complete.set())
        await devtools.send("Tracing.start", {"transferMode": "ReportEvents", "categories": "toplevel"})
        tasks: list[float] = []
        yield tasks
        await devtools.send("Tracing.end")
        await is_complete.wait()
        threads = {
            (event["pid"], event["tid"])
            for event in events
            if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
        }
        ran = [event for event in events if event["name"].endswith("RunTask") and "tdur" in event]
        ran.sort(key=lambda event: float(event["ts"]))
        tasks += [event["tdur"] / 1000 for event in ran if (event["pid"], event["tid"]) in threads]

    async def check_quiet(self, where: str) -> None:
        """Check that no script ran that is not the server's, and that nothing failed."""
        assert await self.page.evaluate("window.violations") == [], where
        assert await self.page.evaluate("window.ran") == [], where
        assert self.errors == [], where


class Chromium:
    """A browser that runs."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    @asynccontextmanager
    async def tab(self, url: str, **options: Any) -> AsyncIterator[Tab]:
        """Open an empty page with cookies of its own."""
        options = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"} | options
        context = await self._browser.new_context(**options)
        try:
            await context.add_init_script(_WATCH)
            page = await context.new_page()
            tab = Tab(page, url)
            page.on("pageerror", lambda error: tab.errors.append(str(error)))
            page.on("request", lambda request: tab.requests.append(request.url.removeprefix(url)))
            page.on(
                "console",
                lambda message: (
                    tab.errors.append(message.text)
                    if message.type == "error" and not message.text.startswith(_ABORTED) and "net::" not in message.text
                    else None
                ),
            )
            yield tab
        finally:
            await context.close()


@asynccontextmanager
async def chromium_if_installed() -> AsyncIterator[Chromium]:
    """A browser; without one the test is skipped."""
    playwright = pytest.importorskip("playwright.async_api", reason="needs the extra browser")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt install chromium)")
    async with playwright.async_playwright() as running:
        browser = await running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-audio-output", "--mute-audio"]
        )
        try:
            yield Chromium(browser)
        finally:
            await browser.close()
