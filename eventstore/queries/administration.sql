-- name: record_act
SELECT record_administrative_act(%(tenant)s::text, %(act)s::text, %(details)s, %(reason)s::text, %(actor)s::text)
  FROM set_config('eventstore.via', %(via)s, true) AS via

-- name: set_administrator
-- Set the administrator for the rest of the transaction.
SELECT set_config('eventstore.actor', %(actor)s, true),
       set_config('eventstore.via', %(via)s, true),
       set_config('eventstore.reason', %(reason)s, true)
