-- Return the time at which an event happened, if the metadata has it; otherwise the time of its append.
CREATE FUNCTION occurred_at(metadata jsonb, "timestamp" timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((metadata ->> 'occurred_at')::timestamptz, "timestamp");

SELECT eventstore_set_owner('FUNCTION occurred_at');
