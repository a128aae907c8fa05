-- The timestamp of an event that follows one with the timestamp previous, null if none: now, but not before it, if the
-- server's clock steps back by up to a minute, as a correction of the time or another server with another clock does. A
-- clock that was further ahead was wrong: the events that follow must not be dated by it.
CREATE FUNCTION event_timestamp(previous timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN CASE
    WHEN previous > clock_timestamp() AND previous <= clock_timestamp() + interval '1 minute' THEN previous
    ELSE clock_timestamp()
END;

SELECT eventstore_set_owner('FUNCTION event_timestamp');
