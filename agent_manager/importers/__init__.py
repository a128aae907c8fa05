"""Importers: chat logs, google-adk, the A2A demo application, backups; and the way back.

All ids are made from what stands in the file, so importing it again adds nothing, an interrupted import continues
where it ended, and of a conversation that has grown only the new messages are added.

Over: a backup of the source, then what is new of it into the log, then the proof that all of it is there. Each run
takes only what is new, so an interrupted one is run again. Back: the backup and everything written since, as a file
that an in-memory manager takes.
"""

from __future__ import annotations

from agent_manager.importers.chat_log_importer import (
    FileUnreadable,
    ImportProblem,
    ImportProgress,
    ImportReport,
    ImportStopped,
    import_files,
)
from agent_manager.importers.migration import migrate, migrate_from, take_over
from agent_manager.importers.restore import restore_into

__all__ = [
    "FileUnreadable",
    "ImportProblem",
    "ImportProgress",
    "ImportReport",
    "ImportStopped",
    "import_files",
    "migrate",
    "migrate_from",
    "restore_into",
    "take_over",
]
