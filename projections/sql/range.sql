SELECT set_config('eventstore.projection', %(projection)s, true),
       set_config('eventstore.stage', 'live', true),
       set_config('eventstore.shares', (%(shares)s::smallint[])::text, true),
       set_config('eventstore.lower_position', %(lower)s, true),
       set_config('eventstore.upper_position', %(upper)s, true)
