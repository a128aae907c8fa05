"""Words for the tests of gatekeepers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from agent_manager.auth import Authenticator, Unauthorized

Gate: TypeAlias = Callable[..., Awaitable[Authenticator]]
"""Opens a gatekeeper with more settings."""


async def is_refused(authenticator: Authenticator, token: str) -> bool:
    """Whether the token lets nobody in."""
    try:
        await authenticator.identify(token)
    except Unauthorized:
        return True
    return False
