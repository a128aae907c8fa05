"""Loading named queries: the sections ``-- name: …`` of ``queries/*.sql``, beside the code that uses them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString

UNNAMED = "unnamed"
_SECTION = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def _queries(package: str) -> dict[str, LiteralString]:
    """Return the queries of a package by name."""
    found: dict[str, LiteralString] = {}
    for file in files(package).joinpath("queries").iterdir():
        if file.name.endswith(".sql"):
            _, *parts = _SECTION.split(file.read_text(encoding="utf-8"))
            for name, text in zip(parts[::2], parts[1::2], strict=True):
                if name in found:
                    raise ValueError(f"{package} has two queries with the name {name!r}")
                found[name] = named(text.strip("\n") + "\n", name)
    return found


def query(package: str, name: str) -> LiteralString:
    """Return the query of that name from ``queries/*.sql`` of the package."""
    return _queries(package)[name]


@cache
def query_without(package: str, name: str, absent: frozenset[str]) -> str:
    """Return a query without the lines that contain one of the absent parameters."""
    lines = query(package, name).splitlines()
    text = "\n".join(line for line in lines if not any(f"%({parameter})s" in line for parameter in absent))
    return named(text, name)


_names: dict[str, str] = {}


def named(text: str, name: str) -> str:
    """Give the text of a statement a name, for log records; return the text."""
    _names[text] = name
    return text


def name_of(statement: object) -> str:
    """Return the name of a statement; :data:`UNNAMED` if it has none. The text itself may have data in it."""
    text = statement.decode() if isinstance(statement, bytes) else statement
    return _names.get(text, UNNAMED) if isinstance(text, str) else UNNAMED
