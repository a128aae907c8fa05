SELECT pg_try_advisory_lock(rebuild_key(%(projection)s))
