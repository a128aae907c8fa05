"""Print when each page of a console that runs paints first: ``python -m tools.first_paint [URL] [TIMES]``.

It needs the extra ``browser`` and Chromium, and a server that requires no tokens; by default that of ``eventstore up``.
Each page is opened several times in a browser that has the stylesheet and the scripts already; the medians are printed:
the time until the first byte of the response, until its last one, and until the first paint, all since the click.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.async_api import Page

PAGES = (
    "", "conversations", "conversations?state=failed", "conversations?q=train", "log", "log?types=-message.added",
    "projections", "statistics", "people", "retention", "operations",
)  # fmt: skip
_READ = """
new Promise((done) => new PerformanceObserver((list) => {
  const [navigation] = performance.getEntriesByType("navigation");
  done([navigation.responseStart, navigation.responseEnd, list.getEntries()[0].startTime, navigation.decodedBodySize]);
}).observe({type: "paint", buffered: true}))
"""


@dataclass(frozen=True)
class Paint:
    """The medians of a page, in milliseconds since its navigation began.

    Attributes:
        first_byte, last_byte: of the response.
        first_paint: of anything.
        size: bytes of the page, decoded.
    """

    path: str
    first_byte: float
    last_byte: float
    first_paint: float
    size: int


async def measure(page: Page, url: str, paths: Sequence[str], times: int) -> AsyncIterator[Paint]:
    """Open pages of a console several times, and yield the medians of each."""
    for path in paths:
        found: list[list[Any]] = []
        for _ in range(times + 1):
            await page.goto(f"{url}/console/{path}")
            found.append(await page.evaluate(_READ))
        first_byte, last_byte, first_paint, size = (median(values) for values in zip(*found[1:], strict=True))
        yield Paint(path, first_byte, last_byte, first_paint, int(size))


async def longest_conversation(page: Page, url: str) -> str:
    """Return the path of the longest of the latest conversations."""
    listed = await (await page.request.get(f"{url}/console/conversations.json")).json()
    longest = max(listed["items"], key=lambda item: int(item["message_count"]))
    return f"conversations/{longest['id']}"


async def main(url: str, times: int) -> None:
    """Print the table."""
    from playwright.async_api import async_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        one = await longest_conversation(page, url)
        print(f"{'page':45} {'first byte':>10} {'last byte':>10} {'first paint':>11} {'size':>9}")
        async for each in measure(page, url, (*PAGES, one, f"{one}/events", f"{one}?version=500"), times):
            print(
                f"{each.path or 'overview':45} {each.first_byte:7.0f} ms {each.last_byte:7.0f} ms"
                f" {each.first_paint:8.0f} ms {each.size:9,}"
            )
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080", int((sys.argv[2:] or ["5"])[0])))
