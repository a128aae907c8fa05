-- What is wrong with an event's metadata, and with the content of a built-in event; null if nothing is. No event that
-- passes can fail in a projection, whoever sent it and whatever version: what the log has taken it keeps for good.
CREATE FUNCTION metadata_problem(metadata jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT coalesce(jsonb_typeof(metadata) = 'object'
                      AND member_is(metadata, 'correlation_id', 'string')
                      AND member_is(metadata, 'causation_id', 'string')
                      AND member_is(metadata, 'traceparent', 'string'), false)
        THEN 'its metadata is no object, or an id in it no text'
    WHEN metadata ? 'eventstore.owner'
         AND NOT (member_is_text(metadata, 'eventstore.owner', 255) AND metadata ->> 'eventstore.owner' <> '')
        THEN 'its metadata."eventstore.owner" is no text of 1 to 255 characters'
    WHEN metadata ? 'occurred_at' THEN
        CASE
            WHEN NOT coalesce(metadata ->> 'occurred_at'
                              ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$', false)
                THEN 'its metadata.occurred_at is no ISO 8601 time with a zone'
            -- The cast raises an error of its own for the 30th of February.
            WHEN (metadata ->> 'occurred_at')::timestamptz
                 NOT BETWEEN '0001-01-01 00:00+00'::timestamptz AND '9999-12-31 23:59:59.999999+00'::timestamptz
                THEN 'its metadata.occurred_at lies outside the years 1 to 9999'
        END
END;

SELECT eventstore_own('FUNCTION metadata_problem');
