"""Browsers of the console without a browser: clients that keep the cookie and send the forms of pages."""

from __future__ import annotations

import html
import re

import httpx

from agent_manager.console import SUBJECTS
from agent_manager.console.pages import ConsoleRoute


class Visitor:
    """A client of the console that is signed in.

    Args:
        token: None on a server that requires none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.client = httpx.AsyncClient(base_url=f"{url}/console/", timeout=30, follow_redirects=True, verify=False)
        self._token = token

    async def __aenter__(self) -> Visitor:
        if self._token is not None:
            await self.client.post("sign-in", data={"token": self._token, "next": "conversations"})
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.aclose()

    async def get(self, path: str = "", status: int = 200, **headers: str) -> str:
        """The text of a page."""
        found = await self.client.get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        assert found.status_code == status, found.text[:500]
        return found.text

    async def tag(self, path: str) -> str:
        """The tag of the session, from the forms of a page."""
        found = re.search(r'name="csrf" value="([^"]+)"', await self.get(path))
        assert found is not None
        return html.unescape(found[1])

    async def send(self, page: str, path: str, status: int = 200, **fields: object) -> str:
        """The page after a form of a page was sent."""
        fields |= {"csrf": await self.tag(page)}
        done = await self.client.post(path, data=fields)
        assert done.status_code == status, done.text[:500]
        return done.text


def console_routes() -> list[ConsoleRoute]:
    """All routes of the console."""
    found = [route for subject in SUBJECTS for route in subject.router.routes]
    assert all(isinstance(route, ConsoleRoute) for route in found)
    return [route for route in found if isinstance(route, ConsoleRoute)]
