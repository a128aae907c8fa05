-- When an event happened, as far as anybody said; otherwise when the log took it.
CREATE FUNCTION occurred_at(metadata jsonb, "timestamp" timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((metadata ->> 'occurred_at')::timestamptz, "timestamp");

SELECT eventstore_own('FUNCTION occurred_at');
