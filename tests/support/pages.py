"""The pages of the documentation: their fenced blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.environment import TREE

PAGES = tuple(sorted(["README.md", *(str(path.relative_to(TREE)) for path in (TREE / "docs").rglob("*.md"))]))

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        title: the file that it is the content of; empty if it is run.
        reason: why it is not run; empty if it is.
    """

    language: str
    title: str
    reason: str
    text: str


@cache
def text_of(page: str) -> str:
    """Return the text of a page."""
    return (TREE / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return blocks_in(text_of(page))


def blocks_in(text: str) -> list[Block]:
    """Return the fenced blocks of a text, in order."""
    return [Block(**match.groupdict("")) for match in _BLOCK.finditer(text)]


def prose(page: str) -> str:
    """Return the text of a page without its fenced blocks."""
    return _BLOCK.sub("", text_of(page))


def shell_lines(block: Block) -> list[str]:
    """Return the commands of a block, one per line, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in lines) if line]


def links(page: str) -> list[str]:
    """Return where the links of a page lead."""
    return _LINK.findall(prose(page))


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}
