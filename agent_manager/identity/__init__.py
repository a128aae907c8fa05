"""Who is calling: tenants, users, agents, the keys that they bear, and JWT."""

from agent_manager.identity.errors import Unauthorized
from agent_manager.identity.gatekeeper import Gatekeeper
from agent_manager.identity.identity import Identity, Scope

__all__ = ["Gatekeeper", "Identity", "Scope", "Unauthorized"]
