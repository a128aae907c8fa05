"""No test uses a private name of the packages, so that their code can change as long as its behaviour stays."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environment import TREE

DEFINITIONS = re.compile(r"^(?:\s*(?:(?:async )?def|class) |.*\bself\.|)(_(?!_|replace\b)\w+)", re.MULTILINE)
"""A definition of a private name, or an assignment to it; `_replace` is a public method of named tuples."""
PACKAGES = ("eventstore", "projections", "agent_manager", "tools")

pytestmark = pytest.mark.any_server


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.rpartition(".")[2].startswith("_") and not name.endswith("__")


def uses(path: Path) -> Iterator[tuple[int, str]]:
    """Names that a test takes from an object other than its own, imports from the packages, or patches by its text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] in PACKAGES:
                yield from ((node.lineno, each.name) for each in names)
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=args) if called.endswith("attr"):
                yield from ((node.lineno, each.value) for each in args[:2] if isinstance(each, ast.Constant))


@pytest.mark.slow
def test_only_public_names_of_the_packages_are_used() -> None:
    files = [path for package in PACKAGES for path in (TREE / package).rglob("*.py")]
    private = {name for path in files for name in DEFINITIONS.findall(path.read_text(encoding="utf-8"))}
    assert len(private) > 100
    used = [
        f"{path.relative_to(TREE)}:{line}: {name}"
        for path in sorted((TREE / "tests").rglob("*.py"))
        for line, name in uses(path)
        if is_private(name) and str(name).rpartition(".")[2] in private
    ]
    assert not used, "test the behaviour, or make the name public: " + ", ".join(used)


def test_uses_of_every_kind_are_found(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(
        "from eventstore.store import _a\nstore._b\nsetattr(store, '_c', 1)\npatch.setattr('x._d', 1)\nself._e\n"
    )
    assert [str(name).rpartition(".")[2] for _, name in uses(path) if is_private(name)] == ["_a", "_b", "_c", "_d"]
