"""The checker of the log's order: writers and readers under faults, and a comparison of writes, log and reads.

:class:`~tools.checker.check.Check` is one run. README.md explains faults, report and adapters for other stores.
"""
