"""Helpers for the tests of authentication."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from agent_manager.auth import Authenticator, Unauthorized

OpenAuthenticator: TypeAlias = Callable[..., Awaitable[Authenticator]]
"""Opens an authenticator with further settings."""


async def is_rejected(authenticator: Authenticator, token: str) -> bool:
    """Return whether a token is not accepted."""
    try:
        await authenticator.identify(token)
    except Unauthorized:
        return True
    return False
