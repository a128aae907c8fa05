"""The command line program ``eventstore``."""

from agent_manager.cli.main import main

__all__ = ["main"]
