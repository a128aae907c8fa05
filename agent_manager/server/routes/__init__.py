"""The REST API: conversations, messages, tasks, the log, search, statistics and agents, below ``/v1``."""
