"""The application's own classes: from plain wire JSON to instances of them, and back.

Nothing else knows of any class but plain JSON. a2a-sdk is not imported here: what the application has imported already,
or passes, decides.
"""

from agent_manager.manager.shapes.choosing import choose_shape
from agent_manager.manager.shapes.shape import Shape

__all__ = ["Shape", "choose_shape"]
