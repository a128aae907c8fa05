"""Which classes an application works with: those it passes, those it has imported, or our own."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from agent_manager.manager.shapes import own
from agent_manager.manager.shapes.codecs import is_protobuf
from agent_manager.manager.shapes.shape import Shape

_MODULES = ("service.types", "a2a.types")
"""Of the A2A demo application, and of a2a-sdk."""
_NAMES = ("Message", "Task", "AgentCard")


def choose_shape(types: Any = None) -> Shape:
    """The shape of a module, such as ``service.types`` or ``a2a.types``; what it does not have is taken from our own.

    Args:
        types: None is the first of those two modules that the application has imported, or none.
    """
    if types is None:
        loaded = (sys.modules.get(name) for name in _MODULES)
        types = next((module for module in loaded if module is not None and hasattr(module, "Message")), None)
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
