"""The reference is complete: every setting, command, endpoint, public name and table is in it, and nothing else."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import typer.main
from fastapi.routing import APIRoute
from pydantic_core import PydanticUndefined
from support.environment import TREE
from support.pages import PAGES, prose, text_of

import agent_manager
import eventstore
import projections
from agent_manager import AsyncManager
from agent_manager.cli.main import app
from agent_manager.server.app import ROUTERS
from agent_manager.settings import ServerSettings
from eventstore import EventStore, SyncEventStore
from projections import Reader, Search, Statistics, SyncReader
from tools.docs import reference
from tools.docs.hooks import MARKER, filled

pytestmark = pytest.mark.any_server

REFERENCE = {page: filled(text_of(page)) for page in PAGES if page.startswith("docs/reference/")}
GUIDES = [page for page in PAGES if not page.startswith(("docs/reference/", "docs/concepts/", "docs/changelog"))]
OTHER_VARIABLES = {
    "EVENTSTORE_RESTORE", "EVENTSTORE_BENCH_MESSAGE_DB", *ServerSettings.secret_files().values(),
    *re.findall(r'"\$(\w+)"', (TREE / "deploy/login.sql").read_text(encoding="utf-8")),
}  # fmt: skip
OTHER_OPTIONS = {
    "--enable-row-security", "--no-owner", "--link", "--username", "--detach", "--scale", "--rm", "--type", "--target",
}  # fmt: skip
"""Options of pg_dump, pg_restore, pg_upgrade, docker compose and pgBackRest."""


def variables() -> dict[str, Any]:
    """Return the environment variables of the settings, with their defaults."""
    names = {}
    for name, field in ServerSettings.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[-1]) if alias is not None and not isinstance(alias, str) else ""  # type: ignore[union-attr]
        names[variable or f"EVENTSTORE_{name.upper()}"] = field.default
    return names


def commands() -> list[tuple[str, Any]]:
    """Return every command of the command line, with the words one types for it."""
    found, left = [], [("eventstore", typer.main.get_command(app))]
    while left:
        path, command = left.pop()
        children = getattr(command, "commands", None)
        if children is None:
            found.append((path, command))
        else:
            left += [(f"{path} {name}", child) for name, child in children.items()]
    return found


@pytest.mark.parametrize(("variable", "default"), variables().items())
def test_every_setting_is_in_the_reference_with_its_default(variable: str, default: Any) -> None:
    rows = re.findall(rf"^\| .*`{variable}`.*\|$", text_of("docs/reference/settings.md"), re.MULTILINE)
    assert rows, f"docs/reference/settings.md: add a row for {variable}"
    if default not in (None, "", PydanticUndefined):
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert f"`{shown}`" in rows[0], f"{variable}: the default is {shown}"


def test_every_variable_that_a_page_names_exists() -> None:
    in_tests = "\n".join(path.read_text(encoding="utf-8") for path in (TREE / "tests").rglob("*.py"))
    for page in PAGES:
        for variable in re.findall(r"\b(?:EVENTSTORE|POSTGRES)_[A-Z_]+[A-Z]\b|\bDATABASE_URL\b", text_of(page)):
            known = variable in variables() or variable in OTHER_VARIABLES
            assert known or (variable.startswith("EVENTSTORE_TEST_") and variable in in_tests), (page, variable)


@pytest.mark.parametrize(("path", "command"), commands(), ids=[path for path, _ in commands()])
def test_every_command_is_in_the_reference_and_in_a_guide(path: str, command: Any) -> None:
    reference_of_commands = REFERENCE["docs/reference/cli.md"]
    [section] = re.findall(rf"^## {path}\n(.*?)(?=^## |\Z)", reference_of_commands, re.MULTILINE | re.DOTALL)
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert options - {"--help"} <= set(re.findall(r"--[a-z-]+", section))
    assert any(re.search(rf"\b{path}\b", text_of(page)) for page in GUIDES), f"no guide shows {path}"


def test_every_option_that_a_page_names_exists() -> None:
    parameters = [parameter for _, command in commands() for parameter in command.params]
    known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
    for page in GUIDES:
        named = set(re.findall(r"`(?:[a-z ]+)?(--[a-z-]+)", prose(page)))
        assert named - OTHER_OPTIONS <= known, page


def test_every_endpoint_is_in_the_reference() -> None:
    routes = [(prefix, route) for prefix, routers in ROUTERS.items() for router in routers for route in router.routes]
    served = {
        f"{method} {prefix}{route.path}"
        for prefix, route in routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods
    }
    documented = set(re.findall(r"^## ([A-Z]+ /.*)$", REFERENCE["docs/reference/http.md"], re.MULTILINE))
    simplified = {re.sub(r":\w+\}", "}", one) for one in served}
    assert documented == simplified


@pytest.mark.parametrize("package", [eventstore, projections, agent_manager], ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference(package: Any) -> None:
    headings = set(re.findall(r"^### (\S+)$", REFERENCE["docs/reference/python.md"], re.MULTILINE))
    assert {f"{package.__name__}.{name}" for name in package.__all__} <= headings


@pytest.mark.parametrize("face", [EventStore, SyncEventStore, Reader, SyncReader, Search, Statistics, AsyncManager])
def test_every_method_is_in_the_reference(face: type) -> None:
    methods = [name for name, _ in inspect.getmembers(face, inspect.isfunction) if not name.startswith("_")]
    assert methods
    for name in methods:
        assert f"#### {face.__name__}.{name}\n" in REFERENCE["docs/reference/python.md"]


def test_every_error_is_in_the_reference() -> None:
    def below(error: type[BaseException]) -> set[type[BaseException]]:
        return {error}.union(*(below(child) for child in error.__subclasses__()))

    for error in below(eventstore.errors.EventStoreError):
        if error.__module__ == "eventstore.errors":
            assert f"### eventstore.errors.{error.__name__}\n" in REFERENCE["docs/reference/python.md"]


def test_every_table_is_in_the_reference() -> None:
    schema = (TREE / "db" / "schema.sql").read_text(encoding="utf-8")
    tables = set(re.findall(r"^CREATE TABLE public\.(\w+)", schema, re.MULTILINE))
    assert tables
    assert tables <= set(re.findall(r"`(\w+)`", text_of("docs/reference/sql.md")))


def test_every_function_in_the_reference_of_sql_exists() -> None:
    schema = (TREE / "db" / "schema.sql").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)(?:\([^`]*\))?`", text_of("docs/reference/sql.md").partition("## Functions")[2])
    assert len(named) >= 15
    for name in named:
        assert f"CREATE FUNCTION public.{name}(" in schema, name


def test_every_marker_names_a_part_that_is_generated() -> None:
    found = [name for page in PAGES for name in MARKER.findall(text_of(page))]
    assert sorted(found) == sorted(reference.PARTS)


def test_every_event_of_the_log_output_is_in_the_guide_and_no_other() -> None:
    sources = [
        path for folder in ("eventstore", "projections", "agent_manager") for path in (TREE / folder).rglob("*.py")
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    section = text_of("docs/guides/operations.md").partition("\n## Logs\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"event"}
    assert set(re.findall(r'"event": "(\w+)"', code)) <= documented
    assert {name for name in documented if f'"{name}"' not in code} == set()
