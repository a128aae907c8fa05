"""The command line program ``eventstore``."""

import os

from agent_manager.cli.interrupts import ExitOnInterrupt

with ExitOnInterrupt():
    if "_EVENTSTORE_COMPLETE" in os.environ:  # a shell completes a line
        from agent_manager.cli.completion import main
    else:
        from agent_manager.cli.main import main

__all__ = ["main"]
