"""Imports of a2a-sdk, which is imported nowhere else and only when a remote agent is used."""

from __future__ import annotations

import sys
from importlib import import_module
from threading import Lock
from types import ModuleType

TYPES = "a2a.types"

_lock = Lock()
_ours: set[str] = set()


def sdk_module(name: str) -> ModuleType:
    """Import a module of a2a-sdk or of what it depends on, and note whether the application had imported it before."""
    with _lock:
        was_imported = TYPES in sys.modules
        module = import_module(name)
        if not was_imported and TYPES in sys.modules:
            _ours.add(TYPES)
    return module


def is_imported_by_application() -> bool:
    """Return whether something other than :func:`sdk_module` has imported ``a2a.types`` first."""
    return TYPES in sys.modules and TYPES not in _ours
