"""The reference pages that are generated: the command line from its help, HTTP from OpenAPI, Python from docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import typer.main

from agent_manager.auth import Authenticator
from agent_manager.cli.main import app as cli_app
from agent_manager.factory import AsyncManager
from agent_manager.server.app import create_app
from agent_manager.server.context import ServerContext
from agent_manager.server.sealed_tokens import TokenSealer
from eventstore import EventStore, Settings

Json = dict[str, Any]

MODULES = (
    "eventstore",
    "eventstore.errors",
    "projections",
    "agent_manager",
    "agent_manager.agents",
    "agent_manager.importers",
    "agent_manager.settings",
)
"""The packages whose public names applications use."""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command of the command line, with the words one types for it."""
    yield from _below(typer.main.get_command(cli_app), "eventstore")


def _below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from _below(child, f"{path} {name}")


def cli() -> str:
    """Return the reference of the command line."""
    return "\n".join(_command(path, command) for path, command in commands())


def _command(path: str, command: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        is_option = parameter.param_type_name == "option"
        name = (
            ", ".join([*parameter.opts, *parameter.secondary_opts])
            if is_option
            else (parameter.metavar or parameter.name.upper())
        )
        default = "" if parameter.default is None or parameter.default is False else _value(parameter.default)
        rows.append((f"`{name}`", getattr(parameter, "help", None) or "", default))
    return f"## {path}\n\n{inspect.cleandoc(command.help or '')}\n{_table(('option', 'meaning', 'default'), rows)}"


def _value(value: Any) -> str:
    value = value() if callable(value) else value
    value = value.value if isinstance(value, Enum) else value
    return "" if value in (None, "", [], ()) else f"`{value}`"


def openapi() -> Json:
    """Return the OpenAPI document, without a server."""
    store = EventStore(Settings(_env_file=None))
    manager, gatekeeper = AsyncManager(store, runs_worker=False), Authenticator(store, store.settings)
    server_context = ServerContext(store, manager, gatekeeper, TokenSealer(bytes(64)), requires_tokens=False)
    return create_app(server_context).openapi()


def http() -> str:
    """Return the reference of the HTTP API."""
    document = openapi()
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join([*operations, "## Schemas\n", *schemas])


def _operation(method: str, path: str, operation: Json) -> str:
    scopes = [scope for one in operation.get("security", []) for names in one.values() for scope in names]
    body = operation.get("requestBody", {}).get("content", {}).values()
    lines = [f"## {method.upper()} {path}\n", operation["description"], ""]
    lines.append(f"- Scope: {', '.join(f'`{scope}`' for scope in scopes) or 'none'}.")
    lines += [f"- Body: {_type(content.get('schema', {}))}." for content in body]
    for status, response in operation["responses"].items():
        if status < "300":
            types = [_type(content.get("schema", {})) for content in response.get("content", {}).values()]
            lines.append(f"- Answer: {status}{', ' if types else ''}{' or '.join(types)}.")
    errors = [status for status in operation["responses"] if status >= "400"]
    lines.append(f"- Errors: {', '.join(errors)}.\n" if errors else "")
    rows = [
        (f"`{one['name']}`", one["in"], _type(one["schema"]), one.get("description", ""), _default(one["schema"]))
        for one in operation.get("parameters", [])
    ]
    return "\n".join(lines) + _table(("parameter", "in", "type", "meaning", "default"), rows)


def _schema(name: str, schema: Json) -> str:
    required = schema.get("required", [])
    rows = [
        (f"`{member}`", _type(value), "yes" if member in required else "", value.get("description", ""))
        for member, value in schema.get("properties", {}).items()
    ]
    described = schema.get("description", "")
    values = f"One of {_type(schema)}.\n" if "enum" in schema else ""
    return f"### {name}\n\n{described}\n\n{values}{_table(('member', 'type', 'required', 'meaning'), rows)}"


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or kind)


def _default(schema: Json) -> str:
    return "" if schema.get("default") is None else f"`{schema['default']}`"


def python() -> str:
    """Return the reference of the Python packages."""
    return "\n".join(_module(name) for name in MODULES)


