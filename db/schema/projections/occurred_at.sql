-- When an event happened, if the metadata says so; otherwise when it was appended.
CREATE FUNCTION occurred_at(metadata jsonb, "timestamp" timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((metadata ->> 'occurred_at')::timestamptz, "timestamp");

SELECT eventstore_set_owner('FUNCTION occurred_at');
