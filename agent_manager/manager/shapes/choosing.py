"""Which classes an application works with: those it passes, those it has imported, or our own."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from agent_manager.agents.sdk.modules import TYPES, is_imported_by_application
from agent_manager.manager.shapes import own
from agent_manager.manager.shapes.codecs import is_protobuf
from agent_manager.manager.shapes.shape import Shape

_DEMO_TYPES = "service.types"
"""The module of the A2A demo application."""
_NAMES = ("Message", "Task", "AgentCard")


def choose_shape(types: Any = None) -> Shape:
    """The shape of a module, such as ``service.types`` or ``a2a.types``; what it does not have is taken from our own.

    Args:
        types: None is the first of those two modules that the application has imported by now, or none. That a remote
            agent is reached through a2a-sdk, and so imports it, does not count.
    """
    if types is None:
        loaded = (sys.modules.get(_DEMO_TYPES), sys.modules[TYPES] if is_imported_by_application() else None)
        types = next((module for module in loaded if hasattr(module, "Message")), None)
    found = SimpleNamespace() if types is None else types
    message, task, card = (getattr(found, name, getattr(own, name)) for name in _NAMES)
    return Shape(
        message,
        task,
        card,
        getattr(found, "Conversation", own.Conversation),
        getattr(found, "Event", own.Event),
        None if message is own.Message else "1.0" if is_protobuf(message) else "0.3",
    )
