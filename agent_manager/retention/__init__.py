"""Erasing by rule what is old enough, legal holds that stop every erasure, and files that no event refers to."""

from agent_manager.retention.holds import Hold as Hold
from agent_manager.retention.holds import Holds as Holds
from agent_manager.retention.rules import Rule as Rule
from agent_manager.retention.rules import Rules as Rules
from agent_manager.retention.run import RetentionRunning as RetentionRunning
from agent_manager.retention.run import RuleResult as RuleResult
from agent_manager.retention.run import TenantResult as TenantResult
from agent_manager.retention.run import apply_rules as apply_rules
