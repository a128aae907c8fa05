"""Who is calling: tenants, users, agents, the keys that they bear, and JWT."""

from agent_manager.identity.directory import Directory
from agent_manager.identity.errors import KeysUnavailable, Unauthorized
from agent_manager.identity.gatekeeper import Gatekeeper
from agent_manager.identity.identity import Identity, Scope
from agent_manager.identity.rows import BoundLogin, Key, NewKey, Tenant, User

__all__ = [
    "BoundLogin",
    "Directory",
    "Gatekeeper",
    "Identity",
    "Key",
    "KeysUnavailable",
    "NewKey",
    "Scope",
    "Tenant",
    "Unauthorized",
    "User",
]
