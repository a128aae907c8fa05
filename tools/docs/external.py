"""The references of a built site to other hosts that a browser loads by itself; links that a reader clicks are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

_LOADS = {
    "audio": "src", "embed": "src", "iframe": "src", "img": "src", "input": "src", "link": "href", "object": "data",
    "script": "src", "source": "src", "track": "src", "video": "src",
}  # fmt: skip
_LINKS_ONLY = {"canonical", "alternate", "next", "prev", "edit"}
_ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_IN_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)


class _Resources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and (values.get("rel") or "").lower() in _LINKS_ONLY:
            return
        address = values.get(_LOADS.get(tag, "")) or ""
        if _ELSEWHERE.match(address):
            self.found.append(address)
        self.found += _IN_CSS.findall(values.get("style") or "")


def external_resources(folder: Path) -> list[tuple[str, str]]:
    """Return the file and the address of everything that the pages and style sheets in a folder load from elsewhere."""
    return sorted(_found(folder))


def _found(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        parser = _Resources()
        parser.feed(text)
        styles = _IN_CSS.findall("".join(re.findall(r"<style.*?</style>", text, re.DOTALL)))
        yield from ((str(path.relative_to(folder)), address) for address in [*parser.found, *styles])
    for path in folder.rglob("*.css"):
        for address in _IN_CSS.findall(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(folder)), address
