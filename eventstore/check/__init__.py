"""Checking the order of a log: many writers and readers, faults, and a comparison of what was done, stored and read."""

from eventstore.check.adapter import Ability, Given, Place, Reader, Refused, Seen, Store, Unknown, Write, WrongVersion
from eventstore.check.check import Check, Progress
from eventstore.check.report import Report
from eventstore.check.settings import CheckSettings, Fault, parse_faults
from eventstore.check.verify import Kind, Line, Violation

__all__ = [
    "Ability",
    "Check",
    "CheckSettings",
    "Fault",
    "Given",
    "Kind",
    "Line",
    "Place",
    "Progress",
    "Reader",
    "Refused",
    "Report",
    "Seen",
    "Store",
    "Unknown",
    "Violation",
    "Write",
    "WrongVersion",
    "parse_faults",
]
