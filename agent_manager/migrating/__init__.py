"""The way over from an application's memory, or from google-adk's tables, into the store; and the way back.

Over: a backup of the source, then what is new of it into the log, then the proof that all of it is there. Each run
takes only what is new, so an interrupted one is run again. Back: the backup and everything written since, as a file
that an in-memory manager takes.
"""

from agent_manager.migrating.migration import migrate, migrate_from, take_over
from agent_manager.migrating.restoring import restore_into

__all__ = ["migrate", "migrate_from", "restore_into", "take_over"]
