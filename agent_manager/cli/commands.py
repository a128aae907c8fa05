"""Which module has which commands; it is imported only when one of them is wanted, for some take a second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

MODULES = {
    "serving": ("up",),
    "working": ("project",),
    "importing": ("import",),
    "migrating": ("rollback",),
    "listing": ("conversations", "messages", "tasks", "history"),
    "as_of": ("conversation",),
    "showing": ("tail", "status"),
    "statistics": ("stats",),
    "searching": ("search",),
    "schema": ("migrate", "seed"),
    "projecting": ("rebuild", "verify", "parked", "retry"),
    "pending": ("pending",),
    "tenants": ("tenants",),
    "users": ("users",),
    "keys": ("keys",),
}
"""Of this package, with their commands, in the order in which the help lists them."""


def commands_of(module: str) -> dict[str, Any]:
    """The commands that a module of this package adds, by name."""
    app = typer.Typer(rich_markup_mode=None)
    import_module(f"agent_manager.cli.{module}").add_to(app)
    group: Any = typer.main.get_group(app)
    return dict(group.commands)


class Commands(Mapping[str, Any]):
    """All commands by name."""

    def __init__(self) -> None:
        self._modules = {name: module for module, names in MODULES.items() for name in names}
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known |= commands_of(self._modules[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class CommandGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()
