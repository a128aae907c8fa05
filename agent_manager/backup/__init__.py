"""Backups of the log: made incrementally, verified without a database, restored, tried and pruned."""

from agent_manager.backup.archive import Archive as Archive
from agent_manager.backup.archive import BackupDamaged as BackupDamaged
from agent_manager.backup.archive import Retention as Retention
from agent_manager.backup.archive import prune as prune
from agent_manager.backup.create import create_backup as create_backup
from agent_manager.backup.drill import Drill as Drill
from agent_manager.backup.drill import drill as drill
from agent_manager.backup.drill import last_drill as last_drill
from agent_manager.backup.manifest import Manifest as Manifest
from agent_manager.backup.restore import restore_backup as restore_backup
from agent_manager.backup.targets import open_target as open_target
from agent_manager.backup.verify import compare_with_database as compare_with_database
from agent_manager.backup.verify import verify_backups as verify_backups
