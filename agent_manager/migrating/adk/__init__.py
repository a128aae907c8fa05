"""Conversations from the tables of google-adk's ``DatabaseSessionService``."""

from agent_manager.migrating.adk.source import AdkSource

__all__ = ["AdkSource"]
