-- Narrows the open batch.
SELECT set_config('eventstore.lower_position', %(lower)s, true),
       set_config('eventstore.upper_position', %(upper)s, true)
