"""The hooks of mkdocs for each page: generated text replaces its marker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tools.docs import reference

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]+)(?:#[^)]*)?\)")


def filled(markdown: str) -> str:
    """Return the text of a page with the generated parts in place of their markers."""
    return MARKER.sub(lambda match: reference.PARTS[match[1]](), markdown)


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Fill a page. A link to a file of the repository that the site does not have becomes the file's name."""
    docs, source = Path(config["docs_dir"]).resolve(), Path(page.file.abs_src_path)

    def inside(match: re.Match[str]) -> str:
        target = (source.parent / match[2]).resolve()
        return match[0] if target.is_relative_to(docs) else match[1]

    return _OUTSIDE.sub(inside, filled(markdown))
