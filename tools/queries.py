"""Named SQL queries: a ``.sql`` file holds several, each under a line ``-- name: NAME``."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def query(package: str, name: str, file: str = "queries.sql") -> LiteralString:
    """Return the text of a named query of a package's file."""
    text: LiteralString = files(package).joinpath(file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))[name].strip()
