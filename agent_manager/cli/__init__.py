"""The command line program ``eventstore``."""

import os

if "_EVENTSTORE_COMPLETE" in os.environ:  # a shell completes a line
    from agent_manager.cli.completion import main
else:
    from agent_manager.cli.main import main

__all__ = ["main"]
