"""Authentication: tenants, users, agents, static keys and JWT."""

from agent_manager.auth.directory import Directory
from agent_manager.auth.identity import KeysUnavailable
from agent_manager.auth.identity import Unauthorized
from agent_manager.auth.authenticator import Authenticator
from agent_manager.auth.identity import Identity
from agent_manager.auth.identity import Scope
from agent_manager.auth.directory import BoundLogin
from agent_manager.auth.directory import Key
from agent_manager.auth.directory import NewKey
from agent_manager.auth.directory import Tenant
from agent_manager.auth.directory import User

__all__ = [
    "BoundLogin",
    "Directory",
    "Authenticator",
    "Identity",
    "Key",
    "KeysUnavailable",
    "NewKey",
    "Scope",
    "Tenant",
    "Unauthorized",
    "User",
]
