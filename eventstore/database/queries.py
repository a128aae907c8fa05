"""SQL lives in ``.sql`` files beside the code that uses them; this loads them, once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def query(package: str, name: str) -> LiteralString:
    """The text of ``sql/{name}.sql`` in the package."""
    return files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@cache
def query_without(package: str, name: str, absent: frozenset[str]) -> str:
    """The text without the lines that speak of parameters that are absent."""
    lines = query(package, name).splitlines()
    return "\n".join(line for line in lines if not any(f"%({parameter})s" in line for parameter in absent))
