"""Authentication: tenants, users, agents, static keys and JWT."""

from agent_manager.auth.authenticator import Authenticator
from agent_manager.auth.directory import BoundLogin, Directory, Key, NewKey, Tenant, User
from agent_manager.auth.identity import Identity, KeysUnavailable, Scope, Unauthorized

__all__ = [
    "Authenticator",
    "BoundLogin",
    "Directory",
    "Identity",
    "Key",
    "KeysUnavailable",
    "NewKey",
    "Scope",
    "Tenant",
    "Unauthorized",
    "User",
]
