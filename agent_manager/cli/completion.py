"""Completion by the shell, from commands.json, without importing the commands or Typer, which take too long for it.

The scripts that --install-completion installs are Typer's. They call the program with the words in the environment, and
expect what this module prints.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

FILE = files("agent_manager.cli").joinpath("commands.json")
"""Written by ``python -m tools.commands``."""


class Candidate(NamedTuple):
    """A word that may come next."""

    value: str
    help: str


@cache
def description() -> dict[str, Any]:
    """Return the description of the program: its options, and its commands by name, which are described alike."""
    described: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return described


def main() -> None:
    """Print the words that may come next, if a shell asks for them; otherwise run the program."""
    action, _, shell = os.environ["_EVENTSTORE_COMPLETE"].partition("_")
    if action != "complete" or shell not in ("bash", "zsh", "fish", "powershell", "pwsh"):
        from agent_manager.cli.main import main as run

        run()
        return
    found = candidates(*_words(shell))
    if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        sys.exit(0 if found else 1)
    sys.stdout.write(_format(shell, found) + "\n")


def candidates(words: list[str], incomplete: str) -> list[Candidate]:
    """Return the words that may stand in place of an incomplete one.

    Args:
        words: those before it, without the name of the program.
    """
    command = description()
    used: list[str] = []
    option: dict[str, Any] | None = None  # the one whose value comes next
    for word in words:
        if option is not None:
            option = option if word == "=" else None  # bash makes a word of it
        elif word.startswith("-") and "--" not in used:
            name, has_value, _ = word.partition("=")
            used.append(name)
            option = None if has_value else _option(command, name)
            if option is not None and "is_flag" in option:
                option = None
        else:
            command = command.get("commands", {}).get(word, command)
    if option is None and incomplete.startswith("-") and "=" in incomplete:
        name, _, incomplete = incomplete.partition("=")
        option = _option(command, name)
    if option is not None:
        found = [Candidate(choice, "") for choice in option.get("choices", ())]
        incomplete = incomplete.removeprefix("=")
    elif incomplete.startswith("-") and "--" not in used:
        found = [
            Candidate(name, option["help"])
            for option in command["options"]
            if "is_list" in option or not set(used).intersection(option["names"])
            for name in option["names"]
        ]
    else:
        found = [Candidate(name, child["help"]) for name, child in command.get("commands", {}).items()]
    return [candidate for candidate in found if candidate.value.startswith(incomplete)]


def _option(command: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((option for option in command["options"] if name in option["names"]), None)


def _words(shell: str) -> tuple[list[str], str]:
    """Return the words before the incomplete one, without the name of the program, and the incomplete one."""
    if shell == "bash":
        words, number = _split(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
        return words[1:number], words[number] if number < len(words) else ""
    text = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(text)[1:]
    if shell in ("zsh", "fish"):
        incomplete = words[-1] if words and not text.endswith(" ") else ""
    else:  # which leaves out the space at the end
        incomplete = os.environ.get("_TYPER_COMPLETE_WORD_TO_COMPLETE", "")
    return (words[:-1] if incomplete else words), incomplete


def _split(text: str) -> list[str]:
    """Return the words of a line. The last one may have an opening quotation mark only."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:
        words.append(lexer.token)
    return words


def _format(shell: str, found: list[Candidate]) -> str:
    match shell:
        case "bash":
            lines = [candidate.value for candidate in found]
        case "fish":
            lines = [f"{value}\t{help}" for value, help in found]
        case "zsh":
            lines = [
                f'"{_quoted(value)}":"{_quoted(help)}"' if help else f'"{_quoted(value)}"' for value, help in found
            ]
            return "_arguments '*: :(({}))'".format("\n".join(lines)) if lines else "_files"
        case _:
            lines = [f"{value}:::{help or ' '}" for value, help in found]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escapes: dict[str, str | int | None] = {'"': '""', "'": "''", "$": "\\$", "`": "\\`", ":": "\\\\:"}
    return text.translate(str.maketrans(escapes))
