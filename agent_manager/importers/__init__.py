"""Import of chat logs, migration from other stores, and rollback to an in-memory application.

The ids of imported events are derived from the source. So importing a source again adds only what is new, and an
interrupted import continues.
"""

from __future__ import annotations

from agent_manager.importers.chat_files import FileUnreadable
from agent_manager.importers.chat_log import ImportProblem, ImportReport, ImportStopped, import_files
from agent_manager.importers.migration import import_backup, migrate, migrate_from
from agent_manager.importers.restore import restore_into

__all__ = [
    "FileUnreadable",
    "ImportProblem",
    "ImportReport",
    "ImportStopped",
    "import_backup",
    "import_files",
    "migrate",
    "migrate_from",
    "restore_into",
]
