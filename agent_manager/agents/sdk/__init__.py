"""a2a-sdk's client, of 0.3 or 1.x, whichever is installed: the only place that imports it, and only when it is used."""

from agent_manager.agents.sdk.client import SdkClient, open_client

__all__ = ["SdkClient", "open_client"]
