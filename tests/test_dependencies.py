"""The packages that each part of the distribution needs, and the contents of the wheel."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from support.environment import TREE, child_environment

pytestmark = pytest.mark.any_server

PYPROJECT = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))
SHIPPED = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
CORE = {
    "psycopg", "psycopg-binary", "psycopg-pool", "pydantic", "pydantic_core", "pydantic-settings", "python-dotenv",
    "annotated-types", "typing-inspection", "typing_extensions",
}  # fmt: skip
"""The core's dependencies, and theirs."""
FRAMEWORKS = ("agent-framework",)
"""The extras of adapters that import private modules."""
UNDOCUMENTED = ("psycopg.generators", "psycopg.waiting", "uvicorn.protocols", "dotenv.parser")
"""Modules without an underscore that their packages do not document."""

LOADED = """
import json, sys
before = set(sys.modules)
import {module}
print(json.dumps(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})))
"""


@pytest.mark.parametrize("module", ["eventstore", "projections", "agent_manager.factory", "agent_manager.manager"])
@pytest.mark.slow
def test_the_core_loads_no_package_of_the_server_or_the_command_line(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(module=module)],
        env=child_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    distributions = packages_distributions()
    loaded = {distribution for name in json.loads(done.stdout) for distribution in distributions.get(name, ())}
    assert loaded >= {"psycopg", "pydantic"}
    assert loaded - CORE <= {PYPROJECT["project"]["name"]}


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """The modules that a package imports, and from which file."""
    for file in sorted((TREE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield file, node.module
                yield from ((file, f"{node.module}.{alias.name}") for alias in node.names)


def test_a_package_whose_private_modules_are_imported_has_an_upper_bound() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    requirements = [*PYPROJECT["project"]["dependencies"], *(text for name in FRAMEWORKS for text in extras[name])]
    bounded = {re.split(r"[\[<>=]", text)[0] for text in requirements if "<" in text}
    distributions = packages_distributions()
    private = {
        (distribution, file.relative_to(TREE), module)
        for folder in SHIPPED
        for file, module in imports(folder)
        if re.search(r"\._[a-z]", module) or module.startswith(UNDOCUMENTED)
        for distribution in distributions.get(module.partition(".")[0], ())
    }
    assert private
    assert [use for use in private if use[0] not in bounded] == []


def test_the_tools_are_not_shipped_and_no_shipped_module_imports_them() -> None:
    assert "tools" not in SHIPPED
    assert [use for folder in SHIPPED for use in imports(folder) if use[1].partition(".")[0] == "tools"] == []
