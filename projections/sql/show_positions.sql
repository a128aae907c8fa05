SELECT set_config('eventstore.positions', (%(positions)s::bigint[])::text, true)
