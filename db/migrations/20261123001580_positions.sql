-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Where events stand in the log, whosever they are. A consumer that sees the events of one caller passes over the
-- positions of the others, and must know which of them are taken: otherwise it could tell neither what is final nor how
-- far it has come (eventstore/ORDER.md). A position says nothing of what stands there.

-- The positions of the next events after one, the first ones first.
CREATE FUNCTION positions_after(seen bigint, most integer) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT ROWS 100 AS $$
BEGIN
    RETURN QUERY
        SELECT e.position FROM events e WHERE e.position > seen ORDER BY e.position LIMIT most;
END
$$;

-- The position of the last event at or below another; 0 if there is none.
CREATE FUNCTION event_not_above(highest bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN coalesce((SELECT max(e.position) FROM events e WHERE e.position <= highest), 0);
END
$$;

-- The position of the first event at or above another; the highest that there can be if there is none.
CREATE FUNCTION event_not_below(lowest bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN coalesce((SELECT min(e.position) FROM events e WHERE e.position >= lowest), 9223372036854775807);
END
$$;

-- The positions of the first event in time at or after a moment, and of the last before another; null where there is none.
CREATE FUNCTION positions_in_time(since timestamptz, until timestamptz, OUT low bigint, OUT high bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    low := (SELECT e.position FROM events e WHERE e.timestamp >= since ORDER BY e.timestamp ASC LIMIT 1);
    high := (SELECT e.position FROM events e WHERE e.timestamp < until ORDER BY e.timestamp DESC LIMIT 1);
END
$$;

SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY['positions_after(bigint, integer)', 'event_not_above(bigint)', 'event_not_below(bigint)',
                    'positions_in_time(timestamptz, timestamptz)']) AS f;
REVOKE ALL ON FUNCTION positions_after(bigint, integer), event_not_above(bigint), event_not_below(bigint),
    positions_in_time(timestamptz, timestamptz) FROM PUBLIC;
SELECT eventstore_grant(
           'EXECUTE ON FUNCTION positions_after(bigint, integer), event_not_above(bigint), event_not_below(bigint), '
           'positions_in_time(timestamptz, timestamptz)', r)
  FROM unnest(ARRAY['eventstore_app', 'eventstore_auditor', 'eventstore_reader', 'eventstore_projector']) AS r;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION positions_in_time(timestamptz, timestamptz);
DROP FUNCTION event_not_below(bigint);
DROP FUNCTION event_not_above(bigint);
DROP FUNCTION positions_after(bigint, integer);
