"""``python -m tools.commands`` writes agent_manager/cli/commands.json, which describes the commands.

Help and completion use it, because importing all commands takes longer than a person waits for the key TAB.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer.main

from agent_manager.cli.completion import FILE
from agent_manager.cli.main import app

_WHOLE = 1_000
"""Characters of a first sentence; none is as long."""


def described() -> str:
    """Return the content of the file."""
    return json.dumps(_describe(typer.main.get_command(app)), indent=1, ensure_ascii=False) + "\n"


def _describe(command: Any, parent: Any = None) -> dict[str, Any]:
    context = command.make_context(command.name, [], parent, resilient_parsing=True)
    parameters = command.get_params(context)
    description = {
        "help": command.get_short_help_str(_WHOLE),
        "options": [_option(each, context) for each in parameters if each.param_type_name == "option"],
    }
    if hasattr(command, "commands"):
        description["commands"] = {name: _describe(child, context) for name, child in command.commands.items()}
    return description


def _option(option: Any, context: Any) -> dict[str, Any]:
    members = {
        "names": sorted((*option.opts, *option.secondary_opts)),
        "help": option.help or "",
        "is_flag": option.is_flag,
        "is_list": option.multiple,
        "choices": [item.value for item in option.shell_complete(context, "") if item.type == "plain"],
    }
    return {name: value for name, value in members.items() if value or name == "help"}


if __name__ == "__main__":
    Path(str(FILE)).write_text(described(), encoding="utf-8")