def public_names(name: str) -> list[str]:
    """Return the names that a module offers: of a package those in ``__all__``, else its own classes and functions."""
    module = importlib.import_module(name)
    own = (one for one, value in vars(module).items() if getattr(value, "__module__", "") == name)
    return list(getattr(module, "__all__", None) or (one for one in own if not one.startswith("_")))


def _module(name: str) -> str:
    module = importlib.import_module(name)
    parts = [f"## {name}\n", _markdown(inspect.getdoc(module) or ""), ""]
    parts += [_object(f"{name}.{public}", getattr(module, public)) for public in public_names(name)]
    return "\n".join(parts)


def _object(path: str, value: Any) -> str:
    name = path.rpartition(".")[2]
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        shown = "" if len(repr(value)) > 100 else f"`{name} = {value!r}`\n"
        return f"### {path}\n\n{shown}"
    parts = [f"### {path}\n", _signature(name, value), _markdown(_documentation(value)), ""]
    if inspect.isclass(value):
        for member, inner in _members(value):
            function = inner.fget if isinstance(inner, property) else getattr(inner, "__func__", inner)
            if member.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
                continue
            shown = f"`{member}`\n" if isinstance(inner, property) else _signature(member, function)
            parts += [f"#### {name}.{member}\n", shown, _markdown(inspect.getdoc(function) or ""), ""]
    return "\n".join(parts)


def _members(value: type) -> Iterator[tuple[str, Any]]:
    """Yield what a class defines, and what it inherits from classes that are not public themselves."""
    public = [getattr(importlib.import_module(name), one) for name in MODULES for one in public_names(name)]
    for base in value.__mro__:
        is_own = base.__module__.partition(".")[0] in {name.partition(".")[0] for name in MODULES}
        if base is value or (is_own and base not in public):
            yield from vars(base).items()


def _documentation(value: Any) -> str:
    if inspect.isclass(value):  # its own, not that of a base class
        return inspect.cleandoc(value.__dict__.get("__doc__") or "")
    return inspect.getdoc(value) or ""


def _signature(name: str, value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Exception | Enum):
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    given = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
    parameters = [one.replace(annotation=_annotation(one.annotation)) for one in given]
    returns = signature.return_annotation if inspect.isroutine(value) else inspect.Signature.empty
    shown = [re.sub(r"(: )'([^']*)'", r"\1\2", str(parameter)) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    is_async = inspect.iscoroutinefunction(value)
    arrow = "" if returns is inspect.Signature.empty else f" -> {_annotation(returns)}"
    inner = f"\n    {f',{chr(10)}    '.join(shown)},\n" if len(", ".join(shown)) > 80 else ", ".join(shown)
    return f"```{{ .python .no-copy }}\n{'async ' * is_async}{name}({inner}){arrow}\n```\n"


def _annotation(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return annotation
    return annotation.__name__ if isinstance(annotation, type) else _MODULE.sub("", str(annotation))


_MODULE = re.compile(r"(?<!['\w.])(?:\w+\.)+(?=[A-Z])")
_SECTION = re.compile(r"^(Args|Raises|Attributes|Returns|Yields):$")
_ENTRY = re.compile(r"^    (\S[^:]*): (.*)$")


def _markdown(text: str) -> str:
    """Return a docstring as Markdown."""
    lines: list[str] = []
    section = code = False
    for line in text.splitlines():
        if _SECTION.match(line):
            section = True
            lines += ["", f"**{line[:-1]}**", ""]
        elif section and (match := _ENTRY.match(line)):
            lines.append(f"- `{match[1]}`: {match[2]}")
        elif section and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            section = section and not line.strip()
            code = line.startswith("    ") or (code and not line.strip())
            lines.append(line if code else re.sub(r"::$", ":", line))
    joined = "\n".join(lines)
    return re.sub(r":(?:class|func|data|mod|meth|exc|attr):`~?([^`]*)`", r"`\1`", joined.replace("``", "`"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n" + "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PARTS: Mapping[str, Callable[[], str]] = {"cli": cli, "http": http, "python": python}
"""The generated parts, by the name in their marker."""
