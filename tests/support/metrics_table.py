"""The table of metrics in the documentation."""

from __future__ import annotations

import re

from support.pages import text_of

PAGE = "docs/guides/operations.md"
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def documented_metrics() -> dict[str, set[str]]:
    """The names of the samples that the table promises, with their labels."""
    found: dict[str, set[str]] = {}
    section = text_of(PAGE).partition("\n## Monitoring\n")[2].partition("\n## ")[0]
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", section, re.MULTILINE):
        for suffix in _SUFFIXES[kind]:
            found[name + suffix] = set(re.findall(r"`(\w+)`", labels)) | ({"le"} if suffix == "_bucket" else set())
    return found
