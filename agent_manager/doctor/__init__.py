"""An examination of a store and of everything that it relies on: what is wrong, and what to do."""

from agent_manager.doctor.examination import CHECKS, examine
from agent_manager.doctor.finding import Finding, Report, Severity

__all__ = ["CHECKS", "Finding", "Report", "Severity", "examine"]
