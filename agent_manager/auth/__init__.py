"""Authentication by static keys and JWT, and the directory of tenants, users and agents."""

from agent_manager.auth.authenticator import Authenticator
from agent_manager.auth.directory import BoundLogin, Directory, Key, NewKey, Tenant, User
from agent_manager.auth.identity import Identity, KeysUnavailable, TokenScope, Unauthorized

__all__ = [
    "Authenticator",
    "BoundLogin",
    "Directory",
    "Identity",
    "Key",
    "KeysUnavailable",
    "NewKey",
    "Tenant",
    "TokenScope",
    "Unauthorized",
    "User",
]
