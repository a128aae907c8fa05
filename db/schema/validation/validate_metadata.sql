-- Return what is invalid in the metadata of an event; null if it is valid.
CREATE FUNCTION validate_metadata(metadata jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT coalesce(jsonb_typeof(metadata) = 'object'
                      AND optional_json_member_is(metadata, 'correlation_id', 'string')
                      AND optional_json_member_is(metadata, 'causation_id', 'string')
                      AND optional_json_member_is(metadata, 'traceparent', 'string'), false)
        THEN 'its metadata is not an object, or an id in it is not a string'
    WHEN metadata ? 'eventstore.owner'
         AND NOT (json_member_is_text(metadata, 'eventstore.owner', 255) AND metadata ->> 'eventstore.owner' <> '')
        THEN 'its metadata."eventstore.owner" is not a string of 1 to 255 characters'
    WHEN metadata ? 'occurred_at' THEN
        CASE
            WHEN NOT coalesce(metadata ->> 'occurred_at'
                              ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$', false)
                THEN 'its metadata.occurred_at is not an ISO 8601 time with a zone'
            -- The cast raises its own error for the 30th of February.
            WHEN (metadata ->> 'occurred_at')::timestamptz
                 NOT BETWEEN '0001-01-01 00:00+00'::timestamptz AND '9999-12-31 23:59:59.999999+00'::timestamptz
                THEN 'its metadata.occurred_at lies outside the years 1 to 9999'
        END
END;

SELECT eventstore_set_owner('FUNCTION validate_metadata');
