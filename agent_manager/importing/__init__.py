"""Importing chat logs: JSON Lines in the OpenAI chat shape, one conversation a line.

All ids are made from what stands in the file, so importing it again adds nothing, an interrupted import continues
where it ended, and of a conversation that has grown only the new messages are added.
"""

from agent_manager.importing.importer import import_files
from agent_manager.importing.lines import FileUnreadable
from agent_manager.importing.report import ImportProblem, ImportProgress, ImportReport, ImportStopped

__all__ = ["FileUnreadable", "ImportProblem", "ImportProgress", "ImportReport", "ImportStopped", "import_files"]
